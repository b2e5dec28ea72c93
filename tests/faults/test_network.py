# SPDX-License-Identifier: Apache-2.0
"""R11: a bad network between forwarder and cloud. Nothing is lost, and once it is whole the forwarder is back within 30 s.

The kernel itself spoils the cable (tests/far_cloud.py). No control stands beside these tests: both ends are counted.

Guards: runtime/linewatch_runtime/mqtt.py, services/forwarder/linewatch_forwarder/delivery.py.
"""

import asyncio
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from brokers import Broker, Child, Listener, answering, connected, listening, running, until
from faults.far_cloud import FarCloud, far_cloud  # noqa: F401 - a fixture
from faults.sink import Sink, sinking
from forwarding import Forwarder, told_state

from linewatch_runtime.mqtt import Endpoint
from linewatch_runtime.mqtt_sessions import LONGEST_BACKOFF_S, Sessions

pytestmark = [pytest.mark.faults, pytest.mark.anyio]

RATE = 40.0
BACK_WITHIN_S = 30.0
BAD_FOR_S = 12.0
PRODUCER = Path(__file__).with_name("producer.py")


@dataclass(slots=True)
class Line:
    """A producer, a broker and a forwarder that work, and what arrived in the cloud."""

    cloud: FarCloud
    forwarder: Forwarder
    arrived: Sink
    near: Listener
    count: int


@asynccontextmanager
async def working_line(cloud: FarCloud, broker: Broker, folder: Path, bad_for_s: float = BAD_FOR_S):
    """Events enough for as long as the cable is bad."""
    count = int(RATE * bad_for_s)
    forwarder = Forwarder(folder, broker.port, **cloud.settings())
    options = {"--port": broker.port, "--spool": folder / "capture.db", "--count": count, "--rate": RATE}
    producer = Child(
        [sys.executable, PRODUCER, *(part for pair in options.items() for part in pair)],
        folder / "producer.log",
    )
    async with AsyncExitStack() as stack:
        arrived = await stack.enter_async_context(sinking(cloud.endpoint("sink")))
        near = await stack.enter_async_context(listening(broker.endpoint("near"), "linewatch/v1/+/device/#"))
        for child in (forwarder, producer):
            stack.enter_context(running(child))
        await until(lambda: arrived.first, "the first event arrives")
        yield Line(cloud, forwarder, arrived, near, count)


async def all_arrive_within(line: Line, tally, started: float, what: str) -> None:
    """Nothing lost, and back in time: the backlog of every case fits the deadline many times over."""
    expected = line.count
    before = len(line.arrived.first)
    await until(
        lambda: len(line.arrived.first) > before or before >= expected,
        f"an event arrives within {BACK_WITHIN_S:g} s of healing",
        BACK_WITHIN_S,
    )
    back = time.monotonic() - started
    await until(lambda: len(line.arrived.first) >= expected, "every event arrives", 300)
    tally.accepted, tally.lost = expected, expected - len(line.arrived.first)
    tally.note = f"{what}; back after {back:.1f} s; {line.arrived.repeats} repeats on the wire"
    assert line.forwarder.runs
    assert len(line.arrived.first) == expected
    assert not line.arrived.out_of_order()


async def bad_for(seconds: float) -> None:
    """How long the cable is bad is the fault itself."""
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("fault", ["loss", "reset", "slow"])
@pytest.mark.timeout(900)
async def test_bad_cable_loses_nothing(
    fault: str, far_cloud: FarCloud, mosquitto: Broker, tmp_path: Path, tally, long: bool  # noqa: F811
) -> None:  # fmt: skip
    seconds = 60.0 if long else BAD_FOR_S
    async with working_line(far_cloud, mosquitto, tmp_path, seconds) as line:
        spoil = {
            "loss": lambda: far_cloud.lose(0.3), "reset": far_cloud.reset, "slow": lambda: far_cloud.slow(64),
        }[fault]  # fmt: skip
        spoil()
        await bad_for(seconds)
        spoiled = far_cloud.spoiled_packets()
        assert spoiled > 0, "the cable was whole all the time"
        if fault != "loss":  # 30 % loss slows a local link by less than what is offered
            assert len(line.arrived.first) < line.count, "the fault came when all was over"
        far_cloud.heal()
        await all_arrive_within(
            line, tally, time.monotonic(), f"{fault} for {seconds:g} s, {spoiled} packets spoiled"
        )


@pytest.mark.timeout(1800)
async def test_half_open_connection_is_noticed_and_costs_nothing(
    far_cloud: FarCloud, mosquitto: Broker, tmp_path: Path, tally, long: bool  # noqa: F811
) -> None:  # fmt: skip
    """The cloud's end of the connection dies unheard, behind a black hole; the device's end still thinks it is there."""
    async with working_line(far_cloud, mosquitto, tmp_path) as line:
        far_cloud.swallow()
        far_cloud.kill()
        seconds = 600.0 if long else BAD_FOR_S  # the events wait on the device, however long it is
        await bad_for(seconds)
        far_cloud.start()
        await until(line.arrived.connection.connected.is_set, "the sink hears again", 120)
        far_cloud.heal()
        await all_arrive_within(line, tally, time.monotonic(), f"half-open for {seconds:g} s")


@pytest.mark.timeout(900)
async def test_black_hole_is_told_and_the_device_goes_on(
    far_cloud: FarCloud, mosquitto: Broker, tmp_path: Path, tally  # noqa: F811
) -> None:  # fmt: skip
    async with working_line(far_cloud, mosquitto, tmp_path) as line:
        await told_state(line.near, "online")
        far_cloud.swallow()
        # A publish that nobody answers for PUBLISH_TIMEOUT_S is how a black hole shows.
        status = await told_state(line.near, "offline-uplink", 120)
        assert status["uplink"]["detail"]
        stored = lambda: sum(one["stored"] for one in line.near.last(_STATUS)["streams"])  # noqa: E731
        await until(lambda: stored() >= line.count, "every event is on the device's disk meanwhile", 180)
        far_cloud.heal()
        await all_arrive_within(line, tally, time.monotonic(), "black hole until all was stored")
        await told_state(line.near, "online")


_STATUS = "linewatch/v1/plant-1/device/forwarder/status"

CLIENTS = 100
TRIES = 6
"""After so many failures a client waits its longest: 0.5 s doubled five times is more."""


@pytest.mark.timeout(900)
async def test_a_hundred_clients_come_back_without_a_storm(
    tally, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits its own random time (full jitter), so the second in which a server returns is not the one it dies in.

    What is compared are the moments for which the clients decide: on a machine that stands still for a second, what fell
    due meanwhile comes at once.
    """
    asked: list[float] = []
    due: list[float] = []
    tries: Counter[int] = Counter()
    decide = Sessions.pause_s

    def heard(sessions: Sessions) -> float:
        pause_s = decide(sessions)
        tries[id(sessions)] += 1
        due.append(time.monotonic() + pause_s)
        return pause_s

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(time.monotonic())
        writer.transport.abort()

    monkeypatch.setattr(Sessions, "pause_s", heard)
    async with answering(refuse) as port, AsyncExitStack() as stack:
        for number in range(CLIENTS):
            endpoint = Endpoint("127.0.0.1", port, f"client-{number}")
            await stack.enter_async_context(connected(endpoint, wait=False))
        await until(
            lambda: len(tries) == CLIENTS and min(tries.values()) >= TRIES, "each waits its longest", 600
        )
        began = time.monotonic()
        # Each comes again in it.
        seconds = 60.0 if long else LONGEST_BACKOFF_S + 3.0
        await until(lambda: time.monotonic() - began > seconds, "the refusals", 2 * seconds)
        ended = time.monotonic()
    each = sum(began < at <= ended for at in asked) / CLIENTS / (ended - began)
    most = max(Counter(int(at - began) for at in due if began < at <= ended).values())
    tally.note = (
        f"{CLIENTS} clients, server refuses: {each:.2f} connects/s each, at most {most} in one second"
    )
    assert 0 < each <= 2.0
    assert most <= CLIENTS / 2, "they come together"
