# SPDX-License-Identifier: Apache-2.0
"""What the forwarder says of itself: the retained status topic, the metrics, and events for what was dropped."""

import asyncio
import datetime
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import REGISTRY

from linewatch.v1 import event_pb2
from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.intake import Intake
from linewatch_forwarder.metrics import LookMetrics
from linewatch_forwarder.retention import Retentions
from linewatch_forwarder.status import (
    NEWEST_DEAD_LETTERS,
    DeadLettersView,
    Look,
    StreamView,
    UplinkView,
    payload,
)
from linewatch_forwarder.streams.port import DurableStreams, StreamsUnavailable
from linewatch_forwarder.uplinks.port import Uplink
from linewatch_runtime.events import DEVICE_LINE, Place, envelope, new_event_id, origin, stream_of
from linewatch_runtime.health import Heartbeat
from linewatch_runtime.lifecycle import wait_until
from linewatch_runtime.mqtt import Connection, MqttError
from linewatch_runtime.records import Record, SpoolFull, StreamState

log = logging.getLogger(__name__)

STOPPED = "stopped"
STATUS_EVERY_S = 1.0
EXPIRE_EVERY_S = 60.0
DEAD_LETTERS_EVERY_S = 5.0

DEAD_LETTERS_COUNTED = 100
"""Dead letters that a look reads, to count them; beyond it says that there are more."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside the two flows and has something to tell.

    Attributes:
        twin: says that another process uses one of our client ids; empty where nothing looks like it.
        certificate_days: left of the uplink's certificate; None where there is none.
        evidence: what the evidence's uploader tells of itself; empty where there is none.
        moving: what is not moved yet of the other kind of streams, and why; empty while nothing is moved.
    """

    twin: Callable[[], str] = str
    certificate_days: Callable[[], float | None] = lambda: None
    evidence: Callable[[], Mapping[str, object]] = dict
    moving: Callable[[], Mapping[str, object]] = dict


def place_of(site: str) -> Place:
    """The forwarder's own place in the topics."""
    return Place(site, DEVICE_LINE, "forwarder")


class Report:
    """Looks at the streams once a second and tells."""

    def __init__(
        self, place: Place, streams: DurableStreams, speaker: Connection, uplink: Uplink,
        intake: Intake, delivery: Delivery, heartbeat: Heartbeat, ready: Callable[[], bool], epoch: int,
        retentions: Retentions, beside: Beside = Beside(),
    ) -> None:  # fmt: skip
        """`ready`: whether events can come in; without it there is no heartbeat."""
        self._place = place
        self._streams = streams
        self._speaker = speaker
        self._uplink = uplink
        self._intake = intake
        self._delivery = delivery
        self._heartbeat = heartbeat
        self._ready = ready
        self._epoch = epoch
        self._retentions = retentions
        self._beside = beside
        self._sequence = itertools.count(1)
        self._unavailable = False
        self._connected = False
        self._since, self._since_monotonic = _now(), time.monotonic()
        self._states: Sequence[StreamState] = ()
        self._dead_letters = DeadLettersView()
        self._next_dead_letters = 0.0
        self._metrics = LookMetrics(ready)
        REGISTRY.register(self._metrics)

    async def run(self, stop: asyncio.Event) -> None:
        """Tells every STATUS_EVERY_S until `stop`, then says that it stopped."""
        next_expiry = 0.0
        while not stop.is_set():
            if time.monotonic() >= next_expiry:
                next_expiry = time.monotonic() + EXPIRE_EVERY_S
                await self._expire()
            await self._tell("")
            if self._ready():
                self._heartbeat.beat()
            await wait_until(stop, STATUS_EVERY_S)
        await self._tell(STOPPED)

    async def _expire(self) -> None:
        try:
            expired = await self._streams.expire()
        except (SpoolFull, StreamsUnavailable) as error:
            log.error("expire_failed", extra={"reason": str(error)})
            return
        if expired:
            log.warning("events_expired", extra={"count": expired})

    async def _tell(self, state: str) -> None:
        look = self._metrics.look = await self._look(state)
        if look.uplink.connected and any(one.state.dropped for one in look.streams):
            await self._report_drops()
        try:
            await self._speaker.publish(self._place.topic("status"), payload(look), retain=True)
            self._speaker.has_said_last_word = state == STOPPED
        except MqttError as error:
            log.debug("status_not_told", extra={"reason": str(error)})

    async def _look(self, state: str) -> Look:
        unavailable = self._streams.trouble
        try:
            self._states = await self._streams.streams()
            await self._look_at_dead_letters()
        except StreamsUnavailable as error:
            unavailable = str(error)
            if not self._unavailable:  # once an outage; the status tells all along
                log.error("streams_unavailable", extra={"reason": unavailable})
            self._unavailable = True
        else:
            self._unavailable = False
        connected, now = self._uplink.is_connected, time.monotonic()
        if connected != self._connected:
            self._connected, self._since, self._since_monotonic = connected, _now(), now
        is_stopped = not connected or bool(self._delivery.stopped)
        self._retentions.look(now, self._states, self._intake.arrived, is_stopped=is_stopped)
        return Look(
            state=state or self._state(connected),
            at=_now(),
            uplink=UplinkView(
                connected, self._since, now - self._since_monotonic,
                self._uplink.trouble or self._delivery.trouble, self._beside.certificate_days(),
                self._delivery.handed_over, self._uplink.resend_window_s,
            ),
            streams=[self._view(one) for one in self._states],
            drain=self._retentions.drain,
            dead_letters=self._dead_letters,
            unavailable=unavailable,
            twin=self._beside.twin(),
            evidence=self._beside.evidence(),
            moving=self._beside.moving(),
        )  # fmt: skip

    def _view(self, state: StreamState) -> StreamView:
        trouble = self._delivery.troubled(state.name)
        return StreamView(
            state,
            self._retentions.of(state),
            full=self._intake.full.get(state.name, ""),
            trouble=trouble,
            is_refused=bool(trouble or self._delivery.stopped),
        )

    async def _look_at_dead_letters(self) -> None:
        """Now and then: a person may replay them from another process, which no count here tells."""
        if time.monotonic() < self._next_dead_letters:
            return
        self._next_dead_letters = time.monotonic() + DEAD_LETTERS_EVERY_S
        found = await self._streams.dead_letters(DEAD_LETTERS_COUNTED + 1)
        self._dead_letters = DeadLettersView(
            min(len(found), DEAD_LETTERS_COUNTED),
            len(found) > DEAD_LETTERS_COUNTED,
            tuple(found[:NEWEST_DEAD_LETTERS]),
        )

    def _state(self, connected: bool) -> str:
        if self._intake.full:
            return "full"
        return "online" if connected and not self._delivery.stopped else "offline-uplink"

    async def _report_drops(self) -> None:
        """Tells the cloud of drops, once the cloud can be told."""
        try:
            if await self._streams.take_unreported_drops(self.dropped_event):
                self._delivery.wake()
        except (SpoolFull, StreamsUnavailable) as error:
            log.error("drops_not_reported", extra={"reason": str(error)})  # next second again

    def dropped_event(self, stream: str, reason: str, count: int) -> Record:
        """The event that tells the cloud of a loss."""
        # Several streams may tell at once, each in its own thread.
        sequence, event_id = next(self._sequence), new_event_id()
        data = event_pb2.EventsDropped(
            origin=origin(self._place, self._epoch, sequence), stream=stream, count=count, reason=reason
        )
        log.warning("events_dropped", extra={"stream": stream, "reason": reason, "count": count})
        event = envelope(event_id, "EventsDropped", self._place, data)
        return Record(event_id, stream_of(DEVICE_LINE), self._place.topic("inspection"), event, alarm=True)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
