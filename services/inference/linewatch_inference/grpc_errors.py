# SPDX-License-Identifier: Apache-2.0
"""The one place where this service's errors become gRPC status codes."""

import logging
import uuid
from typing import NoReturn

import grpc

from linewatch_inference.errors import (
    Busy,
    DeadlinePassed,
    InferenceRefused,
    ModelNotFound,
    NotServing,
    PackageRefused,
    PartRefused,
)

log = logging.getLogger(__name__)

REASON_KEY = "linewatch-reason"
"""Trailing metadata that holds the reason's word."""

_CODES: tuple[tuple[type[InferenceRefused], grpc.StatusCode], ...] = (
    (PartRefused, grpc.StatusCode.INVALID_ARGUMENT),
    (ModelNotFound, grpc.StatusCode.NOT_FOUND),
    (Busy, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NotServing, grpc.StatusCode.UNAVAILABLE),
    (DeadlinePassed, grpc.StatusCode.DEADLINE_EXCEEDED),
    (PackageRefused, grpc.StatusCode.FAILED_PRECONDITION),
)


def status_code(error: InferenceRefused) -> grpc.StatusCode:
    """The code that this error is told with."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def abort(context: grpc.ServicerContext, error: InferenceRefused) -> NoReturn:
    """Ends the call with the error's code, words and reason."""
    context.set_trailing_metadata(((REASON_KEY, error.reason),))
    context.abort(status_code(error), str(error))
    raise AssertionError("abort returns never")


def abort_internal(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """Ends the call with an id under which the log holds the traceback; the caller never sees it."""
    context.set_trailing_metadata(((REASON_KEY, "internal"),))
    context.abort(grpc.StatusCode.INTERNAL, internal_words(error))
    raise AssertionError("abort returns never")


def internal_words(error: Exception) -> str:
    """Logs a bug and gives the words for the caller."""
    error_id = uuid.uuid4().hex
    log.error("internal_error", extra={"error_id": error_id}, exc_info=error)
    return f"internal error {error_id}; see the inference service's log"
