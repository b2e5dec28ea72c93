# SPDX-License-Identifier: Apache-2.0
"""The system of docker-compose.yml as tests use it: started, disturbed, and counted at every hop."""

import base64
import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from brokers import wait_for

from linewatch_plant.counts import LINES, Counts, doubled

ROOT = Path(__file__).resolve().parents[1]
CAPTURES = ("capture-line-1", "capture-line-2")
DEVICE = ("broker", "inference", *CAPTURES, "forwarder", "console")
SERVICES = (*DEVICE, "erp-simulator", "standin-cloud")

SOON_S = 300.0
"""What a slow and busy machine needs for what others do in seconds: no promise of ours."""

READ_SPOOL = """
import json, sqlite3
db = sqlite3.connect("file:/var/lib/linewatch/state/{file}?mode=ro", uri=True, timeout=60)
print(json.dumps({{
    "counts": db.execute("SELECT stream, name, value FROM counts").fetchall(),
    "waiting": db.execute("SELECT coalesce(sum(events), 0) FROM streams").fetchone()[0],
}}))
"""
READ_URL = "import urllib.request as u; print(u.urlopen('{url}', timeout=60).read().decode())"
READ_ORDERS = """
import pathlib
file = pathlib.Path("/var/lib/linewatch/state/orders.json")
print(file.read_text() if file.exists() else "[]")
"""


class ComposeFailed(Exception):
    """`docker compose` ended with an error; what it said."""


def not_run(reason: str) -> None:
    """Skips the test, and says why it is no pass."""
    pytest.skip(f"not run: {reason}")


def why_no_engine() -> str:
    """Why containers can't be had here; empty when they can."""
    if not shutil.which("docker"):
        return "docker is not installed; on a root Debian tools/containers/engine installs it"
    for command, missing in (
        (["docker", "info"], "no Docker engine answers; on a root Debian tools/containers/engine starts one"),
        (["docker", "compose", "version"], "docker has no compose plugin"),
        ([str(ROOT / "tools/containers/bases")], "the base images can't be had"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode != 0:
            return f"{missing} ({(done.stderr.strip().splitlines() or [''])[-1]})"
    return ""


@dataclass(slots=True)
class Stack:
    """A compose project.

    Attributes:
        settings: the variables of docker-compose.yml that differ from their defaults.
        taken_along: events that earlier accounts of the stand-in cloud had accepted; each start of it is a new account.
    """

    project: str
    console_port: int
    settings: dict[str, str] = field(default_factory=dict)
    taken_along: int = 0

    def run(self, *arguments: str, timeout_s: float = 300) -> str:
        """`docker compose …` in the repository; returns what it printed. Raises ComposeFailed."""
        done = subprocess.run(
            ["docker", "compose", "--ansi", "never", "-p", self.project, *arguments],
            cwd=ROOT, env={**os.environ, **self.settings}, timeout=timeout_s, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise ComposeFailed(
                f"docker compose {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def up(self, *services: str, **settings: str) -> None:
        """`docker compose up --wait`, with changed settings."""
        self.settings |= settings
        self.run("up", "--detach", "--wait", *services, timeout_s=900)

    def python(self, service: str, *arguments: str) -> str:
        """Runs Python in a service's container; in one of its own, with the same volumes, where the service is stopped."""
        done = subprocess.run(
            ["docker", "exec", self.container(service), "python", *arguments],
            timeout=300, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0 and re.search("is not running|No such container", done.stderr):
            return self.run("run", "--rm", "--no-deps", "-T", service, "python", *arguments)
        if done.returncode != 0:
            raise ComposeFailed(f"{service}: python: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def container(self, service: str) -> str:
        """The name of a service's container, running or not; as compose makes it."""
        return f"{self.project}-{service}-1"

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        shown = subprocess.run(
            ["docker", "inspect", self.container(service)], capture_output=True, check=True
        )
        described: dict[str, Any] = json.loads(shown.stdout)[0]
        return described

    def runs(self, service: str) -> bool:
        """Whether the service has a container that runs."""
        said = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.Running}}", self.container(service)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return said.stdout.strip() == "true"

    def is_healthy(self, service: str) -> bool:
        """Whether the service's own health check says so."""
        state = self.inspect(service)["State"]
        return bool(state["Running"] and state.get("Health", {}).get("Status") == "healthy")

    def kill(self, service: str) -> None:
        """kill -9 of the container's first process, as the kernel does it; the engine starts it again."""
        before = self.inspect(service)
        try:
            os.kill(before["State"]["Pid"], 9)
        except (PermissionError, ProcessLookupError):  # not root, or the engine is on another machine
            subprocess.run(["docker", "kill", before["Id"]], capture_output=True, check=True)
            subprocess.run(["docker", "start", before["Id"]], capture_output=True, check=True)
        wait_for(
            lambda: self.inspect(service)["State"]["StartedAt"] != before["State"]["StartedAt"],
            f"{service} is started again",
            SOON_S,
        )

    def spool(self, service: str) -> tuple[Mapping[tuple[str, str], int], int]:
        """(stream, name) -> count of a service's spool, and the events that wait in it."""
        file = f"{service.partition('-')[0]}.db"
        read = json.loads(self.python(service, "-c", READ_SPOOL.format(file=file)))
        return {(stream, name): value for stream, name, value in read["counts"]}, read["waiting"]

    def cloud(self) -> dict[str, Any]:
        """What arrived in the stand-in cloud, and whether anything is still on its way there."""
        url = "http://127.0.0.1:8080/counts"
        answer: dict[str, Any] = json.loads(self.python("standin-cloud", "-c", READ_URL.format(url=url)))
        return answer

    def delivered(self) -> int:
        """The lines' events that the cloud has accepted, as the forwarder's disk knows."""
        counts, _ = self.spool("forwarder")
        return sum(
            n for (stream, name), n in counts.items() if stream.startswith(LINES) and name == "settled"
        )

    def counts(self) -> Counts:
        """Every hop's count, as `make demo` reads them."""
        counts = Counts()
        for capture in CAPTURES:
            own, waiting = self.spool(capture)
            counts.backlog += waiting
            counts.judged[capture] = own.get(("", "judged"), 0)
            for name in counts.parts:
                counts.parts[name] += own.get(("", name), 0)
            counts.events["published"] += sum(
                n for (stream, name), n in own.items() if stream and name == "stored"
            )
        forwarded, waiting = self.spool("forwarder")
        counts.backlog += waiting
        for (stream, name), value in forwarded.items():
            if stream.startswith(LINES) and name in {"stored", "settled"}:
                counts.events["stored" if name == "stored" else "delivered"] += value
        cloud = self.cloud()
        counts.events["enriched"] = cloud["enriched"] + self.taken_along
        counts.work_orders.update(cloud["work_orders"])
        counts.dead_letters = cloud["dead_letters"]
        orders = self.orders()
        counts.work_orders["in_erp"] = len(orders)
        counts.work_orders["doubled"] = doubled(orders)
        if self.taken_along:  # with its account went what the cloud knew of the orders that are in the ERP
            counts.work_orders["created"] = counts.work_orders["in_erp"]
        return counts

    def orders(self) -> list[dict[str, Any]]:
        """The work orders in the ERP, as its file holds them; none before the first."""
        orders: list[dict[str, Any]] = json.loads(self.python("erp-simulator", "-c", READ_ORDERS))
        return orders

    def cloud_is_gone(self) -> None:
        """Says that the stand-in cloud has stopped. Its next start is a new account, which knows nothing."""
        # What the cloud accepted last is on the forwarder's disk a moment later; it knows by then that its way is gone.
        if self.runs("forwarder"):
            wait_for(lambda: not self.is_uplink_connected(), "the forwarder has lost its cloud", SOON_S)
            looks: list[int] = []

            def stands_still() -> bool:
                looks.append(self.delivered())
                return len(looks) >= 3 and len(set(looks[-3:])) == 1

            wait_for(stands_still, f"what is delivered stands still: {looks}", SOON_S)
        self.taken_along = self.delivered()

    def is_uplink_connected(self) -> bool:
        """Whether the forwarder reaches its cloud, by its metrics."""
        told = self.python("forwarder", "-c", READ_URL.format(url="http://127.0.0.1:9464/metrics"))
        return "\nlinewatch_forwarder_uplink_connected 1.0" in told

    def flows(self) -> None:
        """Returns once parts that are judged from now on arrive in the cloud."""
        before = self.cloud()["enriched"]
        wait_for(lambda: self.cloud()["enriched"] > before, "events arrive in the cloud", SOON_S)

    def drain(self) -> Counts:
        """Lets the lines take no further part, and returns the counts once nothing is on its way any more."""
        # A line that has played more parts than this stops at once, and what is on its disk still goes out.
        self.up(LINEWATCH_PARTS="1")
        seen: list[Counts] = []

        def is_at_rest() -> bool:
            seen.append(self.counts())
            return not seen[-1].on_their_way() and self.cloud()["at_rest"]

        try:
            wait_for(is_at_rest, "every event has arrived and every order is in the ERP", 900)
        except AssertionError:
            pytest.fail(f"not at rest: {seen[-1]}; {seen[-1].disagreements()}")
        return seen[-1]


def asked(address: str, path: str, authorization: str = "", **parameters: str) -> Any:
    """The JSON answer to a GET; `authorization`: user:password."""
    request = urllib.request.Request(f"{address}{path}?{urllib.parse.urlencode(parameters)}")
    if authorization:
        request.add_header("Authorization", "Basic " + base64.b64encode(authorization.encode()).decode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def found(prometheus: str, query: str) -> list[dict[str, Any]]:
    """What a query gives now: one entry for each series, with `metric` (its labels) and `value`."""
    result: list[dict[str, Any]] = asked(prometheus, "/api/v1/query", query=query)["data"]["result"]
    return result
