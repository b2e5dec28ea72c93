# SPDX-License-Identifier: Apache-2.0
"""A roll-back on a device: releases open each other's spool, in any order, also after a kill with the log not folded in.

The earlier code is the real one, kept in tests/releases.
"""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from linewatch_runtime.spool import ROW_OVERHEAD, Record, Spool, StreamLimit, WhenFull

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "releases"
RELEASES = sorted(one.name for one in OLD.iterdir() if one.is_dir())
LIMIT = StreamLimit(60_000, when_full=WhenFull.SHED_GOOD)


class Releases:
    """A spool that is written by one release after the other, with what it must hold."""

    def __init__(self, folder: Path, old: str) -> None:
        self.path = folder / "forwarder.db"
        package = folder / "old" / "linewatch_runtime"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()  # else the installed package comes first
        for file in (OLD / old).iterdir():
            shutil.copy(file, package)
        self.code = {"old": package.parent, "new": ROOT / "runtime"}
        self.live: dict[str, list[object]] = {}
        self.counts: Counter[str] = Counter()
        self.epoch = 0
        self.clock = 0
        self.number = 0
        self.child: subprocess.Popen[str] | None = None

    def starts(self, release: str) -> None:
        """Kills the one that runs, without a word, and starts this one."""
        self.stop()
        command = [sys.executable, str(Path(__file__).with_name("release_child.py"))]
        self.child = subprocess.Popen(
            [*command, str(self.code[release]), str(self.path)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def stop(self) -> None:
        if self.child:
            self.child.kill()
            self.child.wait()
            self.child.stdin.close()
            self.child.stdout.close()

    def tell(self, *command: object) -> None:
        self.child.stdin.write(json.dumps(command) + "\n")
        self.child.stdin.flush()
        answer = json.loads(self.child.stdout.readline())
        assert answer["epoch"] > self.epoch, "an epoch twice"
        assert answer["clock"] >= self.clock, "the clock went back"
        self.epoch, self.clock = answer["epoch"], answer["clock"]

    def work(self, dice: random.Random) -> None:
        """Appends (more than the stream holds, so that it sheds), repeats, settles and buries."""
        batch = []
        for _ in range(30):
            self.number += 1
            payload = chr(97 + self.number % 26) * dice.randrange(300, 900)
            batch.append(
                [f"id-{self.number}", f"line-{self.number % 2}", "topic", payload, self.number % 9 == 0]
            )
        self.tell("append", batch)
        self.live |= {one[0]: one for one in batch}
        self.counts["judged"] += len(batch)
        self.counts["stored"] += len(batch)
        for stream in ("line-0", "line-1"):
            self._shed(stream)
        gone = dice.sample(sorted(self.live), 6)
        self.tell("settle", gone)
        for one in gone:
            del self.live[one]
        self.counts["settled"] += len(gone)
        again = gone[:3]
        self.tell("append", [[one, "line-0", "topic", "late", False] for one in again])
        self.counts["judged"] += len(again)
        buried = self.live.pop(dice.choice(sorted(self.live)))
        self.tell("bury", buried)
        self.counts["buried"] += 1

    def _shed(self, stream: str) -> None:
        mine = [one for one in self.live.values() if one[1] == stream]
        used = sum(len(one[3]) + ROW_OVERHEAD for one in mine)
        for one in mine:
            if used > LIMIT.max_bytes and not one[4]:
                used -= len(one[3]) + ROW_OVERHEAD
                del self.live[one[0]]
                self.counts["shed_good"] += 1

    def agree(self) -> None:
        """Kills, opens with the present code, and compares everything."""
        self.stop()
        spool = Spool(self.path, LIMIT)
        rows = [one.record for one in spool.oldest(100_000, by_class=False)]
        assert [
            [one.event_id, one.stream, one.topic, one.payload.decode(), one.alarm] for one in rows
        ] == list(self.live.values())
        states = spool.streams()
        assert sum(one.events for one in states) == len(rows)
        assert sum(one.bytes for one in states) == sum(one.size for one in rows)
        assert sum(one.stored for one in states) == self.counts["stored"]
        assert sum(one.settled for one in states) == self.counts["settled"]
        assert sum(one.buried for one in states) == self.counts["buried"]
        assert sum(one.dropped.get("shed_good", 0) for one in states) == self.counts["shed_good"] > 0
        assert all(set(one.dropped) <= {"shed_good"} for one in states)
        assert spool.counts()["judged"] == self.counts["judged"]
        assert "salvages" not in spool.counts()
        assert len(spool.buried()) == self.counts["buried"]
        assert len(spool.marks("folder")) == self.number
        spool.close()


@pytest.fixture(params=RELEASES)
def releases(tmp_path: Path, request: pytest.FixtureRequest):
    made = Releases(tmp_path, request.param)
    yield made
    made.stop()


@pytest.mark.parametrize("order", ["old new", "new old new", "old new old new old", "new new old old new"])
def test_releases_take_turns_on_one_file_and_nothing_is_lost_or_doubled(
    releases: Releases, order: str
) -> None:
    dice = random.Random(order)
    for release in order.split() * 2:
        releases.starts(release)
        for _ in range(5):
            releases.work(dice)

    assert releases.path.with_name("forwarder.db-wal").stat().st_size > 0, "the log was not folded in"
    releases.agree()


def test_old_code_is_the_old_code(releases: Releases) -> None:
    releases.starts("old")
    releases.work(random.Random(1))
    releases.stop()

    db = sqlite3.connect(releases.path)

    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert "crc" not in {row[1] for row in db.execute("PRAGMA table_info(events)")}
    db.close()


def test_event_that_an_older_release_buried_is_replayed_as_an_alarm(releases: Releases) -> None:
    releases.starts("old")
    releases.tell("bury", ["a", "line-0", "topic", "x", False])
    releases.stop()

    spool = Spool(releases.path, LIMIT)

    assert spool.replay([number for number, _, _ in spool.buried()]) == 1
    assert [one.record.alarm for one in spool.oldest(10)] == [True]
    spool.close()


def test_older_release_delivers_what_the_newer_one_replayed(releases: Releases) -> None:
    spool = Spool(releases.path, LIMIT)
    releases.starts("old")
    releases.tell("bury", ["a", "line-0", "topic", "x", False])
    assert spool.replay([number for number, _, _ in spool.buried()]) == 1
    spool.close()
    releases.tell("settle", ["a"])
    releases.stop()

    again = Spool(releases.path, LIMIT)

    assert not again.oldest(10)
    assert [(one.settled, one.buried) for one in again.streams()] == [(1, 1)]
    again.close()


@pytest.mark.parametrize("later", [32, 2**22 - 1, 2**23], ids=["a bit", "many bits", "a high bit"])
def test_clock_that_an_older_release_moved_by_a_low_bit_does_not_go_back(tmp_path: Path, later: int) -> None:
    """It moves one of the two numbers alone; by a single low bit, that was taken for a flipped one."""
    path = tmp_path / "spool.db"
    spool = Spool(path, LIMIT)
    spool.append([Record("id-1", "line-0", "topic", b"a", False)])
    spool.close()
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE numbers SET value = ? WHERE name LIKE 'clock_ms%'", (2**30,))
        db.execute("UPDATE numbers SET value = ? WHERE name = 'clock_ms'", (2**30 + later,))
    db.close()

    again = Spool(path, LIMIT)
    clock_ms = again.clock() * 1000
    again.close()

    # A high bit is damage: the lower one expires nothing wrongly.
    least = 2**30 if later == 2**23 else 2**30 + later
    assert least <= clock_ms < least + 60_000
