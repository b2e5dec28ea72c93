# SPDX-License-Identifier: Apache-2.0
"""Producers inside a fault test: they publish events as capture does, and keep what the forwarder says it committed.

They trust `committed` and send nothing twice by themselves, so that nobody but the forwarder can save an event.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from brokers import STATION, WAIT_S, Broker, connected, inspection, until
from faults.sink import Sink

from linewatch_runtime.events import Place, stream_of
from linewatch_runtime.mqtt import Connection, MqttError, Subscriptions
from linewatch_runtime.records import Record

AGAIN_WITHIN_S = 5.0
"""After the cause of a refusal is gone."""

AT_ONCE = 100
"""Publishes on their way at once."""


@dataclass(slots=True)
class Station:
    """One producer. `made` holds every event it ever published, in order; `numbers` of its origin go on from 1."""

    connection: Connection
    place: Place = STATION
    made: dict[str, Record] = field(default_factory=dict)
    committed: set[str] = field(default_factory=set)

    async def make(self, results: Iterable[str]) -> list[str]:
        """Publishes one event for each result, OK or NG, in order. Returns the ids."""
        ids = []
        for result in results:
            event_id, payload = inspection(len(self.made) + 1, result, self.place)
            topic = self.place.topic("inspection")
            self.made[event_id] = Record(event_id, stream_of(self.place.line), topic, payload, result != "OK")
            ids.append(event_id)
        await self.send(ids)
        return ids

    async def send(self, event_ids: Iterable[str]) -> None:
        """Publishes events that were made, again or for the first time."""
        records = [self.made[one] for one in event_ids]
        for begin in range(0, len(records), AT_ONCE):
            some = records[begin : begin + AT_ONCE]
            await asyncio.gather(*(self.connection.publish(one.topic, one.payload) for one in some))

    async def keep_sending(self, results: Iterable[str], group: int = 10) -> None:
        """`make`, a few at a time, whatever the broker says, for as long as there are results."""
        left = list(results)
        while left:
            some, left = left[:group], left[group:]
            try:
                await self.make(some)
            except MqttError:
                await asyncio.sleep(0.1)  # what was made is in `made`, and never committed

    async def hear(self) -> None:
        """Until it is cancelled."""
        while True:
            message = await self.connection.messages.get()
            self.committed.update(json.loads(message.payload)["event_ids"])

    async def has_heard(self) -> None:
        """Returns once all is in `committed` that the broker has sent here before."""
        # The broker's answer comes behind it on the same connection.
        await self.connection.publish("linewatch/v1/nobody/hears/this/test", b"")
        while not self.connection.messages.empty():  # noqa: ASYNC110 - `hear` takes them as they come
            await asyncio.sleep(0.01)

    @property
    def refused(self) -> list[str]:
        """What was made and not committed, in order."""
        return [one for one in self.made if one not in self.committed]


async def flows_again(line: Station, sink: Sink) -> float:
    """Seconds until a new event is committed and at the cloud; at most AGAIN_WITHIN_S."""
    took_s = await _fresh_arrives(line, sink)
    assert took_s <= AGAIN_WITHIN_S, "no room was made of the room there is"
    return took_s


async def _fresh_arrives(line: Station, sink: Sink) -> float:
    begun, fresh = time.monotonic(), set[str]()
    while True:
        fresh |= {*await line.make(["NG"])}
        with contextlib.suppress(AssertionError):  # what was refused is never committed: the next one may be
            await until(lambda: fresh & sink.first.keys() & line.committed, "a fresh event arrives", 0.3)  # noqa: B023
            return time.monotonic() - begun
        assert time.monotonic() - begun < WAIT_S, "nothing flows again"


@asynccontextmanager
async def station(broker: Broker, place: Place = STATION) -> AsyncIterator[Station]:
    """A producer that is connected inside the block."""
    committed = Subscriptions([place.topic("committed")])
    async with connected(broker.endpoint(f"capture-{place.line}-{place.station}"), committed) as connection:
        made = Station(connection, place)
        task = asyncio.create_task(made.hear(), name="committed")
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.wait([task])
