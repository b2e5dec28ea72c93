# SPDX-License-Identifier: Apache-2.0
"""A closed order in its asset's maintenance history: what the next order's asset card shows.

It is written after the transaction that closed the order, and never undoes or blocks it. What fails is written by the
sweep: an order that has ended, or whose finding was corrected, is due there once (orders.py), and stays due until this
is done. Once per order, whoever repeats it: the entry bears the order's reference.

The technician was sent to the assets of merged orders, too (the ERP's note "Also for …"), and their cards say so: whoever
looks at such an asset next must not take its alarm for one that nobody followed.
"""

from dataclasses import replace

from aws_lambda_powertools import Logger

from assets.asset import Maintenance
from assets.registry import Registry
from work_orders.observing import Desk
from work_orders.order_items import WorkOrder

MAINTAINED = ("confirmed", "other_fault")
"""Findings of a technician who had something to do."""

MOST_ROUNDS = 5
"""Corrections that may come between while the first is written; more of them are the sweep's."""

log = Logger(child=True)


def remember_soon(reference: str, desk: Desk) -> None:
    """Writes it, or leaves it to the sweep; raises nothing."""
    try:
        remember(reference, desk)
    except Exception:
        log.exception("maintenance_not_remembered", extra={"reference": reference})


def remember(reference: str, desk: Desk) -> None:
    """Has the asset's history say what the closed order says now. Nothing to do for any other, or when it does.

    Raises:
        Exception: it could not be written.
    """
    for _ in range(MOST_ROUNDS):
        order = desk.orders.get(reference)
        if desk.assets is None or order is None or not is_due(order):
            return
        entry = entry_of(order)
        _remember(order.asset_id, reference, entry, desk.assets)
        for one in desk.orders.get_many(order.merged):
            if one.asset_id != order.asset_id:
                _remember(one.asset_id, one.reference, entry and of_merged(one, order, entry), desk.assets)
        # Looked at again after this: a correction that came between must not leave the older finding behind.
        desk.orders.mark(reference, maintenance_as_of=_said_at(order))


def _remember(asset_id: str, reference: str, entry: Maintenance | None, assets: Registry) -> None:
    if entry is not None:
        assets.remember_maintenance(asset_id, entry)
    else:
        assets.forget_maintenance(asset_id, reference)


def is_due(order: WorkOrder) -> bool:
    """Whether the history may lack what the order says."""
    return order.status == "closed" and order.item.get("maintenance_as_of") != _said_at(order)


def entry_of(order: WorkOrder) -> Maintenance | None:
    """The closed order as an entry of its asset's history; None where nothing was found to be done. Pure."""
    item = order.item
    if item.get("finding") not in MAINTAINED:
        return None
    found = item.get("found_failure") or ""
    told = (
        f"{order.failure_mode} confirmed"
        if item["finding"] == "confirmed"
        else f"{found or 'another fault'} instead of {order.failure_mode}"
    )
    if item["finding"] == "confirmed" and found and found != order.failure_mode:
        told += f" ({found})"
    note = item.get("note") or ""
    by = item.get("corrected_by") or item.get("closed_by") or ""
    what = f"{told}: {note}" if note else told
    return Maintenance(str(item["closed_at"])[:10], what, order.reference, str(by))


def of_merged(merged: WorkOrder, into: WorkOrder, entry: Maintenance) -> Maintenance:
    """The entry of the order that took the merged one in, for the merged one's asset. Pure."""
    return replace(
        entry, what=f"with {into.asset_id} ({into.reference}): {entry.what}", order=merged.reference
    )


def _said_at(order: WorkOrder) -> str:
    return str(order.item.get("corrected_at") or order.item.get("closed_at") or "")
