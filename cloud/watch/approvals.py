# SPDX-License-Identifier: Apache-2.0
"""Approvals by the clock: announced, reminded, and expired into what the policy states; and counted for the alarms.

An expiry and a person's decision at the same moment: both are transactions under the order's status and head, so one of
them wins and the other changes nothing. Only an order whose announcement SNS took expires, at the time that it named.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit

from work_orders.announcing import EXPIRED
from work_orders.ending import after_expiring, closed_episodes
from work_orders.metrics import metrics
from work_orders.observing import Desk, settle
from work_orders.order_items import WorkOrder, text_of
from work_orders.placing import TryLaterError

# Orders looked at in one run; the next one begins with the newest again, and what is left out is logged.
MOST = 2_000
PAGE = 100
# How long after its expiry an order is looked at once more, for an announcement that a crash left out.
CATCH_UP = timedelta(days=2)

_MARKS = ("announced_at", "reminded_at", "escalations_announced")

log = Logger(child=True)


def approvals(desk: Desk) -> dict[str, int]:
    """One run; orders by what was done."""
    counted = {"awaiting": 0, "announced": 0, "expired": 0, "failed": 0}
    oldest = ""
    for order in _awaiting(desk):
        counted["awaiting"] += 1
        oldest = min(oldest or str(order.item["created_at"]), str(order.item["created_at"]))
        try:
            after = desk.announcer.announce(order, desk.orders, desk.data, desk.clock())
            counted["announced"] += any(after.item.get(mark) != order.item.get(mark) for mark in _MARKS)
            counted["expired"] += expire(after, desk)
        except Exception:
            log.exception("approval_passed_over", extra={"reference": order.reference})
            counted["failed"] += 1
    for order in _expired_lately(desk):
        desk.announcer.announce(order, desk.orders, desk.data, desk.clock())
    _count(desk, counted["awaiting"], oldest)
    if counted["failed"]:
        raise RuntimeError(f"{counted['failed']} approvals passed over; the log names them")
    return counted


def expire(order: WorkOrder, desk: Desk) -> bool:
    """Does what was announced for the case that nobody decides; whether it did."""
    ends, told = order.expires_approval_at, order.item.get("announced_at")
    if order.status != "awaiting_approval" or not told or not ends or ends > text_of(desk.clock()):
        return False
    since = datetime.fromisoformat(str(told))
    hours = (datetime.fromisoformat(ends) - since).total_seconds() / 3600
    reason = f"{EXPIRED} {hours:g} hours"
    if order.item.get("on_expiry") == "create":
        confirmed = desk.orders.confirm(order.reference, "policy", reason)
        if confirmed is None:
            return False
        _place(confirmed, desk)
    # A lasting alarm is asked for again, in the next episode.
    elif not desk.orders.reject(order, closed_episodes(order, desk, after_expiring()), "policy", reason):
        return False
    log.info(
        "approval_expired", extra={"reference": order.reference, "on_expiry": order.item.get("on_expiry")}
    )
    now = desk.orders.get(order.reference) or order
    if now.shadow == "pending":
        desk.shadow.show(now, desk.orders)
    desk.announcer.announce(now, desk.orders, desk.data, desk.clock())
    return True


def _place(order: WorkOrder, desk: Desk) -> None:
    try:
        settle(order, desk)
    except TryLaterError as error:
        # The sweep comes for it: nothing else waits for this order.
        log.warning("expired_not_placed_yet", extra={"reference": order.reference, "why": str(error)})


def _awaiting(desk: Desk) -> Iterator[WorkOrder]:
    after: tuple[str, str] | None = None
    for _ in range(MOST // PAGE):
        references = desk.orders.references("awaiting_approval", PAGE, after)
        found = desk.orders.get_many(references)
        yield from (order for order in found if order.status == "awaiting_approval")
        if len(references) < PAGE or not found:
            return
        after = str(found[-1].item["created_at"]), found[-1].reference
    log.error("approvals_left_out", extra={"looked_at": MOST})


def _expired_lately(desk: Desk) -> Iterator[WorkOrder]:
    """Orders whose expiry a crash left unannounced: announced at the same time as others, and so found beside them."""
    hours = desk.data.approval.expire_after_hours
    first = text_of(desk.clock() - hours * 3600 - CATCH_UP.total_seconds())
    for status in ("rejected", "creating", "parked", "created"):
        references = desk.orders.opened_between(status, first, text_of(desk.clock() - hours * 3600), PAGE)
        for order in desk.orders.get_many(references):
            if order.status != "awaiting_approval":
                yield order


def _count(desk: Desk, awaiting: int, oldest: str) -> None:
    waits_s = desk.clock() - datetime.fromisoformat(oldest).timestamp() if oldest else 0.0
    metrics.add_metric("AwaitingApproval", MetricUnit.Count, awaiting)
    # CloudWatch has no unit of hours.
    metrics.add_metric("OldestApprovalHours", MetricUnit.NoUnit, round(max(0.0, waits_s) / 3600, 2))
    metrics.add_metric("OrdersParked", MetricUnit.Count, desk.orders.count("parked"))
