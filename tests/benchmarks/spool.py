# SPDX-License-Identifier: Apache-2.0
"""The spool alone: rows a second as a ratio to bare SQLite, and what stays flat with a million queued events.

    python3 tests/benchmarks/spool.py [--events 1000000] [--folder DIR] [--json FILE]

One process, one run, one folder on a real disk; payloads of 600 bytes in batches of 200, as the forwarder commits them.
Bare SQLite: a table without a schema of ours (id, payload), the same batch, WAL, synchronous=FULL, executemany.
"""

import argparse
import json
import os
import platform
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from linewatch_runtime.events import new_event_id
from linewatch_runtime.spool import Record, Spool, StreamLimit, WhenFull

BATCH = 200
PAYLOAD = 600
ROWS = 40_000
"""Rows of a speed measurement; the two take turns, ROUNDS times each."""
ROUNDS = 3
LINES = 4
CAP = 8 << 30


def main() -> None:
    """Prints the figures, and writes them to --json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="linewatch-spool-", dir=chosen.folder) as place:
        figures = speed(Path(place)) | flatness(Path(place), chosen.events) | full(Path(place))
    figures["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, SQLite {sqlite3.sqlite_version}"
    figures["at"] = time.strftime("%Y-%m-%d", time.gmtime())
    for name, value in figures.items():
        print(f"{name:<44} {value}")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


def speed(folder: Path) -> dict[str, object]:
    """Append and settle against bare SQLite, in turns within one run; the medians."""
    bare, appended, settled = [], [], []
    for number in range(ROUNDS):
        bare.append(_bare(folder / f"bare-{number}.db"))
        spool = Spool(folder / f"spool-{number}.db", StreamLimit(CAP), CAP)
        appended.append(_rate(ROWS, lambda spool=spool: [spool.append(one) for one in batches(ROWS)]))  # type: ignore[misc]

        def drain(spool: Spool = spool) -> None:
            while batch := spool.oldest(BATCH):
                spool.settle([one.record.event_id for one in batch])

        settled.append(_rate(ROWS, drain))
        spool.close()
    middle = ROUNDS // 2
    return {
        "bare SQLite, rows/s": round(sorted(bare)[middle]),
        "appended, rows/s": round(sorted(appended)[middle]),
        "appended, ratio to bare SQLite": round(sorted(appended)[middle] / sorted(bare)[middle], 2),
        "read and settled, rows/s": round(sorted(settled)[middle]),
        "read and settled, ratio to bare SQLite": round(sorted(settled)[middle] / sorted(bare)[middle], 2),
    }


def flatness(folder: Path, events: int) -> dict[str, object]:
    """Memory and times with nothing and with `events` queued."""
    path = folder / "large.db"
    spool = Spool(path, StreamLimit(CAP), CAP)
    for one in batches(2000):
        spool.append(one)
    few = _times(spool) | {"rss, MiB": _rss()}
    for one in batches(events - 2000):
        spool.append(one)
    many = _times(spool) | {"rss, MiB": _rss()}
    queued = sum(one.events for one in spool.streams())
    spool.close()
    size = path.stat().st_size
    many["open, ms"] = _ms(lambda: Spool(path, StreamLimit(CAP), CAP).close())
    figures: dict[str, object] = {"queued events": queued, "bytes on disk per event": round(size / queued)}
    figures["bytes on disk per byte of payload"] = round(size / queued / PAYLOAD, 2)
    for name, value in many.items():
        figures[f"{name}: few -> {queued}"] = f"{few.get(name, '-')} -> {value}"
    path.unlink()
    return figures


def full(folder: Path) -> dict[str, object]:
    """Appends to a stream that is full: each batch sheds as much as it brings."""
    spool = Spool(folder / "full.db", StreamLimit(50 * 1000 * 1000, when_full=WhenFull.SHED_GOOD), CAP)
    for one in batches(200_000):
        spool.append(one)
    rate = _rate(ROWS, lambda: [spool.append(one) for one in batches(ROWS)])
    spool.close()
    return {"appended to full streams that shed, rows/s": round(rate)}


def _times(spool: Spool) -> dict[str, float]:
    """Milliseconds; the best of five, for the machine has other work."""
    resting = ["predictions-line-0"]

    def append_and_settle() -> None:
        batch = next(batches(BATCH))
        spool.append(batch)
        spool.settle([one.event_id for one in batch])

    calls: dict[str, Callable[[], object]] = {
        "streams(), ms": spool.streams,
        "oldest(200), ms": lambda: spool.oldest(BATCH),
        "oldest(200) while a line rests, ms": lambda: spool.oldest(BATCH, except_streams=resting),
        "expire(), ms": spool.expire,
        "append and settle 200, ms": append_and_settle,
    }
    return {name: min(_ms(call) for _ in range(5)) for name, call in calls.items()}


def batches(count: int) -> Iterator[list[Record]]:
    """Records as the forwarder gets them: sorted ids, one alarm in ten."""
    dice = random.Random(count)
    payload = dice.randbytes(PAYLOAD)
    for start in range(0, count, BATCH):
        line = start // BATCH % LINES
        yield [
            Record(
                new_event_id(), f"predictions-line-{line}", f"linewatch/v1/plant-1/line-{line}/station-1/inspection",
                payload, alarm=number % 10 == 0,
            )
            for number in range(BATCH)
        ]  # fmt: skip


def _bare(path: Path) -> float:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE events (id, payload)")

    def fill() -> None:
        for batch in batches(ROWS):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO events VALUES (?, ?)", [(one.event_id, one.payload) for one in batch])
            db.execute("COMMIT")

    rate = _rate(ROWS, fill)
    db.close()
    return rate


def _rate(rows: int, work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return rows / (time.monotonic() - started)


def _ms(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return round((time.monotonic() - started) * 1000, 2)


def _rss() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)


if __name__ == "__main__":
    sys.exit(main())
