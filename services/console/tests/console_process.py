# SPDX-License-Identifier: Apache-2.0
"""The console as a real process, with a real broker and a stand-in cloud API on real ports."""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from console_stand_in import TOKEN, StandInCloud

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_runtime.events import Place, envelope, new_event_id, origin

DEADLINE_S = 15.0


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """The condition's first true value; fails after DEADLINE_S."""
    ends = time.monotonic() + DEADLINE_S
    tick = threading.Event()
    while time.monotonic() < ends:
        if found := condition():
            return found
        tick.wait(0.05)
    pytest.fail(f"not within {DEADLINE_S:g} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


@dataclass
class Broker:
    port: int
    state: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "linewatch_plant.broker", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--state-dir", str(self.state)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for("the broker listens", lambda: answers(self.port))

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


@dataclass
class CloudServer:
    stand_in: StandInCloud
    port: int
    server: uvicorn.Server | None = None
    thread: threading.Thread | None = None

    def start(self) -> None:
        config = uvicorn.Config(
            self.stand_in.app(), host="127.0.0.1", port=self.port, log_level="error", lifespan="off"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        wait_for("the cloud listens", lambda: answers(self.port))

    def stop(self) -> None:
        if self.server and self.thread:
            self.server.should_exit = self.server.force_exit = True
            self.thread.join(10)
            self.server = None


@dataclass
class Console:
    port: int
    evidence_dir: Path
    process: subprocess.Popen[str]
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=10, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self) -> str:
        """Opens the page as a browser does: cookie in the client, token out of the page."""
        page = self.http.get("/").text
        return page.partition('name="csrf-token" content="')[2].partition('"')[0]

    def decide(self, reference: str, decision: str, reason: str, **headers: str) -> httpx.Response:
        given = {"Origin": self.url, "X-CSRF-Token": self.token()} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        address = f"/api/work-orders/{reference}/{decision}"
        return self.http.post(address, json={"reason": reason}, headers=given)

    def messages(
        self, until: Callable[[str, dict[str, Any]], bool], last_event_id: str = ""
    ) -> list[tuple[str, str, dict[str, Any]]]:
        """Reads the stream until a message (kind, content) satisfies `until`; gives (id, kind, content) of all."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        read: list[tuple[str, str, dict[str, Any]]] = []
        number = kind = ""
        with httpx.stream("GET", f"{self.url}/api/stream", headers=headers, timeout=DEADLINE_S) as answer:
            assert answer.status_code == 200
            ends = time.monotonic() + DEADLINE_S
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    number = line[4:]
                elif line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    content = json.loads(line[6:])
                    read.append((number, kind, content))
                    if until(kind, content):
                        return read
                assert time.monotonic() < ends, f"not in the stream: {[kind for _, kind, _ in read]}"
        pytest.fail("the stream ended")


Start = Callable[..., Console]


def environment_in(folder: Path) -> dict[str, str]:
    """The environment of a console whose files lie in `folder`."""
    (folder / "evidence").mkdir()
    (folder / "token").write_text(TOKEN)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONSOLE_")}
    return clean | {
        "CONSOLE_PORT": str(free_port()),
        "CONSOLE_EVIDENCE_DIR": str(folder / "evidence"),
        "CONSOLE_MQTT_PORT": str(free_port()),
        "CONSOLE_CLOUD_POLL_S": "0.2",
    }


def begun(env: dict[str, str]) -> Console:
    process = subprocess.Popen([sys.executable, "-m", "linewatch_console"], env=env, text=True)
    console = Console(int(env["CONSOLE_PORT"]), Path(env["CONSOLE_EVIDENCE_DIR"]), process)
    wait_for("the console listens", lambda: answers(console.port) or process.poll() is not None)
    return console


def ended(console: Console) -> None:
    console.http.close()
    console.process.terminate()
    assert console.process.wait(10) == 0


PLACE = Place("plant-1", "line-1", "station-1")


_EPOCHS = itertools.count(1)
"""As if capture had started anew before each event: one console hears the events of many tests, each from 1 on."""


def inspection(sequence: int = 1, part_id: str = "EL1_1.jpg", event_id: str = "", **verdict: Any) -> bytes:
    """An InferenceCompleted event; OK unless `verdict` says otherwise."""
    given: dict[str, Any] = {
        "result": "OK",
        "label": "ok",
        "score": 0.02,
        "severity": 0.02,
        "is_anomalous": False,
    }
    message = event_pb2.Inspection(
        origin=origin(PLACE, next(_EPOCHS), sequence), part_id=part_id, frame_to_verdict_s=0.02,
        verdict=verdict_pb2.Verdict(**(given | verdict)),
    )  # fmt: skip
    return envelope(event_id or new_event_id(), "InferenceCompleted", PLACE, message)
