# SPDX-License-Identifier: Apache-2.0
"""Events as they were written once must be read for ever, and be written the same way. Files are added, never changed."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_runtime.events import DATA_SCHEMA, MAX_EVENT_BYTES, EventData, Place, envelope

GOLDEN = sorted((Path(__file__).parents[2] / "protos" / "golden" / "v1").glob("*.json"))

DATA: dict[str, type[EventData]] = {
    "InferenceCompleted": event_pb2.Inspection,
    "InferenceError": event_pb2.Inspection,
    "PartsSkipped": event_pb2.PartsSkipped,
    "EventsDropped": event_pb2.EventsDropped,
    "EngineStarted": event_pb2.Engine,
    "EngineShutdown": event_pb2.Engine,
    "EngineError": event_pb2.Engine,
    "ModelLoadSuccess": event_pb2.Engine,
    "ModelLoadError": event_pb2.Engine,
}

each = pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)


def read(path: Path) -> tuple[dict[str, object], EventData]:
    event = json.loads(path.read_bytes())
    return event, json_format.ParseDict(event["data"], DATA[event["type"]]())


@each
def test_golden_event_is_written_the_same_way_byte_for_byte(path: Path) -> None:
    event, data = read(path)
    place = Place(data.origin.site, data.origin.line, data.origin.station)

    written = envelope(
        event["id"], event["type"], place, data,
        subject=event.get("subject", ""), traceparent=event.get("traceparent", ""),
    )  # fmt: skip

    assert written == path.read_bytes().rstrip(b"\n")


@each
def test_golden_event_is_a_cloudevents_object_of_at_most_5_kb(path: Path) -> None:
    event, data = read(path)

    assert (event["specversion"], event["dataschema"]) == ("1.0", DATA_SCHEMA)
    assert event["datacontenttype"] == "application/json"
    assert event["source"] == f"/linewatch/v1/{data.origin.site}/{data.origin.line}/{data.origin.station}"
    assert event["time"] == data.origin.taken_at.ToJsonString()
    assert len(path.read_bytes()) <= MAX_EVENT_BYTES == 5 * 1024


@each
def test_reader_ignores_fields_that_it_does_not_know(path: Path) -> None:
    event, data = read(path)
    newer = {**event["data"], "from_a_later_release": {"a": [1]}}
    newer["origin"] = {**newer["origin"], "also_new": 7}

    assert json_format.ParseDict(newer, DATA[event["type"]](), ignore_unknown_fields=True) == data


def test_there_is_a_golden_event_of_every_type_and_outcome() -> None:
    read_all = [read(path) for path in GOLDEN]

    assert {event["type"] for event, _ in read_all} == set(DATA)
    verdicts = [
        data.verdict for event, data in read_all if event["type"] == "InferenceCompleted"
    ]  # fmt: skip
    assert {one.result for one in verdicts} == {
        verdict_pb2.Verdict.OK, verdict_pb2.Verdict.NG, verdict_pb2.Verdict.REVIEW,
    }  # fmt: skip
    assert any(one.regions for one in verdicts)
    assert any(one.time_to_failure.beyond_horizon for one in verdicts)


def test_good_part_says_that_it_is_not_anomalous() -> None:
    (ok,) = (json.loads(path.read_bytes()) for path in GOLDEN if path.stem == "inspection_ok")

    assert ok["data"]["verdict"]["is_anomalous"] is False
    assert ok["data"]["verdict"]["score"] == 0.0
