# SPDX-License-Identifier: Apache-2.0
"""linewatch.v1.Inspector over a real server, with real graphs."""

import logging
import os
import struct
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from running_server import Running, wait_until
from tiny_models import described, encoded, make_package, picture, spots_graph, window

from linewatch.v1 import inspector_pb2 as messages
from linewatch.v1 import verdict_pb2

TIMEOUT_S = 20.0
OK, NG, REVIEW = (verdict_pb2.Verdict.Result.Value(name) for name in ("OK", "NG", "REVIEW"))


def image_request(data: bytes, model: str = "spots", **fields: object) -> messages.InspectRequest:
    return messages.InspectRequest(id="part-1", model_name=model, encoded_image={"data": data}, **fields)


def window_request(values: np.ndarray, **fields: int) -> messages.InspectRequest:
    rows, channels = values.shape
    sent = {"values": values.ravel(), "rows": rows, "channels": channels, **fields}
    return messages.InspectRequest(id="part-2", model_name="wear", sensor_window=sent)


def refused(
    running: Running, request: messages.InspectRequest, timeout: float = TIMEOUT_S
) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        running.inspector.Inspect(request, timeout=timeout)
    trailing = dict(caught.value.trailing_metadata())
    return caught.value.code(), str(trailing.get("linewatch-reason", "")), caught.value.details()


def png_header_of(width: int, height: int) -> bytes:
    """A PNG whose rows are all zero, deflated: 20000x20000 is a bomb of 400 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeezed = zlib.compressobj(9)
    rows = b"".join(squeezed.compress(bytes(width + 1)) for _ in range(height)) + squeezed.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_dark_spot_is_ng_with_its_place_in_source_pixels(running: Running) -> None:
    response = running.inspector.Inspect(
        image_request(encoded(picture(10)), with_heatmap=True), timeout=TIMEOUT_S
    )

    verdict = response.verdict
    assert (response.id, verdict.result, verdict.label, verdict.failure_mode) == (
        "part-1",
        NG,
        "dark",
        "dark-spot",
    )
    assert verdict.is_anomalous
    assert [score.label for score in verdict.class_scores] == ["ok", "dark", "bright"]
    region = verdict.regions[0]
    assert (region.x, region.y, region.width, region.height, region.area_px) == (16, 32, 12, 8, 96)
    assert region.score == pytest.approx(1 - 10 / 255, abs=0.01)
    assert (response.heatmap.width, response.heatmap.height) == (16, 16)
    assert max(response.heatmap.values) == round(255 * (1 - 10 / 255))
    assert verdict.model.execution_provider == "CPUExecutionProvider"
    assert verdict.model.digest.startswith("sha256:")
    assert verdict.timings.HasField("queue_ms")
    assert verdict.timings.predict_ms > 0


def test_good_part_has_every_field_and_no_region(running: Running) -> None:
    response = running.inspector.Inspect(image_request(encoded(picture(), ".jpg")), timeout=TIMEOUT_S)

    verdict = response.verdict
    assert (verdict.result, verdict.label, verdict.is_anomalous) == (OK, "ok", False)
    assert verdict.HasField("is_anomalous")
    assert not verdict.regions
    assert not verdict.HasField("failure_mode")
    assert not response.HasField("heatmap")


def test_part_between_the_thresholds_is_review(running: Running) -> None:
    verdict = running.inspector.Inspect(image_request(encoded(picture(90))), timeout=TIMEOUT_S).verdict

    assert (verdict.result, verdict.label, verdict.is_anomalous) == (REVIEW, "dark", True)


def test_quality_is_flagged_but_judged(running: Running) -> None:
    dark = running.inspector.Inspect(
        image_request(encoded(np.full((64, 64), 8, np.uint8))), timeout=TIMEOUT_S
    )
    small = running.inspector.Inspect(image_request(encoded(picture(size=64)[:, :12])), timeout=TIMEOUT_S)

    assert list(dark.verdict.quality_flags) == ["too_dark", "blurred"]
    assert list(small.verdict.quality_flags) == ["wrong_size"]


def test_raw_and_shared_memory_pixels_are_judged_like_the_file(
    serve: Callable[..., Running], released: Path, tmp_path: Path
) -> None:
    running = serve(released, shared_memory_dir=tmp_path)
    pixels = picture(10)
    shape = {"width": 64, "height": 64, "channels": 1}
    (tmp_path / "slot-1").write_bytes(b"head" + pixels.tobytes())
    raw = messages.InspectRequest(model_name="spots", raw_image={"data": pixels.tobytes(), **shape})
    shared = messages.InspectRequest(
        model_name="spots", shared_memory_image={"name": "slot-1", "offset": 4, **shape}
    )

    told = [
        running.inspector.Inspect(one, timeout=TIMEOUT_S).verdict
        for one in (image_request(encoded(pixels)), raw, shared)
    ]

    assert {verdict.score for verdict in told} == {told[0].score}


@pytest.mark.parametrize("name", ["../slot-1", "link", "pipe", "missing", "..", "short"])
def test_shared_memory_stays_in_its_directory(
    serve: Callable[..., Running], released: Path, tmp_path: Path, name: str
) -> None:
    shared = tmp_path / "shm"
    shared.mkdir()
    (tmp_path / "slot-1").write_bytes(bytes(64 * 64))
    (shared / "link").symlink_to(tmp_path / "slot-1")
    (shared / "short").write_bytes(bytes(100))
    os.mkfifo(shared / "pipe")
    running = serve(released, shared_memory_dir=shared)
    asked = {"name": name, "width": 64, "height": 64, "channels": 1}

    code, reason, _ = refused(running, messages.InspectRequest(model_name="spots", shared_memory_image=asked))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in {"wrong_shape", "unreadable_image"}


def test_classification_reads_colours_in_the_order_of_the_package(running: Running) -> None:
    blue_green_red = {"blue": (255, 0, 0), "green": (0, 255, 0), "red": (0, 0, 255)}

    told = {
        name: running.inspector.Inspect(
            image_request(encoded(np.full((20, 20, 3), colour, np.uint8)), "colours"), timeout=TIMEOUT_S
        ).verdict
        for name, colour in blue_green_red.items()
    }

    assert {name: verdict.label for name, verdict in told.items()} == {
        "blue": "blue",
        "green": "green",
        "red": "red",
    }
    assert {name: verdict.result for name, verdict in told.items()} == {"blue": NG, "green": OK, "red": NG}
    assert told["red"].failure_mode == "too-red"


def test_window_gets_severity_and_time_to_failure(running: Running) -> None:
    worn = running.inspector.Inspect(window_request(window(8.0)), timeout=TIMEOUT_S).verdict
    new = running.inspector.Inspect(window_request(window(100.0)), timeout=TIMEOUT_S).verdict

    assert (worn.result, worn.label, worn.failure_mode) == (NG, "worn", "wear-out")
    assert worn.severity == pytest.approx(0.92)
    told = worn.time_to_failure
    assert (told.p10, told.p50, told.p90, told.unit, told.horizon) == (3.0, 8.0, 13.0, "cycle", 100.0)
    assert not told.beyond_horizon
    assert (new.result, new.label) == (OK, "none")
    assert new.time_to_failure.beyond_horizon


def spoilt(channel: int, row: slice | int, value: float) -> np.ndarray:
    values = window(50.0)
    values[row, channel] = value
    return values


@pytest.mark.parametrize(
    ("values", "reason", "named"),
    [
        (spoilt(1, 3, np.nan), "not_finite", "temperature in row 3"),
        (spoilt(0, 7, np.inf), "not_finite", "load in row 7"),
        (spoilt(1, slice(4, 8), 61.0), "frozen_channel", "temperature stands at 61"),
        (spoilt(0, 2, 99.0), "unknown_regime", "load 99"),
        (window(50.0, records=7), "wrong_shape", "8x3"),
    ],
)
def test_bad_window_is_refused_by_name(running: Running, values: np.ndarray, reason: str, named: str) -> None:
    code, told, words = refused(running, window_request(values))

    assert (code, told) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert named in words


def test_padding_of_a_young_machine_is_not_a_frozen_channel(running: Running) -> None:
    values = window(50.0)
    values[:6] = values[5]

    response = running.inspector.Inspect(window_request(values, padded_rows=5), timeout=TIMEOUT_S)

    assert response.verdict.result == REVIEW


def test_image_bomb_is_refused_before_it_is_decoded(running: Running) -> None:
    bomb = png_header_of(20_000, 20_000)

    code, reason, words = refused(running, image_request(bomb))

    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "image_too_large")
    assert "20000x20000" in words


@pytest.mark.parametrize(
    "data",
    [b"", b"no image at all", encoded(picture(), ".jpg")[:-200], encoded(picture())[:-20],
     b"\xff\xd8\xff\xd9", encoded(picture(), ".bmp"), b"\x89PNG\r\n\x1a\nIEND"],
    ids=["empty", "text", "cut jpeg", "cut png", "hollow jpeg", "bmp", "hollow png"],
)  # fmt: skip
def test_unreadable_image_is_refused(running: Running, data: bytes) -> None:
    code, reason, _ = refused(running, image_request(data))

    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "unreadable_image")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (messages.InspectRequest(model_name="spots"), "wrong_shape"),
        (messages.InspectRequest(id="x" * 65, model_name="spots"), "wrong_shape"),
        (messages.InspectRequest(model_name="spots", raw_image={"data": b"12", "width": 2, "height": 2, "channels": 1}), "wrong_shape"),
        (messages.InspectRequest(model_name="spots", raw_image={"data": b"1234", "width": 2, "height": 1, "channels": 2}), "wrong_shape"),
        (messages.InspectRequest(model_name="spots", raw_image={"width": 16384, "height": 16384, "channels": 1}), "image_too_large"),
        (messages.InspectRequest(model_name="spots", sensor_window={"values": [1.0], "rows": 1, "channels": 1}), "wrong_shape"),
        (messages.InspectRequest(model_name="wear", encoded_image={"data": encoded(picture())}), "wrong_shape"),
        (messages.InspectRequest(model_name="wear", sensor_window={"values": [1.0], "rows": 9, "channels": 9}), "wrong_shape"),
    ],
)  # fmt: skip
def test_fields_that_do_not_fit_are_refused(
    running: Running, request_: messages.InspectRequest, reason: str
) -> None:
    code, told, words = refused(running, request_)

    assert (code, told) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert words


@pytest.mark.parametrize(("name", "version"), [("nobody", ""), ("spots", "9.9.9")])
def test_unknown_model_is_not_found(running: Running, name: str, version: str) -> None:
    request = messages.InspectRequest(
        model_name=name, model_version=version, encoded_image={"data": encoded(picture())}
    )

    code, reason, words = refused(running, request)

    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "model_not_found")
    assert "in service: " in words


def test_full_queue_is_told_at_once_and_a_waiting_part_is_judged(
    serve: Callable[..., Running], released: Path
) -> None:
    running = serve(released, workers=1, queue_limit=1)
    with running.admission.worker(None):
        waiting = running.inspector.Inspect.future(image_request(encoded(picture())), timeout=TIMEOUT_S)
        wait_until(lambda: running.admission.waiting == 1)

        code, reason, _ = refused(running, image_request(encoded(picture())))

        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
    assert waiting.result().verdict.result == OK
    assert waiting.result().verdict.timings.queue_ms > 0


def test_deadline_ends_the_wait_for_a_worker(serve: Callable[..., Running], released: Path) -> None:
    running = serve(released, workers=1, queue_limit=4)
    with running.admission.worker(None):
        code, _, _ = refused(running, image_request(encoded(picture())), timeout=0.2)

        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: running.admission.waiting == 0)


def test_message_beyond_the_limit_is_refused(serve: Callable[..., Running], released: Path) -> None:
    running = serve(released, max_message_bytes=4096)

    code, _, _ = refused(running, image_request(bytes(10_000)))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_stream_answers_in_order_and_goes_on_after_a_bad_part(running: Running) -> None:
    requests = [image_request(encoded(picture(10))), image_request(b"no image"), window_request(window(90.0))]
    requests[0].id, requests[1].id, requests[2].id = "a", "b", "c"

    answers = list(running.inspector.InspectStream(iter(requests), timeout=TIMEOUT_S))

    assert [answer.id for answer in answers] == ["a", "b", "c"]
    assert [answer.WhichOneof("answer") for answer in answers] == ["response", "error", "response"]
    assert answers[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answers[1].error.reason == "unreadable_image"


def test_stream_beyond_the_limit_is_refused(serve: Callable[..., Running], released: Path) -> None:
    running = serve(released, stream_limit=1)
    hold = threading.Event()

    def slow() -> object:
        yield image_request(encoded(picture()))
        hold.wait(TIMEOUT_S)

    first = running.inspector.InspectStream(slow(), timeout=TIMEOUT_S)
    assert next(first).response.verdict.result == OK
    with pytest.raises(grpc.RpcError) as caught:
        list(running.inspector.InspectStream(iter([image_request(encoded(picture()))]), timeout=TIMEOUT_S))
    hold.set()

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert list(first) == []


def test_model_is_replaced_while_calls_run_and_none_fails(
    serve: Callable[..., Running], own_copy: Path
) -> None:
    running = serve(own_copy)
    make_package(own_copy, described("segmentation", "1.1.0"), spots_graph(gain=0.5), own_copy / "key.pem")
    request = image_request(encoded(picture(10)))
    with ThreadPoolExecutor(3) as callers:
        stop = threading.Event()

        def ask() -> list[tuple[str, int]]:
            told = []
            while not stop.is_set():
                verdict = running.inspector.Inspect(request, timeout=TIMEOUT_S).verdict
                told.append((verdict.model.version, verdict.result))
            return told

        asking = [callers.submit(ask) for _ in range(3)]
        for version in ("1.1.0", "1.0.0", "1.1.0"):
            running.repository.load("spots", version)
        stop.set()
        told = [answer for one in asking for answer in one.result()]

    assert set(told) <= {("1.0.0", NG), ("1.1.0", OK)}
    after = running.inspector.Inspect(request, timeout=TIMEOUT_S).verdict
    assert (after.model.version, after.result) == ("1.1.0", OK)


def test_requests_are_counted_by_outcome(running: Running) -> None:
    running.inspector.Inspect(image_request(encoded(picture(10))), timeout=TIMEOUT_S)
    refused(running, image_request(b"no image"))
    refused(running, image_request(b"no image", "nobody"))
    refused(running, messages.InspectRequest(model_name="spots"))

    def count(model: str, version: str, outcome: str) -> float | None:
        labels = {"model": model, "version": version, "outcome": outcome}
        return running.registry.get_sample_value("linewatch_inference_requests_total", labels)

    assert count("spots", "1.0.0", "ng") == 1
    assert count("spots", "1.0.0", "unreadable_image") == 1
    assert count("", "", "model_not_found") == 1
    assert count("", "", "wrong_shape") == 1
    assert (
        running.registry.get_sample_value("linewatch_inference_predict_seconds_count", {"model": "spots"})
        == 1
    )


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(("sent", "logged"), [(TRACE, TRACE), ("nonsense", None), (TRACE[:-2] + "00", None)])
def test_sampled_trace_context_is_in_the_log(
    running: Running, caplog: pytest.LogCaptureFixture, sent: str, logged: str | None
) -> None:
    caplog.set_level(logging.INFO)

    running.inspector.Inspect(
        image_request(encoded(picture())), timeout=TIMEOUT_S, metadata=(("traceparent", sent),)
    )

    told = [
        record.__dict__.get("traceparent") for record in caplog.records if record.getMessage() == "inspected"
    ]
    assert told == ([logged] if logged else [])


def test_graph_that_fails_is_an_internal_error_with_an_id_and_told_once(
    serve: Callable[..., Running], own_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_package(
        own_copy, described("segmentation", "1.1.0"), spots_graph(brittle=True), own_copy / "key.pem"
    )
    running = serve(own_copy)

    told = [refused(running, image_request(encoded(picture(0)))) for _ in range(2)]

    assert {answer[:2] for answer in told} == {(grpc.StatusCode.INTERNAL, "internal")}
    words = told[0][2]
    logged = [record for record in caplog.records if record.getMessage() == "internal_error"]
    assert words.split()[2].removesuffix(";") == logged[0].__dict__["error_id"]
    assert "NaN" not in words
    assert "Traceback" not in words
    assert logged[0].exc_info
    assert [event for event in running.events.heard if event[0] == "EngineError"] == [
        ("EngineError", "spots", "output score: no finite number")
    ]
    assert (
        running.inspector.Inspect(image_request(encoded(picture(10))), timeout=TIMEOUT_S).verdict.result == NG
    )
