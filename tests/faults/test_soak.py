# SPDX-License-Identifier: Apache-2.0
"""R10: a producer, a broker that is killed now and then, and a forwarder, for 3 minutes; LONG=1: for 2 hours.

Nothing lost, and nothing that grows: resident memory, open files, the spool's log. `make soak` runs it alone.

Guards: every bound that a docstring of runtime/ and services/forwarder names.
"""

import asyncio
import os
import statistics
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from brokers import Broker, Child, Cloud, running, until
from faults.sink import sinking
from forwarding import Forwarder

pytestmark = [pytest.mark.faults, pytest.mark.anyio]

RATE = 50.0
SECONDS = float(os.environ.get("SOAK_SECONDS") or (7200 if os.environ.get("LONG") == "1" else 180))
WARM_S = min(600.0, SECONDS / 3)
KILL_EVERY_S = min(300.0, SECONDS / 5)
WAL_MAX_BYTES = 8 * 1024 * 1024
GROWTH_MAX_BYTES = max(4 * 1024 * 1024, 1e6 * 0.75 * (SECONDS - WARM_S) / 3600)
"""Between the medians of the first and the last quarter after the warm-up: 1 MB an hour (RELIABILITY R10), and never less
than what a short run's noise is."""
PRODUCER = Path(__file__).with_name("producer.py")


@dataclass(slots=True)
class Watched:
    """Samples of one process, one a second after the warm-up: (seconds, resident bytes, open files)."""

    process: psutil.Process
    samples: list[tuple[float, int, int]] = field(default_factory=list)

    def look(self, at: float) -> None:
        self.samples.append((at, self.process.memory_info().rss, self.process.num_fds()))

    def growth_bytes(self) -> float:
        """Between the medians of the first and the last quarter."""
        quarter = max(1, len(self.samples) // 4)
        first, last = (
            statistics.median(rss for _, rss, _ in part)
            for part in (self.samples[:quarter], self.samples[-quarter:])
        )
        return last - first

    def files_grown(self) -> float:
        """Open files as they mostly are, in the last quarter against the first: a session that ends or begins has others."""
        quarter = max(1, len(self.samples) // 4)
        first, last = (
            statistics.mode(fds for *_, fds in part)
            for part in (self.samples[:quarter], self.samples[-quarter:])
        )
        return last - first


def wal_bytes(*spools: Path) -> int:
    """The largest write-ahead log."""
    logs = (spool.with_name(spool.name + "-wal") for spool in spools)
    return max(log.stat().st_size if log.exists() else 0 for log in logs)


@pytest.mark.timeout(2 * SECONDS + 900)
async def test_soak(mosquitto: Broker, cloud: Cloud, tmp_path: Path, tally) -> None:
    count = int(RATE * SECONDS)
    forwarder = Forwarder(tmp_path, mosquitto.port, **cloud.settings())
    options = {"--port": mosquitto.port, "--spool": tmp_path / "capture.db", "--count": count, "--rate": RATE}
    producer = Child(
        [sys.executable, PRODUCER, *(part for pair in options.items() for part in pair)],
        tmp_path / "producer.log",
    )
    spools = (tmp_path / "capture.db", forwarder.state_dir / "forwarder.db")
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(sinking(cloud.endpoint("sink")))
        for child in (forwarder, producer):
            stack.enter_context(running(child))
        await until(lambda: sink.first, "the first event arrives")
        watched = [Watched(psutil.Process(child.process.pid)) for child in (forwarder, producer)]
        started, kills, largest_log = time.monotonic(), 0, 0
        while (passed := time.monotonic() - started) < SECONDS:
            if passed > (kills + 1) * KILL_EVERY_S and passed < SECONDS - KILL_EVERY_S / 2:
                mosquitto.kill()
                await asyncio.to_thread(mosquitto.start)
                kills += 1
            if passed > WARM_S:
                for one in watched:
                    one.look(passed)
            largest_log = max(largest_log, wal_bytes(*spools))
            assert forwarder.runs, forwarder.told()[-2000:]
            assert producer.runs, producer.told()[-2000:]
            await asyncio.sleep(1.0)  # the pace of the samples, not a wait for something
        await until(lambda: len(sink.first) >= count, "every event arrives", SECONDS + 600)
    tally.accepted, tally.lost = count, count - len(sink.first)
    growth = [one.growth_bytes() / 1e6 for one in watched]
    tally.note = (
        f"{SECONDS:g} s at {RATE:g}/s, {kills} broker kills; memory of forwarder and producer grew {growth[0]:+.1f} and "
        f"{growth[1]:+.1f} MB, log at most {largest_log / 1e6:.1f} MB, {sink.repeats} repeats on the wire"
    )
    print(tally.note)
    assert len(sink.first) == count
    assert largest_log <= WAL_MAX_BYTES
    for one in watched:
        assert one.growth_bytes() <= GROWTH_MAX_BYTES
        assert one.files_grown() <= 0
