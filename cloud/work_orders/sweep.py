# SPDX-License-Identifier: Apache-2.0
"""Lambda `sweep`, on a schedule: tries parked orders again, finishes stranded ones, writes shadows left behind.

No order holds up another: those tried longest ago come first, and one that can't be handled is logged and passed over.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger

from work_orders.erp import ErpAwayError
from work_orders.observing import Desk
from work_orders.placing import sweep_one
from work_orders.wiring import desk

log = Logger(serialize_stacktrace=False)

# Orders looked at in one run and status; the next run goes on.
BATCH = 50
# The queue's own tries end within 15 minutes; an order older than that has lost its message.
STRANDED_AFTER = timedelta(minutes=16)


def sweep(desk: Desk, stranded_after: timedelta = STRANDED_AFTER) -> dict[str, int]:
    """One run; how many orders were looked at, by status, and how many could not be. Ends early while the ERP is away."""
    seen = {"parked": 0, "creating": 0, "shadow": 0, "failed": 0}
    oldest_alive = (datetime.now(UTC) - stranded_after).isoformat()
    for kind in ("shadow", "parked", "creating"):
        waiting = (
            desk.orders.without_shadow(BATCH) if kind == "shadow" else desk.orders.oldest_tried(kind, BATCH)
        )
        for reference in waiting:
            try:
                seen[kind] += _one(kind, reference, desk, oldest_alive)
            except ErpAwayError as error:
                log.warning("sweep_stopped", extra={"reference": reference, "why": str(error)})
                return seen
            except Exception:
                log.exception("order_passed_over", extra={"reference": reference})
                seen["failed"] += 1
    return seen


def _one(kind: str, reference: str, desk: Desk, oldest_alive: str) -> bool:
    """Whether there was something to do for this order."""
    order = desk.orders.get(reference)
    if order is None or (order.status == "creating" and order.item["updated_at"] > oldest_alive):
        return False
    if kind != "shadow":
        sweep_one(reference, desk.orders, desk.erp, desk.patience)
        order = desk.orders.get(reference) or order
    if order.shadow == "pending":
        desk.shadow.show(order, desk.orders)
    return True


def handler(_event: dict[str, Any], _context: Any) -> dict[str, int]:
    """Schedule entry point. Fails, for the alarm, after the others were served."""
    seen = sweep(desk())
    log.info("swept", extra=seen)
    if seen["failed"]:
        raise RuntimeError(f"{seen['failed']} orders passed over; the log names them")
    return seen
