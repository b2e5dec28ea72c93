# SPDX-License-Identifier: Apache-2.0
"""The stack of docker-compose.yml under a project name, a port and volumes of its own, removed at the end.

Where no engine answers or no base image can be had, the tests are skipped as "not run", with the reason.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from brokers import wait_for

from linewatch_plant.counts import LINES, Counts, doubled
from linewatch_plant.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
PARTS_OF_A_LINE = 150
RATE = 6
UP_S = 240
BUILD_S = 1500

CAPTURES = ("capture-line-1", "capture-line-2")

READ_SPOOL = """
import json, sqlite3
db = sqlite3.connect("file:/var/lib/linewatch/state/{file}?mode=ro", uri=True, timeout=5)
print(json.dumps({{
    "counts": db.execute("SELECT stream, name, value FROM counts").fetchall(),
    "waiting": db.execute("SELECT coalesce(sum(events), 0) FROM streams").fetchone()[0],
}}))
"""
READ_URL = "import urllib.request as u; print(u.urlopen('{url}', timeout=10).read().decode())"


@dataclass(slots=True)
class Stack:
    """A running compose project."""

    project: str
    console_port: int
    settings: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, timeout_s: float = 60, check: bool = True) -> str:
        """`docker compose …` in the repository; returns what it printed."""
        done = subprocess.run(
            ["docker", "compose", "--ansi", "never", "-p", self.project, *arguments],
            cwd=ROOT, env={**os.environ, **self.settings}, timeout=timeout_s, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            pytest.fail(
                f"docker compose {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def inside(self, service: str, *command: str, check: bool = True) -> str:
        """Runs a command in a service's container."""
        return self.run("exec", "-T", service, *command, check=check)

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        return self.run("ps", "-a", "-q", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        shown = subprocess.run(
            ["docker", "inspect", self.container(service)], capture_output=True, check=True
        )
        described: dict[str, Any] = json.loads(shown.stdout)[0]
        return described

    def spool(self, service: str) -> tuple[dict[tuple[str, str], int], int]:
        """(stream, name) -> count of a service's spool, and the events that wait in it."""
        name = service.partition("-")[0]
        read = json.loads(self.inside(service, "python", "-c", READ_SPOOL.format(file=f"{name}.db")))
        return {(stream, name): value for stream, name, value in read["counts"]}, read["waiting"]

    def cloud(self) -> dict[str, Any]:
        """What arrived in the stand-in cloud, and whether anything is still on its way there."""
        url = "http://127.0.0.1:8080/counts"
        answer: dict[str, Any] = json.loads(
            self.inside("standin-cloud", "python", "-c", READ_URL.format(url=url))
        )
        return answer

    def counts(self) -> Counts:
        """Every hop's count, as `make demo` reads them."""
        counts = Counts()
        for capture in CAPTURES:
            own, waiting = self.spool(capture)
            counts.backlog += waiting
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
        counts.events["enriched"] = cloud["enriched"]
        counts.work_orders.update(cloud["work_orders"])
        orders = self.orders()
        counts.work_orders["in_erp"] = len(orders)
        counts.work_orders["doubled"] = doubled(orders)
        return counts

    def orders(self) -> list[dict[str, Any]]:
        """The work orders in the ERP, as its file holds them; none before the first."""
        kept = self.inside(
            "erp-simulator", "sh", "-c", "cat /var/lib/linewatch/state/orders.json 2>/dev/null || echo []"
        )
        orders: list[dict[str, Any]] = json.loads(kept)
        return orders

    def is_at_rest(self, parts: int) -> bool:
        """Whether so many parts were sent and nothing is on its way any more."""
        counts = self.counts()
        return counts.parts["sent"] >= parts and not counts.backlog and self.cloud()["at_rest"]

    def is_healthy(self, service: str) -> bool:
        """Whether the service's own health check says so."""
        state = self.inspect(service)["State"]
        return bool(state["Running"] and state.get("Health", {}).get("Status") == "healthy")

    def kill(self, service: str) -> None:
        """kill -9 of the service's first process, as a power cut would, and a start."""
        container = self.container(service)
        subprocess.run(["docker", "kill", "--signal", "KILL", container], capture_output=True, check=True)
        wait_for(lambda: not self.inspect(service)["State"]["Running"], f"{service} is dead")
        subprocess.run(["docker", "start", container], capture_output=True, check=True)


def not_run(reason: str) -> None:
    pytest.skip(f"not run: {reason}")


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips, with the reason, where containers can't be had."""
    if not shutil.which("docker"):
        not_run("docker is not installed; on a root Debian tools/containers/engine installs it")
    for command, missing in (
        (["docker", "info"], "no Docker engine answers; on a root Debian tools/containers/engine starts one"),
        (["docker", "compose", "version"], "docker has no compose plugin"),
        ([str(ROOT / "tools/containers/bases")], "the base images can't be had"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [""])[-1]
            not_run(f"{missing} ({last})")


@pytest.fixture(scope="session")
def stack(engine: None) -> Iterator[Stack]:
    """Built and healthy; both lines play PARTS_OF_A_LINE parts. Logs stay in build/containers/."""
    port = free_port()
    project = f"linewatch-test-{os.getpid()}"
    stack = Stack(
        project,
        port,
        {
            "LINEWATCH_CONSOLE_PORT": str(port),
            "LINEWATCH_PARTS": str(PARTS_OF_A_LINE),
            "LINEWATCH_RATE": str(RATE),
        },
    )
    try:
        stack.run("build", timeout_s=BUILD_S)
        stack.run("up", "--wait", timeout_s=UP_S)
        yield stack
    finally:
        logs = ROOT / "build" / "containers"
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "stack.log").write_text(stack.run("logs", "--no-color", "--timestamps", check=False))
        stack.run("down", "--volumes", "--remove-orphans", timeout_s=120, check=False)


@pytest.fixture
def first_process(stack: Stack) -> Callable[[str], dict[str, str]]:
    """/proc/1/status of a service's container."""
    return lambda service: dict(
        re.findall(r"^(\w+):\s*(.*)$", stack.inside(service, "cat", "/proc/1/status"), re.MULTILINE)
    )
