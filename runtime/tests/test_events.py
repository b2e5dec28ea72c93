# SPDX-License-Identifier: Apache-2.0
import json
import time
import uuid
from types import SimpleNamespace

import pytest
import uuid6

from linewatch.v1 import event_pb2
from linewatch_runtime import clocks, events
from linewatch_runtime.events import Place, envelope, new_event_id, origin, stream_of

PLACE = Place("plant-1", "line-1", "station-1")


def test_envelope_is_a_cloudevents_object() -> None:
    data = event_pb2.PartsSkipped(origin=origin(PLACE, 2, 7), count=3, reason="spool_full")
    data.origin.taken_at.FromMilliseconds(1795233600123)
    data.origin.ClearField("clock")

    payload = envelope("0198", "PartsSkipped", PLACE, data, subject="Stück 1", traceparent="00-1-2-01")

    assert json.loads(payload) == {
        "specversion": "1.0",
        "id": "0198",
        "source": "/linewatch/v1/plant-1/line-1/station-1",
        "type": "PartsSkipped",
        "time": "2026-11-21T04:00:00.123Z",
        "datacontenttype": "application/json",
        "dataschema": "linewatch/v1/event.proto",
        "data": {
            "origin": {
                "site": "plant-1", "line": "line-1", "station": "station-1", "epoch": 2, "sequence": 7,
                "taken_at": "2026-11-21T04:00:00.123Z",
            },
            "count": 3,
            "reason": "spool_full",
        },
        "subject": "Stück 1",
        "traceparent": "00-1-2-01",
    }  # fmt: skip
    assert "Stück" in payload.decode()


def test_envelope_leaves_out_a_subject_and_trace_that_are_not_there() -> None:
    told = json.loads(envelope("0198", "EngineStarted", PLACE, event_pb2.Engine(origin=origin(PLACE, 1, 1))))

    assert not {"subject", "traceparent"} & set(told)


def test_origin_says_when_by_both_clocks() -> None:
    wall, boot = time.time(), clocks.since_boot()

    made = origin(PLACE, 1, 2)

    # Between two looks, however long this process was not let run; the second is for a wall clock that is set.
    assert wall - 1 < made.taken_at.ToMilliseconds() / 1000 < time.time() + 1
    assert boot <= made.clock.monotonic_s <= clocks.since_boot()
    assert made.clock.boot_id == clocks.boot_id()
    uuid.UUID(made.clock.boot_id)


def test_origin_of_what_was_taken_a_while_ago_goes_back_on_both_clocks() -> None:
    now, ago = origin(PLACE, 1, 2), origin(PLACE, 1, 2, age_s=100.0)

    assert 90 < now.clock.monotonic_s - ago.clock.monotonic_s < 100.1
    assert 90 < (now.taken_at.ToMilliseconds() - ago.taken_at.ToMilliseconds()) / 1000 < 100.1


def test_clock_that_is_set_while_an_origin_is_made_is_never_called_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[str] = []
    # The module's own clock: another thread of this process may look at the real one.
    wall = SimpleNamespace(time=lambda: (reads.append("wall"), time.time())[1])
    monkeypatch.setattr(events, "clock_synchronised", lambda: bool(reads.append("synchronised")))
    monkeypatch.setattr(events, "time", wall)

    origin(PLACE, 1, 2)

    assert reads == ["synchronised", "wall"]


def test_event_ids_are_uuid7_unique_and_sorted_by_time() -> None:
    ids = [new_event_id() for _ in range(1000)]

    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    assert {uuid.UUID(one).version for one in ids} == {7}
    assert abs(int(ids[0].replace("-", "")[:12], 16) / 1000 - time.time()) < 60


@pytest.mark.parametrize(
    ("line", "stream"),
    [("line-1", "predictions-line-1"), ("press", "predictions-line-press"), ("device", "events-device")],
)
def test_each_line_has_a_stream_of_its_own(line: str, stream: str) -> None:
    assert stream_of(line) == stream


def test_topics_and_source_come_from_the_place() -> None:
    assert PLACE.topic("inspection") == "linewatch/v1/plant-1/line-1/station-1/inspection"
    assert PLACE.source == "/linewatch/v1/plant-1/line-1/station-1"


def test_clock_state_is_asked_from_the_kernel_or_unknown() -> None:
    assert clocks.clock_synchronised() in {True, False, None}


def test_event_ids_stay_unique_and_in_order_while_the_clock_jumps_by_a_year(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    year_ns, now_ns = 365 * 24 * 3600 * 10**9, time.time_ns()
    at = [now_ns]
    monkeypatch.setattr(time, "time_ns", lambda: at[0])
    # What it made last is put back with it: ids of every later test of this process would be a year ahead.
    monkeypatch.setattr(uuid6, "_last_v7_timestamp", None)
    ids = []
    for jump in (0, year_ns, -year_ns, 0, -2 * year_ns):
        at[0] = now_ns + jump
        ids += [new_event_id() for _ in range(500)]

    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids), "within one process no jump turns them round"
