# SPDX-License-Identifier: Apache-2.0
"""The console as a real process, with a real broker and a stand-in cloud API on real ports."""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from argon2 import PasswordHasher
from console_stand_in import TOKEN, StandInCloud

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_console.people import ROLES
from linewatch_console.user_list import User, write_users
from linewatch_runtime.events import Place, envelope, new_event_id, origin

DEADLINE_S = 60.0
"""Far beyond what a loaded machine needs; nothing waits for it but a test that fails."""


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """The condition's first true value; fails after DEADLINE_S."""
    ends = time.monotonic() + DEADLINE_S
    tick = threading.Event()
    while time.monotonic() < ends:
        if found := condition():
            return found
        tick.wait(0.05)
    pytest.fail(f"not within {DEADLINE_S:g} s: {what}")


MOST_HELD = 200
_held: deque[socket.socket] = deque()


def free_port() -> int:
    """A port that is kept for whoever binds it by number, with SO_REUSEADDR as every server here does.

    A bound socket that does not listen holds it: the kernel gives the port to nobody who asks for any free one, as the
    tests beside this one do, and a connection to it is refused. The last MOST_HELD are held.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    while len(_held) > MOST_HELD:
        _held.popleft().close()
    return int(held.getsockname()[1])


def stranger(url: str = "", cookies: Any = None) -> httpx.Client:
    """A browser with nobody's cookies: past any proxy, and with the patience of a loaded machine."""
    return httpx.Client(base_url=url, cookies=cookies, timeout=DEADLINE_S, trust_env=False)


def ask(url: str, method: str = "GET", cookies: Any = None, **more: Any) -> httpx.Response:
    """One request of a browser of its own."""
    with stranger(cookies=cookies) as browser:
        return browser.request(method, url, **more)


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
            over(self.process)
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
            self.thread.join(DEADLINE_S)
            assert not self.thread.is_alive(), "the cloud did not end"
            self.server = None


@dataclass
class Console:
    port: int
    evidence_dir: Path
    process: subprocess.Popen[str]
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = stranger(self.url)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self) -> str:
        """Opens the page as a browser does: cookie in the client, token out of the page."""
        page = self.http.get("/").text
        return page.partition('name="csrf-token" content="')[2].partition('"')[0]

    def sign_in(self, name: str, password: str, **headers: str) -> int:
        """Signs in as a browser does; gives the answer's status, 303 when it worked."""
        form = {"name": name, "password": password}
        return self.http.post("/login", data=form, headers={"Origin": self.url} | headers).status_code

    def csrf(self) -> str:
        return str(self.http.get("/api/me").json()["csrf"])

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Sends as the page does."""
        given = {"Origin": self.url, "X-CSRF-Token": self.csrf()} | headers
        return self.http.post(path, json=body, headers=given)

    def sign_out(self) -> int:
        form = {"csrf": self.csrf()}
        return self.http.post("/logout", data=form, headers={"Origin": self.url}).status_code

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
        with stranger() as page, page.stream("GET", f"{self.url}/api/stream", headers=headers) as answer:
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


@contextlib.contextmanager
def unanswered(console: Console, cloud: CloudServer, body: dict[str, str]) -> Iterator[None]:
    """An approval of lw-1 is at the cloud, which hangs, and the page waits for its answer; the body ends the console."""
    headers = {"Origin": console.url, "X-CSRF-Token": console.csrf()}
    outcome: list[object] = []

    def decide() -> None:
        with stranger(console.url, console.http.cookies) as page:
            try:
                outcome.append(page.post("/api/work-orders/lw-1/approve", json=body, headers=headers))
            except httpx.TransportError as error:
                outcome.append(error)

    page = threading.Thread(target=decide)
    page.start()
    try:
        wait_for("the decision at the cloud", lambda: cloud.stand_in.decided)
        assert outcome == [], "it was answered"
        yield
    finally:
        page.join(2 * DEADLINE_S)
    assert isinstance(outcome[0], httpx.TransportError), "it was answered"


PASSWORDS = {role: f"the password of {role}" for role in ROLES}


def users_in(folder: Path) -> Path:
    """A list with one user of each role, named as the role."""
    path = folder / "users.json"
    write_users(
        path, {role: User(name=role, role=role, password=quick_hash(PASSWORDS[role])) for role in ROLES}
    )
    return path


@cache
def quick_hash(password: str) -> str:
    """Cheaper than the console's own, so that a test signs in quickly."""
    return PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(password)


def environment_in(folder: Path) -> dict[str, str]:
    """The environment of a console whose files lie in `folder`."""
    (folder / "evidence").mkdir()
    (folder / "token").write_text(TOKEN)
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CONSOLE_") and not name.lower().endswith("_proxy")
    }
    return clean | {
        "CONSOLE_PORT": str(free_port()),
        "CONSOLE_EVIDENCE_DIR": str(folder / "evidence"),
        "CONSOLE_STATE_DIR": str(folder / "state"),
        "CONSOLE_MQTT_PORT": str(free_port()),
        "CONSOLE_CLOUD_POLL_S": "0.2",
    }


def begun(env: dict[str, str]) -> Console:
    process = subprocess.Popen([sys.executable, "-m", "linewatch_console"], env=env, text=True)
    console = Console(int(env["CONSOLE_PORT"]), Path(env["CONSOLE_EVIDENCE_DIR"]), process)
    try:
        wait_for("the console listens", lambda: answers(console.port) or process.poll() is not None)
        assert process.poll() is None, "the console ended at its start: its log says why"
    except BaseException:
        console.http.close()
        over(process)
        raise
    return console


def over(process: subprocess.Popen[Any]) -> int:
    """Ends a process, in good order if it can; its exit code. None outlives its test."""
    process.terminate()
    try:
        return process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def hears(console: Console) -> None:
    """Returns once what is published reaches it."""
    wait_for("the broker", lambda: console.http.get("/healthz").json()["broker"] == "connected")


def ended(console: Console) -> None:
    console.http.close()
    assert over(console.process) == 0


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
