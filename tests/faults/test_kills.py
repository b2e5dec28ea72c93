# SPDX-License-Identifier: Apache-2.0
"""Producer, broker and forwarder under kill -9 while events flow to a cloud that counts, and is never killed.

Beside it stands the control that must fail: at one fixed crash point a producer that trusts the broker's
acknowledgement loses events, and ours loses none. Without it a green kill test could be blind.

Guards: runtime/linewatch_runtime/{spool,mqtt,publisher}.py, services/forwarder.
"""

import asyncio
import importlib.util
import random
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from brokers import (
    AT_THE_CLOUD,
    EMBEDDED,
    MOSQUITTO,
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
from forwarding import Forwarder

from linewatch_forwarder.delivery import LOOK_AHEAD
from linewatch_runtime.mqtt import Connection, Subscriptions
from linewatch_runtime.publisher import Publisher
from linewatch_runtime.spool import Record, Spool, SpoolWorker

pytestmark = [pytest.mark.faults, pytest.mark.anyio]

KILLS = 20
COUNT = 3000
RATE = 150.0
SEED = 20261121
EVENTS = "linewatch/v1/+/+/+/inspection"

PRODUCER = Path(__file__).with_name("producer.py")


def producer_module():
    spec = importlib.util.spec_from_file_location("producer", PRODUCER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def producer(folder: Path, port: int) -> Child:
    """The producing process; its spool is folder/capture.db."""
    arguments = {"--port": port, "--spool": folder / "capture.db", "--count": COUNT, "--rate": RATE}
    command = [sys.executable, PRODUCER, *(part for pair in arguments.items() for part in pair)]
    return Child(command, folder / "producer.log")


async def kill_each(victims: list[Child], chance: random.Random) -> None:
    """Kills every victim KILLS times, in random order at random moments, and starts it again at once."""
    order = [victim for victim in victims for _ in range(KILLS)]
    chance.shuffle(order)
    for victim in order:
        await asyncio.sleep(chance.uniform(0.05, 0.8))  # where it dies is the point of the test
        assert victim.runs, victim.told()[-2000:]
        victim.kill()
        await asyncio.to_thread(victim.start)


def count_of(spool: Path, name: str, stream: str) -> int:
    """A count from a spool's file, read beside the process that owns it."""
    with sqlite3.connect(f"file:{spool}?mode=ro", uri=True) as db:
        row = db.execute("SELECT value FROM counts WHERE stream = ? AND name = ?", (stream, name)).fetchone()
    db.close()
    return row[0] if row else 0


@pytest.mark.parametrize("kind", [MOSQUITTO, EMBEDDED])
@pytest.mark.timeout(150)
async def test_nothing_is_lost_when_every_process_is_killed_again_and_again(
    kind: str, cloud: Cloud, tmp_path: Path
) -> None:
    broker = Broker(kind, tmp_path / "broker")
    forwarder = Forwarder(tmp_path, broker.port, **cloud.settings())
    victims: list[Child] = [broker, forwarder, producer(tmp_path, broker.port)]
    try:
        async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
            for victim in victims:
                victim.start()
            await until(lambda: rule.heard, "the first event arrives", 20)

            await kill_each(victims, random.Random(SEED))

            before_the_rest = len(set(rule.ids))
            expected = {producer_module().event_id(number) for number in range(COUNT)}
            await until(lambda: expected <= set(rule.ids), "every event arrives", 60)
            assert set(rule.ids) == expected
            assert before_the_rest > COUNT / 10, "the kills fell while nothing flowed"
            await until(
                lambda: count_of(forwarder.state_dir / "forwarder.db", "settled", "predictions-line-1") == COUNT,
                "the forwarder has let every event go",
            )  # fmt: skip
    finally:
        for victim in victims:
            victim.kill()
    assert count_of(tmp_path / "capture.db", "made", "") == COUNT
    assert count_of(forwarder.state_dir / "forwarder.db", "stored", "predictions-line-1") == COUNT
    repeats = len(rule.ids) - COUNT
    print(
        f"{kind}: {COUNT} events, {len(victims) * KILLS} kills ({before_the_rest} events arrived meanwhile), 0 lost, {repeats} repeats at the cloud"
    )
    assert repeats <= KILLS * LOOK_AHEAD, (
        "only a killed forwarder sends again, at most what one turn chooses from"
    )
    assert not [victim.told() for victim in victims if "Traceback" in victim.told()]


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
                lambda: len(forwarder.events("mqtt_connected")) == 3, "its session is with the broker"
            )
            forwarder.kill()
            async with (
                listening(broker.endpoint("witness"), EVENTS) as witness,
                producing(broker, folder, trusting=trusting) as worker,
            ):
                records = [
                    Record(name, "line-1", STATION.topic("inspection"), payload) for name, payload in events
                ]
                await worker.run(worker.spool.append, records)
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
                    await until(lambda: len(set(rule.ids)) == 31, "every event arrives", 30)
            return {name for name, _ in events} - set(rule.ids)


async def _arrives(rule: Listener, event_id: str) -> None:
    await until(lambda: event_id in rule.ids, "an event after the restart arrives", 40)


async def test_broker_that_dies_after_its_acknowledgements_costs_us_nothing(
    broker: Broker, cloud: Cloud, tmp_path: Path
) -> None:
    lost = await _lost_when_the_broker_dies_after_its_acknowledgements(
        broker, cloud, tmp_path, trusting=False
    )

    assert not lost


async def test_control_a_producer_that_trusts_the_broker_loses_events_at_the_same_point(
    broker: Broker, cloud: Cloud, tmp_path: Path
) -> None:
    lost = await _lost_when_the_broker_dies_after_its_acknowledgements(broker, cloud, tmp_path, trusting=True)

    assert lost, "the control must lose events, or the tests beside it see nothing"
