# SPDX-License-Identifier: Apache-2.0
"""The console as a real process, with a real broker and a stand-in cloud API on real ports."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
import uvicorn
from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_runtime.events import Place, envelope, new_event_id, origin

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves stand_in_cloud.py out of reach

from stand_in_cloud import TOKEN, StandInCloud

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


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(free_port(), tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def publish(broker: Broker) -> Iterator[Callable[[str, bytes | dict[str, Any]], None]]:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "feeder", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()

    def send(topic: str, payload: bytes | dict[str, Any]) -> None:
        content = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        client.publish(topic, content, qos=1, retain=topic.endswith("/status")).wait_for_publish(5)

    yield send
    client.disconnect()
    client.loop_stop()


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


@pytest.fixture(scope="module")
def cloud_server() -> Iterator[CloudServer]:
    server = CloudServer(StandInCloud(), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cloud(cloud_server: CloudServer) -> CloudServer:
    """The module's cloud as if it were new."""
    cloud_server.stand_in.__init__()  # type: ignore[misc]
    return cloud_server


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


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return environment_in(tmp_path)


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Starts a console of the test's own."""
    started: list[Console] = []

    def begin(**settings: str) -> Console:
        started.append(begun(environment | settings))
        return started[-1]

    yield begin
    for console in started:
        ended(console)


@pytest.fixture(scope="module")
def line_console(
    broker: Broker, cloud_server: CloudServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    console = begun(
        environment_in(folder)
        | {
            "CONSOLE_MQTT_PORT": str(broker.port),
            "CONSOLE_CLOUD_API_URL": f"http://127.0.0.1:{cloud_server.port}",
            "CONSOLE_CLOUD_API_TOKEN_FILE": str(folder / "token"),
        }
    )
    wait_for("the broker", lambda: console.http.get("/healthz").json()["broker"] == "connected")
    yield console
    ended(console)


@pytest.fixture
def console(line_console: Console, cloud: CloudServer) -> Console:
    """The module's console with both back ends; its wall remembers what earlier tests published."""
    line_console.http.cookies.clear()
    return line_console


PLACE = Place("plant-1", "line-1", "station-1")


def inspection(sequence: int = 1, part_id: str = "EL1_1.jpg", event_id: str = "", **verdict: Any) -> bytes:
    """An InferenceCompleted event; OK unless `verdict` says otherwise."""
    given: dict[str, Any] = {"result": "OK", "label": "ok", "score": 0.02, "severity": 0.02, "is_anomalous": False}
    message = event_pb2.Inspection(
        origin=origin(PLACE, 1, sequence), part_id=part_id, frame_to_verdict_s=0.02,
        verdict=verdict_pb2.Verdict(**(given | verdict)),
    )  # fmt: skip
    return envelope(event_id or new_event_id(), "InferenceCompleted", PLACE, message)
