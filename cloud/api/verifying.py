# SPDX-License-Identifier: Apache-2.0
"""Whether what is stored about an order is what was written: every digest is recomputed. Pure.

What each check can see, and what it can't: docs/why.md. A chain names the changed entry; the order's `head` sees a chain
whose end was cut or which was replaced; the digest in the ERP's order sees chain and head replaced together.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

from api.dossier import POLICY_CHAIN, Dossier, model_of
from api.stated import differing, stated
from erp.text import Anchor
from linewatch.records import Entry, first_fault
from outcomes.outcome import Outcome, of_order, to_item
from work_orders.order_items import document_digest, from_item
from work_orders.order_table import plain
from work_orders.policy_data import digest_of as canonical_digest


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written."""

    # The chain's name, or "order", "document", "outcome", "policy", "event <id>", "erp".
    where: str
    # Of the chain's entry; None where it is about no single one.
    number: int | None
    why: str


Check = Callable[[Dossier], Iterator[Finding]]


def findings(dossier: Dossier, anchor: Anchor | None = None) -> list[Finding]:
    """Everything that is wrong, the order's own chain first. `anchor`: what the ERP's order bears, None: not asked."""
    found = list(_chains(dossier))
    # What follows is compared to these; it says nothing where they can't be trusted.
    found = found or [*_read("order", _order, dossier), *_read("document", _document, dossier)]
    found = found or _read("outcome", _outcome, dossier)
    found = found or [*_read("policy", _policy, dossier), *_read("events", _events, dossier)]
    if anchor is not None:
        found += _anchor(dossier, anchor)
    return found


def _read(where: str, check: Check, dossier: Dossier) -> list[Finding]:
    """What the check finds; what it can't even read was not written by us."""
    try:
        return list(check(dossier))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return [Finding(where, None, f"it can't be read: {error!r}")]


def _chains(dossier: Dossier) -> Iterator[Finding]:
    order = dossier.order
    if not order.get("head"):
        if dossier.entries:
            yield Finding("order", None, "its head is gone, and its chain is there")
    else:
        fault = first_fault(dossier.entries, str(order["head"]))
        if fault is not None:
            yield Finding(dossier.reference, fault.number, fault.why)
    for name, entries in dossier.chains.items():
        fault = first_fault(entries) if name != dossier.reference else None
        if fault is not None:
            yield Finding(name, fault.number, fault.why)
        elif entries and entries[0].chain != name:
            yield Finding(name, 0, f"the entries are those of the chain {entries[0].chain}")


def _order(dossier: Dossier) -> Iterator[Finding]:
    for name, value, said in differing(dossier.order, dossier.entries):
        yield Finding("order", None, f"its {name} is {value!r}, and its records say {said!r}")
    if dossier.order.get("head") and int(dossier.order.get("records", 0)) != len(dossier.entries):
        yield Finding(
            "order", None, f"it counts {dossier.order.get('records')} records and has {len(dossier.entries)}"
        )


def _outcome(dossier: Dossier) -> Iterator[Finding]:
    """What accuracy counts is made of the order as it ended, and of nothing else."""
    said = stated(dossier.entries)
    if dossier.outcome is None or "closed_at" not in said:
        return
    order = from_item(dossier.order)
    finding, found_failure, source = said["finding"], said["found_failure"], said["finding_source"]
    due = plain(
        to_item(
            of_order(
                order, finding, said["closed_at"],
                found_failure=found_failure, source=source, corrected_at=said.get("corrected_at", ""),
            )
        )
    )  # fmt: skip
    if not dossier.outcome:
        yield Finding("outcome", None, "accuracy's table has none of this order: it was taken out")
        return
    for name in ("month", "id", *(field.name for field in fields(Outcome))):
        if (is_now := dossier.outcome.get(name)) != due.get(name):
            why = f"accuracy's table says {name} {is_now!r}, and the order says {due.get(name)!r}"
            yield Finding("outcome", None, why)


def _document(dossier: Dossier) -> Iterator[Finding]:
    for entry in dossier.entries[:1]:
        wanted = json.loads(entry.detail).get("document_digest")
        if wanted is not None and wanted != document_digest(str(dossier.order["document"])):
            yield Finding(
                "document", None, f"the order's facts were changed: entry 0 says their digest is {wanted}"
            )


def _policy(dossier: Dossier) -> Iterator[Finding]:
    wanted = dossier.document.get("policy_digest")
    if not wanted:
        return
    if dossier.policy is not None and canonical_digest(dossier.policy) != wanted:
        yield Finding(
            "policy",
            None,
            f"version {dossier.policy.get('version')} is not the one that held: {wanted} is due",
        )
    version = dossier.document.get("policy_version")
    for entry in dossier.chains.get(POLICY_CHAIN, ()):
        detail = json.loads(entry.detail)
        if detail.get("version") == version and detail.get("digest") != wanted:
            yield Finding(POLICY_CHAIN, entry.number, f"version {version} was put with another content")


def _events(dossier: Dossier) -> Iterator[Finding]:
    digests = dossier.document.get("event_digests") or {}
    for event_id, event in dossier.events.items():
        if event_id in digests and canonical_digest(event) != digests[event_id]:
            yield Finding(
                f"event {event_id}",
                None,
                f"it was changed: the order's facts say its digest is {digests[event_id]}",
            )
        digest = model_of(event).get("digest")
        for entry in dossier.chains.get(f"model/{digest}", ())[:1]:
            if json.loads(entry.detail).get("digest", digest) != digest:
                yield Finding(f"model/{digest}", entry.number, "the entry is about another model")


def _anchor(dossier: Dossier, anchor: Anchor) -> Iterator[Finding]:
    if not anchor.is_of(dossier.reference):
        why = f"the ERP's order {dossier.order.get('erp_id')} bears the reference {anchor.reference}"
        yield Finding(
            "erp", None, f"{why}: the id is another order's there, and nothing in it vouches for this one"
        )
    elif dossier.entries and anchor.digest not in {entry.digest for entry in dossier.entries}:
        why = f"the ERP's order bears {anchor.digest or 'no record digest'}, and no entry of the chain has this digest"
        yield Finding("erp", None, f"{why}: the whole chain was replaced after the order was placed")


def notes(dossier: Dossier, anchor: Anchor | None) -> list[str]:
    """What could not be checked, and why."""
    told: list[str] = []
    if not dossier.order.get("head"):
        told.append("the order is of a release before 0.3 and has no records yet: nothing covers it")
    missing = [one for one in dossier.document.get("event_ids", ()) if one not in dossier.events]
    if missing:
        told.append(
            f"{len(missing)} of its events are not kept any more; their digests are in the order's facts"
        )
    if dossier.policy is None:
        digest = "; its digest is in the order's facts" if dossier.document.get("policy_digest") else ""
        told.append(f"the policy that held is not known here{digest}")
    if dossier.outcome is None and dossier.order.get("status") == "closed":
        told.append("what accuracy counts of it was not read")
    if anchor is None and dossier.order.get("erp_id"):
        told.append("the ERP was not asked: chain and head replaced together would not be seen")
    return told


def training_of(entries: Sequence[Entry]) -> str | None:
    """The training-data digest that a model's records tell first: a device of an older release loads it without one."""
    for entry in entries:
        if digest := json.loads(entry.detail).get("training_data_digest"):
            return str(digest)
    return None
