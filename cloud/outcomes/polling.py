# SPDX-License-Identifier: Apache-2.0
"""Job `outcomes` of the Lambda `watch`: asks the ERP what became of the orders that it has.

The ERP is asked for each open order at most every OUTCOME_POLL_S, those first that were asked longest ago; for a closed
one once a day for 30 days, because findings are corrected and added later. A webhook only says which order to look at.
"""

import os
import random
import time
from collections.abc import Iterable, Sequence
from typing import Literal

from aws_lambda_powertools import Logger

from erp.port import ErpAwayError, ErpRefusedError, ErpStatus, ErpUnavailableError
from outcomes.closing import can_end, close, erp_may_correct, is_said
from work_orders.observing import Desk
from work_orders.order_items import WorkOrder, text_of

MOST_ASKED, MOST_S = 40, 20.0
"""Orders in one run and its seconds, shared with the other jobs of a Lambda that may run for 60; the next run goes on."""

MOST_UNANSWERED = 3
"""Calls without an answer, after which the run ends: the ERP is away."""

MOST_LISTED = 5_000
MOST_READ = 400
"""Orders of one status that are looked at in one run. Of more, a sample: each gets its turn, only later."""

CLOSED_EVERY_S = 86_400.0
CLOSED_FOR_S = 30 * 86_400.0

Answer = Literal["ended", "corrected", "open", "same", "not_placed", "unknown"]

log = Logger(child=True)


def job(desk: Desk) -> dict[str, int]:
    """One run; how many orders the ERP was asked for and what came of it. Ends early while the ERP is away."""
    counted = dict.fromkeys(("asked", "ended", "corrected", "unanswered", "refused"), 0)
    every = {"created": float(os.environ["OUTCOME_POLL_S"]), "closed": CLOSED_EVERY_S}
    end = time.monotonic() + MOST_S
    for status, every_s in every.items():
        for order in _due(desk, status, every_s):
            if counted["asked"] >= MOST_ASKED or time.monotonic() > end:
                return counted
            counted["asked"] += 1
            # Before it is asked: an order that the ERP chokes on must not be the first of every run.
            desk.orders.mark(order.reference, polled_at=text_of(desk.clock()))
            try:
                answer = _ask(order, desk)
            except ErpAwayError as error:
                log.warning("poll_stopped", extra={"reference": order.reference, "why": str(error)})
                counted["unanswered"] += 1
                return counted
            except ErpUnavailableError as error:
                log.warning("poll_unanswered", extra={"reference": order.reference, "why": str(error)})
                counted["unanswered"] += 1
                if counted["unanswered"] >= MOST_UNANSWERED:
                    return counted
            except ErpRefusedError as error:
                # It has no such order any more, or will not tell: a person closes it in the console.
                log.warning("poll_refused", extra={"reference": order.reference, "why": str(error)})
                counted["refused"] += 1
            else:
                if answer in ("ended", "corrected"):
                    counted[answer] += 1
    return counted


def poll_one(reference: str, desk: Desk) -> Answer:
    """Asks for one order now, whatever was polled when. Raises ErpError.

    A hint may be forged, repeated or late: what is done is only ever what the ERP itself answers.
    """
    order = desk.orders.get(reference)
    if order is None:
        return "unknown"
    if order.status not in ("created", "closed") or not order.erp_id:
        return "not_placed"
    desk.orders.mark(reference, polled_at=text_of(desk.clock()))
    return _ask(order, desk)


def _ask(order: WorkOrder, desk: Desk) -> Answer:
    told = desk.erp.status(order.erp_id)
    if told.reference not in ("", order.reference):
        # Restored from a backup, or switched: the ERP has given the id again. What was found there is not about ours.
        raise ErpRefusedError(f"the ERP's {order.erp_id} is the order of {told.reference[:40]}")
    return _follow(order, told, desk)


def _follow(order: WorkOrder, told: ErpStatus, desk: Desk) -> Answer:
    """Does what the ERP's answer asks for; doing it again changes nothing."""
    if told.state not in ("completed", "cancelled"):
        return "open"
    if not can_end(order):
        return "same"
    is_cancelled = told.state == "cancelled"
    finding = "unstated" if is_cancelled else told.finding or "unstated"
    found_failure = "" if is_cancelled else told.found_failure
    note = told.note
    if is_cancelled:
        note = f"cancelled in the ERP ({told.status}){': ' if told.note else ''}{told.note}"
    if order.status == "closed":
        # Silence takes back nothing that was said, and is no news.
        news = finding != "unstated" and not is_said(order, finding, found_failure)
        if not news or not erp_may_correct(order):
            return "same"
    is_done = close(
        order,
        desk,
        by=told.by or "erp",
        finding=finding,
        note=note,
        found_failure=found_failure,
        source="erp_poll",
        ended_at=told.ended_at,
    )
    if not is_done:
        return "same"  # somebody else was faster; the next poll looks again
    shown = desk.orders.get(order.reference)
    if shown is not None and shown.shadow == "pending":
        desk.shadow.show(shown, desk.orders)
    return "corrected" if order.status == "closed" else "ended"


def _due(desk: Desk, status: str, every_s: float) -> list[WorkOrder]:
    """Orders of this status that may be asked for now, first those that never were, then by when they last were."""
    now = desk.clock()
    orders = [
        order for order in _some(desk, status)
        if order.status == status and order.erp_id and _is_fresh(order, now)
        and str(order.item.get("polled_at", "")) <= text_of(now - every_s)
    ]  # fmt: skip
    return sorted(orders, key=lambda order: str(order.item.get("polled_at", "")))


def _some(desk: Desk, status: str) -> Iterable[WorkOrder]:
    references: Sequence[str] = desk.orders.references(status, MOST_LISTED)
    if len(references) > MOST_READ:
        log.warning("many_orders_to_poll", extra={"status": status, "orders": len(references)})
        references = random.sample(references, MOST_READ)
    return desk.orders.get_many(references)


def _is_fresh(order: WorkOrder, now: float) -> bool:
    """Whether a closed order is closed for so short a time that its finding may still change."""
    if order.status != "closed":
        return True
    return str(order.item.get("closed_at", "")) >= text_of(now - CLOSED_FOR_S)
