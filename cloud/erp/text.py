# SPDX-License-Identifier: Apache-2.0
"""Texts for people in the ERP: the order in words, cut where a field ends, and the marks by which notes are known. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Marks the end of a text that was longer than the product's field.
CUT = "… [cut]"
# What a technician reads first; the rest of the order follows in its own order.
FIRST = ("recommended_action", "failure_type", "asset_id", "location", "severity", "priority", "time_to_failure",
         "external_reference", "record_digest")  # fmt: skip
# The rest of what placing.payload has; cloud/tests/test_erp_texts.py compares.
REST = ("equipment_id", "episode", "title", "failure_mode", "criticality", "observed_at", "ai_generated", "event_ids",
        "evidence", "model", "risk", "reserved_at")  # fmt: skip
# Lines of their own, as `describe` writes them: no other field can hold a line end.
_DIGEST = re.compile(r"^\s*record digest: (sha256:[0-9a-f]{64})\s*$", re.MULTILINE)
_REFERENCE = re.compile(r"^\s*external reference: (\S{1,64})\s*$", re.MULTILINE)
_MARK = re.compile(r"\[linewatch [A-Za-z0-9._:-]*\]")
# Control characters that no product's field takes, but for tab and line feed.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]|[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Anchor:
    """What an order in the ERP bears of ours (docs/why.md); empty where it has lost it, or never had it."""

    reference: str
    # The head of the order's chain when it was placed.
    digest: str

    def is_of(self, reference: str) -> bool:
        """Whether nothing says that it is another order's."""
        return self.reference in ("", reference)

    def tells(self, reference: str) -> bool:
        """Whether the records of the order with this reference can be held against it."""
        return bool(self.digest) or not self.is_of(reference)


def cut(text: str, limit: int) -> str:
    """At most `limit` characters; a text that lost its end says so where there is room for that."""
    clean = CONTROL.sub(" ", text.replace("\r\n", "\n"))
    if len(clean) <= limit:
        return clean
    mark = CUT if limit > 4 * len(CUT) else "…"
    return clean[: limit - len(mark)].rstrip() + mark


def line(text: str, limit: int) -> str:
    """The text as one line of at most `limit` characters."""
    return cut(" ".join(text.split()), limit)


def describe(order: Mapping[str, Any], limit: int) -> str:
    """Every field of the order in words, one a line, the important ones first."""
    names = [name for name in FIRST if name in order] + [name for name in order if name not in FIRST]
    lines = [
        f"{name.replace('_', ' ')}: {told}"
        for name in names
        if order[name] is not None and (told := " ".join(words(order[name]).split()))
    ]
    return cut("\n".join(lines), limit)


def words(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(entry)}" for name, entry in value.items() if entry is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(words(entry) for entry in value)
    return str(value)


def anchor_in(text: str) -> Anchor:
    """What `describe` wrote into an order's text."""
    reference, digest = _REFERENCE.search(text), _DIGEST.search(text)
    return Anchor(reference[1] if reference else "", digest[1] if digest else "")


def without_own(text: str) -> str:
    """What people wrote into a text that began as `describe` wrote it and got `noted` lines since.

    A note of ours must be one line, and its mark the next.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and (
        lines[0].partition(":")[0].replace(" ", "_") in (*FIRST, *REST) or lines[0].endswith(CUT)
    ):
        del lines[0]
    kept: list[str] = []
    for one in lines:
        if _MARK.fullmatch(one.strip()):
            del kept[-1:]
        else:
            kept.append(one)
    return "\n".join(kept).strip()


def mark(key: str) -> str:
    """By this a note is known again; at its end, so that the sentence is read first."""
    return f"[linewatch {re.sub(r'[^A-Za-z0-9._:-]', '-', key)}]"


def noted(key: str, text: str, limit: int) -> str:
    """The note with its mark, which is never cut off."""
    end = "\n" + mark(key)
    return cut(text, limit - len(end)) + end
