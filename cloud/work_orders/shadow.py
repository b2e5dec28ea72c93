# SPDX-License-Identifier: Apache-2.0
"""Shows an asset's work order in the named device shadow `work-orders` of the device that watches it.

A device is two things (docs/decisions/0015). The core device's shadow shows the ERP's order. The forwarder's own shadow
names the events of every order that is not closed, also of one that a person has yet to approve: the device keeps their
evidence, whatever its budget (linewatch_forwarder/evidence/pins.py). A shadow holds 8 KB, so of each order the newest
events are named, and fewer when the document is full.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from work_orders.orders import WorkOrder, WorkOrders

SHADOW_NAME = "work-orders"
FORWARDER = "-forwarder"
ENDED = ("rejected", "closed")

MOST_EVENTS = (8, 2, 1)
"""Of one order: about 420 bytes with eight, so that eighteen open orders of a device fit; then fewer. An order for which
there is no room at all stays pending, and the sweep writes it once another one has ended."""

log = Logger(child=True)


class DeviceShadow:
    """`desired.<asset id>.<failure mode>` = the open order, removed when it ends."""

    def __init__(self, iot_data: Any) -> None:
        self._iot_data = iot_data

    def show(self, order: WorkOrder, orders: WorkOrders) -> None:
        """Writes the order's present status. A failure leaves `shadow` pending: the scheduled sweep writes it later."""
        thing = order.document.get("thing_name")
        if not thing:
            orders.shadow_written(order)
            return
        try:
            self._write(thing, order, in_erp(order))
            self._write_held(f"{thing}{FORWARDER}", order)
        except (ClientError, BotoCoreError) as error:
            log.warning(
                "shadow_not_written", extra={"reference": order.reference, "thing": thing, "why": str(error)}
            )
            return
        orders.shadow_written(order)

    def _write_held(self, thing: str, order: WorkOrder) -> None:
        for most in MOST_EVENTS:
            try:
                self._write(thing, order, held(order, most))
            except ClientError as error:
                is_last = most == MOST_EVENTS[-1]
                if error.response["Error"]["Code"] != "RequestEntityTooLargeException" or is_last:
                    raise
                log.warning(
                    "shadow_full", extra={"reference": order.reference, "thing": thing, "events": most}
                )
            else:
                return

    def _write(self, thing: str, order: WorkOrder, entry: Mapping[str, Any] | None) -> None:
        state = {"state": {"desired": {order.asset_id: {order.failure_mode: entry}}}}
        self._iot_data.update_thing_shadow(
            thingName=thing, shadowName=SHADOW_NAME, payload=json.dumps(state, separators=(",", ":"))
        )


def in_erp(order: WorkOrder) -> dict[str, Any] | None:
    """What the core device's shadow says: the order as the ERP has it."""
    if order.status != "created":
        return None
    return {"reference": order.reference, "erp_id": order.item["erp_id"], "status": order.status}


def held(order: WorkOrder, most: int) -> dict[str, Any] | None:
    """What the forwarder's shadow says: the newest events of an order that has not ended."""
    if order.status in ENDED:
        return None
    return {
        "reference": order.reference,
        "event_ids": events_with_evidence(order.document)[-most:] if most else [],
    }


def events_with_evidence(document: Mapping[str, Any]) -> Sequence[str]:
    """The events whose evidence the order names, oldest first. A file's name begins with its event's id."""
    names = (PurePosixPath(evidence.get("path", "")).name for evidence in document.get("evidence", ()))
    return list(dict.fromkeys(name.partition(".")[0] for name in names if name))
