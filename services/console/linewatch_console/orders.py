# SPDX-License-Identifier: Apache-2.0
"""The work orders as the cloud last told them, and what a person decides on them.

The cloud may be away for days: then the last list stays, with its age, and approvals are off. A decision is never kept
for later; it is taken by the cloud while the person looks, or not at all.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Gauge
from pydantic import ValidationError

from linewatch_console.cloud_api import CloudApi, CloudAway, CloudRefused, CloudUnclear
from linewatch_console.cloud_shapes import OrderEvidence, OrderList, Summary, WorkOrder
from linewatch_console.edge import utc_now
from linewatch_console.evidence import is_evidence_path
from linewatch_console.hub import Hub
from linewatch_console.people import Person
from linewatch_runtime.lifecycle import wait_until

log = logging.getLogger(__name__)

LONGEST_BACKOFF_S = 15.0
MOST_KNOWN_FILES = 4000
"""Files of evidence that orders name, with their digests; the list shows 100 orders at once."""

decisions = Counter("linewatch_console_decisions", "Decisions sent to the cloud", ["decision", "outcome"])
reachable = Gauge("linewatch_console_cloud_reachable", "1 while the cloud API answers")
awaiting = Gauge("linewatch_console_orders_awaiting_approval", "Work orders that wait for a person")


class Orders:
    """Looks at the cloud API every `poll_s`; without an API it says so and does nothing."""

    def __init__(self, api: CloudApi | None, hub: Hub, poll_s: float) -> None:
        self._api = api
        self._hub = hub
        self._poll_s = poll_s
        self._known: OrderedDict[str, OrderEvidence] = OrderedDict()
        self._look_now = asyncio.Event()
        self._orders: list[WorkOrder] = []
        self._decided = 0
        self._left_out = 0
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
            decided = self._decided
            try:
                summary, page = await self._api.summary(), await self._api.page({})
                failures = 0
                if (
                    decided == self._decided
                ):  # else it was begun before a decision that the page shows by now: it comes again
                    self._take(summary, page)
                left_out = f"orders that are not understood: {page.left_out}, the first: {page.first_fault}"
                self._turn("up", left_out if page.left_out else "")
            except (CloudAway, CloudRefused) as error:
                failures += 1
                self._turn("down", str(error))
            self._tell()
            pause_s = (
                min(LONGEST_BACKOFF_S, self._poll_s * 2 ** min(failures, 5)) if failures else self._poll_s
            )
            pause_s *= random.uniform(0.7, 1.0)  # noqa: S311
            await wait_until(self._look_now, pause_s)

    def _take(self, summary: Summary, page: OrderList) -> None:
        self._summary = summary
        self._orders, self._left_out = page.work_orders, page.left_out
        for order in self._orders:
            self._remember(order)
        awaiting.set(summary.work_orders.awaiting_approval)
        self._as_of = utc_now()

    async def close(self) -> None:
        """Closes the connections to the cloud."""
        if self._api is not None:
            await self._api.close()

    @property
    def api(self) -> CloudApi:
        """The cloud. Raises CloudAway where none is set."""
        if self._api is None:
            raise CloudAway(self._detail)
        return self._api

    async def send(
        self, verb: str, path: str, body: Mapping[str, str] | str, person: Person, audit_digest: str,
        follows: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Takes a decision to the cloud, once, and gives its answer; a body that is a text, as a policy, as it is.

        `follows`: digest of the policy that the person saw, of a policy.

        Raises:
            CloudUnclear: no answer; the decision may or may not have been taken, the next look tells.
            CloudAway: it was not taken.
            CloudRefused: the cloud says no, such as 409 for an order that awaits no approval.
        """
        outcome = "no_answer"
        try:
            answer = await self.api.send(path, body, person, audit_digest, follows)
            outcome = "taken"
            return answer
        except CloudUnclear:
            raise
        except CloudAway:
            outcome = "not_sent"
            raise
        except CloudRefused:
            outcome = "refused"
            raise
        finally:
            decisions.labels(verb, outcome).inc()
            log.info("decision", extra={"verb": verb, "address": path, "by": person.name, "outcome": outcome})
            self._look_now.set()

    def changed(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Puts the order of an answer into the list at once, and gives it as the page shows it. Raises CloudAway."""
        try:
            order = WorkOrder.model_validate(answer)
        except ValidationError as error:
            raise CloudAway("the cloud API's answer is no work order") from error
        self._remember(order)
        self._decided += 1
        self._look_now.set()  # it may be older than what the last look told
        self._orders = [order if one.reference == order.reference else one for one in self._orders]
        self._tell()
        return shown(order)

    async def order(self, reference: str) -> dict[str, Any]:
        """One order with its history. Raises CloudAway and CloudRefused."""
        order = await self.api.work_order(reference)
        self._remember(order)
        return shown(order)

    async def listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Orders by `status`, `limit`, `asset_id`, now, and the token of the `next` page; as CloudApi.page raises."""
        page = await self.api.page(query)
        for order in page.work_orders:
            self._remember(order)
        return {
            "work_orders": [shown(order) for order in page.work_orders],
            "next": page.next,
            "left_out": page.left_out,
        }

    def snapshot(self) -> dict[str, Any]:
        """What the panel shows."""
        return {
            "link": {"state": self._state, "since": self._since, "detail": self._detail},
            "as_of": self._as_of,
            "summary": self._summary.model_dump() if self._summary else None,
            "orders": [shown(order) for order in self._orders],
            "left_out": self._left_out,
        }

    def evidence(self, path: str) -> OrderEvidence | None:
        """What an order that was looked at says of this file; None: no order names it."""
        return self._known.get(path)

    def know(self, evidence: OrderEvidence) -> None:
        """Remembers a file that an order names, the oldest forgotten when there are too many."""
        if not is_evidence_path(evidence.path):
            return
        self._known[evidence.path] = evidence
        self._known.move_to_end(evidence.path)
        if len(self._known) > MOST_KNOWN_FILES:
            self._known.popitem(last=False)

    def _remember(self, order: WorkOrder) -> None:
        for one in order.evidence:
            self.know(one)

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
        elif state == "up" and detail and detail != self._detail:
            log.warning("orders_not_understood", extra={"reason": detail})
        self._state, self._detail = state, detail
        reachable.set(state == "up")


def shown(order: WorkOrder) -> dict[str, Any]:
    """The order for the page; evidence gets an address where it may be on this device."""
    content = order.model_dump()
    for one in content["evidence"]:
        one["url"] = f"/evidence/{one['path']}" if is_evidence_path(one["path"]) else ""
    return content
