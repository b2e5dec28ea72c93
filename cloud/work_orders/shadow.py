# SPDX-License-Identifier: Apache-2.0
"""Shows an asset's work order in the named device shadow `work-orders` of the device that watches it.

A device is two things (docs/decisions/0015). The core device's shadow shows the ERP's order. The forwarder's own shadow
names the events of every order that has not ended, also of one that a person has yet to approve, and of one that was
merged until the order has ended that took it in: the device keeps their evidence, whatever its budget
(linewatch_forwarder/evidence/pins.py). What is in a shadow, and what has no room in it, is shadow_content.py's business.

Many may write at once. Each reads the shadow, THEN the order, and writes under the condition that the shadow is still
the one it read: whatever it shows was the order's state after the last write that anybody made, and who changes the
order later writes later. A writer that is late or dies can so never leave an older state over a newer one.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from work_orders.orders import WorkOrder, WorkOrders
from work_orders.shadow_content import Desired, difference, folded, held, in_erp

SHADOW_NAME = "work-orders"
FORWARDER = "-forwarder"

MAX_ROUNDS = 8
"""Rounds that a writer may lose to others of the same device; then the order stays pending, and the sweep writes it."""

SILENT_S = 30.0
"""An endpoint that gave no answer costs one order its time-out, not each of a batch."""

log = Logger(child=True)

Shown = Callable[[WorkOrder], Mapping[str, Any] | None]


class DeviceShadow:
    """`desired.<asset id>.<failure mode>` = the open order, removed when it ends."""

    def __init__(self, iot_data: Any, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds since any moment."""
        self._iot_data = iot_data
        self._clock = clock
        self._silent_until = -math.inf

    @property
    def is_silent(self) -> bool:
        """Whether the endpoint gave no answer a moment ago; it is not asked then."""
        return self._clock() < self._silent_until

    def show(self, order: WorkOrder, orders: WorkOrders) -> None:
        """Has the shadows show the order as it is. A failure leaves `shadow` pending: the scheduled sweep writes it later."""
        if self.is_silent:
            return
        thing = order.document.get("thing_name")
        shadows: list[tuple[str, Shown]] = [(thing, in_erp), (f"{thing}{FORWARDER}", held)] if thing else []
        has_room, shown_first = True, order
        try:
            for place, (name, shown) in enumerate(shadows):
                now = self._written(name, order.reference, shown, orders)
                if now is None:
                    log.warning("shadow_contended", extra={"reference": order.reference, "thing": name})
                    return
                shown_first = now[0] if place == 0 else shown_first
                has_room = has_room and now[1]
        except (ClientError, BotoCoreError) as error:
            log.warning(
                "shadow_not_written", extra={"reference": order.reference, "thing": thing, "why": str(error)}
            )
            if isinstance(error, BotoCoreError):
                self._silent_until = self._clock() + SILENT_S
            return
        # "left_out" comes back when another order of the device has ended: the sweep looks.
        # The oldest state that one of the shadows may show is what both are said to show.
        orders.shadow_written(shown_first, "written" if has_room else "left_out")

    def _written(
        self, thing: str, reference: str, shown: Shown, orders: WorkOrders
    ) -> tuple[WorkOrder, bool] | None:
        """The order as it is in the shadow now, and whether there was room; None when others kept winning."""
        for _ in range(MAX_ROUNDS):
            desired, version = self._read(thing)
            order = orders.get(reference)
            if order is None:
                raise KeyError(reference)
            fold = folded(desired, order, shown(order))
            patch = difference(desired, fold.desired)
            if not patch and order.holds_evidence:
                return order, reference not in fold.left_out
            # An order that has ended makes a new version even where nothing shows it: a late writer may have read the
            # shadow before, and the order before it ended.
            for other in fold.left_out - {reference}:
                # Marked before it goes: whoever dies here leaves one to be looked at, none to be forgotten.
                orders.shadow_left_out(other, f"{thing} {version}")
            if self._update(thing, patch, version):
                return order, reference not in fold.left_out
        return None

    def _read(self, thing: str) -> tuple[Desired, int]:
        """What is desired, and the version that it has."""
        while True:
            try:
                answer = self._iot_data.get_thing_shadow(thingName=thing, shadowName=SHADOW_NAME)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise
                # One without content, so that the first order too is written over a version.
                self._update(thing, {}, None)
                continue
            document = json.loads(answer["payload"].read())
            return document.get("state", {}).get("desired") or {}, int(document["version"])

    def _update(self, thing: str, patch: Mapping[str, Any], version: int | None) -> bool:
        """Whether the shadow was still of that version."""
        document: dict[str, Any] = {"state": {"desired": patch}}
        if version is not None:
            document["version"] = version
        try:
            self._iot_data.update_thing_shadow(
                thingName=thing, shadowName=SHADOW_NAME, payload=json.dumps(document, separators=(",", ":"))
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in ("ConflictException", "VersionConflictException"):
                return False
            raise
        return True
