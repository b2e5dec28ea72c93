# SPDX-License-Identifier: Apache-2.0
"""R1: producer, broker and forwarder die at fixed points where a guarantee sits, and at random ones.

The cloud counts and is never killed. Beside it stands the control that must fail: at one fixed crash point a producer
that trusts the broker's acknowledgement loses events, and ours loses none. Without it a green kill test could be blind.
The random kills of everything at once, with mosquitto, are in test_plant_kills.py; here the demo's embedded broker dies.

Guards: runtime/linewatch_runtime/{spool,mqtt,publisher}.py, services/forwarder.
"""

import asyncio
import contextlib
import json
import random
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from brokers import (
    AT_THE_CLOUD,
    EMBEDDED,
    STATION,
    Broker,
    Child,
    Cloud,
    Listener,
    connected,
    inspection,
    listening,
    running,
    until,
)
from faults.gate import DOWN, PUBACK, UP, gate_before
from faults.producer import ids_made
from faults.sink import Sink, sinking
from forwarding import Forwarder, held_writes

from linewatch_forwarder.delivery import LOOK_AHEAD
from linewatch_runtime.mqtt import Connection, Subscriptions
from linewatch_runtime.publisher import Publisher
from linewatch_runtime.spool import Record, Spool, SpoolWorker

pytestmark = [pytest.mark.faults, pytest.mark.anyio]

COUNT = 1500
RATE = 150.0
SEED = 20261121
EVENTS = "linewatch/v1/+/+/+/inspection"
STREAM = "predictions-line-1"

PRODUCER = Path(__file__).with_name("producer.py")
PATIENT = Path(__file__).with_name("patient_forwarder.py")
ACKNOWLEDGES_FIRST = Path(__file__).with_name("acknowledge_first.py")


def producer(folder: Path, port: int, count: int, enough: Path) -> Child:
    """The producing process; its spool is folder/capture.db. It goes on until `enough` is there."""
    arguments = {
        "--port": port,
        "--spool": folder / "capture.db",
        "--count": count,
        "--rate": RATE,
        "--enough": enough,
    }
    command = [sys.executable, PRODUCER, *(part for pair in arguments.items() for part in pair)]
    return Child(command, folder / "producer.log")


TOGETHER = 2
"""Kills that may fall together; before the next ones everything has worked again."""


async def kill_each(victims: list[Child], kills: int, chance: random.Random, sink: Sink) -> None:
    """Kills every victim so often, in random order at random moments while events flow, and starts it again at once."""
    order = [victim for victim in victims for _ in range(kills)]
    chance.shuffle(order)
    for begin in range(0, len(order), TOGETHER):
        arrived = len(sink.first)
        await until(lambda: len(sink.first) > arrived, "events flow", 120)  # noqa: B023 - in this round
        for victim in order[begin : begin + TOGETHER]:
            await asyncio.sleep(chance.uniform(0.05, 0.8))  # where it dies is the point of the test
            assert victim.runs, victim.told()[-2000:]
            victim.kill()
            await asyncio.to_thread(victim.start)


def count_of(spool: Path, name: str, stream: str) -> int:
    """A count from a spool's file, read beside the process that owns it."""
    with contextlib.closing(sqlite3.connect(f"file:{spool}?mode=ro", uri=True, timeout=10)) as db:
        row = db.execute("SELECT value FROM counts WHERE stream = ? AND name = ?", (stream, name)).fetchone()
    return row[0] if row else 0


@pytest.mark.timeout(1800)
async def test_nothing_is_lost_when_every_process_is_killed_again_and_again(
    cloud: Cloud, tmp_path: Path, tally, long: bool
) -> None:
    kills, count = (50, 12_000) if long else (6, COUNT)
    broker = Broker(EMBEDDED, tmp_path / "broker")
    forwarder = Forwarder(tmp_path, broker.port, **cloud.settings())
    enough = tmp_path / "enough"
    making = producer(tmp_path, broker.port, count, enough)
    victims: list[Child] = [broker, forwarder, making]
    try:
        async with sinking(cloud.endpoint("rule"), AT_THE_CLOUD) as sink:
            for victim in victims:
                victim.start()
            await until(lambda: sink.first, "the first event arrives")

            await kill_each(victims, kills, random.Random(SEED), sink)

            before_the_rest = len(sink.first)
            enough.touch()
            await until(lambda: ids_made(making.told()), "the last event is made", 180)
            expected = ids_made(making.told())
            await until(lambda: not sink.lacks(expected), "every event arrives", 300)
            await until(
                lambda: count_of(forwarder.state_dir / "forwarder.db", "settled", STREAM) == len(expected),
                "the forwarder has let every event go",
            )  # fmt: skip
    finally:
        for victim in victims:
            victim.kill()
    stored = count_of(forwarder.state_dir / "forwarder.db", "stored", STREAM)
    made = len(expected)
    tally.accepted, tally.lost, tally.doubled = made, len(sink.lacks(expected)), stored - made
    tally.note = f"{len(victims) * kills} kills, {before_the_rest} events arrived meanwhile; {sink.repeats} repeats at the cloud"
    assert sink.first.keys() == set(expected)
    assert before_the_rest > len(victims) * kills / TOGETHER, "the kills fell while nothing flowed"
    assert count_of(tmp_path / "capture.db", "made", "") == made >= count
    assert stored == made
    assert sink.repeats <= kills * LOOK_AHEAD, (
        "only a killed forwarder sends again, at most what one turn chooses from"
    )
    assert not [victim.told() for victim in victims if "Traceback" in victim.told()]


# --- where a guarantee sits -------------------------------------------------------------------------------------------


async def _lost_when_the_forwarder_dies_before_its_commit(
    broker: Broker, cloud: Cloud, folder: Path, *, first: bool
) -> tuple[set[str], int]:
    """30 events are in its hands and its disk can't be written; it dies. The producer publishes each once. `first`: the
    control, which acknowledges first. Returns the ids that never arrive, and how many rows were stored twice."""
    events = [inspection(number) for number in range(1, 31)]
    names = {name for name, _ in events}
    topic = STATION.topic("inspection")
    committed = Subscriptions([STATION.topic("committed")])
    async with (
        gate_before(broker.port) as gate,
        sinking(cloud.endpoint("rule"), AT_THE_CLOUD) as sink,
        connected(broker.endpoint("producer"), committed) as producer,
    ):
        forwarder = Forwarder(folder, gate.port, **cloud.settings())
        forwarder.command = [sys.executable, str(ACKNOWLEDGES_FIRST if first else PATIENT)]
        told: set[str] = set()

        def tells() -> tuple[bool, bool]:
            """Whether it has acknowledged anything to the broker, and whether to the producer."""
            while not producer.messages.empty():
                told.update(json.loads(producer.messages.get_nowait().payload)["event_ids"])
            return gate.counted[UP, PUBACK] > 0, bool(told)

        with running(forwarder):
            await until(lambda: len(forwarder.events("mqtt_connected")) >= 3, "it is connected")
            gate.count(DOWN, topic.encode())
            gate.count(UP, PUBACK)
            with held_writes(forwarder):
                for _, payload in events:
                    await producer.publish(topic, payload)
                await until(lambda: gate.counted[DOWN, topic.encode()] >= 30, "it has them all in hand")
                if first:
                    await until(lambda: all(tells()), "the control has told of its first group")
                else:
                    with pytest.raises(AssertionError, match="not within"):
                        await until(lambda: any(tells()), "it tells anybody", 1)
                forwarder.kill()
            forwarder.start()
            marker, payload = inspection(99)
            await producer.publish(topic, payload)
            await until(lambda: marker in sink.first, "an event after the restart arrives")
            if not first:
                await until(lambda: not sink.lacks(names), "every event arrives")
        stored = count_of(forwarder.state_dir / "forwarder.db", "stored", STREAM)
        return sink.lacks(names), stored - len(sink.first)


async def test_forwarder_that_dies_before_its_commit_has_told_nobody_and_the_control_loses_events(
    mosquitto: Broker, cloud: Cloud, tmp_path: Path, tally
) -> None:
    ours, control = tmp_path / "ours", tmp_path / "control"
    ours.mkdir()
    control.mkdir()

    lost, doubled = await _lost_when_the_forwarder_dies_before_its_commit(mosquitto, cloud, ours, first=False)
    lost_by_the_control, _ = await _lost_when_the_forwarder_dies_before_its_commit(
        mosquitto, cloud, control, first=True
    )

    tally.accepted, tally.lost, tally.doubled = 30, len(lost), doubled
    tally.control_lost = len(lost_by_the_control)
    tally.note = "no PUBACK and no `committed` while the disk can't be written; the control tells first"
    assert (lost, doubled) == (set(), 0)
    assert lost_by_the_control, "the control must lose events, or the tests beside it see nothing"


async def test_forwarder_that_dies_between_its_commit_and_telling_anybody_stores_each_event_once(
    mosquitto: Broker, cloud: Cloud, tmp_path: Path, tally
) -> None:
    events = [inspection(number) for number in range(1, 31)]
    async with gate_before(mosquitto.port) as gate, sinking(cloud.endpoint("rule"), AT_THE_CLOUD) as sink:
        forwarder = Forwarder(tmp_path, gate.port, **cloud.settings())
        spool = forwarder.state_dir / "forwarder.db"
        with running(forwarder):
            await until(lambda: len(forwarder.events("mqtt_connected")) >= 3, "it is connected")
            gate.hold(UP)
            async with producing(mosquitto, tmp_path, trusting=False) as capture:
                await capture.run(capture.spool.append, _records(events))
                await until(lambda: count_of(spool, "stored", STREAM) == 30, "all are on its disk")

                forwarder.kill()
                assert len(await capture.run(capture.spool.oldest, 100)) == 30, (
                    "the producer was told nothing"
                )

                gate.open()
                forwarder.start()
                await until(
                    lambda: not capture._thread.submit(capture.spool.oldest, 1).result(), "it is told"
                )
            await until(lambda: not sink.lacks([name for name, _ in events]), "every event arrives")
        stored = count_of(spool, "stored", STREAM)
    tally.accepted, tally.lost, tally.doubled = 30, 0, stored - 30
    tally.note = f"{sink.repeats} repeats at the cloud"
    assert stored == 30
    assert sink.repeats <= LOOK_AHEAD


async def test_forwarder_that_dies_before_it_hears_the_cloud_sends_again_and_loses_nothing(
    mosquitto: Broker, cloud: Cloud, tmp_path: Path, tally
) -> None:
    events = [inspection(number) for number in range(1, 31)]
    async with gate_before(cloud.port) as gate, sinking(cloud.endpoint("rule"), AT_THE_CLOUD) as sink:
        forwarder = Forwarder(tmp_path, mosquitto.port, **cloud.settings(gate.port))
        spool = forwarder.state_dir / "forwarder.db"
        with running(forwarder):
            await until(lambda: len(forwarder.events("mqtt_connected")) >= 3, "it is connected")
            gate.hold(DOWN)
            async with producing(mosquitto, tmp_path, trusting=False) as capture:
                await capture.run(capture.spool.append, _records(events))
                await until(lambda: sink.first, "the cloud has the first ones")
                accepted = len(sink.first)
                assert count_of(spool, "settled", STREAM) == 0, "and the forwarder does not know"

                forwarder.kill()
                gate.open()
                forwarder.start()
                await until(lambda: not sink.lacks([name for name, _ in events]), "every event arrives")
            await until(lambda: count_of(spool, "settled", STREAM) == 30, "it has let them go")
            await until(lambda: sink.repeats, f"what the cloud had, {accepted} events and more, comes again")
    tally.accepted, tally.lost = 30, len(sink.lacks([name for name, _ in events]))
    tally.note = f"{sink.repeats} repeats at the cloud"
    assert tally.lost == 0
    assert sink.repeats <= LOOK_AHEAD


def _records(events: Sequence[tuple[str, bytes]]) -> list[Record]:
    return [Record(name, STREAM, STATION.topic("inspection"), payload) for name, payload in events]


# --- the control ------------------------------------------------------------------------------------------------------


async def _trust_the_broker(worker: SpoolWorker, connection: Connection) -> None:
    """What a producer without the application's acknowledgement does: delete on PUBACK."""
    while True:
        for stored in await worker.run(worker.spool.oldest, 10):
            await connection.publish(stored.record.topic, stored.record.payload)
            await worker.run(worker.spool.settle, [stored.record.event_id])
        await asyncio.sleep(0.01)


@asynccontextmanager
async def producing(broker: Broker, folder: Path, *, trusting: bool) -> AsyncIterator[SpoolWorker]:
    worker = SpoolWorker(lambda: Spool(folder / "capture.db"))
    try:
        async with connected(
            broker.endpoint("producer"), Subscriptions([STATION.topic("committed")])
        ) as connection:
            flow = _trust_the_broker(worker, connection) if trusting else Publisher(worker, connection).run()
            task = asyncio.create_task(flow, name="producer")
            try:
                yield worker
            finally:
                task.cancel()
                await asyncio.wait([task])
    finally:
        worker.close()


async def _lost_when_the_broker_dies_after_its_acknowledgements(
    broker: Broker, cloud: Cloud, folder: Path, *, trusting: bool
) -> set[str]:
    """The forwarder is away, the broker acknowledges 30 events and dies, both come back. Returns the ids that don't."""
    events = [inspection(number) for number in range(30)]
    forwarder = Forwarder(folder, broker.port, **cloud.settings())
    with running(forwarder):
        async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
            await until(
                lambda: len(forwarder.events("mqtt_connected")) >= 3, "its session is with the broker"
            )
            forwarder.kill()
            async with (
                listening(broker.endpoint("witness"), EVENTS) as witness,
                producing(broker, folder, trusting=trusting) as worker,
            ):
                await worker.run(worker.spool.append, _records(events))
                await until(lambda: len(set(witness.ids)) == 30, "the broker had them all")
                if trusting:
                    await until(
                        lambda: not worker._thread.submit(worker.spool.oldest, 1).result(), "all deleted"
                    )
                broker.kill()
            broker.start()
            forwarder.start()
            async with producing(broker, folder, trusting=False) as worker:
                marker, payload = inspection(99)
                await worker.run(
                    worker.spool.append, [Record(marker, "line-1", STATION.topic("inspection"), payload)]
                )
                await _arrives(rule, marker)
                if not trusting:
                    await until(lambda: len(set(rule.ids)) == 31, "every event arrives")
            return {name for name, _ in events} - set(rule.ids)


async def _arrives(rule: Listener, event_id: str) -> None:
    await until(lambda: event_id in rule.ids, "an event after the restart arrives")


async def test_broker_that_dies_after_its_acknowledgements_costs_us_nothing_and_the_control_everything(
    broker: Broker, cloud: Cloud, tmp_path: Path, tally
) -> None:
    ours, control = tmp_path / "ours", tmp_path / "control"
    ours.mkdir()
    control.mkdir()

    lost = await _lost_when_the_broker_dies_after_its_acknowledgements(broker, cloud, ours, trusting=False)
    lost_by_the_control = await _lost_when_the_broker_dies_after_its_acknowledgements(
        broker, cloud, control, trusting=True
    )

    tally.accepted, tally.lost, tally.control_lost = 30, len(lost), len(lost_by_the_control)
    tally.note = "the broker dies after its acknowledgements; the control deletes on them"
    assert not lost
    assert lost_by_the_control, "the control must lose events, or the tests beside it see nothing"
