# SPDX-License-Identifier: Apache-2.0
"""What an order's chain says the order is: the last word of its entries about each attribute. Pure.

What no entry tells of is UNCOVERED, and docs/why.md names it: who changes that is not seen. A test changes every attribute
of stored orders and holds the two lists and the page against each other.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linewatch.records import Entry

Values = dict[str, Any]
Detail = Mapping[str, Any]

UNCOVERED = (
    # What the machinery keeps for itself: tries, leases, what is due when, what devices and people were shown.
    "attempts", "failure", "failures", "is_refused", "tried_at", "last_tried_at", "lease_until", "look_again_at",
    "notes_lease_until", "pending_notes", "notes_told", "polled_at", "maintenance_as_of", "shadow", "left_out_by",
    "into_ended_at", "expires_at", "announcing_until", "announced_at", "escalations_announced", "reminded_at", "reminders",
    "expiry_announced_at",
    # Of an order that waits for a person: until when, and what happens then. What did happen is recorded.
    "expires_approval_at", "on_expiry",
)  # fmt: skip
"""Attributes of a stored order that no entry of its chain tells of."""

UNTIL_THE_END = ("highest_risk",)
"""Attributes that the entry of an order's end tells of, and none before."""

_DECISIONS = ("approved", "rejected", "merged", "released")
_STATUS = {
    "approved": "creating", "asked": "awaiting_approval", "rejected": "rejected", "merged": "merged", "created": "created",
    "parked": "parked", "closed": "closed",
}  # fmt: skip
_FOUND = ("finding", "note", "found_failure")
# What happened -> attributes that its detail gives by the same name.
_TOLD: Mapping[str, tuple[str, ...]] = {
    "opened": ("status", "band", "asset_id", "failure_mode", "episode"),
    "before_records": ("status", "history"),
    "approved": ("reason", "band"),
    "rejected": ("reason", "highest_risk"),
    "merged": ("reason",),
    "created": ("erp_id", "erp_status", "record_digest"),
    "taken_over": ("erp_id", "erp_status"),
    "escalated": ("band", "priority", "recommended_action"),
    "closed": (*_FOUND, "closed_at", "highest_risk"),
    "corrected": (*_FOUND, "corrected_at"),
}


def stated(entries: Sequence[Entry]) -> Values:
    """The order's attributes that follow from its chain."""
    values: Values = {}
    for entry in entries:
        detail = json.loads(entry.detail)
        values |= {name: detail[name] for name in _TOLD.get(entry.what, ()) if name in detail}
        if entry.what in _STATUS:
            values["status"] = _STATUS[entry.what]
        # What the policy released, nobody had decided.
        if entry.what in _DECISIONS and not (entry.what == "released" and entry.by == "policy"):
            values |= {"decided_by": entry.by, "decided_at": entry.at}
        if entry.what in _ALSO:
            values |= _ALSO[entry.what](entry, detail, values)
        values["updated_at"] = entry.at
    if "unrecorded" in values:
        # What was only counted changed these without a word.
        values = {name: value for name, value in values.items() if name not in _ONLY_COUNTED}
    return values


def _opened(entry: Entry, detail: Detail, _values: Values) -> Values:
    return {"kind": "work_order", "created_at": entry.at, "hold_until": int(detail.get("hold_until") or 0)}


def _released(entry: Entry, detail: Detail, _values: Values) -> Values:
    return {"hold_until": 0, **({} if entry.by == "policy" else {"reason": detail["reason"]})}


def _absorbed(_entry: Entry, detail: Detail, values: Values) -> Values:
    return {"merged": [*values.get("merged", ()), detail["merged"], *detail.get("with", ())]}


def _answered(_entry: Entry, detail: Detail, values: Values) -> Values:
    """An id that came late counts where there was none."""
    return {} if values.get("erp_id") else {name: detail[name] for name in ("erp_id", "erp_status")}


def _escalated(_entry: Entry, detail: Detail, values: Values) -> Values:
    step = {name: told for name, told in detail.items() if name not in ("text", "recommended_action")}
    return {"escalations": [*values.get("escalations", ()), step]}


def _doubled(_entry: Entry, detail: Detail, values: Values) -> Values:
    return {"doubles": [*values.get("doubles", ()), *detail["doubles"]]}


_ALSO: Mapping[str, Callable[[Entry, Detail, Values], Values]] = {
    "opened": _opened,
    "asked": lambda *_: {"hold_until": 0},
    "rejected": lambda *_: {"hold_until": 0},
    "merged": lambda _entry, detail, _values: {"merged_into": detail["into"]},
    "released": _released,
    "absorbed": _absorbed,
    "created": lambda entry, *_: {"in_erp_at": entry.at},
    "answered": _answered,
    "escalated": _escalated,
    "doubled": _doubled,
    "closed": lambda entry, detail, _: {"closed_by": entry.by, "finding_source": detail["source"]},
    "corrected": lambda entry, detail, _: {"corrected_by": entry.by, "finding_source": detail["source"]},
    "full": lambda *_: {"unrecorded": True},
}
_ONLY_COUNTED = ("updated_at", "doubles")

COVERED = frozenset(
    {name for names in _TOLD.values() for name in names}
    | {"kind", "created_at", "updated_at", "hold_until", "decided_by", "decided_at", "merged_into", "merged", "in_erp_at"}
    | {"escalations", "doubles", "closed_by", "finding_source", "corrected_by", "unrecorded"}
)  # fmt: skip
"""Attributes that an entry may tell of: where none does, the order has none."""


def differing(order: Mapping[str, Any], entries: Sequence[Entry]) -> list[tuple[str, Any, Any]]:
    """(attribute, what it is, what the chain says) of each that is not as the chain says."""
    said = stated(entries)
    names = set(said)
    if entries and entries[0].what == "opened":
        # An order of a release before 0.3 has attributes of a time before its chain.
        names |= COVERED - set(UNTIL_THE_END) - (set(_ONLY_COUNTED) if "unrecorded" in said else set())
    is_now = {**order, "escalations": json.loads(order.get("escalations") or "[]")}
    is_now["unrecorded"] = bool(order.get("unrecorded"))
    return [
        (name, is_now.get(name), said.get(name))
        for name in sorted(names)
        if (is_now.get(name) or None) != (said.get(name) or None)
    ]
