# SPDX-License-Identifier: Apache-2.0
"""What IoT Core's rule is to a fault test: hears all that reaches the cloud, takes batches apart, and counts.

It keeps a few words of each event and not its payload, so that 100,000 of them fit. The broker in front of it keeps the
order in which it took the events, so the order here is the order at the cloud. Never killed, and it acknowledges
what it counted only.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from brokers import connected

from linewatch_runtime.mqtt import Connection, Endpoint, Subscriptions

ALL_EVENTS = ("linewatch/v1/#",)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event at the cloud, the first time or again.

    Attributes:
        kind: the CloudEvents type.
        source: the station it is of, such as /linewatch/v1/plant-1/line-1/station-1.
        number: (epoch, sequence) of its origin; rises within a station.
        at: seconds on the monotonic clock.
    """

    event_id: str
    kind: str
    source: str
    alarm: bool
    number: tuple[int, int]
    at: float


@dataclass(slots=True)
class Sink:
    """Counts. `drops` are the EventsDropped, once each, as they came; `contents` the events whole, where they are kept."""

    connection: Connection
    arrivals: list[Arrival] = field(default_factory=list)
    first: dict[str, Arrival] = field(default_factory=dict)
    drops: dict[str, dict[str, Any]] = field(default_factory=dict)
    publishes: int = 0
    contents: dict[str, dict[str, Any]] | None = None

    @property
    def repeats(self) -> int:
        """Events that came again; the event id makes them harmless behind this point."""
        return len(self.arrivals) - len({one.event_id for one in self.arrivals})

    def lacks(self, event_ids: Collection[str]) -> set[str]:
        """Those of the ids that have not come."""
        return set(event_ids) - self.first.keys()

    def dropped(self) -> Counter[tuple[str, str]]:
        """What the device said it dropped, by (stream, reason)."""
        told: Counter[tuple[str, str]] = Counter()
        for data in self.drops.values():
            told[data["stream"], data["reason"]] += data["count"]
        return told

    def out_of_order(self) -> list[Arrival]:
        """First arrivals that came after a younger one of the same station and class."""
        newest: dict[tuple[str, bool], tuple[int, int]] = {}
        wrong = []
        for one in self.first.values():
            key = (one.source, one.alarm)
            if one.number < newest.get(key, (0, 0)):
                wrong.append(one)
            newest[key] = max(one.number, newest.get(key, (0, 0)))
        return wrong

    async def hear(self) -> None:
        """Until it is cancelled."""
        while True:
            message = await self.connection.messages.get()
            self.publishes += 1
            for event in events_of(message.payload):
                self._count(event)
            self.connection.acknowledge(message)

    def _count(self, event: dict[str, Any]) -> None:
        data = event["data"]
        origin = data.get("origin", {})
        number = (origin.get("epoch", 0), origin.get("sequence", 0))
        routine = event["type"] == "InferenceCompleted" and data["verdict"].get("result") == "OK"
        one = Arrival(
            event["id"], event["type"], event["source"], not routine, number, time.monotonic()
        )  # fmt: skip
        self.arrivals.append(one)
        self.first.setdefault(one.event_id, one)
        if self.contents is not None:
            self.contents[one.event_id] = event
        if one.kind == "EventsDropped":
            self.drops[one.event_id] = data


def events_of(payload: bytes | str) -> list[dict[str, Any]]:
    """The events of one publish: a single one, an array of them, or an object that holds an array."""
    told = json.loads(payload)
    if isinstance(told, list):
        return told
    return told.get("events", [told])


@asynccontextmanager
async def sinking(endpoint: Endpoint, topics: tuple[str, ...] = ALL_EVENTS) -> AsyncIterator[Sink]:
    """A sink that counts inside the block; an event that it can't read ends the test at the block's end."""
    kept = Subscriptions(topics, manual_ack=True, session_expiry_s=3600, receive_maximum=1000)
    async with connected(endpoint, kept) as connection:
        sink = Sink(connection)
        task = asyncio.create_task(sink.hear(), name="sink")
        try:
            yield sink
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                raise error
