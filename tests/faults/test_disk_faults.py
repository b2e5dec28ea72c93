# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures
"""R5: a disk that answers with errors, and one that changes bits. The forwarder stays up, or starts all the same; what
it acknowledged is lost only where its own bytes are, that loss is told, and the damaged file is kept.

Guards: runtime/linewatch_runtime/spool*.py, services/forwarder/linewatch_forwarder/{intake,delivery}.py.
"""

import contextlib
import json
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Broker, Child, Cloud, Listener, listening, until
from faults.loads import Station, flows_again, station
from faults.sink import Sink, sinking
from forwarding import Forwarder, forwarder  # noqa: F401 - a fixture

from linewatch_plant.counts import read_counts
from linewatch_runtime.events import Place

pytestmark = [pytest.mark.faults, pytest.mark.anyio, pytest.mark.timeout(1800)]

SEED = 20261121
STREAM = "predictions-line-1"
STATUS = Place("plant-1", "device", "forwarder").topic("status")

EIO, ENOSPC = 5, 28
DISK_CALLS = (("posix/io/sync/fdatasync", EIO), ("posix/io/rw/pwrite", ENOSPC), ("posix/io/rw/pwrite", EIO),
              ("posix/io/rw/pread", EIO))  # fmt: skip
"""The calls that SQLite makes on its files, and that the forwarder makes on nothing else."""

OF_ONE_PAGE = 8
"""Events that lie in one page of the file, at most; what one flipped bit may cost."""


class DiskFaults:
    """Makes single calls of one process fail, by libfiu."""

    def __init__(self, child: Child, folder: Path) -> None:
        if shutil.which("fiu-run") is None:
            pytest.skip("fiu-run is not installed (Debian: apt-get install fiu-utils)")
        self._child = child
        self._pipes = folder / "fiu"
        child.command = ["fiu-run", "-x", "-f", str(self._pipes), *child.command]

    def next_call_fails(self, name: str, code: int) -> None:
        self._say(f"enable name={name},onetime,failinfo={code}")

    def every_call_fails(self, name: str, code: int) -> None:
        """Until `no_more`."""
        self._say(f"enable name={name},failinfo={code}")

    def no_more(self) -> None:
        for name in {name for name, _ in DISK_CALLS}:
            self._say(f"disable name={name}")

    def _say(self, command: str) -> None:
        subprocess.run(
            ["fiu-ctrl", "-f", self._pipes, "-c", command, str(self._child.process.pid)],
            check=True,
            timeout=60,
        )


async def test_calls_that_fail_under_load_cost_nothing_acknowledged_and_no_restart(
    tally, long: bool, mosquitto: Broker, cloud: Cloud, tmp_path: Path, forwarder: Forwarder
) -> None:
    faults, chance = (200 if long else 40), random.Random(SEED)
    forwarder.environment["FORWARDER_UPLINK_RATE"] = "10000"
    disk = DiskFaults(forwarder, tmp_path)
    async with sinking(cloud.endpoint("sink")) as sink, station(mosquitto) as line:
        forwarder.start()
        await until(lambda: len(forwarder.events("mqtt_connected")) >= 3, "all is connected")
        await line.make(["OK"] * 50)
        await until(lambda: not sink.lacks(line.made), "the first arrive")
        for _ in range(faults):
            disk.next_call_fails(*chance.choice(DISK_CALLS))
            await line.make(["OK", "OK", "OK", "NG", "OK"])
            assert forwarder.runs, forwarder.told()[-2000:]
        disk.no_more()
        back_s = await flows_again(line, sink)
        # Whatever those met: everything is at rest now, and the next commit fails. Not the next call alone: that may be
        # of a checkpoint behind the last commit, or of the minute's look for what is too old.
        await until(lambda: _is_at_rest(forwarder), "every event was let go")
        refusals = len(forwarder.events("stream_full"))
        disk.every_call_fails("posix/io/sync/fdatasync", EIO)
        (sure,) = await line.make(["NG"])
        await until(lambda: len(forwarder.events("stream_full")) > refusals, "it refuses")
        disk.no_more()
        await flows_again(line, sink)
        refused = line.refused
        for _ in range(3):
            await line.send(line.refused)
        await until(lambda: not sink.lacks(line.made), "all arrive", 180)
        assert forwarder.runs
        assert forwarder.end() == 0
    tally.accepted, tally.lost = len(line.committed), len(sink.lacks(line.committed))
    settles = len(forwarder.events("settle_failed"))
    tally.note = (
        f"{faults} EIO and ENOSPC faults: {len(refused)} events refused, {settles} settles failed, {sink.repeats} repeats;"
        f" flows {back_s:.1f} s after the last"
    )
    assert sure in refused, "no fault was felt"
    assert len(forwarder.events("started")) == 1
    assert "Traceback" not in forwarder.told()
    assert not sink.dropped()
    db = sqlite3.connect(forwarder.state_dir / "forwarder.db")
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    assert not list(forwarder.state_dir.glob("*damaged*")), "a disk that only fails damages nothing"


def _is_at_rest(forwarder: Forwarder) -> bool:
    counts = read_counts(forwarder.state_dir / "forwarder.db")
    return counts[STREAM, "stored"] == counts[STREAM, "settled"]


# --- bits that change ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_by", ["kill -9, in the log", "a stop, in the file"])
async def test_flipped_bit_costs_no_more_than_its_page_and_is_told_and_the_file_is_kept(
    left_by: str, tally, long: bool, mosquitto: Broker, cloud: Cloud, tmp_path: Path, forwarder: Forwarder
) -> None:
    chance = random.Random(f"{SEED}{left_by}")
    with_uplink = dict(forwarder.environment) | {"FORWARDER_UPLINK_RATE": "10000"}
    forwarder.environment["FORWARDER_UPLINK"] = "none"
    async with station(mosquitto) as line:
        forwarder.start()
        await until(lambda: len(forwarder.events("mqtt_connected")) >= 2, "the device is connected")
        for _ in range(6):
            await line.make(["OK", "OK", "OK", "OK", "NG"] * 10)
            await until(lambda: not line.refused, "all are committed")
    killed = left_by.startswith("kill")
    if killed:
        forwarder.kill()
    else:
        assert forwarder.end() == 0
    intact = forwarder.state_dir.rename(tmp_path / "intact")
    hit = intact / ("forwarder.db-wal" if killed else "forwarder.db")
    forwarder.environment = with_uplink

    costs, told_of, kept, aside = [], 0, 0, 0
    newest = [*line.made.values()][-1].payload
    for position in bits(hit, 10 if long else 3, chance, newest):
        shutil.rmtree(forwarder.state_dir, ignore_errors=True)
        shutil.copytree(intact, forwarder.state_dir)
        flip(forwarder.state_dir / hit.name, position)
        forwarder.output.unlink(missing_ok=True)
        async with (
            sinking(cloud.endpoint("sink")) as sink,
            listening(mosquitto.endpoint("console"), STATUS) as told,
        ):
            sink.contents = {}
            forwarder.start()
            await until(lambda: is_drained(told) and sink.first, f"bit {position}: it runs and drains", 180)

            def drops() -> int:
                return sum(
                    count for (_, reason), count in sink.dropped().items() if reason.startswith("damaged")
                )

            with contextlib.suppress(AssertionError):  # what is not told is counted below
                await until(lambda: drops() >= len(sink.lacks(line.committed)), "the loss is told")
            lost, told_here = sink.lacks(line.committed), drops()
            assert forwarder.end() == 0
        where = (
            f"bit {position} of {hit.name}: {len(lost)} lost, {told_here} told: {forwarder.told()[-3000:]}"
        )
        assert len(lost) <= OF_ONE_PAGE, where
        assert not wrong(line, sink), f"bit {position}: changed bytes were delivered"
        damaged, rows = (
            list(forwarder.state_dir.glob("forwarder.db.damaged-*")),
            set_aside(forwarder.state_dir),
        )
        assert damaged or rows or not lost, f"{where}: what was damaged was not kept"
        assert "Traceback" not in forwarder.told()
        costs.append(len(lost))
        told_of, kept, aside = told_of + told_here, kept + bool(damaged), aside + rows
        tally.lost += max(0, len(lost) - told_here)
    tally.accepted = len(line.committed) * len(costs)
    tally.note = (
        f"{len(costs)} flipped bits in what was left by {left_by}: {costs} events lost, {told_of} told, "
        f"{kept} damaged files kept, {aside} rows set aside"
    )
    assert kept or aside, "no flip was noticed at all"
    assert not tally.lost, "a loss was told to nobody"


def bits(path: Path, count: int, chance: random.Random, newest: bytes) -> Iterator[int]:
    """Bits of bytes that hold something: an unused part of a page can't be hurt. The first is one of the newest event,
    which is in use for certain: a log that began anew has old pages behind it."""
    content = path.read_bytes()
    at = content.find(newest[:64])
    assert at >= 0, "the newest event is not in the file"
    yield (at + 32) * 8 + chance.randrange(8)
    found = 1
    while found < count:
        byte = chance.randrange(len(content))
        if content[byte] and content[max(0, byte - 8) : byte + 8].count(0) < 4:
            found += 1
            yield byte * 8 + chance.randrange(8)


def flip(path: Path, bit: int) -> None:
    """Changes one bit of the file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def set_aside(state_dir: Path) -> int:
    """Rows that are kept for a person because their checksum failed."""
    db = sqlite3.connect(state_dir / "forwarder.db")
    (rows,) = db.execute("SELECT count(*) FROM buried WHERE reason LIKE 'damaged%'").fetchone()
    db.close()
    return rows


def is_drained(told: Listener) -> bool:
    """Whether the status says that nothing waits and all was told."""
    status = told.last(STATUS)
    return (
        bool(status) and status["state"] == "online" and not any(one["events"] for one in status["streams"])
    )


def wrong(line: Station, sink: Sink) -> set[str]:
    """Events at the cloud that are not what was made, but for the corrected time that the forwarder may add."""
    found = set()
    for event_id, event in (sink.contents or {}).items():
        if event["type"] == "EventsDropped":
            continue
        event["data"]["origin"].pop("corrected_at", None)
        if event_id not in line.made or json.loads(line.made[event_id].payload) != event:
            found.add(event_id)
    return found
