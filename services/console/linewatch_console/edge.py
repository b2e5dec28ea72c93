# SPDX-License-Identifier: Apache-2.0
"""THE FLOW: what the device's broker says, onto the wall, and from there to every open page five times a second."""

import asyncio
import datetime
import logging
import re
from typing import Any

from prometheus_client import Counter, Gauge

from linewatch_console.device_facts import DeviceFacts
from linewatch_console.hub import Hub
from linewatch_console.inspection import NotAnEvent, read_event
from linewatch_console.statuses import CaptureStatus, ForwarderStatus, InferenceStatus, read_status
from linewatch_console.wall import Wall
from linewatch_runtime.events import DEVICE_LINE
from linewatch_runtime.lifecycle import in_daemon_thread
from linewatch_runtime.mqtt import Connection, Message

log = logging.getLogger(__name__)

TELL_EVERY_S = 0.2
LOOK_EVERY_S = 10.0
_ERRNO = re.compile(r"^\[Errno \d+\] ")
_NAME = re.compile(r"[a-z0-9_-]{1,64}")

received = Counter("linewatch_console_messages", "Messages from the broker", ["kind"])
refused = Counter(
    "linewatch_console_messages_refused", "Messages that are not what their topic says", ["kind"]
)
connected = Gauge("linewatch_console_broker_connected", "1 while the broker is reached")


def topics(site: str) -> list[str]:
    """What the console listens to."""
    return [f"linewatch/v1/{site}/+/+/{kind}" for kind in ("inspection", "status", "engine")]


class Edge:
    """Keeps the wall, the forwarder's and the inference service's state, and the state of the way to the broker."""

    def __init__(self, connection: Connection, wall: Wall, hub: Hub, facts: DeviceFacts) -> None:
        self.connection = connection
        self._wall = wall
        self._hub = hub
        self._facts = facts
        self._device = facts.look()
        self._told: dict[str, Any] = {}
        self._is_up = False
        self._since = utc_now()
        self.forwarder: ForwarderStatus | None = None
        self.inference: InferenceStatus | None = None

    async def run(self) -> None:
        """Takes messages until cancelled. One that can't be read is counted and left."""
        while True:
            self.take(await self.connection.messages.get())

    async def tell(self) -> None:
        """Publishes what changed, until cancelled."""
        while True:
            self.flush()
            await asyncio.sleep(TELL_EVERY_S)

    async def look(self) -> None:
        """Looks at this machine, until cancelled. In a thread that a stop does not wait for: a disk may hang."""
        while True:
            await in_daemon_thread(self._look)
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self) -> None:
        self._device = self._facts.look()

    def take(self, message: Message) -> None:
        """Puts one message where it belongs."""
        levels = message.topic.split("/")
        line, station, kind = levels[-3], levels[-2], levels[-1]
        if not (_NAME.fullmatch(line) and _NAME.fullmatch(station)):
            refused.labels(kind).inc()
            return
        received.labels(kind).inc()
        if kind == "inspection":
            self._take_event(line, station, message.payload)
        elif kind == "status":
            self._take_status(line, station, message.payload)

    def flush(self) -> None:
        """Publishes every tile that changed, and each panel whose content changed."""
        for tile in self._wall.take_changes():
            self._hub.publish("tile", tile)
        for kind, content in (
            ("edge", self.link()),
            ("forwarder", self._forwarder()),
            ("inference", self._inference()),
            ("device", self._device),
        ):
            if self._told.get(kind) != content:
                self._told[kind] = content
                self._hub.publish(kind, content)

    def snapshot(self) -> dict[str, Any]:
        """All of it, for a page that has just opened."""
        self.flush()
        return {
            "tiles": self._wall.snapshot(),
            "edge": self.link(),
            "forwarder": self._forwarder(),
            "inference": self._inference(),
            "device": self._device,
        }

    def link(self) -> dict[str, Any]:
        """Whether the broker is reached, since when, and why not."""
        is_up = self.connection.connected.is_set()
        if is_up != self._is_up:
            self._is_up, self._since = is_up, utc_now()
        connected.set(is_up)
        return {"connected": is_up, "since": self._since, "detail": _ERRNO.sub("", self.connection.trouble)}

    def _take_event(self, line: str, station: str, payload: bytes) -> None:
        try:
            event = read_event(payload)
        except NotAnEvent as error:
            refused.labels("inspection").inc()
            log.warning("event_refused", extra={"line": line, "station": station, "reason": str(error)[:300]})
            return
        if line != DEVICE_LINE:  # the forwarder counts its drops in its own status
            self._wall.take(line, station, event)

    def _take_status(self, line: str, station: str, payload: bytes) -> None:
        status: CaptureStatus | ForwarderStatus | InferenceStatus | None
        if line != DEVICE_LINE:
            status = read_status(CaptureStatus, payload)
            if status is not None:
                self._wall.take_status(line, station, status)
        elif station == "forwarder":
            status = self.forwarder = read_status(ForwarderStatus, payload) or self.forwarder
        elif station == "inference":
            status = self.inference = read_status(InferenceStatus, payload) or self.inference
        else:
            return
        if status is None:
            refused.labels("status").inc()

    def _forwarder(self) -> dict[str, Any]:
        return (
            self.forwarder.model_dump()
            if self.forwarder
            else {"state": "unknown", "uplink": None, "streams": []}
        )

    def _inference(self) -> dict[str, Any]:
        return self.inference.model_dump() if self.inference else {"state": "unknown", "models": []}


def utc_now() -> str:
    """The time as RFC 3339, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
