# SPDX-License-Identifier: Apache-2.0
"""The way to inference: gRPC with a deadline; each status code becomes one NotInspected reason, here and nowhere else."""

import asyncio
import logging
import random
from typing import Any

import grpc

from linewatch.v1 import inspector_pb2, inspector_pb2_grpc
from linewatch_capture.frame_loop import Inspector
from linewatch_capture.parts import (
    MAX_IMAGE_BYTES,
    REASONS,
    Frame,
    Heatmap,
    Judged,
    NotInspected,
    Outcome,
    Part,
    Stopped,
)
from linewatch_capture.progress import Progress
from linewatch_runtime.lifecycle import wait_until
from open_inference.v2 import open_inference_pb2, open_inference_pb2_grpc

log = logging.getLogger(__name__)

REASON_METADATA = "linewatch-reason"
"""Trailing metadata that names the reason (inspector.proto, INVALID_ARGUMENT)."""

REASON_OF_CODE = {
    grpc.StatusCode.NOT_FOUND: "model_not_found",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "busy",
    grpc.StatusCode.UNAVAILABLE: "inference_unavailable",
    # By the server, which stops: we ourselves cancel no call whose outcome is asked for.
    grpc.StatusCode.CANCELLED: "inference_unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline",
}
"""Where the server names no reason of its own; every other code is "internal"."""

WORTH_ANOTHER_TRY = frozenset({"inference_unavailable", "busy"})
LONGEST_WAIT_S = 2.0

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", MAX_IMAGE_BYTES + 64 * 1024),
    ("grpc.max_receive_message_length", MAX_IMAGE_BYTES + 64 * 1024),
    # The default grows to two minutes: a restarted inference service would be found again long after it is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def open_channel(address: str) -> Any:
    """A channel to inference; it connects at the first call and again by itself."""
    return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)


class GrpcInspector:
    """Asks once."""

    def __init__(
        self, channel: Any, model_name: str, model_version: str, deadline_s: float, progress: Progress,
        *, heatmaps: bool,
    ) -> None:  # fmt: skip
        """`heatmaps`: ask for the heat map of frames too."""
        self._inspect = inspector_pb2_grpc.InspectorStub(channel).Inspect  # type: ignore[no-untyped-call]
        self._model_name = model_name
        self._model_version = model_version
        self._deadline_s = deadline_s
        self._progress = progress
        self._heatmaps = heatmaps

    async def inspect(self, event_id: str, part: Part) -> Outcome:
        """The verdict, or why there is none, after at most the deadline."""
        request = inspector_pb2.InspectRequest(
            id=event_id, model_name=self._model_name, model_version=self._model_version
        )
        if isinstance(part.content, Frame):
            request.encoded_image.data = part.content.encoded
            request.with_heatmap = self._heatmaps
        elif part.content is not None:
            window = request.sensor_window
            window.rows, window.channels = len(part.content.records), len(part.content.channels)
            window.padded_rows = part.content.padded_rows
            for record in part.content.records:
                window.values.extend(record)
        try:
            with self._progress.inspecting():
                answer = await self._inspect(request, timeout=self._deadline_s)
        except grpc.aio.AioRpcError as error:
            return not_inspected(error)
        heatmap = answer.heatmap
        return Judged(
            answer.verdict,
            Heatmap(heatmap.values, heatmap.width, heatmap.height) if heatmap.values else None,
        )


def not_inspected(error: Any) -> NotInspected:
    """What a failed call means for the part."""
    named = dict(error.trailing_metadata() or ()).get(REASON_METADATA)
    reason = named if named in REASONS else REASON_OF_CODE.get(error.code(), "internal")
    return NotInspected(reason, f"{error.code().name}: {error.details()}")


class PatientInspector:
    """Asks until inference can answer: for parts that lie on disk, so that an outage costs time and no part."""

    def __init__(self, inspector: Inspector, progress: Progress, stop: asyncio.Event) -> None:
        self._inspector = inspector
        self._progress = progress
        self._stop = stop

    async def inspect(self, event_id: str, part: Part) -> Outcome:
        """The first outcome that is not "come again". Raises Stopped."""
        attempt = 0
        while True:
            outcome = await self._inspector.inspect(event_id, part)
            if not isinstance(outcome, NotInspected) or outcome.reason not in WORTH_ANOTHER_TRY:
                return outcome
            self._progress.wait_for(f"inference: {outcome.message}")
            attempt = min(attempt + 1, 6)
            pause_s = random.uniform(0.02, min(LONGEST_WAIT_S, 0.1 * 2**attempt))  # noqa: S311
            if await wait_until(self._stop, pause_s):
                raise Stopped


async def window_rows(
    channel: Any, model_name: str, model_version: str, progress: Progress, stop: asyncio.Event
) -> int:
    """The length of the window that the model wants, by its metadata; waits until inference can say. Raises Stopped."""
    ask = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelMetadata  # type: ignore[no-untyped-call]
    request = open_inference_pb2.ModelMetadataRequest(name=model_name, version=model_version)
    while True:
        try:
            shape = list((await ask(request, timeout=5.0)).inputs[0].shape)
            if len(shape) == 3 and shape[1] > 0:
                return int(shape[1])
            trouble = f"model {model_name} takes {shape}, no sensor window [-1, rows, channels]"
        except grpc.aio.AioRpcError as error:
            trouble = not_inspected(error).message
        except IndexError:
            trouble = f"model {model_name} names no input"
        progress.wait_for(f"the window's length from inference: {trouble}")
        if await wait_until(stop, 0.5):
            raise Stopped
