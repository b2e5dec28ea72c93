# SPDX-License-Identifier: Apache-2.0
"""Lambda `sweep`, on a schedule: everything about orders that no event brings back.

Parked orders are tried again, those finished that lost their message or whose hold has ended, notes delivered, doubles
looked for, shadows written that were left behind, the records of ended orders get their day of deletion, and their assets
an entry in the maintenance history that the closing could not write; parts since the technician's end open the next order. No order holds up another: an index gives only those
that are due, longest waiting first, each kind has its turn, and one that can't be handled is logged and passed over. Only
orders in a row that the ERP gives no answer for end what needs the ERP; what devices see comes last.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aws_lambda_powertools import Logger

from erp.deadline import within
from erp.port import ErpUnavailableError
from work_orders.budget import AFTER_ERP_S, ORDER_S, SHADOW_S, left_of
from work_orders.maintenance import is_due, remember
from work_orders.metrics import tell_metrics
from work_orders.observing import Desk, asked_in_pilot
from work_orders.opening_next import open_next
from work_orders.orders import ENDED, WorkOrder
from work_orders.placing import sweep_one
from work_orders.telling import look_after_end, tell
from work_orders.wiring import desk

log = Logger(serialize_stacktrace=False)

# Orders looked at in one run and kind; the next run goes on.
BATCH = 50
# Orders in a row that the ERP gave no answer for; one may be its own affair, then it is away.
MOST_SILENT = 2
OF_SHADOWS = ("pending", "left_out")


def sweep(desk: Desk, left_s: Callable[[], float] = lambda: math.inf) -> dict[str, int]:
    """One run; how many orders there was something to do for, and how many could not be handled.

    What needs the ERP ends early while it is away. `left_s`: seconds that are left for the run.
    """
    seen = dict.fromkeys(("shadow", "parked", "creating", "told", "failed"), 0)
    silent = 0
    for kind, reference in _in_turns(
        {status: desk.orders.due(status, BATCH) for status in ("parked", "creating", "created", *ENDED)}
    ):
        if left_s() < ORDER_S:
            log.warning("sweep_out_of_time", extra={"reference": reference})
            break
        if silent >= MOST_SILENT:
            if kind in ENDED:
                _one(_end_without_erp, kind, reference, desk, seen)
            continue
        try:
            done = _one(_HOW[kind], kind, reference, desk, seen)
        except ErpUnavailableError as error:
            silent += 1
            log.warning("not_answered", extra={"reference": reference, "in_a_row": silent, "why": str(error)})
        else:
            silent = 0 if done and kind not in ENDED else silent
    _show_all(desk, left_s, seen)
    return seen


def _in_turns(due: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """One of each kind, then the next of each: no kind waits for another's end."""
    for place in range(max(map(len, due.values()))):
        yield from ((kind, found[place]) for kind, found in due.items() if place < len(found))


def _one(
    handle: Callable[[str, Desk], bool], kind: str, reference: str, desk: Desk, seen: dict[str, int]
) -> bool:
    """Whatever happens to one order is its own affair. Raises ErpUnavailableError."""
    try:
        done = handle(reference, desk)
    except ErpUnavailableError:
        raise
    except Exception:
        log.exception("order_passed_over", extra={"reference": reference})
        seen["failed"] += 1
        return False
    seen[kind if kind in seen else "told"] += done
    return done


def _show_all(desk: Desk, left_s: Callable[[], float], seen: dict[str, int]) -> None:
    """Last, since a device can wait; until its endpoint gives no answer."""
    for reference in [one for shadow in OF_SHADOWS for one in desk.orders.without_shadow(BATCH, shadow)]:
        if left_s() < SHADOW_S or desk.shadow.is_silent:
            return
        _one(_show, "shadow", reference, desk, seen)


def _show(reference: str, desk: Desk) -> bool:
    order = desk.orders.get(reference)
    if order is None or order.shadow not in OF_SHADOWS:
        return False
    desk.shadow.show(order, desk.orders)
    return True


def _try(reference: str, desk: Desk) -> bool:
    order = desk.orders.get(reference)
    if order is not None and order.is_held:
        order = asked_in_pilot(order, desk)
        if order.status == "awaiting_approval":
            desk.announcer.announce(order, desk.orders, desk.data, desk.clock())
            return True
    return sweep_one(reference, desk.orders, desk.erp, desk.patience) is not None


def _tell(reference: str, desk: Desk) -> bool:
    return tell(reference, desk.orders, desk.erp, desk.patience) is not None


def _tell_all(reference: str, desk: Desk) -> bool:
    """What the ERP is to be told, and people: an escalation that SNS did not take when it came."""
    order = tell(reference, desk.orders, desk.erp, desk.patience)
    if order is not None:
        desk.announcer.announce(order, desk.orders, desk.data, desk.clock())
    return order is not None


def _end(reference: str, desk: Desk) -> bool:
    order = _ended(reference, desk)
    if order is None:
        return False
    open_next(order, desk)
    if order.status == "closed" and not order.erp_id:
        order = look_after_end(order, desk.orders, desk.erp)
    if order.erp_id:
        return _tell(reference, desk)
    desk.orders.nothing_due(order)
    return True


def _ended(reference: str, desk: Desk) -> WorkOrder | None:
    """The order, after what its end needs of us alone."""
    order = desk.orders.get(reference)
    if order is not None:
        desk.orders.give_records_their_end(order)
        if is_due(order):
            remember(reference, desk)
    return order


def _end_without_erp(reference: str, desk: Desk) -> bool:
    return _ended(reference, desk) is not None


_HOW: Mapping[str, Callable[[str, Desk], bool]] = {
    "parked": _try,
    "creating": _try,
    "created": _tell_all,
    **dict.fromkeys(ENDED, _end),
}


def handler(_event: dict[str, Any], context: Any) -> dict[str, int]:
    """Schedule entry point. Fails, for the alarm, after the others were served."""
    try:
        left_s = left_of(context)
        with within(left_s() - AFTER_ERP_S):
            seen = sweep(desk(), left_s)
    finally:
        tell_metrics()
    log.info("swept", extra=seen)
    if seen["failed"]:
        raise RuntimeError(f"{seen['failed']} orders passed over; the log names them")
    return seen
