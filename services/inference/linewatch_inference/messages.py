# SPDX-License-Identifier: Apache-2.0
"""Protobuf messages to this service's own words and back; nothing else knows both."""

import os
import re
from pathlib import Path

import numpy as np

from linewatch.v1 import inspector_pb2, verdict_pb2
from linewatch_inference.errors import ImageTooLarge, UnreadableImage, WrongShape
from linewatch_inference.preprocess import MAX_PIXELS
from linewatch_inference.verdict import Encoded, Inspected, Part, Pixels, Raw, Reference, Verdict, Window

MAX_SIDE = 16_384
MAX_ID = 64

_SLOT_NAME = re.compile(r"^[A-Za-z0-9._-]{1,64}$")


def part_of(request: inspector_pb2.InspectRequest, shared_memory_dir: Path | None) -> Part:
    """The request's part. Raises PartRefused when its fields don't fit each other."""
    if len(request.id) > MAX_ID:
        raise WrongShape(f"id: {len(request.id)} characters, at most {MAX_ID}")
    match request.WhichOneof("part"):
        case "encoded_image":
            return Encoded(request.encoded_image.data)
        case "raw_image":
            image = request.raw_image
            return Raw(_pixels("raw_image", image.data, image.width, image.height, image.channels))
        case "shared_memory_image":
            return Raw(_shared(request.shared_memory_image, shared_memory_dir))
        case "sensor_window":
            return _window(request.sensor_window)
    raise WrongShape("part: is not set; send an image or a sensor window")


def _pixels(where: str, data: bytes, width: int, height: int, channels: int) -> Pixels:
    size = _size(where, width, height, channels)
    if len(data) != size:
        raise WrongShape(f"{where}.data: {len(data)} bytes, {width}x{height}x{channels} needs {size}")
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.frombuffer(data, np.uint8).reshape(shape)


def _size(where: str, width: int, height: int, channels: int) -> int:
    if channels not in {1, 3}:
        raise WrongShape(f"{where}.channels: {channels}, must be 1 (grey) or 3 (BGR)")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ImageTooLarge(f"{where}: {width}x{height} pixels, each side must be 1..{MAX_SIDE}")
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(f"{where}: {width}x{height} pixels, at most {MAX_PIXELS}; send a smaller image")
    return width * height * channels


def _shared(image: inspector_pb2.SharedMemoryImage, directory: Path | None) -> Pixels:
    """The pixels, copied out: reading a mapping that its owner truncates would kill this process (SIGBUS)."""
    if directory is None:
        raise WrongShape(
            "shared_memory_image: no directory is shared; set INFERENCE_SHARED_MEMORY_DIR or send raw_image"
        )
    if not _SLOT_NAME.match(image.name) or image.name in {".", ".."}:
        raise WrongShape("shared_memory_image.name: 1..64 of A-Z a-z 0-9 . _ -")
    size = _size("shared_memory_image", image.width, image.height, image.channels)
    try:
        # Not blocking: opening a pipe that was left there would wait for ever.
        slot = os.open(directory / image.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UnreadableImage(
            f"shared_memory_image.name: {error.strerror}; write the pixels before the call"
        ) from error
    try:
        data = os.pread(slot, size, image.offset)
    except OSError as error:
        raise UnreadableImage(f"shared_memory_image: {error.strerror}; use a plain file") from error
    finally:
        os.close(slot)
    return _pixels("shared_memory_image", data, image.width, image.height, image.channels)


def _window(window: inspector_pb2.SensorWindow) -> Window:
    count = len(window.values)
    if window.rows < 1 or window.channels < 1 or count != window.rows * window.channels:
        raise WrongShape(
            f"sensor_window.values: {count} values for {window.rows} rows x {window.channels} channels"
        )
    values = np.fromiter(window.values, np.float32, count).reshape(window.rows, window.channels)
    return Window(values, window.padded_rows)


def response_of(request_id: str, inspected: Inspected, model: Reference) -> inspector_pb2.InspectResponse:
    """The answer to one part."""
    response = inspector_pb2.InspectResponse(id=request_id, verdict=verdict_message(inspected, model))
    if inspected.heatmap is not None:
        height, width = inspected.heatmap.shape
        response.heatmap.CopyFrom(
            inspector_pb2.Heatmap(values=inspected.heatmap.tobytes(), width=width, height=height)
        )
    return response


def verdict_message(inspected: Inspected, model: Reference) -> verdict_pb2.Verdict:
    """The verdict as it travels."""
    verdict, timings = inspected.verdict, inspected.timings
    message = verdict_pb2.Verdict(
        result=verdict.result.value,
        label=verdict.label,
        score=verdict.score,
        is_anomalous=verdict.is_anomalous,
        severity=verdict.severity,
        class_scores=[verdict_pb2.ClassScore(label=label, score=score) for label, score in verdict.class_scores],
        regions=_regions(verdict),
        quality_flags=verdict.quality_flags,
        model=verdict_pb2.ModelReference(
            name=model.name, version=model.version, digest=model.digest, variant=model.variant,
            execution_provider=model.execution_provider,
        ),
        timings=verdict_pb2.Timings(
            queue_ms=_ms(timings.queue_s), preprocess_ms=_ms(timings.preprocess_s),
            predict_ms=_ms(timings.predict_s), postprocess_ms=_ms(timings.postprocess_s),
        ),
    )  # fmt: skip
    if verdict.failure_mode is not None:
        message.failure_mode = verdict.failure_mode
    if verdict.time_to_failure is not None:
        told = verdict.time_to_failure
        message.time_to_failure.CopyFrom(
            verdict_pb2.TimeToFailure(
                p10=told.p10, p50=told.p50, p90=told.p90, unit=told.unit, horizon=told.horizon,
                beyond_horizon=told.beyond_horizon,
            )
        )  # fmt: skip
    return message


def _regions(verdict: Verdict) -> list[verdict_pb2.Region]:
    return [
        verdict_pb2.Region(
            label=one.label,
            score=one.score,
            x=one.x,
            y=one.y,
            width=one.width,
            height=one.height,
            area_px=one.area_px,
        )
        for one in verdict.regions
    ]


def _ms(seconds: float) -> float:
    return round(seconds * 1000.0, 3)
