# SPDX-License-Identifier: Apache-2.0
"""The forwarder for tests: its flows inside the test, against a fake cloud, and the real process."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from brokers import STATION, Broker, Child, Cloud, connected, until

from linewatch_forwarder.intake import GROUP, Intake
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.uplinks.port import Outcome
from linewatch_runtime.events import Place
from linewatch_runtime.mqtt import Connection, Subscriptions
from linewatch_runtime.spool import Record, Spool, SpoolWorker, StreamLimit, StreamState

ROOM = 256 * 1024
"""Bytes of a stream of the spool in tests, about 250 events."""


@dataclass(slots=True)
class FakeUplink:
    """A cloud of ten lines: keeps what it accepts, refuses and fails as told.

    With a resend window it only takes events over: `accepted` is then what it was given, and it may lose all of it.
    """

    accepted: list[str] = field(default_factory=list)
    never: set[str] = field(default_factory=set)
    trouble: str = ""
    batches: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    is_connected: bool = True
    session: int = 0
    resend_window_s: float = 0.0
    held: frozenset[str] = frozenset()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def ready(self) -> None:
        await self.gate.wait()

    async def send(self, records: Sequence[Record]) -> Outcome:
        self.batches += 1
        outcome = Outcome(trouble=self.trouble, publishes=len(records))
        taken = outcome.handed_over if self.resend_window_s else outcome.accepted
        for record in records:
            outcome.sent_bytes += len(record.payload)
            if record.event_id in self.never:
                outcome.refused.append((record, "0x99 payload format invalid"))
            elif not self.trouble:
                taken.append(record.event_id)
        self.accepted += taken
        return outcome


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[SpoolWorker]:
    made = SpoolWorker(lambda: Spool(tmp_path / "forwarder.db", StreamLimit(ROOM)))
    yield made
    made.close()


def state(worker: SpoolWorker, stream: str = "predictions-line-1") -> StreamState | None:
    """A stream's state now."""
    states = worker._thread.submit(worker.spool.streams).result()
    return next((one for one in states if one.name == stream), None)


@dataclass(slots=True)
class TakingIn:
    """An intake over a broker, and a producer's connection that hears `committed`."""

    intake: Intake
    listener: Connection
    producer: Connection
    committed: list[str] = field(default_factory=list)

    async def hear(self) -> None:
        while True:
            message = await self.producer.messages.get()
            self.committed += json.loads(message.payload)["event_ids"]

    async def send(self, event: tuple[str, bytes], place: Place = STATION) -> str:
        await self.producer.publish(place.topic("inspection"), event[1])
        return event[0]


@asynccontextmanager
async def taking_in(broker: Broker, worker: SpoolWorker) -> AsyncIterator[TakingIn]:
    """Runs inside the block."""
    kept = Subscriptions(["linewatch/v1/+/+/+/inspection"], manual_ack=True, session_expiry_s=3600, receive_maximum=GROUP)  # fmt: skip
    async with (
        connected(broker.endpoint("listener"), kept) as listener,
        connected(broker.endpoint("speaker")) as speaker,
        connected(broker.endpoint("capture"), Subscriptions(["linewatch/v1/+/+/+/committed"])) as producer,
    ):
        taking = TakingIn(
            Intake(listener, speaker, EmbeddedStreams(worker), lambda: None), listener, producer
        )
        tasks = [asyncio.create_task(taking.intake.run()), asyncio.create_task(taking.hear())]
        try:
            yield taking
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


class Forwarder(Child):
    """The real process."""

    def __init__(self, folder: Path, mqtt_port: int, **environment: str) -> None:
        self.state_dir = folder / "state"
        super().__init__(
            [sys.executable, "-m", "linewatch_forwarder"],
            folder / "forwarder.log",
            {
                "FORWARDER_STATE_DIR": str(self.state_dir),
                "FORWARDER_MQTT_PORT": str(mqtt_port),
                **environment,
            },
        )

    def events(self, name: str) -> list[dict[str, object]]:
        """Log lines of one event."""
        whole = self.told().rpartition("\n")[0]  # the last line may be half written
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]


@contextmanager
def held_writes(forwarder: Forwarder) -> Iterator[sqlite3.Connection]:
    """The forwarder's spool, locked against its writes."""
    spool = sqlite3.connect(forwarder.state_dir / "forwarder.db", timeout=60, isolation_level=None)
    spool.execute("BEGIN IMMEDIATE")
    try:
        yield spool
    finally:
        spool.close()


async def told_state(
    listener: object, wanted: str, deadline_s: float = 60,
    *, holds: Callable[[dict[str, Any]], bool] = lambda _told: True,
) -> dict[str, Any]:  # fmt: skip
    """The forwarder's status, once it says `wanted` and what else `holds`."""
    topic = Place("plant-1", "device", "forwarder").topic("status")

    def is_told() -> bool:
        told = listener.last(topic)
        return told.get("state") == wanted and holds(told)

    await until(is_told, f"status {wanted}", deadline_s)
    return listener.last(topic)


@pytest.fixture
def forwarder(mosquitto: Broker, cloud: Cloud, tmp_path: Path) -> Iterator[Forwarder]:
    """The real process between a device's broker and a cloud; not started."""
    made = Forwarder(tmp_path, mosquitto.port, **cloud.settings())
    yield made
    made.kill()
