# SPDX-License-Identifier: Apache-2.0
"""linewatch.v1.Inspector over a real server, with real graphs: verdicts and refusals."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from inspector_calls import NG, OK, REVIEW, TIMEOUT_S, image_request, refused, window_request
from running_server import Running
from tiny_models import encoded, picture, window

from linewatch.v1 import inspector_pb2 as messages


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
