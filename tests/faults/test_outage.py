# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures
"""R3: eight hours without the cloud, and the drain after it, while the forwarder is killed and new defects come.

The eight hours run on an injected clock: the forwarder's spool is filled directly, by the spool's own code, under a
monotonic clock that the test moves. The rest is real: the forwarder's process, the device's broker, TLS to the cloud.
The long form's pace is the default one, within what IoT Core allows a connection.

Guards: services/forwarder/linewatch_forwarder/{delivery,pace}.py, uplinks/{batches,iot_core}.py, runtime's spool.
"""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from brokers import Broker, Cloud, inspection, listening, until
from faults.loads import Station, station
from faults.sink import Sink, sinking
from forwarding import Forwarder, forwarder  # noqa: F401 - a fixture

from linewatch_forwarder.delivery import LOOK_AHEAD
from linewatch_runtime.events import Place, stream_of
from linewatch_runtime.spool import Record, Spool, StreamLimit

pytestmark = [pytest.mark.faults, pytest.mark.anyio]

EIGHT_HOURS_S = 8 * 3600.0
LINES = [Place("plant-1", f"line-{number}", "station-1") for number in (1, 2, 3, 4)]
ROOM = 64 * 1024 * 1024
"""Of one stream: 25,000 events of a line, with as much again to spare."""
FILE_ROOM = 512 * 1024 * 1024
KILLS = 8
DEFECT_EVERY = 50
FRESH_EVERY_S = 0.5
SHORT_RATE = 10.0
"""Publishes a second of the short form: of 40 events each, so its backlog lasts 20 s on the fastest machine, too."""
AIM_S = 5.0
"""For a live defect during the drain; printed, not asserted: this machine is shared."""

STATUS = Place("plant-1", "device", "forwarder").topic("status")


def fill(path: Path, lines: list[Place], each: int, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Puts `each` events of each line into a spool, evenly over eight hours of its clock. Returns their ids."""
    path.parent.mkdir()
    now, ids = [1000.0], set[str]()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now[0])
        spool = Spool(path, StreamLimit(ROOM), FILE_ROOM)
        at_once = max(1, each // 100)
        for begin in range(1, each + 1, at_once):
            for place in lines:
                batch = [_record(place, number) for number in range(begin, min(begin + at_once, each + 1))]
                spool.append(batch)
                ids |= {one.event_id for one in batch}
            now[0] += EIGHT_HOURS_S * at_once / each
        spool.close()
    return ids


def _record(place: Place, number: int) -> Record:
    result = "NG" if number % DEFECT_EVERY == 0 else "OK"
    event_id, payload = inspection(number, result, place)
    return Record(event_id, stream_of(place.line), place.topic("inspection"), payload, result == "NG")


async def test_all_127_predictions_of_an_eight_hour_outage_arrive_in_order(
    tally, mosquitto: Broker, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, forwarder: Forwarder
) -> None:
    """The pilot's own case. At 10 events/s they would be 45 minutes' worth; the age limit is 7 days."""
    ids = fill(forwarder.state_dir / "forwarder.db", LINES[:1], 127, monkeypatch)
    with_uplink = dict(forwarder.environment)
    forwarder.environment["FORWARDER_UPLINK"] = "none"
    async with (
        sinking(cloud.endpoint("sink")) as sink,
        listening(mosquitto.endpoint("console"), STATUS) as told,
    ):
        forwarder.start()
        await until(lambda: told.last(STATUS).get("streams"), "a status")
        (stream,) = told.last(STATUS)["streams"]
        forwarder.kill()
        forwarder.environment = with_uplink
        forwarder.start()
        await until(lambda: not sink.lacks(ids), "all arrive")
        assert forwarder.end() == 0

    tally.accepted, tally.lost = len(ids), len(sink.lacks(ids))
    tally.note = f"oldest {stream['oldest_age_s'] / 3600:.1f} h old, {sink.publishes} publishes, {sink.repeats} repeats"
    assert stream["events"] == 127
    assert 0.98 * EIGHT_HOURS_S < stream["oldest_age_s"] < 1.02 * EIGHT_HOURS_S
    assert (tally.lost, sink.out_of_order(), sink.dropped()) == (0, [], {})


@dataclass(slots=True)
class Fresh:
    """Defects that are published while the backlog drains."""

    stations: list[Station]
    at: dict[str, float] = field(default_factory=dict)
    """Event id -> when it was published, on the monotonic clock."""

    async def keep_making(self) -> None:
        """One at a time, of every line in turn, until it is cancelled."""
        while True:
            for one in self.stations:
                begun = time.monotonic()
                (event_id,) = await one.make(["NG"])
                self.at[event_id] = begun
                await asyncio.sleep(FRESH_EVERY_S)


@pytest.mark.timeout(1800)
async def test_backlog_of_four_lines_drains_in_order_while_the_forwarder_is_killed_and_fresh_alarms_overtake_it(
    tally, long: bool, mosquitto: Broker, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, forwarder: Forwarder
) -> None:
    each = 25_000 if long else 2_000
    ids = fill(forwarder.state_dir / "forwarder.db", LINES, each, monkeypatch)
    forwarder.environment |= {
        "FORWARDER_STREAM_MAX_BYTES": str(ROOM), "FORWARDER_FILE_MAX_BYTES": str(FILE_ROOM),
    }  # fmt: skip
    if not long:
        forwarder.environment["FORWARDER_UPLINK_RATE"] = str(SHORT_RATE)
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(sinking(cloud.endpoint("sink")))
        live = [Place("plant-1", place.line, "station-2") for place in LINES]
        fresh = Fresh([await stack.enter_async_context(station(mosquitto, place)) for place in live])
        forwarder.start()
        await until(lambda: sink.first, "the drain begins")
        making = asyncio.create_task(fresh.keep_making(), name="fresh")
        for kill in range(1, KILLS + 1):
            await until(lambda: len(sink.first) > len(ids) * kill / (KILLS + 3), "it drains", 300)  # noqa: B023
            forwarder.kill()
            forwarder.start()
        await until(lambda: not sink.lacks(ids), "the backlog is drained", 600)
        making.cancel()
        await asyncio.wait([making])
        await until(lambda: not sink.lacks(fresh.at), "the last fresh alarm arrives")
        assert forwarder.runs
        assert forwarder.end() == 0

    done = max(sink.first[one].at for one in ids)
    rate = len(ids) / (done - min(one.at for one in sink.first.values()))
    waits = sorted(sink.first[one].at - at for one, at in fresh.at.items())
    p50, p99 = statistics.median(waits), waits[int(0.99 * (len(waits) - 1))]
    tally.accepted = len(ids | fresh.at.keys())
    tally.lost = len(sink.lacks(ids | fresh.at.keys()))
    tally.note = (
        f"{len(ids)} events of 4 lines, 8 h old, {KILLS} kills in the drain: {rate:.0f} events/s at {'the default pace' if long else f'{SHORT_RATE:g} publishes/s'},"
        f" {sink.publishes} publishes, {sink.repeats} repeats; a fresh alarm took {p50:.1f} s (p50), {p99:.1f} s (p99)"
        f" past the backlog, aim {AIM_S:g} s"
    )
    assert not tally.lost
    assert not sink.out_of_order()
    assert not sink.dropped()
    assert sink.repeats <= KILLS * LOOK_AHEAD, "only what was on its way at a kill is sent again"
    _assert_overtook(sink, fresh, done)
    assert "Traceback" not in forwarder.told()


def _assert_overtook(sink: Sink, fresh: Fresh, done: float) -> None:
    """Each alarm that was published while a good part of the backlog still waited came before the backlog's end."""
    early = [one for one, at in fresh.at.items() if done - at > AIM_S]
    assert len(early) >= 3, "too few alarms during the drain to say anything"
    assert all(sink.first[one].at < done for one in early), "a fresh alarm waited for the backlog"
