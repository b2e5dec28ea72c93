# SPDX-License-Identifier: Apache-2.0
"""Follows the device shadow `work-orders` of the forwarder's own thing: the events that open work orders name are pinned.

The cloud writes it (cloud/work_orders/shadow.py). It is asked for at each new session, and told at each change. A cloud
that is away, or that has no such shadow, changes nothing: what was pinned last stays pinned.
"""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

from linewatch_forwarder.evidence import metrics
from linewatch_forwarder.evidence.notes import EvidenceNotes
from linewatch_runtime.mqtt import Connection, MqttError, Subscriptions

log = logging.getLogger(__name__)

SHADOW_NAME = "work-orders"
LARGEST_BYTES = 128 * 1024
"""Of one message: twice the shadow's 8 KB, before and after a change, with a time for each value."""
TRY_AGAIN_S = 5.0

_EVENT_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class NotAShadow(Exception):
    """The message is no shadow document of ours."""


def topics(thing: str) -> Subscriptions:
    """What to subscribe to. A policy that forbids it costs the pins and nothing else."""
    shadow = _shadow(thing)
    return Subscriptions([f"{shadow}/get/accepted", f"{shadow}/update/documents"], optional=True)


class ShadowPins:
    """Keeps the pins as the shadow has them."""

    def __init__(self, connection: Connection, thing: str, notes: EvidenceNotes) -> None:
        """`connection`: one that subscribes to `topics(thing)`."""
        self._connection = connection
        self._shadow = _shadow(thing)
        self._notes = notes
        self._ask = asyncio.Event()
        self._version = 0
        self._session: object = None
        """In which the version was told: the next one may lead to another account, as after a move."""
        connection.on_connected.append(self._ask.set)

    async def run(self) -> None:
        """Follows until it is cancelled."""
        metrics.PINNED.set(len(self._notes.pins))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._asking(), name="ask for pins")
            tasks.create_task(self._listening(), name="hear of pins")

    async def _asking(self) -> None:
        while True:
            await self._ask.wait()
            await self._connection.connected.wait()
            self._ask.clear()
            if not self._connection.is_subscribed:
                continue  # IoT Core may end a session that publishes what its policy does not allow
            try:
                await self._connection.publish(f"{self._shadow}/get", b"")
            except MqttError as error:
                log.info("pins_not_asked_for", extra={"reason": str(error)})
                await asyncio.sleep(TRY_AGAIN_S)
                self._ask.set()

    async def _listening(self) -> None:
        while True:
            message = await self._connection.messages.get()
            if not message.topic.startswith(self._shadow):
                continue
            try:
                version, event_ids = read(message.payload)
            except NotAShadow as error:
                log.error("shadow_not_understood", extra={"topic": message.topic, "reason": str(error)})
                continue
            if message.session is self._session and version < self._version:
                continue  # overtaken
            try:
                changed = await asyncio.to_thread(self._notes.pin, event_ids)
            except OSError as error:
                # The next change, or the next session, tries again; what is pinned on disk stays.
                log.error("pins_not_written", extra={"reason": str(error)})
                continue
            self._session, self._version = message.session, version
            if changed:
                log.info("pins_changed", extra={"count": len(self._notes.pins)})
            metrics.PINNED.set(len(self._notes.pins))


def read(payload: bytes) -> tuple[int, set[str]]:
    """Version and pinned events of a shadow document, or of a message about its change. Raises NotAShadow."""
    if len(payload) > LARGEST_BYTES:
        raise NotAShadow("larger than any shadow")
    try:
        document = json.loads(payload)
        document = document.get("current", document)
        version = int(document["version"])
        return version, set(_event_ids(document["state"].get("desired") or {}))
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotAShadow(f"{type(error).__name__}: {error}") from error


def _event_ids(desired: Any) -> Iterator[str]:
    """Of each asset and failure mode the events of the open order; an entry of an older cloud names none."""
    for of_asset in desired.values():
        for order in (of_asset or {}).values():
            for event_id in (order or {}).get("event_ids", ()):
                if isinstance(event_id, str) and _EVENT_ID.fullmatch(event_id):
                    yield event_id


def _shadow(thing: str) -> str:
    return f"$aws/things/{thing}/shadow/name/{SHADOW_NAME}"
