# SPDX-License-Identifier: Apache-2.0
"""The plant's processes: started, watched, started again when they die, and stopped, all of them, within a deadline."""

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STOP_S = 7.0
"""Seconds from SIGTERM to SIGKILL; with what follows, a stop of the whole plant stays under 10 s."""

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
GIVEN_UP_AFTER = 10
STABLE_S = 2.0
"""A service that lived so long is started again after the shortest wait; one that dies at once waits longer each time."""

_PR_SET_PDEATHSIG = 1
BAD_SETTINGS = 2


FIRST_GIVEN_PORT, GIVEN_PORTS = 20_000, 12_000
"""Below those that Linux gives to connections and to port 0 (net.ipv4.ip_local_port_range: 32768 and up)."""
_APART = 197
"""Ports between two processes that were started one after the other."""
_asked = itertools.count()
_MOST_KEPT = 100
"""Ports that a process keeps for those whom it told them; by then whoever was told the first of them listens there."""
_kept: deque[int] = deque()
"""File descriptors of what keeps them."""


class PlantError(Exception):
    """The plant can't start or go on; the message says what to do."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now, and that nobody else is about to be given.

    Whoever is told the port listens a moment later, and again after a kill: meanwhile the system gives a port of its own
    range to any connection. Two processes that ask at once count from different places; where they meet, the port is
    the first one's.
    """
    for _ in range(GIVEN_PORTS):
        port = FIRST_GIVEN_PORT + (os.getpid() * _APART + next(_asked)) % GIVEN_PORTS
        if port_is_free(port) and _keeps(port):
            return port
    raise PlantError(f"no port is free on 127.0.0.1 from {FIRST_GIVEN_PORT} on; stop what listens there")


def _keeps(port: int) -> bool:
    """Whether no other process was told the port: its number is taken for UDP, which nobody here speaks.

    Until we end, or were asked for _MOST_KEPT more.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as mark:
        try:
            mark.bind(("127.0.0.1", port))
        except OSError:
            return False
        _kept.append(mark.detach())
    while len(_kept) > _MOST_KEPT:
        os.close(_kept.popleft())
    return True


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether we could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    """A plant that is killed leaves nothing behind (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class Service:
    """One process of the plant.

    Attributes:
        name: as it stands in the view and in the log file's name.
        module: run as `python -m module`.
        environment: on top of PATH and what Python needs; nothing else is inherited.
    """

    name: str
    module: str
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    starts: int = 0
    process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self.process.pid if self.process and self.process.returncode is None else None

    def kill(self) -> None:
        """kill -9, as a power cut would; the plant starts it again."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)


class Processes:
    """Runs services until it is cancelled."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self.services: dict[str, Service] = {}
        self.stopping = False

    async def start(self, service: Service) -> None:
        """Starts a process; its output goes to {log_dir}/{name}.log."""
        self.services[service.name] = service
        with (self._log_dir / f"{service.name}.log").open("ab") as output:
            service.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", service.module, *service.arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                env=_environment(service.environment), start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        service.starts += 1
        if self.stopping:  # it came to be after `stop` had looked who runs
            service.process.kill()

    async def watch(self, service: Service) -> None:
        """Starts the service again whenever it dies. Raises PlantError when its settings are wrong or it never lives."""
        delay_s, dead_at_once = SHORTEST_WAIT_S, 0
        clock = asyncio.get_running_loop()
        while True:
            assert service.process is not None
            started = clock.time()
            code = await service.process.wait()
            if self.stopping:
                return
            if code == BAD_SETTINGS:
                raise PlantError(f"{service.name} can't start: {self.last_words(service.name)}")
            if clock.time() - started > STABLE_S:
                delay_s, dead_at_once = SHORTEST_WAIT_S, 0
            else:
                delay_s, dead_at_once = min(LONGEST_WAIT_S, delay_s * 2), dead_at_once + 1
            if dead_at_once >= GIVEN_UP_AFTER:
                raise PlantError(
                    f"{service.name} died {dead_at_once} times at its start: {self.last_words(service.name)}"
                )
            await asyncio.sleep(delay_s)
            await self.start(service)

    def last_words(self, name: str, lines: int = 3) -> str:
        """The end of a service's log."""
        path = self._log_dir / f"{name}.log"
        words = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return "\n".join(words[-lines:]) or f"see {path}"

    def restarted(self) -> dict[str, int]:
        """Services that died and were started again, with how often."""
        return {name: one.starts - 1 for name, one in self.services.items() if one.starts > 1}

    async def stop(self, last: str) -> None:
        """SIGTERM to all at once but `last`, which follows when they are gone; SIGKILL after STOP_S in total."""
        self.stopping = True
        deadline = asyncio.get_running_loop().time() + STOP_S
        for ends_last in (False, True):
            await _end([one for one in self.services.values() if (one.name == last) is ends_last], deadline)


async def _end(services: Sequence[Service], deadline: float) -> None:
    running = [one.process for one in services if one.process and one.process.returncode is None]
    for process in running:
        process.terminate()
    waits = [asyncio.create_task(process.wait(), name="stop") for process in running]
    if not waits:
        return
    left = max(0.5, deadline - asyncio.get_running_loop().time())
    _, late = await asyncio.wait(waits, timeout=left)
    for process in running:
        if process.returncode is None:
            process.kill()
    if late:
        await asyncio.wait(late, timeout=1.0)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "COVERAGE_PROCESS_START")
    inherited = {name: os.environ[name] for name in kept if name in os.environ}
    return {**inherited, "PYTHONUNBUFFERED": "1", "ORT_DISABLE_TELEMETRY": "1", **own}
