# SPDX-License-Identifier: Apache-2.0
"""What the shadows of a device say, and what has no room in them. Pure.

At most MOST_ORDERS orders in MOST_BYTES, the newest ones. Of each, the newest events are named, fewer of all of them
where the document would be too large; then the oldest orders fall out. Whoever computes it from the same shadow and the
same order gets the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from work_orders.order_items import WorkOrder

MOST_ORDERS = 20
MOST_BYTES = 7_500
"""Of the desired state; AWS takes 8 KB of desired and reported together."""
MOST_EVENTS = (8, 4, 2, 1)

Entry = Mapping[str, Any]
Desired = Mapping[str, Mapping[str, Entry] | None]


@dataclass(frozen=True, slots=True)
class Fold:
    """The desired state with one order as it is now."""

    desired: dict[str, dict[str, Entry]]
    # References of the orders that have no room.
    left_out: frozenset[str]


def in_erp(order: WorkOrder) -> Entry | None:
    """What the core device's shadow says: the order as the ERP has it."""
    if order.status != "created":
        return None
    return {**_place(order), "erp_id": order.erp_id, "status": order.status}


def held(order: WorkOrder) -> Entry | None:
    """What the forwarder's shadow says: the newest events of an order that has not ended, or whose case goes on in another."""
    if not order.holds_evidence:
        return None
    return {**_place(order), "event_ids": list(events_with_evidence(order.document)[-MOST_EVENTS[0] :])}


def _place(order: WorkOrder) -> dict[str, Any]:
    """`records` is the entry's version: an order with more of them is newer. `at`: opened, seconds since 1970."""
    at = int(datetime.fromisoformat(order.item["created_at"]).timestamp())
    return {"reference": order.reference, "episode": order.episode, "records": order.records, "at": at}


def folded(desired: Desired, order: WorkOrder, entry: Entry | None) -> Fold:
    """`entry`: what is to be shown of the order, None for nothing."""
    places = {(asset, mode): e for asset, modes in desired.items() for mode, e in (modes or {}).items() if e}
    key = (order.asset_id, order.failure_mode)
    there = places.get(key)
    # An order of an earlier episode has nothing more to say about this place.
    if there is None or int(there.get("episode", 0)) <= order.episode:
        if there is not None and entry is not None and _is_same(there, entry):
            entry = there
        places.pop(key, None)
        if entry is not None:
            places[key] = entry
    newest = sorted(
        places, key=lambda one: (places[one].get("at", 0), places[one].get("reference", "")), reverse=True
    )
    shown = newest[:MOST_ORDERS]
    most = next((most for most in MOST_EVENTS if _size(places, shown, most) <= MOST_BYTES), MOST_EVENTS[-1])
    while _size(places, shown, most) > MOST_BYTES:
        shown.pop()
    left_out = frozenset(places[one].get("reference", "") for one in newest[len(shown) :])
    return Fold(_nested(places, shown, most), left_out)


def difference(old: Desired, new: Desired) -> dict[str, Any]:
    """What makes `new` of `old` when it is merged into it; a null removes."""
    patch: dict[str, Any] = {}
    for asset in {*old, *new}:
        before, after = old.get(asset) or {}, new.get(asset) or {}
        if not after:
            patch[asset] = None
        elif changed := {m: after.get(m) for m in {*before, *after} if before.get(m) != after.get(m)}:
            patch[asset] = changed
    return patch


def events_with_evidence(document: Mapping[str, Any]) -> Sequence[str]:
    """The events whose evidence the order names, oldest first. A file's name begins with its event's id."""
    names = (PurePosixPath(evidence.get("path", "")).name for evidence in document.get("evidence", ()))
    return list(dict.fromkeys(name.partition(".")[0] for name in names if name))


def _is_same(there: Entry, entry: Entry) -> bool:
    """Whether the shadow tells the same of the order already, but for the number of its records and fewer events."""
    tell = ("reference", "episode", "at", "erp_id", "status")
    return all(there.get(name) == entry.get(name) for name in tell)


def _nested(
    places: Mapping[tuple[str, str], Entry], shown: Sequence[tuple[str, str]], most: int
) -> dict[str, dict[str, Entry]]:
    made: dict[str, dict[str, Entry]] = {}
    for asset, mode in shown:
        entry = dict(places[asset, mode])
        if "event_ids" in entry:
            entry["event_ids"] = entry["event_ids"][-most:]
        made.setdefault(asset, {})[mode] = entry
    return made


def _size(places: Mapping[tuple[str, str], Entry], shown: Sequence[tuple[str, str]], most: int) -> int:
    return len(json.dumps({"desired": _nested(places, shown, most)}, separators=(",", ":")).encode())
