# SPDX-License-Identifier: Apache-2.0
"""Requests to linewatch.v1.Inspector, and what a refused one says."""

import grpc
import numpy as np
import pytest
from running_server import Running

from linewatch.v1 import inspector_pb2 as messages
from linewatch.v1 import verdict_pb2

TIMEOUT_S = 60.0
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
    trailing = dict(caught.value.trailing_metadata() or ())
    return caught.value.code(), str(trailing.get("linewatch-reason", "")), caught.value.details()
