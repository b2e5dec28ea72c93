# SPDX-License-Identifier: Apache-2.0
"""THE FLOW in: broker -> disk -> broker's acknowledgement -> producer's acknowledgement.

Guarantee: the producer is told `committed` only after the commit, so until then it keeps the event and sends it again.
An event that was stored before, or delivered not long ago, is committed again and stored once. What can never be
delivered is put aside once, and committed too where its id can be read: its producer would send it for ever.

A full stream tells its producer nothing: the producer keeps the event, sends it again, and when its own spool is full
it stops judging and says so. The broker is acknowledged all the same, or one full line would stop every other one.
"""

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable

from prometheus_client import Gauge

from linewatch_forwarder.arrivals import LONGEST_TOPIC, Arrival, arrival
from linewatch_forwarder.retention import Arrived
from linewatch_forwarder.streams.port import DurableStreams, StreamsUnavailable
from linewatch_runtime.events import Place
from linewatch_runtime.mqtt import Connection, Message, MqttError, Refused
from linewatch_runtime.records import Record, SpoolFull

log = logging.getLogger(__name__)

GROUP = 200
"""Messages to one commit at most; the listener's receive maximum is the same, so a group can't wait for more."""

_UNTOLD = Gauge(
    "linewatch_forwarder_producers_untold",
    "Producers that the broker lets us tell nothing; they send for ever",
)
MOST_UNTOLD = 1000
"""Told apart; somebody may make up topics."""

FULL_FOR_S = 60.0
"""After a refusal. A producer sends every few seconds what is not committed; one that does not is gone."""
MOST_FULL = 1000
"""Told apart; somebody may make up lines."""


class Intake:
    """Listens on one connection and speaks on another.

    Two, because a broker may stop reading a connection whose own queue is full, while we wait on that connection for
    an acknowledgement: rumqttd did, under 200 messages in flight.
    """

    def __init__(
        self, listener: Connection, speaker: Connection, streams: DurableStreams, stored: Callable[[], None]
    ) -> None:
        self._listener = listener
        self._speaker = speaker
        self._streams = streams
        self._stored = stored
        self._full: dict[str, tuple[float, str]] = {}
        self._unavailable = False
        self._untold: set[Place] = set()
        self.arrived: dict[str, Arrived] = defaultdict(Arrived)
        """What came into each stream since the start, repeats left out."""

    @property
    def full(self) -> dict[str, str]:
        """Streams that refuse events now, with the reason."""
        since = time.monotonic() - FULL_FOR_S
        return {name: reason for name, (at, reason) in self._full.items() if at >= since}

    async def run(self) -> None:
        """Takes events in until it is cancelled."""
        while True:
            messages = await self._next_group()
            by_stream: dict[str, list[Arrival]] = defaultdict(list)
            for message in messages:
                arrived = arrival(message)
                by_stream[arrived.record.stream].append(arrived)
            committed = [one for arrivals in by_stream.values() for one in await self._commit(arrivals)]
            for message in messages:
                self._listener.acknowledge(message)
            self._stored()
            await self._tell_producers(committed)

    async def _next_group(self) -> list[Message]:
        group = [await self._listener.messages.get()]
        while len(group) < GROUP and not self._listener.messages.empty():
            group.append(self._listener.messages.get_nowait())
        return group

    async def _commit(self, arrivals: list[Arrival]) -> list[Arrival]:
        """Puts one stream's arrivals on disk. Returns those that are there now, or buried: nobody need send them again."""
        stream = arrivals[0].record.stream
        good: list[Record] = [one.record for one in arrivals if not one.reason]
        new = 0
        try:
            for one in arrivals:
                if one.reason and await self._streams.bury(one.record, one.reason, once=True):
                    log.error("event_buried", extra={"topic": one.record.topic, "reason": one.reason})
            if good:
                new = await self._streams.append(good)
        except SpoolFull as error:
            self._refuse(stream, error.detail)
            return []
        except StreamsUnavailable as error:  # no stream is full: the report says what is away
            if not self._unavailable:
                log.error("events_not_stored", extra={"stream": stream, "reason": str(error)})
            self._unavailable = True
            return []
        if good:
            self._count(stream, good, new)
        if new:  # a repeat and a dead letter need no room, and no Stream Manager
            self._unavailable = False
            if stream in self._full:
                del self._full[stream]
                log.warning("stream_has_room", extra={"stream": stream})
        return arrivals

    def _refuse(self, stream: str, reason: str) -> None:
        self._full = {name: self._full[name] for name in self.full}
        if stream not in self._full:
            log.error("stream_full", extra={"stream": stream, "reason": reason})
        if stream in self._full or len(self._full) < MOST_FULL:
            self._full[stream] = time.monotonic(), reason

    def _count(self, stream: str, records: list[Record], new: int) -> None:
        size = sum(one.size for one in records) * new // len(records)
        before = self.arrived[stream]
        self.arrived[stream] = Arrived(before.events + new, before.bytes + size)

    async def _tell_producers(self, arrivals: list[Arrival]) -> None:
        by_place: dict[Place, list[str]] = defaultdict(list)
        for one in arrivals:
            if one.told_id:
                by_place[one.place].append(one.told_id)
        await asyncio.gather(*(self._tell(place, ids) for place, ids in by_place.items()))

    async def _tell(self, place: Place, event_ids: list[str]) -> None:
        try:
            await self._speaker.publish(
                place.topic("committed"), json.dumps({"event_ids": event_ids}).encode()
            )
        except MqttError as error:  # the producer sends again
            if isinstance(error, Refused) and len(self._untold) < MOST_UNTOLD and place not in self._untold:
                self._untold.add(place)
                log.error(
                    "committed_refused",
                    extra={"station": place.topic("committed")[:LONGEST_TOPIC], "reason": str(error)},
                )
            elif not isinstance(error, Refused):
                log.info("committed_not_told", extra={"reason": str(error)})
        else:
            self._untold.discard(place)
        _UNTOLD.set(len(self._untold))
