# SPDX-License-Identifier: Apache-2.0
"""How records are hash-chained: who wrote what, when, and that nobody changed it since.

A chain is a series of entries, numbered from 0. Each entry's digest covers all its fields and the digest of the entry
before it, so that one changed byte, a left-out entry or a swapped pair is named by `first_fault`. Whoever can write
every entry and the head can write a whole new chain; that is why heads are kept elsewhere as well (the ERP's order).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

GENESIS = "sha256:" + "0" * 64
"""What stands before the first entry of a chain."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `detail` is a JSON text, kept as it was written: its bytes are what is hashed."""

    chain: str
    number: int
    # RFC 3339, UTC.
    at: str
    what: str
    by: str
    detail: str
    # Digest of the entry before this one, GENESIS for number 0.
    previous: str
    # As stored; what it should be is `digest_of(entry)`.
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first entry that can't be trusted, and why."""

    number: int
    why: str


def digest_of(entry: Entry) -> str:
    """Is "sha256:" and 64 hex digits over the canonical JSON of the entry without its digest."""
    fields = [entry.chain, entry.number, entry.at, entry.what, entry.by, entry.detail, entry.previous]
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def following(last: Entry | None, chain: str, at: str, what: str, by: str, detail: object) -> Entry:
    """The entry that comes after `last`, or the first one, sealed with its digest."""
    text = json.dumps(detail, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    number, previous = (0, GENESIS) if last is None else (last.number + 1, last.digest)
    entry = Entry(chain, number, at, what, by, text, previous)
    return Entry(chain, number, at, what, by, text, previous, digest_of(entry))


def first_fault(entries: Sequence[Entry], head: str | None = None) -> Fault | None:
    """None where every entry follows from the one before it and the last one is `head`, where that is known."""
    previous = GENESIS
    for place, entry in enumerate(entries):
        if entry.number != place:
            return Fault(place, f"entry {place} is missing: entry {entry.number} stands in its place")
        if entry.digest != digest_of(entry):
            return Fault(place, f"entry {place} was changed: its content does not match its digest")
        if entry.previous != previous:
            return Fault(
                place, f"entry {place} does not follow from the one before it: one of them was replaced"
            )
        if entry.chain != entries[0].chain:
            return Fault(place, f"entry {place} is of another chain")
        previous = entry.digest
    if head is not None and previous != head:
        return Fault(
            len(entries), f"the end is missing, or the last entry was replaced: the chain's head is {head}"
        )
    return None
