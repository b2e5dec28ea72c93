# SPDX-License-Identifier: Apache-2.0
"""Places a reserved order in the ERP exactly once.

lease -> find by reference -> create -> (unclear answer, or a refusal: find again) -> record. A crash after any step
leaves the order `creating` with a lease that runs out; the next try finds by reference what the ERP already has. The
lease also holds until the next try is due, so that the station's further events are none. An ERP that commits a request
later than `settle_s` after it stopped answering it can double an order: the sweep looks once more, an hour after the
creation, and names it (telling.py).
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit

from erp.port import Erp, ErpAwayError, ErpError, ErpOrder, ErpRefusedError, ErpUnavailableError
from erp.transcript import Call, recorded
from work_orders.metrics import metrics
from work_orders.orders import STRANDED_AFTER_S, WorkOrder, WorkOrders

log = Logger(child=True)

LONGEST_PAUSE_S = 3_600.0
"""Between two of the sweep's tries of one order, however often it failed."""


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
    # Longer than a Lambda of ours may run: patience.py says how long.
    lease_s: float
    # Time in which the ERP has committed, or never will, what it did not answer.
    settle_s: float

    def delay_s(self, failed_tries: int, asked_s: float = 0.0) -> float:
        """Full jitter, at least one second: the shortest that SQS can hide a message.

        `asked_s`: the ERP's Retry-After, honoured as far as the tries still come within their time.
        """
        longest = self.retry_base_s * 2.0 ** (failed_tries - 1)
        return max(1.0, random.uniform(0, longest), min(asked_s, longest))  # noqa: S311 - jitter

    def pause_s(self, failed_tries: int, asked_s: float = 0.0) -> float:
        """Until the sweep tries a parked order again: full jitter, twice as long each time, an hour at most."""
        longest = min(LONGEST_PAUSE_S, self.retry_base_s * 2.0 ** min(30, max(0, failed_tries - self.tries)))
        return max(random.uniform(0, longest), min(asked_s, LONGEST_PAUSE_S))  # noqa: S311 - jitter


def place(reference: str, orders: WorkOrders, erp: Erp, patience: Patience) -> WorkOrder | None:
    """Places the order if it is due; returns it as stored, None when no such order exists.

    Raises:
        TryLaterError: this try gave no order.
    """
    order = orders.lease(reference, patience.lease_s)
    if order is None:
        # Done, or not due: whoever has the lease, or tried last, comes back for it.
        return orders.get(reference)
    with recorded() as calls:
        try:
            found = find_or_create(order, erp)
        except ErpRefusedError as error:
            return _refused(order, orders, error, calls)
        except ErpUnavailableError as error:
            return _failed(order, orders, error, patience, calls)
    return _placed(order, orders, found, calls)


def sweep_one(reference: str, orders: WorkOrders, erp: Erp, patience: Patience) -> WorkOrder | None:
    """One try for a parked or stranded order; None when it is not due.

    Raises:
        ErpAwayError: the ERP is away, or can't look this one up; it rests.
    """
    order = orders.lease(reference, patience.lease_s)
    if order is None:
        return None
    with recorded() as calls:
        try:
            found = find_or_create(order, erp)
        except ErpAwayError as error:
            metrics.add_metric("ErpFailures", MetricUnit.Count, 1)
            orders.rest(order, patience.pause_s(patience.tries, error.retry_after_s))
            raise
        except ErpRefusedError as error:
            return _refused(order, orders, error, calls)
        except ErpUnavailableError as error:
            log.warning("sweep_try_failed", extra={"reference": reference, "why": str(error)})
            return _parked(order, orders, error, patience, calls)
    return _placed(order, orders, found, calls)


def find_or_create(order: WorkOrder, erp: Erp) -> ErpOrder:
    """The ERP's order of this reference, made now where there is none. Raises ErpError."""
    try:
        found = erp.find_by_reference(order.reference)
    except ErpUnavailableError as error:
        raise ErpAwayError(
            str(error), retry_after_s=error.retry_after_s
        ) from error  # a lookup creates nothing
    if found is not None:
        return found
    try:
        return erp.create(payload(order))
    except ErpError as unclear:
        # A "no" may mean that it has this reference already; no answer may mean anything.
        log.warning("erp_answer_unclear", extra={"reference": order.reference, "why": str(unclear)})
        try:
            found = erp.find_by_reference(order.reference)
        except ErpError:
            raise unclear from None
        if found is None:
            raise
        return found


def _placed(order: WorkOrder, orders: WorkOrders, found: ErpOrder, calls: Sequence[Call]) -> WorkOrder | None:
    placed = orders.created(order, found, told(calls))
    if placed is not None:
        metrics.add_metric("OrdersCreated", MetricUnit.Count, 1)
    log.info("order_created", extra={"reference": order.reference, "erp_id": found.id})
    return placed if placed is not None else orders.get(order.reference)


def _refused(
    order: WorkOrder, orders: WorkOrders, error: ErpRefusedError, calls: Sequence[Call]
) -> WorkOrder | None:
    metrics.add_metric("ErpFailures", MetricUnit.Count, 1)
    log.error("order_refused", extra={"reference": order.reference, "why": str(error)})
    return orders.failed(order, str(error), "parked", 0, is_refused=True, calls=told(calls))


def _failed(
    order: WorkOrder,
    orders: WorkOrders,
    error: ErpUnavailableError,
    patience: Patience,
    calls: Sequence[Call],
) -> WorkOrder | None:
    tries = order.attempts + 1
    if tries >= patience.tries or order.status == "parked":
        log.error("order_parked", extra={"reference": order.reference, "tries": tries, "why": str(error)})
        return _parked(order, orders, error, patience, calls)
    metrics.add_metric("ErpFailures", MetricUnit.Count, 1)
    wait_s = max(_rest_s(error, patience), patience.delay_s(tries, error.retry_after_s))
    orders.failed(order, str(error), order.status, wait_s, due_s=wait_s + STRANDED_AFTER_S, calls=told(calls))
    log.warning("try_failed", extra={"reference": order.reference, "tries": tries, "why": str(error)})
    # A lease ends with a whole second; who came back before that would pass on.
    raise TryLaterError(order.reference, math.ceil(wait_s) + 1)


def _parked(
    order: WorkOrder,
    orders: WorkOrders,
    error: ErpUnavailableError,
    patience: Patience,
    calls: Sequence[Call],
) -> WorkOrder | None:
    metrics.add_metric("ErpFailures", MetricUnit.Count, 1)
    rest_s = _rest_s(error, patience)
    # The first pause is the sweep's own rate.
    pause_s = patience.pause_s(order.attempts, error.retry_after_s) if order.status == "parked" else 0.0
    return orders.failed(order, str(error), "parked", rest_s, due_s=max(rest_s, pause_s), calls=told(calls))


def _rest_s(error: ErpUnavailableError, patience: Patience) -> float:
    return patience.settle_s if error.may_have_created else 0.0


def told(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """The calls as an order's records hold them."""
    return [asdict(call) for call in calls]


def payload(order: WorkOrder) -> Mapping[str, Any]:
    """The order as the ERP gets it. `record_digest` anchors the order's records outside of our own table."""
    document = order.document
    return {
        "external_reference": order.reference,
        "equipment_id": order.asset_id,
        "asset_id": order.asset_id,
        "episode": order.episode,
        "title": f"{document['failure_type']}: {document['asset_name']}",
        "failure_mode": order.failure_mode,
        **{
            name: document[name]
            for name in (
                "failure_type",
                "location",
                "criticality",
                "ai_generated",
                "event_ids",
                "evidence",
                "model",
            )
        },
        # None where the clock was not known, and in orders of releases before 0.3.
        "observed_at": document.get("observed_at"),
        # As they are after its last escalation.
        "severity": order.severity,
        "recommended_action": order.recommended_action,
        "time_to_failure": order.time_to_failure,
        "risk": order.risk,
        "priority": order.priority,
        "record_digest": order.head,
        "reserved_at": order.item["created_at"],
    }
