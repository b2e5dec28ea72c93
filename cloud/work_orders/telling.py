# SPDX-License-Identifier: Apache-2.0
"""What is still to be said about an order that the ERP has: notes, and whether it has the order twice.

Notes are delivered effectively once: one caller at a time has the right to it, a note bears its key, the ERP's adapter
adds none whose key is there, and after an unclear answer the right rests until the ERP has committed or never will.
"""

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit

from erp.port import Erp, ErpRefusedError, ErpUnavailableError
from erp.transcript import recorded
from work_orders.metrics import metrics, tell_doubled
from work_orders.orders import WorkOrder, WorkOrders
from work_orders.placing import Patience, told

log = Logger(child=True)


def is_due(order: WorkOrder, now_text: str) -> bool:
    """Whether something is to be said, and may be by now."""
    return bool(order.erp_id) and bool(order.pending_notes) and order.due_at <= now_text


def tell(reference: str, orders: WorkOrders, erp: Erp, patience: Patience) -> WorkOrder | None:
    """Says all that is to be said; None when another is at it, or there is no order in the ERP.

    Raises:
        ErpUnavailableError: the rest waits for the sweep.
    """
    order = orders.lease_notes(reference, patience.lease_s)
    if order is None:
        return None
    try:
        order = _looked(order, orders, erp)
        for note in order.pending_notes:
            order = _noted(order, note["key"], note.get("erp_id") or order.erp_id, note["text"], orders, erp)
    except ErpUnavailableError as error:
        metrics.add_metric("ErpFailures", MetricUnit.Count, 1)
        log.warning("not_told", extra={"reference": reference, "why": str(error)})
        rest_s = patience.settle_s if error.may_have_created else 0.0
        pause_s = patience.pause_s(patience.tries, error.retry_after_s)
        orders.rest_notes(order, due_s=max(rest_s, pause_s), wait_s=rest_s)
        raise
    orders.rest_notes(order, due_s=None)
    return order


def look_after_end(order: WorkOrder, orders: WorkOrders, erp: Erp) -> WorkOrder:
    """An order that was closed while it was parked: the ERP may have made it after all, and is told that it is over.

    Raises:
        ErpUnavailableError: the sweep comes again.
    """
    with recorded() as calls:
        found = erp.find_by_reference(order.reference)
    if found is None:
        return order
    by, finding = order.item.get("closed_by", ""), order.item.get("finding", "")
    text = f"Closed in Linewatch by {by} before this order was known there: finding {finding}. End it here."
    orders.created(order, found, told(calls))
    orders.add_note(order, "closed", text, "linewatch")
    return orders.get(order.reference) or order


def _noted(order: WorkOrder, key: str, erp_id: str, text: str, orders: WorkOrders, erp: Erp) -> WorkOrder:
    refused = ""
    with recorded() as calls:
        try:
            erp.add_note(erp_id, key, text)
        except ErpRefusedError as error:
            refused = str(error)
            log.error("note_refused", extra={"reference": order.reference, "key": key, "why": refused})
    return orders.note_told(order, key, told(calls), refused) or order


def _looked(order: WorkOrder, orders: WorkOrders, erp: Erp) -> WorkOrder:
    """Looks once, an hour after the creation, whether a request that nobody answered was carried out after all.

    What bears the reference is ours. Where that is not the order that was recorded, it is taken over, and never called a
    double of a stranger's.
    """
    if not orders.is_to_be_looked_at(order):
        return order
    with recorded() as calls:
        found = erp.find_all(order.reference)
        is_known = not found or order.erp_id in {one.id for one in found} or _bears(order, erp)
    if not is_known:
        metrics.add_metric("ErpFailures", MetricUnit.Count, 1)
        log.error(
            "order_taken_over", extra={"reference": order.reference, "erp_ids": [found[0].id, order.erp_id]}
        )
        taken = orders.take_over(order, found[0], told(calls))
        if taken is None:
            return order  # another changed it meanwhile: it is still to be looked at
        order = taken
    surplus = [one.id for one in found if one.id != order.erp_id]
    if surplus:
        tell_doubled(len(surplus))
        log.error("order_doubled", extra={"reference": order.reference, "erp_ids": [order.erp_id, *surplus]})
    return orders.looked(order, surplus, told(calls)) or order


def _bears(order: WorkOrder, erp: Erp) -> bool:
    """Whether the recorded order says itself that it is ours: a search need not show one that has ended.

    Raises:
        ErpUnavailableError: it could not be asked.
    """
    try:
        return erp.anchor(order.erp_id).reference == order.reference
    except ErpRefusedError:
        return False  # there is none of this id
