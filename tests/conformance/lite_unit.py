# SPDX-License-Identifier: Apache-2.0
"""A component's systemd unit on nucleus lite. Where the rules were read (aws-greengrass-lite, modules/):

- the unit: recipe2unit/src/unit_file_generator.c (startup is Type=notify, NotifyAccess=all, RemainAfterExit; run is
  Type=exec; Restart=on-failure, RestartSec=1, three starts in 3600 s; TimeoutStartSec of startup, TimeoutSec of run)
- the script: recipe-runner/src/runner.c
- a unit's state as a component's state: gghealthd/src/sd_bus.c
- what systemd does with such a unit: systemd.service(5), systemd.kill(5)
"""

import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.device import BROKEN, FINISHED, INSTALLED, RUNNING, STARTING, STOPPING, BadRecipe, Component
from conformance.processes import Running, gone, send
from conformance.recipe_lite import lite_script, lite_step

if TYPE_CHECKING:
    from conformance.lite import Lite

RESTART_S = 1.0
BURST, INTERVAL_S = 3, 3600.0
DEFAULT_TIMEOUT_S = 120.0
STOP_S = 90.0
DIE_S = 120.0
BARRIER = b"BARRIER=1"
"""Our own notification, behind those of a process that has ended."""
BARRIER_S = 60.0
CLEAN_SIGNALS = {-signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM, -signal.SIGPIPE}


class Unit:
    """A systemd unit of a component: install (oneshot), or startup or run."""

    def __init__(self, device: "Lite", component: Component, phase: str) -> None:
        self.device = device
        self.component = component
        self.phase = phase
        step = lite_step(component.recipe, phase)
        assert step is not None
        limit = step.timeout_s or DEFAULT_TIMEOUT_S
        self._privileged = step.privileged
        self._start_s = limit
        self._stop_s = STOP_S if phase == "startup" else limit
        self._starts: list[float] = []
        self._run: Running | None = None
        self._ready = threading.Event()
        self._ends = threading.Event()
        """The unit itself said STOPPING=1: when its process ends it is inactive, whatever RemainAfterExit says."""
        self._barrier = threading.Event()
        self._stopping = threading.Event()
        self._done = threading.Event()
        self.result = ""
        """Of a unit that is through: success, or why not."""
        self._thread = threading.Thread(target=self._live, name=f"{component.name}.{phase}", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        return self._done.wait(seconds)

    def reset(self) -> None:
        """systemctl reset-failed."""
        self._starts.clear()

    def stop(self) -> None:
        """systemctl stop: SIGTERM to every process of the unit, SIGKILL to what is left after the stop timeout."""
        self._stopping.set()
        deadline = time.monotonic() + self._stop_s + 30
        # Again: a start that was under way when this began comes to be a process a moment later.
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self._run and self._run.members() and self.phase != "install":
                self.component.enter(STOPPING)
                self._end(self._run)
            self._thread.join(0.2)
        assert not self._thread.is_alive(), f"the unit of {self.component.name} does not stop"

    def die(self) -> None:
        self._stopping.set()
        deadline = time.monotonic() + DIE_S
        # Again, as in `stop`.
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self._run:
                send(self._run.members(), signal.SIGKILL)
            self._thread.join(0.2)
        assert not self._thread.is_alive(), f"the unit of {self.component.name} does not die"

    # --- a unit's life ---

    def _live(self) -> None:
        while not self._stopping.is_set():
            failure = self._attempt()
            if failure is None or self._stopping.is_set():
                self._finish("success" if failure is None else failure)
                return
            self.device.note(self.component, f"unit {self.phase}: {failure}")
            self.component.reason = failure
            # The start limit is looked at when the unit is to be started again.
            if len([at for at in self._starts if time.monotonic() - at < INTERVAL_S]) >= BURST:
                self.component.enter(BROKEN, failure)
                self._finish(failure)
                return
            self._stopping.wait(RESTART_S)

    def _finish(self, result: str) -> None:
        self.result = result
        if self.component.state == STOPPING:
            self.component.enter(INSTALLED)
        self._done.set()

    def _attempt(self) -> str | None:
        """One start of the unit, to its end. None: nothing to restart for; else the failure."""
        self._starts.append(time.monotonic())
        self._ready.clear()
        self._ends.clear()
        if self.phase != "install":
            self.component.enter(STARTING)
        with self.device.notify_socket(self._told) as where:
            self._where = where
            try:
                run = self._begin(where)
            except BadRecipe as error:
                return f"recipe-runner: {error}"
            if self.phase == "run":
                self.component.enter(RUNNING)
            failure = self._started(run) if self.phase != "run" else None
            if failure is None and self.phase != "install":
                self.component.enter(RUNNING)
                failure = self._ran(run)
        # Whatever the first process left in the cgroup is ended with it.
        if self.phase != "startup" or failure is not None:
            self._end(run)
        return failure

    def _told(self, line: str) -> None:
        if line == "READY=1":
            self._ready.set()
        elif line == "STOPPING=1":
            self._ends.set()
        elif line == BARRIER.decode():
            self._barrier.set()

    def _all_told(self) -> None:
        """Returns once all that a process said before its end has been heard; the socket keeps the order."""
        self._barrier.clear()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as voice:
            voice.sendto(BARRIER, str(self._where))
        self._barrier.wait(BARRIER_S)

    def _begin(self, where: Path) -> Running:
        one, device = self.component, self.device
        script = lite_script(one.recipe, self.phase, one.configuration, device._place(one.recipe))
        file = device.root / f"ggl.{one.name}.{self.phase}"
        file.write_text(script)
        environment = device._environment(one)
        environment["PATH"] = f"{device.tools}:{environment['PATH']}"
        if self.phase == "startup":
            environment["NOTIFY_SOCKET"] = str(where)
        self._run = Running(
            ["/bin/sh", str(file)], environment, device._work(one.name), device._log(one.name),
            privileged=self._privileged,
        )  # fmt: skip
        return self._run

    def _started(self, run: Running) -> str | None:
        """Until the unit is up: READY for startup, the script's end for install. Else why it is not."""
        deadline = time.monotonic() + self._start_s
        while time.monotonic() < deadline and not self._stopping.is_set():
            if self._ready.is_set():
                return None
            if run.wait(0.05):
                if self.phase == "install":
                    return None if run.code == 0 else f"exit-code {run.code}"
                # The notification may have come just before the end.
                self._all_told()
                if self._ready.is_set():
                    return None
                return f"exit-code {run.code}" if run.code else "protocol"
        if self._stopping.is_set():
            run.wait(self._stop_s + 10)
            return None
        return f"timeout: not up in {self._start_s:g} s"

    def _ran(self, run: Running) -> str | None:
        """Until the first process ends."""
        run.ended.wait()
        if self._stopping.is_set():
            return None
        if run.code == 0 or run.code in CLEAN_SIGNALS:
            self._all_told()
            if self.phase == "startup" and not self._ends.is_set():
                self._stopping.wait()  # RemainAfterExit: the unit stays active without a process
            else:
                self.component.enter(FINISHED)
            return None
        return f"exit-code {run.code}"

    def _end(self, run: Running) -> None:
        send(run.members(), signal.SIGTERM)
        if not gone(run.members, self._stop_s):
            send(run.members(), signal.SIGKILL)
