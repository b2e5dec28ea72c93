# SPDX-License-Identifier: Apache-2.0
"""What people decide about an order. Each is one transaction under the order's status and head; of two, one wins.

`audit`: the digest of the console's own audit entry of the decision, empty for none; the order's chain keeps it.

Whoever comes second gets ConflictError with the order as it is now, and with who decided what.
"""

import json
import os
from functools import cache
from typing import Any

import boto3

from api.errors import ConflictError
from erp.port import Finding
from outcomes import closing
from work_orders.aws import SHORT
from work_orders.ending import after_rejecting, closed_episodes
from work_orders.observing import Desk, settle
from work_orders.order_items import MOST_MERGED
from work_orders.orders import OPEN, WorkOrder
from work_orders.placing import TryLaterError

ROUNDS = 3
"""Tries of a rejection whose episode somebody else wrote meanwhile, such as a part that cleared another latch."""


@cache
def _sqs() -> Any:
    return boto3.client("sqs", config=SHORT)


def approve(order: WorkOrder, by: str, reason: str, desk: Desk, audit: str = "") -> WorkOrder:
    """Places the order in the ERP; when the ERP does not answer the queue goes on trying and the order is `creating`.

    Of an order that is held back it ends the hold.
    """
    confirmed = (
        desk.orders.release(order, by, reason, audit=audit)
        if order.is_held
        else desk.orders.confirm(order.reference, by, reason, audit=audit)
    )
    if confirmed is None:
        raise _conflict(order, "approved", desk)
    try:
        settle(confirmed, desk)
    except TryLaterError as error:
        place_later(order.reference, error.delay_s)
    return desk.orders.get(order.reference) or confirmed


def place_later(reference: str, delay_s: float) -> None:
    """Has work_orders try it again after so many seconds. A lost message is found by the sweep."""
    _sqs().send_message(
        QueueUrl=os.environ["ENRICHED_QUEUE_URL"],
        MessageBody=json.dumps({"place": reference}),
        DelaySeconds=min(900, round(delay_s)),
    )


def reject(order: WorkOrder, by: str, reason: str, desk: Desk, audit: str = "") -> WorkOrder:
    """Ends the episode without an order; the rejected band stays silent until the risk has cleared."""
    for _ in range(ROUNDS):
        episodes = closed_episodes(order, desk, after_rejecting(order))
        if desk.orders.reject(order, episodes, by, reason, audit=audit):
            return _shown(order, desk)
        order = desk.orders.get(order.reference) or order
        if order.status != "awaiting_approval" and not order.is_held:
            break
    raise _conflict(order, "rejected", desk)


def merge(order: WorkOrder, into: WorkOrder, by: str, reason: str, desk: Desk, audit: str = "") -> WorkOrder:
    """Ends the order in another open one of the same asset or line, whose ERP order gets a note."""
    if order.reference == into.reference:
        raise ConflictError("an order can't be merged into itself", order)
    if into.status not in OPEN:
        raise ConflictError(f"{into.reference} {_state(into)}: an open order is due", order)
    if order.asset_id != into.asset_id and _line(order) != _line(into):
        raise ConflictError(f"{into.reference} is of another asset on another line", order)
    if len(into.merged) + len(order.merged) >= MOST_MERGED:
        raise ConflictError(
            f"{into.reference} has taken in {len(into.merged)} orders, {MOST_MERGED} at most", order
        )
    if not desk.orders.merge(order, into, by, reason, audit=audit):
        raise _conflict(order, "merged", desk)
    return _shown(order, desk)


def close(
    order: WorkOrder,
    by: str,
    finding: Finding,
    note: str,
    found_failure: str,
    desk: Desk,
    audit: str = "",
) -> WorkOrder:
    """The technician's outcome: ends the episode; only parts taken afterwards can open the next one."""
    done = closing.can_end(order) and closing.close(
        order, desk, by=by, finding=finding, note=note, found_failure=found_failure, audit=audit
    )
    if not done:
        raise _conflict(order, "closed", desk)
    return _shown(order, desk)


def replay(order: WorkOrder, by: str, reason: str, desk: Desk, audit: str = "") -> WorkOrder:
    """Has the sweep try a parked order again; one that is being placed or is in the ERP already stays as it is."""
    if order.status in ("creating", "created", "closed"):
        return order
    if desk.orders.replay(order.reference, by, reason, audit=audit) is None:
        raise _conflict(order, "replayed", desk)
    return desk.orders.get(order.reference) or order


_CAN_BE = {
    "approved": ("awaiting_approval",),
    "rejected": ("awaiting_approval",),
    "merged": ("awaiting_approval",),
    "closed": ("created", "parked", "closed"),
    "replayed": ("parked",),
}


def _conflict(order: WorkOrder, verb: str, desk: Desk) -> ConflictError:
    now = desk.orders.get(order.reference) or order
    if verb == "closed" and now.status == "closed" and now.is_full:
        full = f"its {now.records} records are all that an order has room for"
        return ConflictError(
            f"its finding can't be corrected any more: {full}; write what was found into the ERP's order", now
        )
    if now.status in _CAN_BE[verb]:
        busy = "the ERP is being called for it, or somebody else changed it at this moment; try again"
        return ConflictError(f"it can't be {verb} now: {busy}", now)
    return ConflictError(f"it can't be {verb}: it {_state(now)}", now)


def _state(order: WorkOrder) -> str:
    """Such as "was approved by M. Keller at …: heard it too; it is created"."""
    item = order.item
    if order.status == "closed":
        return f"was closed by {item.get('closed_by')} at {item.get('closed_at')} ({item.get('finding')})"
    verb = {"rejected": "rejected", "merged": f"merged into {order.merged_into}"}.get(
        order.status, "approved"
    )
    if not item.get("decided_by"):
        return f"is {order.status.replace('_', ' ')}"
    reason = f": {item['reason']}" if item.get("reason") else ""
    after = f"; it is {order.status}" if verb == "approved" else ""
    return f"was {verb} by {item['decided_by']} at {item.get('decided_at')}{reason}{after}"


def _line(order: WorkOrder) -> tuple[Any, Any]:
    return order.document.get("site"), order.document.get("line")


def _shown(order: WorkOrder, desk: Desk) -> WorkOrder:
    """The order as it is now; the device hears of it at once, or by the sweep."""
    now = desk.orders.get(order.reference) or order
    if now.shadow == "pending":
        desk.shadow.show(now, desk.orders)
    return desk.orders.get(order.reference) or now
