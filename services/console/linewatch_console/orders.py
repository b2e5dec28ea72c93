# SPDX-License-Identifier: Apache-2.0
"""The work orders as the cloud last told them, and what a person decides on them.

The cloud may be away for days: then the last list stays, with its age, and approvals are off. A decision is never kept
for later; it is taken by the cloud while the person looks, or not at all.
"""

import asyncio
import logging
import random
from typing import Any

from prometheus_client import Counter, Gauge

from linewatch_console.cloud_api import CloudApi, CloudAway, CloudRefused, Summary, WorkOrder
from linewatch_console.edge import utc_now
from linewatch_console.evidence import is_evidence_path
from linewatch_console.hub import Hub
from linewatch_runtime.lifecycle import wait_until

log = logging.getLogger(__name__)

LONGEST_BACKOFF_S = 15.0

decisions = Counter("linewatch_console_decisions", "Decisions sent to the cloud", ["decision", "outcome"])
reachable = Gauge("linewatch_console_cloud_reachable", "1 while the cloud API answers")
awaiting = Gauge("linewatch_console_orders_awaiting_approval", "Work orders that wait for a person")


class Orders:
    """Looks at the cloud API every `poll_s`; without an API it says so and does nothing."""

    def __init__(self, api: CloudApi | None, hub: Hub, poll_s: float, operator: str) -> None:
        self._api = api
        self._hub = hub
        self._poll_s = poll_s
        self._operator = operator
        self._look_now = asyncio.Event()
        self._orders: list[WorkOrder] = []
        self._summary: Summary | None = None
        self._as_of = ""
        self._state = "waiting" if api else "off"
        self._since = utc_now()
        self._detail = "" if api else "no cloud API is set (CONSOLE_CLOUD_API_URL)"
        self._told: dict[str, Any] = {}

    async def run(self) -> None:
        """Looks until cancelled. The cloud being away is told on the page, never an end."""
        failures = 0
        while self._api is not None:
            self._look_now.clear()
            try:
                self._summary, self._orders = await self._api.summary(), await self._api.work_orders()
                awaiting.set(self._summary.work_orders.awaiting_approval)
                failures = 0
                self._as_of = utc_now()
                self._turn("up", "")
            except (CloudAway, CloudRefused) as error:
                failures += 1
                self._turn("down", str(error))
            self._tell()
            pause_s = (
                min(LONGEST_BACKOFF_S, self._poll_s * 2 ** min(failures, 5)) if failures else self._poll_s
            )
            pause_s *= random.uniform(0.7, 1.0)  # noqa: S311
            await wait_until(self._look_now, pause_s)

    async def decide(self, reference: str, decision: str, reason: str) -> dict[str, Any]:
        """Takes "approve" or "reject" to the cloud and answers with the order as it is now.

        Raises:
            CloudAway: no answer; the decision may or may not have been taken, the next look tells.
            CloudRefused: the cloud says no, such as 409 for an order that awaits no approval.
        """
        if self._api is None:
            raise CloudAway(self._detail)
        try:
            order = await self._api.decide(reference, decision, self._operator, reason)
        except (CloudAway, CloudRefused) as error:
            decisions.labels(decision, "refused" if isinstance(error, CloudRefused) else "no_answer").inc()
            log.warning(
                "decision_failed", extra={"reference": reference, "decision": decision, "reason": str(error)}
            )
            raise
        finally:
            self._look_now.set()
        decisions.labels(decision, "taken").inc()
        log.info("decided", extra={"reference": reference, "decision": decision, "by": self._operator})
        self._orders = [order if one.reference == reference else one for one in self._orders]
        self._tell()
        return shown(order)

    async def order(self, reference: str) -> dict[str, Any]:
        """One order with its history. Raises CloudAway and CloudRefused."""
        if self._api is None:
            raise CloudAway(self._detail)
        return shown(await self._api.work_order(reference))

    def snapshot(self) -> dict[str, Any]:
        """What the panel shows."""
        return {
            "link": {"state": self._state, "since": self._since, "detail": self._detail},
            "as_of": self._as_of,
            "summary": self._summary.model_dump() if self._summary else None,
            "orders": [shown(order) for order in self._orders],
        }

    def _tell(self) -> None:
        content = self.snapshot()
        # The time of the last look alone is no news while the cloud answers.
        news = content | {"as_of": "" if self._state == "up" else self._as_of}
        if news != self._told:
            self._told = news
            self._hub.publish("orders", content)

    def _turn(self, state: str, detail: str) -> None:
        if state != self._state:
            self._since = utc_now()
            level = logging.INFO if state == "up" else logging.WARNING
            log.log(level, f"cloud_{state}", extra={"reason": detail} if detail else {})
        self._state, self._detail = state, detail
        reachable.set(state == "up")


def shown(order: WorkOrder) -> dict[str, Any]:
    """The order for the page; evidence gets an address where it may be on this device."""
    content = order.model_dump()
    for one in content["evidence"]:
        one["url"] = f"/evidence/{one['path']}" if is_evidence_path(one["path"]) else ""
    return content
