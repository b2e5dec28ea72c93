# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures
"""R4: a stream at its limit, to the unit: accepted + refused = produced, and delivered + evicted = accepted.

Through the real forwarder, from publish to the cloud. Which events leave is compared with a model of ten lines. The
control of a count is the drop itself: what is missing at the cloud is told by EventsDropped, exactly.

Guards: runtime/linewatch_runtime/spool.py, services/forwarder/linewatch_forwarder/{intake,report}.py.
"""

import datetime
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from brokers import Broker, Cloud, until, wait_for
from faults.loads import Station, station
from faults.sink import Sink, sinking
from forwarding import Forwarder, forwarder  # noqa: F401 - a fixture
from stream_manager_server import StreamManagerServer

from linewatch_runtime.events import Place
from linewatch_runtime.records import Record

pytestmark = [pytest.mark.faults, pytest.mark.anyio, pytest.mark.timeout(900)]

ROOM = 2 * 1024 * 1024
"""The least that a stream may have, some 2,000 events."""

STREAM = "predictions-line-1"
MARKER = Place("plant-1", "line-2", "station-1")
EIGHT_DAYS = 8 * 24 * 3600


def offline(forwarder: Forwarder, **settings: object) -> dict[str, str]:
    """Sets the forwarder up without a way to the cloud; returns what sets it up with one."""
    forwarder.environment |= {f"FORWARDER_{name.upper()}": str(value) for name, value in settings.items()}
    forwarder.environment["FORWARDER_UPLINK"] = "none"
    return {"FORWARDER_UPLINK": "mqtt", "FORWARDER_UPLINK_RATE": "10000"}


async def taken_in(line: Station, marker: Station) -> None:
    """Returns when the forwarder has decided about everything that was published before."""
    (event_id,) = await marker.make(["OK"])
    await until(lambda: event_id in marker.committed, "the marker behind it all is committed", 120)
    # The marker may be of the same group as the last events, whose `committed` comes right behind it.
    (event_id,) = await marker.make(["OK"])
    await until(lambda: event_id in marker.committed, "the second marker is committed", 120)
    # By then the broker has sent the line all that it was told; the line's own connection may not have read it.
    await line.has_heard()


def kept_by(policy: str, records: list[Record]) -> set[str]:
    """The model: what a stream of ROOM bytes holds after taking the records in, one after the other."""
    held: list[Record] = []
    used = 0
    for one in records:
        while used + one.size > ROOM:
            loser = next(old for old in held if policy == "overwrite_oldest" or not old.alarm)
            held.remove(loser)
            used -= loser.size
        held.append(one)
        used += one.size
    return {one.event_id for one in held}


async def drained(sink: Sink, wanted: set[str], lost: int) -> None:
    """Everything that must come has come, and the cloud was told of the rest."""
    await until(lambda: not sink.lacks(wanted), "what was kept arrives", 180)
    await until(lambda: sum(sink.dropped().values()) >= lost, "the loss is told")


@pytest.mark.parametrize(
    ("policy", "reason"), [("shed_good", "shed_good"), ("overwrite_oldest", "overwritten")]
)
async def test_what_a_full_stream_evicts_is_told_to_the_unit_and_the_rest_arrives(
    policy: str, reason: str, tally, mosquitto: Broker, cloud: Cloud, tmp_path: Path, forwarder: Forwarder
) -> None:
    back = offline(forwarder, stream_max_bytes=ROOM, when_full=policy)
    async with (
        sinking(cloud.endpoint("sink")) as sink,
        station(mosquitto) as line,
        station(mosquitto, MARKER) as marker,
    ):
        forwarder.start()
        await until(lambda: len(forwarder.events("mqtt_connected")) >= 2, "the device is connected")
        await line.make("NG" if number % 10 == 0 else "OK" for number in range(3000))
        await taken_in(line, marker)
        assert line.refused == [], "nothing is refused while something may be evicted"
        assert forwarder.end() == 0

        forwarder.environment |= back
        forwarder.start()
        kept = kept_by(policy, list(line.made.values()))
        evicted = line.made.keys() - kept
        await drained(sink, kept | marker.committed, len(evicted))
        assert forwarder.end() == 0

    tally.accepted = len(line.committed | marker.committed)
    tally.lost = len(sink.lacks(line.committed | marker.committed)) - sink.dropped()[STREAM, reason]
    tally.note = f"{len(line.made)} produced = {len(kept)} delivered + {len(evicted)} {reason}, each told"
    assert 500 < len(evicted) < 2500
    assert sink.lacks(line.made) == evicted, "the evicted are those that the policy says"
    assert dict(sink.dropped()) == {(STREAM, reason): len(evicted)}
    assert tally.lost == 0
    defects = {one for one in sink.lacks(line.made) if line.made[one].alarm}
    if policy == "shed_good":
        assert not defects, "a defect was evicted while a good one was held"
    else:  # the control of the class: the same load, the oldest goes whatever it is
        tally.control_lost = len(defects)
        tally.note += f"; the control of shed_good: {len(defects)} of them are defects"
        assert defects, "the control must lose defects, or `shed_good` is compared with nothing"


async def test_what_stream_manager_frees_is_told_to_the_unit_and_no_defect_goes(
    tally, mosquitto: Broker, cloud: Cloud, forwarder: Forwarder
) -> None:
    """It frees whole segments: how many events go is its own matter, but each is told, and none is a defect."""
    with StreamManagerServer() as server:
        back = offline(
            forwarder, streams="stream_manager", stream_manager_port=server.port, stream_max_bytes=ROOM,
            stream_segment_bytes=ROOM // 8, when_full="shed_good",
        )  # fmt: skip
        async with (
            sinking(cloud.endpoint("sink")) as sink,
            station(mosquitto) as line,
            station(mosquitto, MARKER) as marker,
        ):
            forwarder.start()
            await until(lambda: len(forwarder.events("mqtt_connected")) >= 2, "the device is connected")
            await line.make("NG" if number % 10 == 0 else "OK" for number in range(5000))
            await taken_in(line, marker)
            assert line.refused == [], "nothing is refused while something may be freed"
            assert forwarder.end() == 0

            forwarder.environment |= back
            forwarder.start()
            await until(
                lambda: 0 < len(sink.lacks(line.made)) == sink.dropped()[STREAM, "shed_good"],
                "what is missing is told, to the unit", 300,
            )  # fmt: skip
            assert forwarder.end() == 0

    missing = sink.lacks(line.made)
    tally.accepted = len(line.committed | marker.committed)
    tally.lost = len(missing | sink.lacks(marker.committed)) - sum(sink.dropped().values())
    tally.note = f"{len(line.made)} produced = {len(line.made) - len(missing)} delivered + {len(missing)} freed, each told"
    assert not tally.lost
    assert not [one for one in missing if line.made[one].alarm], "a defect went"
    assert not sink.out_of_order()
    assert "Traceback" not in forwarder.told()


@pytest.mark.parametrize(("policy", "results"), [("reject", ["OK", "NG"]), ("shed_good", ["NG"])])
async def test_what_a_full_stream_refuses_is_not_committed_and_arrives_when_it_is_sent_again(
    policy: str, results: list[str], tally, mosquitto: Broker, cloud: Cloud, forwarder: Forwarder
) -> None:
    back = offline(forwarder, stream_max_bytes=ROOM, when_full=policy)
    async with (
        sinking(cloud.endpoint("sink")) as sink,
        station(mosquitto) as line,
        station(mosquitto, MARKER) as marker,
    ):
        forwarder.start()
        await until(lambda: len(forwarder.events("mqtt_connected")) >= 2, "the device is connected")
        await line.make(results * (3000 // len(results)))
        await taken_in(line, marker)
        accepted, refused = set(line.committed), line.refused
        assert forwarder.end() == 0

        forwarder.environment |= back
        forwarder.start()
        await drained(sink, accepted | marker.committed, 0)
        early = sink.first.keys() - accepted - marker.committed
        await line.send(refused)
        await until(lambda: not line.refused, "what was refused is committed now", 120)
        await drained(sink, set(line.made), 0)

    tally.accepted, tally.lost = len(line.made), len(sink.lacks(line.made))
    tally.note = (
        f"{len(line.made)} produced = {len(accepted)} accepted + {len(refused)} refused; policy {policy}"
    )
    assert 500 < len(refused) < 2500
    assert len(accepted) + len(refused) == len(line.made)
    assert not early, "what was refused was stored all the same"
    assert not sink.dropped()
    assert not tally.lost


def wall_clock(jump_s: int) -> dict[str, str]:
    """The environment of a process whose wall clock is wrong; the program `faketime` itself would keep the signals."""
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("faketime is not installed (Debian: apt-get install faketime)")
    told = subprocess.run(
        [faketime, "-f", f"{jump_s:+d}s", "env"], capture_output=True, text=True, check=True
    ).stdout
    made = dict(line.partition("=")[::2] for line in told.splitlines())
    return {name: made[name] for name in ("LD_PRELOAD", "FAKETIME")} | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def _said_at(forwarder: Forwarder) -> float:
    """When it stopped, by its own wall clock."""
    return datetime.datetime.fromisoformat(str(forwarder.events("stopped")[-1]["time"])).timestamp()


async def test_clock_that_jumps_eight_days_either_way_expires_nothing(
    tally, mosquitto: Broker, cloud: Cloud, forwarder: Forwarder
) -> None:
    """Seven days may an event wait. The forwarder looks for older ones at each start; here the clock is wrong at two."""
    back, plain = offline(forwarder, stream_max_bytes=ROOM), dict(forwarder.environment)
    async with sinking(cloud.endpoint("sink")) as sink, station(mosquitto) as line:
        for jump in (0, EIGHT_DAYS, -EIGHT_DAYS):
            forwarder.environment |= wall_clock(jump)
            forwarder.start()
            await until(lambda: len(forwarder.events("mqtt_connected")) >= 2, "the device is connected")
            await line.make(["OK", "NG"] * 50)
            await until(lambda: not line.refused, "all are committed")
            assert forwarder.end() == 0
            days = (_said_at(forwarder) - time.time()) / 86400
            assert abs(days - jump / 86400) < 0.1, "the process did not have the wrong clock"
            forwarder.output.unlink()
        forwarder.environment = plain | back
        forwarder.start()
        await drained(sink, set(line.made), 0)
        wait_for(lambda: forwarder.events("mqtt_connected"), "the log is there")
        told = forwarder.told()

    tally.accepted, tally.lost = len(line.committed), len(sink.lacks(line.committed))
    tally.note = "the clock 8 days ahead at one start, 8 days behind at the next; age limit 7 days"
    assert not sink.dropped()
    assert "events_expired" not in told
    assert not tally.lost
