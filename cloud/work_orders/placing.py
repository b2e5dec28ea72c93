# SPDX-License-Identifier: Apache-2.0
"""Places a reserved order in the ERP exactly once.

lease -> find by reference -> create -> (unclear answer: find again) -> record. A crash after any step leaves the order
`creating` with a lease that runs out; the next try finds by reference what the ERP already has. The lease also holds
until the next try is due, so that the station's further events are none. Not covered: an ERP that commits a request
later than `settle_s` after it stopped answering it.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger

from work_orders.erp import Erp, ErpAwayError, ErpOrder, ErpRefusedError, ErpUnavailableError
from work_orders.orders import WorkOrder, WorkOrders

log = Logger(child=True)


class TryLaterError(Exception):
    """Not placed yet; come back after `delay_s` seconds."""

    def __init__(self, reference: str, delay_s: float) -> None:
        super().__init__(f"{reference} not placed yet; again in {delay_s:.0f} s")
        self.delay_s = delay_s


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try. `retry_base_s` doubles: 300 means tries within 300 + 600 s = 15 minutes."""

    tries: int
    retry_base_s: float
    # Longer than a Lambda of ours may run.
    lease_s: float
    # Time in which the ERP has committed, or never will, what it did not answer.
    settle_s: float

    def delay_s(self, failed_tries: int) -> float:
        """Full jitter, at least one second: the shortest that SQS can hide a message."""
        return max(1.0, random.uniform(0, self.retry_base_s * 2 ** (failed_tries - 1)))  # noqa: S311 - jitter


def place(reference: str, orders: WorkOrders, erp: Erp, patience: Patience) -> WorkOrder | None:
    """Places the order if it is due; returns it as stored, None when no such order exists.

    Raises:
        TryLaterError: this try gave no order.
    """
    order = orders.lease(reference, patience.lease_s)
    if order is None:
        # Done, or not due: whoever has the lease, or tried last, comes back for it.
        return orders.get(reference)
    try:
        found = _find_or_create(order, erp)
    except ErpRefusedError as error:
        log.error("order_refused", extra={"reference": reference, "why": str(error)})
        return orders.failed(order, str(error), "parked", 0)
    except ErpUnavailableError as error:
        return _failed(order, orders, error, patience)
    placed = orders.created(order, found)
    log.info("order_created", extra={"reference": reference, "erp_id": found.id})
    return placed if placed is not None else orders.get(reference)


def sweep_one(reference: str, orders: WorkOrders, erp: Erp, patience: Patience) -> None:
    """One try for a parked or stranded order. Raises ErpAwayError when the next order would fare no better."""
    order = orders.lease(reference, patience.lease_s)
    if order is None:
        return
    try:
        found = _find_or_create(order, erp)
    except ErpAwayError:
        orders.rest(order)
        raise
    except (ErpRefusedError, ErpUnavailableError) as error:
        log.warning("sweep_try_failed", extra={"reference": reference, "why": str(error)})
        unclear = isinstance(error, ErpUnavailableError) and error.may_have_created
        orders.failed(order, str(error), "parked", patience.settle_s if unclear else 0)
        return
    orders.created(order, found)
    log.info("order_created_by_sweep", extra={"reference": reference, "erp_id": found.id})


def _find_or_create(order: WorkOrder, erp: Erp) -> ErpOrder:
    try:
        found = erp.find_by_reference(order.reference)
    except ErpUnavailableError as error:
        raise ErpAwayError(str(error)) from error  # a lookup creates nothing
    if found is not None:
        return found
    try:
        return erp.create(payload(order))
    except ErpUnavailableError as unclear:
        log.warning("erp_answer_unclear", extra={"reference": order.reference, "why": str(unclear)})
        try:
            found = erp.find_by_reference(order.reference)
        except ErpUnavailableError:
            raise unclear from None
        if found is None:
            raise
        return found


def _failed(
    order: WorkOrder, orders: WorkOrders, error: ErpUnavailableError, patience: Patience
) -> WorkOrder | None:
    tries = order.attempts + 1
    rest_s = patience.settle_s if error.may_have_created else 0.0
    if tries >= patience.tries:
        log.error("order_parked", extra={"reference": order.reference, "tries": tries, "why": str(error)})
        return orders.failed(order, str(error), "parked", rest_s)
    wait_s = max(rest_s, patience.delay_s(tries))
    orders.failed(order, str(error), order.status, wait_s)
    log.warning("try_failed", extra={"reference": order.reference, "tries": tries, "why": str(error)})
    # A lease ends with a whole second; who came back before that would pass on.
    raise TryLaterError(order.reference, math.ceil(wait_s) + 1)


def payload(order: WorkOrder) -> Mapping[str, Any]:
    """The order as the ERP gets it."""
    document = order.document
    return {
        "external_reference": order.reference,
        "equipment_id": order.asset_id,
        "asset_id": order.asset_id,
        "episode": int(order.item["episode"]),
        "title": f"{document['failure_type']}: {document['asset_name']}",
        "failure_mode": order.failure_mode,
        **{
            name: document[name]
            for name in (
                "failure_type",
                "location",
                "criticality",
                "severity",
                "risk",
                "priority",
                "recommended_action",
                "time_to_failure",
                "ai_generated",
                "event_ids",
                "evidence",
                "model",
            )
        },
    }
