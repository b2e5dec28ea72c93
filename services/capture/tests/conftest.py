# SPDX-License-Identifier: Apache-2.0
"""A real gRPC server with scripted answers, capture's own wiring, and capture as a process."""

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY

from linewatch.v1 import inspector_pb2, inspector_pb2_grpc, verdict_pb2
from linewatch_capture.__main__ import judge, open_evidence, open_spool
from linewatch_capture.progress import Progress
from linewatch_capture.settings import Settings
from linewatch_runtime.events import Place
from linewatch_runtime.mqtt import Connection, Endpoint
from linewatch_runtime.publisher import Publisher
from open_inference.v2 import open_inference_pb2, open_inference_pb2_grpc

REPOSITORY = Path(__file__).resolve().parents[3]
JPEG = b"\xff\xd8\xff\xe0 a picture in all but content "


def verdict(result="OK", label="ok", score=0.02):
    return verdict_pb2.Verdict(
        result=verdict_pb2.Verdict.Result.Value(result),
        label=label,
        score=score,
        is_anomalous=result != "OK",
        model=verdict_pb2.ModelReference(name="pv-el-cells", version="1.0.0"),
    )


class ScriptedInspector(
    inspector_pb2_grpc.InspectorServicer, open_inference_pb2_grpc.GRPCInferenceServiceServicer
):
    """Answers as `script(request, context)` says; a verdict OK by default. Can stop and come back on its port.

    Bound from the first to the last moment and never listened on, `holder` keeps the port from other processes meanwhile.
    """

    def __init__(self):
        self.script: Callable = lambda _request, _context: verdict()
        self.asked: list[inspector_pb2.InspectRequest] = []
        self.lock = threading.Lock()
        self.holder = socket.socket()
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.holder.bind(("127.0.0.1", 0))
        self.port = self.holder.getsockname()[1]
        self.server = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self.server = grpc.server(
            ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 17 << 20)]
        )
        inspector_pb2_grpc.add_InspectorServicer_to_server(self, self.server)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self.server)
        assert self.server.add_insecure_port(self.address) == self.port
        self.server.start()
        return self

    def stop(self):
        if self.server:
            self.server.stop(0).wait()
            self.server = None

    def Inspect(self, request, context):  # noqa: N802
        with self.lock:
            self.asked.append(request)
        answer = self.script(request, context)
        if isinstance(answer, inspector_pb2.InspectResponse):
            return answer
        return inspector_pb2.InspectResponse(id=request.id, verdict=answer)

    def ModelMetadata(self, request, context):  # noqa: N802
        if request.name != "turbofan":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        tensor = open_inference_pb2.ModelMetadataResponse.TensorMetadata(name="window", shape=[-1, 50, 24])
        return open_inference_pb2.ModelMetadataResponse(name=request.name, inputs=[tensor])


@pytest.fixture
def inspector() -> Iterator[ScriptedInspector]:
    scripted = ScriptedInspector().start()
    yield scripted
    scripted.stop()
    scripted.holder.close()


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of `count` pictures whose content is their number."""

    def make(count, name="pictures"):
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        for number in range(count):
            (path / f"cell_{number:04}.jpg").write_bytes(JPEG + str(number).encode())
        return path

    return make


@pytest.fixture
def settings(tmp_path, inspector):
    """Makes the settings of line-1/station-1 against the scripted inspector."""

    def make(**changes):
        fields = {
            "line": "line-1", "station": "station-1", "model": "pv-el-cells", "rate": 1000,
            "inference_address": inspector.address, "state_dir": tmp_path, "mqtt_port": 1,
            "inspect_deadline_s": 60,  # a busy machine may be late with an answer; who means the deadline sets it
        }  # fmt: skip
        return Settings(**fields | changes)

    return make


class Flow:
    """Capture's wiring without process and broker: `judge` of __main__ on a real spool."""

    def __init__(self, settings):
        self.settings = settings
        self.path = settings.state_dir / "capture.db"
        self.worker = open_spool(settings)
        self.progress = Progress(self.worker._thread.submit(self.worker.spool.counts).result())

    async def run(self, *meanwhile):
        """Runs to the source's end, or until a coroutine of `meanwhile` sets the stop that it is given."""
        place = Place(self.settings.site, self.settings.line, self.settings.station)
        publisher = Publisher(self.worker, Connection(Endpoint("127.0.0.1", 1, "nobody")))
        epoch = await self.worker.run(self.worker.spool.next_epoch)
        counts = await self.worker.run(self.worker.spool.counts)
        stop = asyncio.Event()
        with contextlib.closing(open_evidence(self.settings)) as evidence:
            async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
                for function in meanwhile:
                    tasks.create_task(function(stop))
                await judge(
                    self.settings, self.worker, evidence, self.progress, place, epoch, counts, publisher, stop
                )

    async def until(self, condition, within_s=60.0):
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - conditions here are no events of ours
                await asyncio.sleep(0.01)

    def events(self):
        return events_in(self.path)

    def counts(self):
        return counts_in(self.path)


@pytest.fixture
def flow(settings):
    """Makes a Flow with the given settings; several in a row are restarts of the same station."""
    with contextlib.ExitStack() as opened:

        def make(**changes):
            made = Flow(settings(**changes))
            opened.callback(made.worker.close)
            return made

        yield make


def events_in(path):
    """The events in a spool's file, in the order of arrival."""
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        try:
            return [json.loads(row[0]) for row in db.execute("SELECT payload FROM events ORDER BY position")]
        except sqlite3.OperationalError:  # being made this moment
            return []


def counts_in(path):
    """A spool's own counts."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        return dict(db.execute("SELECT name, value FROM counts WHERE stream = ''"))


def eventually(condition, within_s=60.0):
    """Waits for a condition and returns its value."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)
    return value


class CaptureProcess:
    """`python -m linewatch_capture` with an environment of its own."""

    def __init__(self, environment, log_file):
        self.log_file = log_file
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CAPTURE_")}
        parts = ("protos", "runtime", "services/capture")
        kept["PYTHONPATH"] = os.pathsep.join(str(REPOSITORY / part) for part in parts)
        with log_file.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "linewatch_capture"], env=kept | environment, stdout=out, stderr=out
            )

    def said(self):
        return self.log_file.read_text()

    def end(self, how="terminate"):
        getattr(self.process, how)()
        return self.process.wait(30)


@pytest.fixture
def capture(tmp_path, inspector):
    """Starts capture processes of line-1/station-1; none outlives the test."""
    running = []

    def start(**changes):
        environment = {
            "CAPTURE_LINE": "line-1", "CAPTURE_STATION": "station-1", "CAPTURE_MODEL": "pv-el-cells",
            "CAPTURE_STATE_DIR": str(tmp_path), "CAPTURE_RATE": "1000", "CAPTURE_MQTT_PORT": "1",
            "CAPTURE_INFERENCE_ADDRESS": inspector.address, "CAPTURE_INSPECT_DEADLINE_S": "60",
        }  # fmt: skip
        environment |= {f"CAPTURE_{name.upper()}": str(value) for name, value in changes.items()}
        started = CaptureProcess(environment, tmp_path / f"log-{len(running)}.txt")
        running.append(started)
        return started

    yield start
    for started in running:
        if started.process.poll() is None:
            started.end("kill")


@pytest.fixture
def taken():
    """Says how many parts the sources of this test have given."""
    before = parts_taken()
    return lambda: parts_taken() - before


def parts_taken():
    return REGISTRY.get_sample_value("linewatch_capture_parts_taken_total")


@pytest.fixture
def wait():
    return eventually


@pytest.fixture
def spool_file(tmp_path):
    """Reads the events and counts of the station's spool."""
    path = tmp_path / "capture.db"

    class SpoolFile:
        def events(self):
            return events_in(path)

        def counts(self):
            return counts_in(path)

    return SpoolFile()


@pytest.fixture
def a_verdict():
    return verdict
