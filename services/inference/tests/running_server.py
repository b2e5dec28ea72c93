# SPDX-License-Identifier: Apache-2.0
"""A server in the test's own process, and waiting for conditions."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from prometheus_client import CollectorRegistry

from linewatch.v1 import inspector_pb2_grpc
from linewatch_inference.activation import Activation
from linewatch_inference.admission import Admission
from linewatch_inference.repository import Repository
from linewatch_inference.server import Server
from linewatch_inference.settings import Settings
from linewatch_inference.verdict import Reference
from open_inference.v2 import open_inference_pb2_grpc


@dataclass
class HeardEvents:
    """The port EngineEvents, for looking at."""

    heard: list[tuple[str, str, str]] = field(default_factory=list)

    def publish(self, event: str, model: Reference | None = None, message: str = "") -> None:
        self.heard.append((event, model.name if model else "", message))


@dataclass
class Running:
    """A server in this process, and what it is made of."""

    settings: Settings
    repository: Repository
    activation: Activation
    admission: Admission
    server: Server
    events: HeardEvents
    registry: CollectorRegistry
    channel: grpc.Channel

    @property
    def inspector(self) -> inspector_pb2_grpc.InspectorStub:
        return inspector_pb2_grpc.InspectorStub(self.channel)

    @property
    def open_inference(self) -> open_inference_pb2_grpc.GRPCInferenceServiceStub:
        return open_inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)


def wait_until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    ends = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends, "the condition did not hold in time"
        time.sleep(0.01)
