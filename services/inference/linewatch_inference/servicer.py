# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - rpcs are called as in the proto
"""linewatch.v1.Inspector: messages in and out, errors to status codes; nothing else."""

import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc

from linewatch.v1 import inspector_pb2, inspector_pb2_grpc
from linewatch_inference.errors import Busy, InferenceRefused, NotServing
from linewatch_inference.grpc_errors import abort, abort_internal, status_code
from linewatch_inference.inspection import Inspection
from linewatch_inference.messages import part_of, response_of
from linewatch_inference.verdict import Part

log = logging.getLogger(__name__)

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})$")
_SAMPLED = 1


class InspectorServicer(inspector_pb2_grpc.InspectorServicer):  # type: ignore[misc]
    """Judges parts."""

    def __init__(self, inspection: Inspection, shared_memory_dir: Path | None, stream_limit: int) -> None:
        self._inspection = inspection
        self._shared_memory_dir = shared_memory_dir
        self._stream_limit = stream_limit
        self._streams: dict[grpc.ServicerContext, bool] = {}  # open streams, and whether a part is in hand
        self._lock = threading.Lock()
        self._is_stopping = False

    def Inspect(
        self, request: inspector_pb2.InspectRequest, context: grpc.ServicerContext
    ) -> inspector_pb2.InspectResponse:
        """Judges one part."""
        try:
            return self._answer(request, context)
        except InferenceRefused as error:
            abort(context, error)
        except Exception as error:  # noqa: BLE001 - a bug here: the caller gets an id, the log the traceback
            abort_internal(context, error)

    def InspectStream(
        self, requests: Iterator[inspector_pb2.InspectRequest], context: grpc.ServicerContext
    ) -> Iterator[inspector_pb2.InspectStreamResponse]:
        """Judges parts one after the other; one that can't be judged does not end the stream."""
        try:
            self._enter(context)
            for request in requests:
                self._in_hand(context, busy=True)
                yield self._stream_answer(request, context)
                self._in_hand(context, busy=False)
        except InferenceRefused as error:
            abort(context, error)
        except grpc.RpcError:
            return  # the caller left, or the service stops: there is nobody to answer
        except Exception as error:  # noqa: BLE001 - as above
            abort_internal(context, error)
        finally:
            with self._lock:
                self._streams.pop(context, None)

    def stop_streams(self) -> None:
        """Ends the streams: idle ones now, the others after the part in hand."""
        with self._lock:
            self._is_stopping = True
            idle = [context for context, busy in self._streams.items() if not busy]
        for context in idle:
            context.cancel()

    def _answer(
        self, request: inspector_pb2.InspectRequest, context: grpc.ServicerContext
    ) -> inspector_pb2.InspectResponse:
        try:
            part = self._part(request)
            inspected, model = self._inspection.inspect(
                request.model_name, request.model_version, part,
                budget_s=context.time_remaining(), with_heatmap=request.with_heatmap,
            )  # fmt: skip
        except InferenceRefused as error:
            log.info(
                "not_inspected",
                extra={"id": request.id, "reason": error.reason, "detail": str(error), **_trace(context)},
            )
            raise
        trace = _trace(context)
        level = logging.INFO if trace.get("sampled") else logging.DEBUG
        log.log(
            level, "inspected", extra={"id": request.id, "result": inspected.verdict.result.value, **trace}
        )
        return response_of(request.id, inspected, model)

    def _part(self, request: inspector_pb2.InspectRequest) -> Part:
        try:
            return part_of(request, self._shared_memory_dir)
        except InferenceRefused as error:
            self._inspection.count_refused(error)
            raise

    def _stream_answer(
        self, request: inspector_pb2.InspectRequest, context: grpc.ServicerContext
    ) -> inspector_pb2.InspectStreamResponse:
        try:
            response = self._answer(request, context)
        except NotServing:
            raise
        except InferenceRefused as error:
            told = inspector_pb2.InspectError(
                code=status_code(error).value[0], reason=error.reason, message=str(error)
            )
            return inspector_pb2.InspectStreamResponse(id=request.id, error=told)
        return inspector_pb2.InspectStreamResponse(id=request.id, response=response)

    def _enter(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            if len(self._streams) >= self._stream_limit:
                raise Busy(
                    f"{self._stream_limit} streams are open; close one, or raise INFERENCE_STREAM_LIMIT"
                )
            self._streams[context] = False
            self._refuse_at_the_end()

    def _in_hand(self, context: grpc.ServicerContext, *, busy: bool) -> None:
        with self._lock:
            self._streams[context] = busy
            self._refuse_at_the_end()

    def _refuse_at_the_end(self) -> None:
        if self._is_stopping:
            raise NotServing("the service is stopping; try again later")


def _trace(context: grpc.ServicerContext) -> dict[str, object]:
    """The caller's W3C trace context, when it is one."""
    for key, value in context.invocation_metadata():
        if key == "traceparent" and (match := _TRACEPARENT.match(str(value))):
            return {"traceparent": value, "sampled": bool(int(match[1], 16) & _SAMPLED)}
    return {}
