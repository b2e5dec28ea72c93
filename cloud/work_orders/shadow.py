# SPDX-License-Identifier: Apache-2.0
"""Shows an asset's work order in the named device shadow `work-orders` of the device that watches it."""

import json
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from work_orders.orders import WorkOrder, WorkOrders

SHADOW_NAME = "work-orders"

log = Logger(child=True)


class DeviceShadow:
    """`desired.<asset id>.<failure mode>` = the open order, removed when it is closed."""

    def __init__(self, iot_data: Any) -> None:
        self._iot_data = iot_data

    def show(self, order: WorkOrder, orders: WorkOrders) -> None:
        """Writes the order's present status. A failure leaves `shadow` pending: the scheduled sweep writes it later."""
        thing = order.document.get("thing_name")
        if not thing:
            orders.shadow_written(order.reference)
            return
        entry = None
        if order.status == "created":
            entry = {"reference": order.reference, "erp_id": order.item["erp_id"], "status": order.status}
        state = {"state": {"desired": {order.asset_id: {order.failure_mode: entry}}}}
        try:
            self._iot_data.update_thing_shadow(
                thingName=thing, shadowName=SHADOW_NAME, payload=json.dumps(state)
            )
        except (ClientError, BotoCoreError) as error:
            log.warning(
                "shadow_not_written", extra={"reference": order.reference, "thing": thing, "why": str(error)}
            )
            return
        orders.shadow_written(order.reference)
