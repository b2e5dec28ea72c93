# SPDX-License-Identifier: Apache-2.0
"""A line that says nothing is told, by name, until it speaks again; time is the test's."""

import json
import logging
import os
from dataclasses import replace
from typing import Any

import pytest
from cloud_line import Eventually, Line

from assets.asset import Asset
from assets.registry import Row
from linewatch_plant.standin_cloud import StandinCloud
from watch import silent_lines as job
from watch.handler import JOBS
from watch.silent_lines import Heard, silences
from work_orders.observing import Desk
from work_orders.wiring import desk_of

NOW = 1_000_000.0


def row(
    line: str = "line-1", station: str = "s1", silent_after: int | None = None, imported_at: str = ""
) -> Row:
    asset = Asset(
        "p", line, station, "A1", "press", "", "B", "machine", "d", {}, silent_after_minutes=silent_after
    )
    return Row(asset.station_key, asset, "", 1, imported_at)


def told(rows: list[Row], **heard: Heard) -> list[str]:
    by_key = {f"p/line-1/{station}": one for station, one in heard.items()}
    return [f"{one.station_key}: {one.why}" for one in silences(rows, by_key, NOW, NOW - 3000, 30)]


def test_a_station_is_silent_after_its_minutes_and_not_before() -> None:
    assert told([row()], s1=Heard(NOW - 1800, judges=True)) == []
    assert told([row()], s1=Heard(NOW - 1860, judges=True)) == ["p/line-1/s1: no part for 31 minutes"]
    assert told([row(silent_after=60)], s1=Heard(NOW - 3500, judges=True)) == []
    assert told([row(silent_after=5)], s1=Heard(NOW - 600, judges=True)) == [
        "p/line-1/s1: no part for 10 minutes"
    ]


def test_zero_minutes_is_never() -> None:
    assert told([row(silent_after=0)], s1=Heard(0.0, judges=False)) == []


def test_a_station_that_was_never_heard_counts_from_its_import() -> None:
    early, late = "1970-01-12T12:46:40Z", "1970-01-12T13:40:00Z"  # an hour, and 400 s before NOW
    assert told([row(imported_at=early)]) == [
        "p/line-1/s1: no part for 60 minutes, never one since it was imported"
    ]
    assert told([row(imported_at=late)]) == []
    assert told([row()]) == ["p/line-1/s1: no part for 50 minutes, never one since it was imported"], (
        "the first look"
    )


def test_a_state_of_a_release_that_kept_no_time_counts_from_the_first_look() -> None:
    assert told([row()], s1=Heard(None, judges=True)) == ["p/line-1/s1: no part for 50 minutes"]


def test_a_station_that_judges_nothing_is_silent_although_it_sends() -> None:
    assert told([row()], s1=Heard(NOW, judges=False)) == [
        "p/line-1/s1: none of its last parts could be judged (5 or more)"
    ]
    assert not job._judges(json.dumps([[1, n, "e", None, None, None] for n in range(5)]))
    assert job._judges(json.dumps([[1, n, "e", None, None, None] for n in range(4)]))
    assert job._judges(json.dumps([[1, n, "e", None, None, 0.0 if n == 2 else None] for n in range(5)]))


def test_a_row_that_can_not_be_used_stops_nothing() -> None:
    assert told([Row("p/line-1/s9", None, "kind", 0, ""), row()], s1=Heard(NOW, judges=True)) == []


@pytest.fixture
def desk(environment: dict[str, str], cloud: StandinCloud, monkeypatch: pytest.MonkeyPatch) -> Desk:
    function = cloud.client("lambda").get_function_configuration(
        FunctionName=cloud.outputs["WatchFunctionName"]
    )
    for name in ("ASSETS_TABLE", "COUNTERS_TABLE", "POLICY_STATE_TABLE", "SILENT_AFTER_MINUTES"):
        monkeypatch.setitem(os.environ, name, function["Environment"]["Variables"][name])
    return desk_of(environment)


def test_a_line_falls_silent_is_named_and_is_heard_again(
    machine: Line, desk: Desk, cloud: StandinCloud, eventually: Eventually
) -> None:
    line = f"plant-1/{machine.line}"
    machine.send(*(machine.severity(0.1) for _ in range(3)))
    eventually(machine.all_decided, "the parts")
    said: list[tuple[str, Any]] = []
    heard = _listening(said)
    try:
        assert JOBS["silent_lines"] is job.silent_lines
        first = job.silent_lines(desk)
        assert ("line_silent", line) not in said

        later = job.silent_lines(replace(desk, clock=lambda: desk.clock() + 3 * 3600))
        assert ("line_silent", line) in said
        assert later["silent"] > first["silent"]
        stored = desk.dynamodb.get_item(TableName=os.environ["COUNTERS_TABLE"], Key=job.ITEM)["Item"]
        assert line in stored["silent"]

        again = job.silent_lines(desk)
        assert ("line_heard_again", line) in said
        assert again["recovered"] >= 1
    finally:
        job.log.removeHandler(heard)


def test_the_deployed_function_may_look(machine: Line, cloud: StandinCloud) -> None:
    """Under the role of the template, every action evaluated."""
    answer = cloud.client("lambda").invoke(FunctionName=cloud.outputs["WatchFunctionName"], Payload=b"{}")
    told = json.loads(answer["Payload"].read())

    assert "silent_lines" in told, told
    assert told["silent_lines"]["stations"] >= 1


def _listening(said: list[tuple[str, Any]]) -> Any:
    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append((record.getMessage(), getattr(record, "line", None)))

    ear = Ear()
    job.log.addHandler(ear)
    job.log.setLevel("INFO")
    return ear
