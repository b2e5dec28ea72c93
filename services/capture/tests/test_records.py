# SPDX-License-Identifier: Apache-2.0
"""Sensor records: windows, order, places in the file."""

import asyncio
import gzip
import itertools
import math

import pytest

from linewatch_capture.parts import NotInspected, Window
from linewatch_capture.records import MachineWindow, PlayedRecords, SensorRecord, UnfitRecords, channels_of

CHANNELS = [f"s{number}" for number in range(24)]


def value(engine, cycle, channel):
    return engine * 1000 + cycle + channel / 100


@pytest.fixture
def records(tmp_path):
    """Writes a CSV with the given (engine, cycle) rows, or rows as text."""

    def make(rows, name="records.csv.gz"):
        lines = [",".join(["engine", "cycle", *CHANNELS])]
        for row in rows:
            if isinstance(row, str):
                lines.append(row)
                continue
            engine, cycle = row
            lines.append(f"E{engine},{cycle}," + ",".join(str(value(engine, cycle, i)) for i in range(24)))
        path = tmp_path / name
        content = ("\n".join(lines) + "\n").encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return make


@pytest.fixture
def turbofan(settings, flow):
    return lambda **changes: flow(
        source="records", model="turbofan", station="machine-1", line="line-2", **changes
    )


def lives(*lengths):
    return [(engine, cycle) for engine, length in enumerate(lengths, 1) for cycle in range(1, length + 1)]


def test_a_window_holds_the_last_records_of_its_machine(turbofan, records, inspector):
    station = turbofan(path=records(lives(60, 3)))

    asyncio.run(station.run())

    windows = [request.sensor_window for request in inspector.asked]
    assert len(windows) == 63
    assert {(window.rows, window.channels, len(window.values)) for window in windows} == {(50, 24, 1200)}
    first, last_of_first, first_of_second = windows[0], windows[59], windows[60]
    assert first.padded_rows == 49
    assert first.values[:24] == pytest.approx([value(1, 1, i) for i in range(24)])
    assert first.values[-24:] == first.values[:24]
    assert last_of_first.padded_rows == 0
    assert last_of_first.values[0] == pytest.approx(value(1, 11, 0))
    assert last_of_first.values[-24] == pytest.approx(value(1, 60, 0))
    nothing_of_the_machine_before = [value(2, 1, 0)] * 50
    assert first_of_second.values[::24] == pytest.approx(nothing_of_the_machine_before)
    events = station.events()
    assert events[0]["data"]["part_id"] == "E1 cycle 1"
    assert "cycle_period_s" not in events[0]["data"]
    assert events[1]["data"]["cycle_period_s"] >= 0


def test_a_cycle_that_does_not_count_up_is_refused_and_stays_out_of_the_windows():
    window = MachineWindow(3, ("s",))
    rows = [SensorRecord("E", cycle, (float(at),)) for at, cycle in enumerate([1, 2, 2, 1, None, 3])]

    outcomes = [window.add(row) for row in rows]

    refused = [isinstance(outcome, NotInspected) and outcome.reason for outcome in outcomes]
    assert refused == [False, False, "cycle_order", "cycle_order", "cycle_order", False]
    assert isinstance(outcomes[5], Window)
    assert outcomes[5].cycles == (1, 2, 3)


def test_a_refused_record_is_an_event_and_is_not_asked(turbofan, records, inspector):
    station = turbofan(path=records([(1, 1), (1, 1), (1, 2)]))

    asyncio.run(station.run())

    assert [event["type"] for event in station.events()] == [
        "InferenceCompleted",
        "InferenceError",
        "InferenceCompleted",
    ]
    assert station.events()[1]["data"]["not_inspected"]["reason"] == "cycle_order"
    assert len(inspector.asked) == 2


def test_what_is_no_number_is_sent_as_nan(turbofan, records, inspector):
    station = turbofan(path=records(["E1,1,abc" + ",1.0" * 23, "E1,2,1.0"]))

    asyncio.run(station.run())

    first, second = (request.sensor_window.values for request in inspector.asked)
    assert math.isnan(first[-24])
    assert first[-1] == 1.0
    assert math.isnan(second[-1]), "a short row is filled, not left out"


def test_a_restart_goes_on_inside_the_window(turbofan, records, inspector):
    path = records(lives(8))
    asyncio.run(turbofan(path=path, parts=5).run())

    asyncio.run(turbofan(path=path).run())

    window = inspector.asked[5].sensor_window
    assert len(inspector.asked) == 8
    assert window.padded_rows == 44
    assert window.values[-48::24] == pytest.approx([value(1, 5, 0), value(1, 6, 0)])


def test_a_loop_begins_anew_and_resumes_in_its_round(records):
    path = records(lives(3), "records.csv")

    async def ids(position, count):
        stop = asyncio.Event()
        source = PlayedRecords(path, 3, 1000, stop, loop=True)
        taken = []
        async for part in source.parts(position):
            taken.append((part.part_id, part.position, part.content.padded_rows))
            if len(taken) == count:
                break
        return taken

    assert asyncio.run(ids(0, 4)) == [
        ("E1 cycle 1", 1, 2), ("E1 cycle 2", 2, 1), ("E1 cycle 3", 3, 0), ("E1 cycle 1", 4, 2),
    ]  # fmt: skip
    assert asyncio.run(ids(3_000_001, 1)) == [("E1 cycle 2", 3_000_002, 1)]


def test_the_window_length_waits_for_inference(turbofan, records, inspector):
    inspector.stop()
    station = turbofan(path=records(lives(2)))

    async def bring_it_back(_stop):
        await station.until(lambda: "window's length" in station.progress.detail)
        inspector.start()

    asyncio.run(station.run(bring_it_back))

    assert station.counts()["judged"] == 2


def test_a_window_length_that_is_set_needs_no_metadata(turbofan, records, inspector):
    station = turbofan(path=records(lives(2)), window_rows=7, cycle_period_s=226.8)

    asyncio.run(station.run())

    assert inspector.asked[0].sensor_window.rows == 7
    assert [event["data"]["cycle_period_s"] for event in station.events()] == [226.8, 226.8]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b,c\n1,2,3\n", "header must be engine,cycle"),
        ("engine,cycle,s1\n", "no record"),
        ("", "header must be"),
    ],
)
def test_a_file_that_holds_no_records_says_so(tmp_path, content, told):
    path = tmp_path / "records.csv"
    path.write_text(content)

    with pytest.raises(UnfitRecords, match=told):
        channels_of(path)


def test_a_gz_file_that_is_none_says_so(tmp_path):
    path = tmp_path / "records.csv.gz"
    path.write_text("engine,cycle,s1\n")

    with pytest.raises(UnfitRecords, match="can't be read"):
        channels_of(path)


def test_the_committed_sample_is_playable():
    from pathlib import Path

    path = Path(__file__).resolve().parents[3] / "plant/sample/turbofan/records.csv.gz"

    async def play():
        source = PlayedRecords(path, 50, 1000, asyncio.Event(), limit=200)
        source._pace._period_s = 0
        return [part async for part in source.parts(0)]

    parts = asyncio.run(play())
    assert not any(part.refused for part in parts)
    assert len(channels_of(path)) == 24
    engines = [name for name, _ in itertools.groupby(part.part_id.split()[0] for part in parts)]
    assert engines == ["FD001-091", "FD003-045"]
