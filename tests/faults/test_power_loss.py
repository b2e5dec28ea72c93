# SPDX-License-Identifier: Apache-2.0
"""R2: the power goes under load, again and again, on xfs and on ext4, and nothing that was acknowledged is lost.

A kill -9 can't see a missing fsync, since the kernel still has what was written; a power loss can. Beside each stands
the control: with synchronous=NORMAL the same writer loses what it acknowledged, at a fixed point, always.

Guards: runtime/linewatch_runtime/spool.py, services/forwarder/linewatch_forwarder/intake.py,
services/capture/linewatch_capture/evidence_budget.py.
"""

import asyncio
import contextlib
import hashlib
import random
import sqlite3
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from brokers import Broker, Child, Cloud, running, until, wait_for
from faults.loads import station
from faults.sink import sinking
from faults.volumes import Volume, volume
from forwarding import Forwarder

from linewatch_runtime.spool import Spool, StreamLimit

pytestmark = pytest.mark.faults

WRITER = Path(__file__).with_name("writer.py")
EVIDENCE = Path(__file__).with_name("evidence_writer.py")
SEED = 20261121
ROOM = 512 * 1024 * 1024
UNSYNCED_COMMITS = 30
"""Of the control: few enough that no checkpoint comes, which would sync even under NORMAL."""


def writer(spool: Path, output: Path, *more: object) -> Child:
    """The writing process, not started."""
    return Child([sys.executable, WRITER, "--spool", spool, *more], output)


@dataclass(slots=True)
class Told:
    """What writers said, over all their lives."""

    appended: set[str] = field(default_factory=set)
    settling: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)

    def hear(self, said: str) -> None:
        """Only whole lines count: the writer is killed."""
        for line in said.splitlines(keepends=True):
            word, *ids = line.split(" ")
            if line.endswith("\n") and hasattr(self, word):
                getattr(self, word).update(one.strip() for one in ids)


def held(path: Path) -> Counter[str]:
    """The ids in the spool, looked at from every side: readable, sound, in step with its counts, nothing put aside."""
    spool = Spool(path, StreamLimit(ROOM), ROOM)
    rows = [one.record for one in spool.oldest(10**6)]
    states = {one.name: (one.events, one.bytes) for one in spool.streams()}
    spool.close()
    for name in {one.stream for one in rows}:
        mine = [one for one in rows if one.stream == name]
        assert states[name] == (len(mine), sum(one.size for one in mine))
    assert all(one.event_id.encode() in one.payload for one in rows), "a payload is not its event's"
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    assert {file.name for file in path.parent.glob(f"{path.name}*")} <= {
        path.name, f"{path.name}-wal", f"{path.name}-shm",
    }, "a damaged file was put aside"  # fmt: skip
    return Counter(one.event_id for one in rows)


def _lost_at_the_fixed_point(disk: Volume, output: Path, synchronous: str) -> int:
    """The power goes right after some acknowledged commits, before anything else could sync them."""
    path = disk.folder / f"fixed-{synchronous}.db"
    with running(
        writer(path, output, "--commits", UNSYNCED_COMMITS, "--synchronous", synchronous)
    ) as process:
        wait_for(lambda: process.told().endswith("done\n"), "the commits are acknowledged", 180)
        disk.lose_power()
    disk.power_returns()
    told = Told()
    told.hear(process.told())
    assert len(told.appended) > UNSYNCED_COMMITS
    return len(told.appended - held(path).keys())


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
@pytest.mark.timeout(3600)
def test_power_that_goes_under_load_loses_nothing_acknowledged(
    kind: str, tally, long: bool, tmp_path: Path
) -> None:
    tally.doubled = 0
    cuts, chance, told = (30 if long else 3), random.Random(f"{SEED}{kind}"), Told()
    with volume(kind, tmp_path) as disk:
        path = disk.folder / "spool.db"
        for cut in range(cuts):
            process = writer(path, tmp_path / f"writer-{cut}.log")
            with running(process):
                enough = chance.randrange(
                    20_000, 400_000
                )  # bytes of acknowledgements: some 1,000 to 20,000 events
                wait_for(lambda: process.output.stat().st_size > enough, "the load flows", 600)  # noqa: B023
                assert process.runs, process.told()[-2000:]
                disk.lose_power()
            disk.power_returns()
            told.hear(process.told())
            now = held(path)
            tally.lost += len(told.appended - told.settling - now.keys())
            tally.doubled += sum(count - 1 for count in now.values()) + len(told.settled & now.keys())
        tally.accepted = len(told.appended)
        tally.control_lost = _lost_at_the_fixed_point(disk, tmp_path / "control.log", "NORMAL")
        beside = _lost_at_the_fixed_point(disk, tmp_path / "beside.log", "FULL")
    tally.note = f"{cuts} power losses on {kind}; {len(told.settled)} settled events stayed away"
    assert (tally.lost, tally.doubled, beside) == (0, 0, 0)
    assert tally.control_lost, "the control must lose, or the test beside it sees nothing"


# --- the forwarder, from a producer's publish to the cloud -----------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["xfs", "ext4"])
@pytest.mark.timeout(1800)
async def test_all_that_the_forwarder_committed_reaches_the_cloud_after_the_power_returns(
    kind: str, tally, long: bool, mosquitto: Broker, cloud: Cloud, tmp_path: Path
) -> None:
    """The producer here trusts `committed` and sends nothing twice, so that only the forwarder's disk can save it."""
    cuts, chance = (5 if long else 1), random.Random(f"{SEED}{kind}")
    forwarder = Forwarder(tmp_path, mosquitto.port, **cloud.settings())
    slowly = {"FORWARDER_UPLINK_RATE": "20", "FORWARDER_BATCH_MAX_EVENTS": "1"}
    fast = {"FORWARDER_UPLINK_RATE": "10000", "FORWARDER_BATCH_MAX_EVENTS": "40"}
    async with sinking(cloud.endpoint("sink")) as sink, station(mosquitto) as line:
        with volume(kind, tmp_path) as disk, contextlib.ExitStack() as stack:
            stack.callback(forwarder.kill)
            forwarder.environment["FORWARDER_STATE_DIR"] = str(disk.folder / "state")
            for _ in range(cuts):
                forwarder.environment |= slowly
                forwarder.start()
                flow = asyncio.create_task(line.keep_sending(["OK", "OK", "OK", "NG"] * 5000), name="flow")
                enough, before = chance.randrange(100, 600), len(sink.first)
                await until(
                    lambda: len(sink.lacks(line.committed)) > enough and len(sink.first) > before,  # noqa: B023
                    "a backlog, and some delivered", 180,
                )  # fmt: skip
                disk.lose_power()
                forwarder.kill()
                flow.cancel()
                await asyncio.wait([flow])
                waiting = len(sink.lacks(line.committed))
                disk.power_returns()
                forwarder.environment |= fast
                forwarder.start()
                with contextlib.suppress(AssertionError):  # what is missing is counted below
                    await until(lambda: not sink.lacks(line.committed), "all arrive", 180)
                assert forwarder.end() == 0
            tally.accepted, tally.lost = len(line.committed), len(sink.lacks(line.committed))
            tally.note = (
                f"{cuts} power losses on {kind}; {sink.repeats} repeats; {waiting} waited at the last"
            )
            held(disk.folder / "state" / "forwarder.db")
    assert not tally.lost
    assert "Traceback" not in forwarder.told()


# --- capture's evidence: what an event names is on disk before the event is ------------------------------------------


def _lost_evidence(root: Path, said: str) -> tuple[int, int]:
    """How many files were told as kept, and how many of them are not there as they were."""
    told = [
        line.split()
        for line in said.splitlines(keepends=True)
        if line.startswith("kept") and line[-1] == "\n"
    ]
    lost = 0
    for _, path, digest in told:
        file = root / path
        whole = file.exists() and f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" == digest
        lost += not whole
    return len(told), lost


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
@pytest.mark.timeout(1800)
def test_evidence_that_was_kept_is_whole_after_the_power_returns(
    kind: str, tally, long: bool, tmp_path: Path
) -> None:
    cuts, chance, program = (15 if long else 1), random.Random(f"{SEED}{kind}"), [sys.executable, EVIDENCE]
    with volume(kind, tmp_path, 320) as disk:
        for cut in range(cuts):
            root = disk.folder / "evidence" / str(cut)
            process = Child([*program, "--root", root], tmp_path / f"evidence-{cut}.log")
            with running(process):
                enough = chance.randrange(20, 150)
                wait_for(lambda: process.told().count("kept") > enough, "evidence is kept", 300)  # noqa: B023
                disk.lose_power()
            disk.power_returns()
            kept, lost = _lost_evidence(root, process.told())
            tally.accepted, tally.lost = tally.accepted + kept, tally.lost + lost
        root = disk.folder / "evidence" / "control"
        control = Child(
            [*program, "--root", root, "--parts", "30", "--without-fsync"], tmp_path / "control.log"
        )
        with running(control):
            wait_for(lambda: control.told().endswith("done\n"), "the control is done", 180)
            disk.lose_power()
        disk.power_returns()
        _, tally.control_lost = _lost_evidence(root, control.told())
    tally.note = f"{cuts} power losses on {kind} while frames are kept as evidence; the control does not sync"
    assert not tally.lost
    assert tally.control_lost, "the control must lose, or the test beside it sees nothing"
