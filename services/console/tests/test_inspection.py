# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from console_process import PLACE, inspection

from linewatch.v1 import event_pb2
from linewatch_console.inspection import Dropped, NotAnEvent, Part, Skipped, read_event
from linewatch_runtime.events import envelope, new_event_id, origin


def test_verdict_becomes_a_part() -> None:
    payload = inspection(
        7, "EL2_1.jpg", result="NG", label="crack", score=0.9, severity=0.9, failure_mode="cell-crack",
        regions=[{"label": "crack", "score": 0.9, "x": 1, "y": 2, "width": 3, "height": 4}],
    )  # fmt: skip

    part = read_event(payload)

    assert isinstance(part, Part)
    assert (part.result, part.label, part.score, part.sequence) == ("NG", "crack", 0.9, 7)
    assert part.regions == [{"label": "crack", "score": 0.9, "x": 1, "y": 2, "width": 3, "height": 4}]


def test_part_without_verdict_is_not_inspected_with_its_reason() -> None:
    message = event_pb2.Inspection(
        origin=origin(PLACE, 1, 1), part_id="x",
        not_inspected=event_pb2.NotInspected(reason="unreadable_image", message="no JPEG"),
    )  # fmt: skip

    part = read_event(envelope(new_event_id(), "InferenceError", PLACE, message))

    assert isinstance(part, Part)
    assert (part.result, part.reason, part.score) == ("NOT_INSPECTED", "unreadable_image", None)


def test_gaps_are_read() -> None:
    skipped = event_pb2.PartsSkipped(origin=origin(PLACE, 1, 1), count=3, reason="replaced_by_newer")
    dropped = event_pb2.EventsDropped(origin=origin(PLACE, 1, 2), stream="s", count=5, reason="expired")

    assert read_event(envelope("1", "PartsSkipped", PLACE, skipped)) == Skipped(3, "replaced_by_newer")
    assert read_event(envelope("2", "EventsDropped", PLACE, dropped)) == Dropped(5, "s", "expired")


def with_data(**changes: object) -> bytes:
    event = json.loads(inspection())
    event["data"].update(changes)
    return json.dumps(event).encode()


@pytest.mark.parametrize("payload", [
    b"", b"\xff\xfe", b"[]", b"null", b"17", b'{"type":"InferenceCompleted"}', b'{"type":["x"],"data":{}}',
    b"[" * 60000, b"x" * 70000, with_data(verdict={"score": "a lot"}), with_data(evidence="none"), with_data(origin="here"),
    json.dumps(json.loads(inspection()) | {"type": "Surprise"}).encode(),
    json.dumps(json.loads(inspection()) | {"id": 5}).encode(),
])  # fmt: skip
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(NotAnEvent):
        read_event(payload)


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "//elsewhere.example/x.jpg",
        "javascript:alert(1)",
        "x.html",
        "a b.jpg",
        '"><img>.jpg',
    ],
)
def test_evidence_path_that_is_none_gets_no_address(path: str) -> None:
    part = read_event(with_data(evidence=[{"kind": "frame", "path": path}]))

    assert isinstance(part, Part)
    assert part.frame == ""


def test_numbers_that_json_cannot_carry_are_left_out() -> None:
    part = read_event(inspection(score=float("nan"), severity=float("inf")))

    assert isinstance(part, Part)
    assert (part.score, part.severity) == (None, None)


def test_endless_texts_are_cut() -> None:
    part = read_event(inspection(part_id="x" * 5000))

    assert isinstance(part, Part)
    assert len(part.part_id) == 200
