# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures
"""R5: the disk is full, in memory, on ext4, and at the file's own cap. Nobody exits, nothing acknowledged is lost, and
five seconds after there is room everything flows again.

Somebody else's file fills the volume to the last block, while the forwarder's (or a producer's) spool is far from its
cap: the worst case, in which SQLite can neither append nor delete.

Guards: runtime/linewatch_runtime/spool.py, services/forwarder/linewatch_forwarder/{intake,delivery}.py.
"""

import contextlib
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from brokers import Broker, Child, Cloud, until
from faults.loads import AGAIN_WITHIN_S, Station, flows_again, station
from faults.producer import ids_made
from faults.sink import Sink, sinking
from faults.volumes import Ballast, volume
from forwarding import Forwarder, forwarder  # noqa: F401 - a fixture

from linewatch_plant.counts import read_counts

pytestmark = [pytest.mark.faults, pytest.mark.anyio, pytest.mark.timeout(900)]

PRODUCER = Path(__file__).with_name("producer.py")


async def produced_into(line: Station, ballast: Ballast, events: int) -> None:
    """Publishes a few at a time, with every free block taken before each."""
    for _ in range(events // 20):
        ballast.fill()
        await line.make(["OK", "OK", "OK", "OK", "NG"] * 4)


@pytest.mark.parametrize(("kind", "mebibytes"), [("tmpfs", 16), ("ext4", 16)])
async def test_forwarder_on_a_full_disk_refuses_stays_up_and_takes_events_again_within_seconds(
    kind: str, mebibytes: int, tally, mosquitto: Broker, cloud: Cloud, tmp_path: Path, forwarder: Forwarder
) -> None:
    forwarder.environment["FORWARDER_UPLINK_RATE"] = "10000"
    with volume(kind, tmp_path / "disk", mebibytes) as disk, contextlib.ExitStack() as stack:
        stack.callback(forwarder.kill)
        forwarder.environment["FORWARDER_STATE_DIR"] = str(disk.folder / "state")
        ballast = Ballast(disk)
        async with sinking(cloud.endpoint("sink")) as sink, station(mosquitto) as line:
            forwarder.start()
            await line_flows(forwarder, line, sink)

            await produced_into(line, ballast, 800)
            await until(lambda: forwarder.events("stream_full"), "it says that it is full")
            refused = line.refused
            assert refused, "the disk was not full"

            ballast.take_away()
            back_s = await flows_again(line, sink)
            await line.send(line.refused)
            await until(lambda: not sink.lacks(line.made), "all arrive", 180)
            assert forwarder.runs, forwarder.told()[-2000:]
            assert forwarder.end() == 0
        sound(disk.folder / "state" / "forwarder.db")
    tell(tally, line, sink, f"full {kind}: {len(refused)} refused, flows {back_s:.1f} s after room")
    assert_one_life(forwarder)


async def test_forwarder_at_its_files_cap_refuses_and_takes_events_again_within_seconds_of_draining(
    tally, mosquitto: Broker, cloud: Cloud, forwarder: Forwarder
) -> None:
    forwarder.environment |= {
        "FORWARDER_UPLINK_RATE": "10000", "FORWARDER_FILE_MAX_BYTES": str(1024 * 1024),
    }  # fmt: skip
    async with station(mosquitto) as line:
        async with sinking(cloud.endpoint("sink")) as sink:
            forwarder.start()
            await line_flows(forwarder, line, sink)
        cloud.kill()
        while not forwarder.events("stream_full"):
            await line.make(["OK", "OK", "OK", "OK", "NG"] * 20)
        refused = line.refused

        cloud.start()
        async with sinking(cloud.endpoint("sink")) as after:
            after.first |= sink.first
            await until(lambda: len(after.arrivals) > 200, "it drains", 180)
            back_s = await flows_again(line, after)
            await line.send(line.refused)
            await until(lambda: not after.lacks(line.made), "all arrive", 180)
            assert forwarder.runs, forwarder.told()[-2000:]
            assert forwarder.end() == 0
    sound(forwarder.state_dir / "forwarder.db")
    assert (forwarder.state_dir / "forwarder.db").stat().st_size <= 1024 * 1024
    tell(tally, line, after, f"1 MiB cap: {len(refused)} refused, flows {back_s:.1f} s after the drain began")
    assert refused
    assert_one_life(forwarder)


@pytest.mark.parametrize(("kind", "mebibytes"), [("tmpfs", 16), ("ext4", 16)])
async def test_producer_on_a_full_disk_holds_stays_up_and_goes_on_within_seconds(
    kind: str, mebibytes: int, tally, mosquitto: Broker, cloud: Cloud, tmp_path: Path, forwarder: Forwarder
) -> None:
    """A producer as capture is one: its spool is on the full disk, the forwarder's is not.

    The forwarder stands still while the disk fills: as long as it takes every event, the spool lives in the blocks that
    it has, and a full disk costs it nothing. The events don't end before the test has seen what it is about.
    """
    forwarder.environment["FORWARDER_UPLINK_RATE"] = "10000"
    with volume(kind, tmp_path / "disk", mebibytes) as disk, contextlib.ExitStack() as stack:
        path, enough = disk.folder / "capture.db", tmp_path / "enough"
        options = {"--port": mosquitto.port, "--spool": path, "--count": 0, "--rate": 400, "--enough": enough}
        command = [sys.executable, PRODUCER, *(part for pair in options.items() for part in pair)]
        producer = Child(command, tmp_path / "producer.log")
        stack.callback(producer.kill)
        ballast = Ballast(disk)
        async with sinking(cloud.endpoint("sink")) as sink:
            forwarder.start()
            producer.start()
            await until(lambda: len(sink.first) > 100, "the load flows")

            forwarder.process.send_signal(signal.SIGSTOP)
            await until(lambda: _holds(producer, ballast), "it holds", 180)
            held = _made(path)

            ballast.take_away()
            begun = time.monotonic()
            await until(lambda: _made(path) > held + 50, "it goes on", AGAIN_WITHIN_S)
            back_s = time.monotonic() - begun
            forwarder.process.send_signal(signal.SIGCONT)
            enough.touch()
            await until(lambda: ids_made(producer.told()), "the last event is made")
            made = ids_made(producer.told())
            await until(lambda: not sink.lacks(made), "all arrive", 300)
            assert producer.runs, producer.told()[-2000:]
        producer.kill()
        sound(path)
    tally.accepted, tally.lost = len(made), len(sink.lacks(made))
    tally.note = f"full {kind} under the producer: goes on {back_s:.1f} s after room; {sink.repeats} repeats"
    assert sink.first.keys() == {*made}
    assert "Traceback" not in producer.told()


def _made(spool: Path) -> int:
    """Events that were ever stored there."""
    return read_counts(spool).get(("", "made"), 0)


def _holds(producer: Child, ballast: Ballast) -> bool:
    ballast.fill()
    return producer.told().count("held") >= 5


async def line_flows(forwarder: Forwarder, line: Station, sink: Sink) -> None:
    """The first events go all the way."""
    await until(lambda: len(forwarder.events("mqtt_connected")) >= 3, "all is connected")
    await line.make(["OK"] * 50)
    await until(lambda: not sink.lacks(line.made), "the first arrive")


def tell(tally, line: Station, sink: Sink, note: str) -> None:
    """The counts; nothing that was committed may be missing."""
    tally.accepted, tally.lost = len(line.committed), len(sink.lacks(line.committed))
    tally.note = f"{note}; {sink.repeats} repeats"
    assert not tally.lost
    assert not sink.dropped()


def assert_one_life(forwarder: Forwarder) -> None:
    """It started once, and nothing in it broke."""
    assert len(forwarder.events("started")) == 1
    assert "Traceback" not in forwarder.told()


def sound(path: Path) -> None:
    """SQLite finds nothing wrong with the file, and nothing was put aside as damaged."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    assert {file.name for file in path.parent.glob(f"{path.name}*")} <= {
        path.name, f"{path.name}-wal", f"{path.name}-shm",
    }  # fmt: skip
