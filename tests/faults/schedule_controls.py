# SPDX-License-Identifier: Apache-2.0
"""Designs that look right and are not, each in the place of one thing that the product does. The checks must see them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import work_orders.placing
import work_orders.sweep
from erp.port import Erp, ErpOrder
from work_orders.order_items import WorkOrder
from work_orders.order_table import OrderTable
from work_orders.order_tries import OrderTries
from work_orders.placing import payload

Control = Callable[[], AbstractContextManager[Any]]


def check_then_post() -> AbstractContextManager[Any]:
    """Our own table says that it is not created yet, so it is created; the ERP is never asked."""

    def find_or_create(order: WorkOrder, erp: Erp) -> ErpOrder:
        return erp.create(payload(order))

    return patch.object(work_orders.placing, "find_or_create", find_or_create)


def no_lease() -> AbstractContextManager[Any]:
    """Whoever comes looks the reference up and creates."""

    def lease(self: OrderTries, reference: str, seconds: float) -> WorkOrder | None:
        order = self.get(reference)
        return order if order is not None and order.status in ("creating", "parked") else None

    return patch.object(OrderTries, "lease", lease)


def no_reconcile() -> AbstractContextManager[Any]:
    """No answer is taken for a "no": the next try, a moment later, creates, and only a first try looks the order up."""

    def find_or_create(order: WorkOrder, erp: Erp) -> ErpOrder:
        found = None if order.attempts else erp.find_by_reference(order.reference)
        return found if found is not None else erp.create(payload(order))

    return patch.object(work_orders.placing, "find_or_create", find_or_create)


def no_settle() -> AbstractContextManager[Any]:
    """What the ERP did not answer is tried again as soon as anything else: it may still be about to commit it."""
    return patch.object(work_orders.placing, "_rest_s", lambda *_: 0.0)


def record_apart() -> AbstractContextManager[Any]:
    """The order first, what happened to it afterwards, each by itself."""
    together = OrderTable._transact

    def apart(self: OrderTable, *writes: Mapping[str, Any]) -> list[int] | None:
        records = [write for write in writes if write.get("Put", {}).get("TableName") == "RecordsTable"]
        lost = together(self, *(write for write in writes if write not in records))
        if lost is None and records:
            together(self, *records)
        return lost

    return patch.object(OrderTable, "_transact", apart)


def no_next() -> AbstractContextManager[Any]:
    """Parts since the technician's end wait for the station's next event, which a machine that stands still never sends."""
    return patch.object(work_orders.sweep, "open_next", lambda *_: None)


CONTROLS: Mapping[str, Control] = {
    control.__name__: control
    for control in (check_then_post, no_lease, no_reconcile, no_settle, record_apart, no_next)
}
