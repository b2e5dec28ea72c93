# SPDX-License-Identifier: Apache-2.0
"""A lifecycle step as processes: started in a session of its own, found again by mark or by descent, ended, killed."""

import contextlib
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

# systemd names each run of a unit like this in its environment, and every process of the run inherits it.
MARK = "INVOCATION_ID"
UNPRIVILEGED = 65534
"""In place of ggc_user: a user that may not talk to the Docker engine."""


class Running:
    """A step that was started. `code` is None while its first process lives; negative for a signal."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, *,
        privileged: bool, on_exit: Callable[["Running", int], None] = lambda _run, _code: None,
    ) -> None:  # fmt: skip
        """`on_exit` is called in a thread of its own. Without privilege the step runs as another user, if we are root."""
        self.mark = uuid.uuid4().hex
        self.code: int | None = None
        drop = (
            {}
            if privileged or os.geteuid()
            else {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        )
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env={**environment, MARK: self.mark}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True, **drop,  # type: ignore[call-overload]
            )  # fmt: skip
        self._on_exit = on_exit
        self.ended = threading.Event()
        threading.Thread(target=self._wait, name=f"step {self.process.pid}", daemon=True).start()

    def _wait(self) -> None:
        self.code = self.process.wait()
        self.ended.set()
        self._on_exit(self, self.code)

    def descendants(self) -> list[psutil.Process]:
        """Children and theirs, not the first process itself."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def members(self) -> list[psutil.Process]:
        """Every process with this run's mark, orphans too: what systemd would find in the unit's cgroup."""
        found = []
        needle = f"{MARK}={self.mark}".encode()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                marked = needle in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wait(self, seconds: float) -> bool:
        """Whether the first process ended within `seconds`."""
        return self.ended.wait(seconds)


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """To each that is still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def gone(members: Callable[[], Sequence[psutil.Process]], within_s: float) -> bool:
    """Whether no process is left within the time."""
    end = time.monotonic() + within_s
    while members():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
