# SPDX-License-Identifier: Apache-2.0
"""Facts about the engine on their way to the device's broker, through this service's own spool; and its status."""

import asyncio
import datetime
import itertools
import json
import logging
import sqlite3
from collections.abc import Callable

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_inference.open_inference import SERVICE_VERSION
from linewatch_inference.repository import IndexEntry
from linewatch_inference.verdict import Reference
from linewatch_runtime.events import DEVICE_LINE, Place, envelope, new_event_id, origin, stream_of
from linewatch_runtime.mqtt import Connection, MqttError
from linewatch_runtime.spool import Record, SpoolFull, SpoolWorker

log = logging.getLogger(__name__)

STATION = "inference"
STOPPED = "stopped"
STATUS_EVERY_S = 1.0
TELL_AGAIN_S = 30.0
STORE_TIMEOUT_S = 10.0
MOST_ON_DISK = 50
"""Versions named in the status of those that lie on the device and serve nothing; more are counted."""
MAX_MESSAGE = 1000
"""Characters of an error's words; an event is at most 5 KB."""


def place_of(site: str) -> Place:
    """The engine's own place in the topics."""
    return Place(site, DEVICE_LINE, STATION)


class LoggedEvents:
    """Where there is no broker: the log alone."""

    def publish(self, event: str, model: Reference | None = None, message: str = "") -> None:
        """Logs the event."""
        log.info(
            "engine_event", extra={"kind": event, "model": model.name if model else None, "detail": message}
        )


class SpooledEvents:
    """Puts each event on disk before `publish` returns. Call it from threads, never from the event loop."""

    def __init__(self, worker: SpoolWorker, place: Place, epoch: int, wake: Callable[[], None]) -> None:
        self._worker = worker
        self._place = place
        self._epoch = epoch
        self._wake = wake
        self._sequence = itertools.count(1)
        self._loop = asyncio.get_running_loop()

    def publish(self, event: str, model: Reference | None = None, message: str = "") -> None:
        """Stores the event; a full or broken disk is logged, and judging goes on."""
        log.info(
            "engine_event", extra={"kind": event, "model": model.name if model else None, "detail": message}
        )
        stored = asyncio.run_coroutine_threadsafe(self._store(event, model, message), self._loop)
        try:
            stored.result(STORE_TIMEOUT_S)
        except (SpoolFull, sqlite3.Error, TimeoutError) as error:
            log.error(
                "engine_event_lost", extra={"kind": event, "reason": str(error) or "the disk is too slow"}
            )

    async def _store(self, event: str, model: Reference | None, message: str) -> None:
        data = event_pb2.Engine(
            origin=origin(self._place, self._epoch, next(self._sequence)), service_version=SERVICE_VERSION
        )
        if model:
            data.model.CopyFrom(_told(model))
        if message:
            data.message = message[:MAX_MESSAGE]
        event_id = new_event_id()
        payload = envelope(event_id, event, self._place, data)
        record = Record(event_id, stream_of(DEVICE_LINE), self._place.topic("engine"), payload, alarm=True)
        await self._worker.run(self._worker.spool.append, [record])
        self._wake()


class Status:
    """Keeps the retained status topic true."""

    def __init__(self, connection: Connection, place: Place, index: Callable[[], list[IndexEntry]]) -> None:
        self._connection = connection
        self._topic = place.topic("status")
        self._index = index
        self._told = ""
        self._told_at = 0.0
        connection.on_connected.append(self._forget)

    def _forget(self) -> None:
        """A new session: the broker may have told our will since, however short the break was."""
        self._told = ""

    async def run(self, state: Callable[[], str]) -> None:
        """Tells every change, after each reconnect, and every TELL_AGAIN_S; until it is cancelled."""
        while True:
            await self.tell(state())
            await asyncio.sleep(STATUS_EVERY_S)

    async def tell(self, state: str) -> None:
        """Publishes the status when it is news."""
        content = content_of(state, self._index())
        told = json.dumps(content)
        now = asyncio.get_running_loop().time()
        if not self._connection.connected.is_set():
            return
        if told == self._told and now - self._told_at < TELL_AGAIN_S:
            return
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        payload = json.dumps({"at": at, **content}).encode()
        try:
            await self._connection.publish(self._topic, payload, retain=True)
        except MqttError as error:
            log.debug("status_not_told", extra={"reason": str(error)})
            return
        self._told, self._told_at = told, now
        self._connection.has_said_last_word = state == STOPPED


def content_of(state: str, index: list[IndexEntry]) -> dict[str, object]:
    """What the status tells of the models, but for when."""
    resting = [entry for entry in index if _rests(entry)]
    return {
        "state": state,
        "models": [_described(entry) for entry in index if not _rests(entry)],
        # Of their own: what reads `models` counts what serves, or was to.
        "on_disk": [{"name": one.name, "version": one.version} for one in resting[:MOST_ON_DISK]],
        "on_disk_more": max(0, len(resting) - MOST_ON_DISK),
    }


def _rests(entry: IndexEntry) -> bool:
    """Whether it lies on the device and nothing more: the version before, or one that nobody asked for yet."""
    return entry.state == "UNAVAILABLE" and entry.reason == "not loaded"


def _described(entry: IndexEntry) -> dict[str, object]:
    told: dict[str, object] = {"name": entry.name, "version": entry.version, "state": entry.state}
    if entry.model:
        reference, thresholds = entry.model.reference, entry.model.description.thresholds
        told |= {
            "digest": reference.digest,
            "variant": reference.variant,
            "provider": reference.execution_provider,
            "thresholds": {"review": thresholds.review, "ng": thresholds.ng},
        }
    return told | ({"reason": entry.reason[:MAX_MESSAGE]} if entry.reason else {})


def _told(model: Reference) -> verdict_pb2.ModelReference:
    told = verdict_pb2.ModelReference(
        name=model.name, version=model.version, digest=model.digest, variant=model.variant,
        execution_provider=model.execution_provider,
    )  # fmt: skip
    if model.training_data_digest:
        told.training_data_digest = model.training_data_digest
    return told
