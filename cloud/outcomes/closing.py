# SPDX-License-Identifier: Apache-2.0
"""The technician's finding ends the order, its episodes and the wait for its outcome: all of it in one transaction.

Who comes first wins, the console or the ERP. Whoever comes second with the same finding changes nothing. With another
one: a person corrects, whatever was said before; the ERP corrects only what it said itself, or what nobody had said.
"""

from datetime import datetime
from typing import Literal, get_args

from aws_lambda_powertools import Logger

from erp.port import Finding
from outcomes.outcome import of_order, to_item
from work_orders.ending import after_closing, after_ending, closed_episodes
from work_orders.maintenance import remember_soon
from work_orders.observing import Desk
from work_orders.order_items import WorkOrder, text_of

Source = Literal["console", "erp_poll"]

ROUNDS = 3
"""Tries of an end whose order changed meanwhile."""

FINDINGS: dict[str, Finding] = {
    **{finding: finding for finding in get_args(Finding)},
    # Words of release 0.2.0.
    "different fault": "other_fault",
    "no fault found": "no_fault",
}

log = Logger(child=True)


def finding_of(text: str) -> Finding:
    """The finding that a word stands for. ValueError names those that there are."""
    found = FINDINGS.get(text.strip().lower())
    if found is None:
        raise ValueError(f"finding: must be one of {', '.join(get_args(Finding))}, got {text[:40]!r}")
    return found


def can_end(order: WorkOrder) -> bool:
    """Whether a finding can be written to the order, as its end or as a correction."""
    return order.status in ("created", "parked", "closed")


def close(
    order: WorkOrder,
    desk: Desk,
    *,
    by: str,
    finding: Finding,
    note: str = "",
    found_failure: str = "",
    source: Source = "console",
    audit: str = "",
    ended_at: str = "",
) -> bool:
    """Ends the order, or corrects the finding of one that has ended. `audit`: as in api/deciding.py.

    `ended_at`: when the technician was done, by the ERP's clock; the order is closed as of then where that can be.

    False when it can't be: another was faster, the ERP is being called for it, or it is not at the ERP.
    """
    if order.status == "closed":
        return _correct(
            order,
            desk,
            by=by,
            finding=finding,
            note=note,
            found_failure=found_failure,
            source=source,
            audit=audit,
        )
    for _ in range(ROUNDS):
        now = desk.clock()
        ended = _ended(order, ended_at, now)
        outcome = of_order(order, finding, text_of(ended), found_failure=found_failure, source=source)
        latch = after_ending(ended) if ended < now else after_closing(now)
        if desk.orders.close(
            order, closed_episodes(order, desk, latch), by, finding, note,
            found_failure=found_failure, source=source, outcome=to_item(outcome), audit=audit,
        ):  # fmt: skip
            remember_soon(order.reference, desk)
            told = {"reference": order.reference, "finding": finding, "source": source}
            log.info("order_closed", extra=told)
            return True
        changed = desk.orders.get(order.reference)
        if changed is None or changed.status == "closed" or changed.item == order.item:
            return False
        # An outcome tells of the order as it ends: one that got worse at this moment is looked at again.
        order = changed
    return False


def _ended(order: WorkOrder, ended_at: str, now: float) -> float:
    """When the technician was done, seconds since 1970; now, where the ERP tells no time after the order's opening."""
    try:
        ended = datetime.fromisoformat(ended_at)
    except ValueError:
        return now
    if ended.tzinfo is None:
        return now
    opened = datetime.fromisoformat(str(order.item["created_at"])).timestamp()
    try:
        moment = ended.timestamp()
    except (OverflowError, ValueError):
        return now
    return min(now, moment) if moment > opened else now


def is_said(order: WorkOrder, finding: Finding, found_failure: str) -> bool:
    """Whether the closed order says this already."""
    item = order.item
    return (item.get("finding"), item.get("found_failure") or "") == (finding, found_failure)


def erp_may_correct(order: WorkOrder) -> bool:
    """Whether no person has said of the closed order what was found."""
    return order.item.get("finding_source") == "erp_poll" or order.item.get("finding") == "unstated"


def _correct(
    order: WorkOrder,
    desk: Desk,
    *,
    by: str,
    finding: Finding,
    note: str,
    found_failure: str,
    source: Source,
    audit: str,
) -> bool:
    if is_said(order, finding, found_failure) and (not note or note == order.item.get("note")):
        return True
    # The item keeps its key: month and id come from the moment at which the order was closed.
    outcome = of_order(
        order, finding, str(order.item["closed_at"]),
        found_failure=found_failure, source=source, corrected_at=text_of(desk.clock()),
    )  # fmt: skip
    is_corrected = desk.orders.correct(
        order,
        by,
        finding,
        note,
        found_failure=found_failure,
        source=source,
        outcome=to_item(outcome),
        audit=audit,
    )
    if is_corrected:
        remember_soon(order.reference, desk)
        log.info(
            "finding_corrected", extra={"reference": order.reference, "finding": finding, "source": source}
        )
    return is_corrected
