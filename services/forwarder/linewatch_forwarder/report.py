# SPDX-License-Identifier: Apache-2.0
"""What the forwarder says of itself: the retained status topic, the metrics, and events for what was dropped."""

import asyncio
import datetime
import json
import logging
from collections.abc import Callable, Iterable

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from linewatch.v1 import event_pb2
from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.intake import Intake
from linewatch_forwarder.streams.port import DurableStreams, StreamsUnavailable
from linewatch_forwarder.uplinks.port import Uplink
from linewatch_runtime.events import DEVICE_LINE, Place, envelope, new_event_id, origin, stream_of
from linewatch_runtime.health import Heartbeat
from linewatch_runtime.lifecycle import wait_until
from linewatch_runtime.mqtt import Connection, MqttError
from linewatch_runtime.records import Record, SpoolFull, StreamState

log = logging.getLogger(__name__)

STATUS_EVERY_S = 1.0
EXPIRE_EVERY_S = 60.0

DROP_REASONS = ("expired", "overwritten", "shed_good")
"""Why the spool drops events (linewatch_runtime.spool)."""


def place_of(site: str) -> Place:
    """The forwarder's own place in the topics."""
    return Place(site, DEVICE_LINE, "forwarder")


class Report:
    """Looks at the streams once a second and tells."""

    def __init__(
        self, place: Place, streams: DurableStreams, speaker: Connection, uplink: Uplink,
        intake: Intake, delivery: Delivery, heartbeat: Heartbeat, ready: Callable[[], bool], epoch: int,
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
        self._sequence = 0
        self._connected = False
        self._since = _now()
        self._metrics = _StreamMetrics(speaker, intake, delivery)
        REGISTRY.register(self._metrics)

    async def run(self, stop: asyncio.Event) -> None:
        """Tells every STATUS_EVERY_S until `stop`, then says that it stopped."""
        next_expiry = 0.0
        clock = asyncio.get_running_loop()
        while not stop.is_set():
            if clock.time() >= next_expiry:
                next_expiry = clock.time() + EXPIRE_EVERY_S
                await self._expire()
            await self._look("")
            if self._ready():
                self._heartbeat.beat()
            await wait_until(stop, STATUS_EVERY_S)
        await self._look("stopped")

    async def _expire(self) -> None:
        try:
            expired = await self._streams.expire()
        except (SpoolFull, StreamsUnavailable) as error:
            log.error("expire_failed", extra={"reason": str(error)})
            return
        if expired:
            log.warning("events_expired", extra={"count": expired})

    async def _look(self, state: str) -> None:
        try:
            streams = await self._streams.streams()
        except StreamsUnavailable as error:
            log.error("streams_unavailable", extra={"reason": str(error)})
            streams = self._metrics.streams
        connected = self._uplink.is_connected
        if connected != self._connected:
            self._connected, self._since = connected, _now()
        self._metrics.streams, self._metrics.connected = streams, connected
        if connected and any(one.dropped for one in streams):
            await self._report_drops()
        status = {
            "state": state or self._state(connected),
            "at": _now(),
            "uplink": {
                "connected": connected,
                "since": self._since,
                "detail": self._uplink.trouble or self._delivery.trouble,
            },
            "streams": [
                _told(one, self._intake.full.get(one.name, ""), self._delivery.troubled(one.name))
                for one in streams
            ],
        }
        try:
            await self._speaker.publish(self._place.topic("status"), json.dumps(status).encode(), retain=True)
        except MqttError as error:
            log.debug("status_not_told", extra={"reason": str(error)})

    def _state(self, connected: bool) -> str:
        if self._intake.full:
            return "full"
        return "online" if connected and not self._delivery.stopped else "offline-uplink"

    async def _report_drops(self) -> None:
        """Tells the cloud of drops, once the cloud can be told."""
        try:
            if await self._streams.take_unreported_drops(self._dropped_event):
                self._delivery.wake()
        except (SpoolFull, StreamsUnavailable) as error:
            log.error("drops_not_reported", extra={"reason": str(error)})  # next second again

    def _dropped_event(self, stream: str, reason: str, count: int) -> Record:
        self._sequence += 1
        event_id = new_event_id()
        data = event_pb2.EventsDropped(
            origin=origin(self._place, self._epoch, self._sequence), stream=stream, count=count, reason=reason
        )
        log.warning("events_dropped", extra={"stream": stream, "reason": reason, "count": count})
        payload = envelope(event_id, "EventsDropped", self._place, data)
        return Record(event_id, stream_of(DEVICE_LINE), self._place.topic("inspection"), payload, alarm=True)


class _StreamMetrics(Collector):
    """Prometheus metrics straight from the streams' own counts, so that they survive a restart with it."""

    def __init__(self, speaker: Connection, intake: Intake, delivery: Delivery) -> None:
        self._speaker = speaker
        self._intake = intake
        self._delivery = delivery
        self.streams: list[StreamState] = []
        self.connected = False

    def collect(self) -> Iterable[Metric]:
        """One sample per stream."""
        prefix = "linewatch_forwarder_"
        yield GaugeMetricFamily(
            f"{prefix}uplink_connected", "1 while the cloud is reached", value=float(self.connected)
        )
        yield GaugeMetricFamily(
            f"{prefix}broker_connected",
            "1 while the broker is reached",
            value=float(self._speaker.connected.is_set()),
        )
        gauges = {
            "stream_max_bytes": ("Bytes that the stream may hold", lambda one: one.max_bytes),
            "stream_full": ("1 while the stream takes no events", lambda one: one.name in self._intake.full),
            "stream_refused": (
                "1 while the cloud takes none of the stream's events",
                lambda one: bool(self._delivery.stopped or self._delivery.troubled(one.name)),
            ),
            "backlog_events": ("Events waiting for the cloud", lambda one: one.events),
            "backlog_bytes": ("Bytes waiting for the cloud", lambda one: one.bytes),
            "oldest_age_seconds": ("Age of the oldest waiting event", lambda one: one.oldest_age_s),
        }
        for name, (meaning, value) in gauges.items():
            gauge = GaugeMetricFamily(prefix + name, meaning, labels=["stream"])
            for one in self.streams:
                gauge.add_metric([one.name], value(one))  # type: ignore[no-untyped-call]
            yield gauge
        counters = {
            "stored": ("Events committed to disk", lambda one: one.stored),
            "delivered": ("Events accepted by the cloud", lambda one: one.settled),
            "buried": ("Events that can never be delivered", lambda one: one.buried),
        }
        for name, (meaning, value) in counters.items():
            counter = CounterMetricFamily(prefix + name, meaning, labels=["stream"])
            for one in self.streams:
                counter.add_metric([one.name], value(one))  # type: ignore[no-untyped-call]
            yield counter
        dropped = CounterMetricFamily(
            f"{prefix}dropped", "Events dropped by policy", labels=["stream", "reason"]
        )
        for one in self.streams:
            # Zeros too: a count that appears only with its first drop can't be seen to rise.
            for reason, count in {**dict.fromkeys(DROP_REASONS, 0), **one.dropped}.items():
                dropped.add_metric([one.name, reason], count)
        yield dropped


def _told(stream: StreamState, full: str, trouble: str) -> dict[str, object]:
    return {
        "name": stream.name,
        "events": stream.events,
        "bytes": stream.bytes,
        "max_bytes": stream.max_bytes,
        "oldest_age_s": round(stream.oldest_age_s, 1),
        "stored": stream.stored,
        "delivered": stream.settled,
        "buried": stream.buried,
        "dropped": sum(stream.dropped.values()),
        "full": full,
        "trouble": trouble,
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
