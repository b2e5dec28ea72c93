# SPDX-License-Identifier: Apache-2.0
"""Lambda `sweep`, on a schedule: tries parked orders again, finishes stranded ones, writes shadows left behind."""

from datetime import UTC, datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger

from work_orders.observing import Desk
from work_orders.placing import sweep_one
from work_orders.wiring import desk

log = Logger(serialize_stacktrace=False)

# Orders looked at in one run and status; the next run goes on.
BATCH = 50
# The queue's own tries end within 15 minutes; an order older than that has lost its message.
STRANDED_AFTER = timedelta(minutes=16)


def sweep(desk: Desk, stranded_after: timedelta = STRANDED_AFTER) -> dict[str, int]:
    """One run; how many orders were looked at, by status. Ends early while the ERP is away."""
    seen = {"parked": 0, "creating": 0, "shadow": 0}
    for reference in desk.orders.without_shadow(BATCH):
        order = desk.orders.get(reference)
        if order is not None and order.shadow == "pending":
            seen["shadow"] += 1
            desk.shadow.show(order, desk.orders)
    oldest_alive = (datetime.now(UTC) - stranded_after).isoformat()
    for status in ("parked", "creating"):
        for reference in desk.orders.references(status, BATCH):
            order = desk.orders.get(reference)
            if order is None or (order.status == "creating" and order.item["updated_at"] > oldest_alive):
                continue
            seen[status] += 1
            if not sweep_one(reference, desk.orders, desk.erp, desk.patience):
                return seen
            placed = desk.orders.get(reference)
            if placed is not None and placed.shadow == "pending":
                desk.shadow.show(placed, desk.orders)
    return seen


def handler(_event: dict[str, Any], _context: Any) -> dict[str, int]:
    """Schedule entry point."""
    seen = sweep(desk())
    log.info("swept", extra=seen)
    return seen
