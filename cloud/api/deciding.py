# SPDX-License-Identifier: Apache-2.0
"""What people decide about an order: approve, reject, close. Each is one conditional write; of two, one wins."""

import json
import os
import time
from functools import cache
from typing import Any

import boto3

from work_orders.aws import SHORT
from work_orders.observing import Desk, settle
from work_orders.orders import WorkOrder
from work_orders.placing import TryLaterError
from work_orders.policy import Latch


class ConflictError(Exception):
    """The order is not in the state that the decision needs, or somebody else was faster."""


@cache
def _sqs() -> Any:
    return boto3.client("sqs", config=SHORT)


def approve(order: WorkOrder, by: str, reason: str, desk: Desk) -> WorkOrder:
    """Places the order in the ERP; when the ERP does not answer the queue goes on trying and the order is `creating`."""
    confirmed = desk.orders.confirm(order.reference, by, reason)
    if confirmed is None:
        raise ConflictError("the work order is not awaiting approval")
    try:
        settle(confirmed, desk)
    except TryLaterError as error:
        _sqs().send_message(
            QueueUrl=os.environ["ENRICHED_QUEUE_URL"],
            MessageBody=json.dumps({"place": order.reference}),
            DelaySeconds=min(900, round(error.delay_s)),
        )
    return desk.orders.get(order.reference) or confirmed


def reject(order: WorkOrder, by: str, reason: str, desk: Desk) -> WorkOrder:
    """Ends the episode without an order; the rejected band stays silent until the risk has cleared."""
    if order.status != "awaiting_approval":
        raise ConflictError("the work order is not awaiting approval")
    latches = {
        state.station: Latch(floor=state.last, band=order.band)
        for state in desk.states.of_asset(order.asset_id)
    }
    episode = desk.episodes.get(order.asset_id, order.failure_mode).closed(latches)
    if not desk.orders.reject(order, episode, by, reason):
        raise ConflictError("somebody else decided at the same moment")
    return _shown(order, desk)


def close(order: WorkOrder, by: str, finding: str, note: str, desk: Desk) -> WorkOrder:
    """The technician's outcome: ends the episode; only parts taken afterwards can open the next one."""
    if order.status not in ("created", "parked"):
        raise ConflictError(f"a work order that is {order.status} can't be closed")
    closed_at = time.time()
    latches = {
        state.station: Latch(floor=state.last, closed_at=closed_at)
        for state in desk.states.of_asset(order.asset_id)
    }
    episode = desk.episodes.get(order.asset_id, order.failure_mode).closed(latches)
    if not desk.orders.close(order, episode, by, finding, note):
        raise ConflictError("somebody else changed the work order at the same moment")
    return _shown(order, desk)


def _shown(order: WorkOrder, desk: Desk) -> WorkOrder:
    """The order as it is now; the device hears of it at once, or by the sweep."""
    now = desk.orders.get(order.reference) or order
    if now.shadow == "pending":
        desk.shadow.show(now, desk.orders)
    return desk.orders.get(order.reference) or now
