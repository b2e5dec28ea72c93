# SPDX-License-Identifier: Apache-2.0
"""Nucleus lite (2.6), as far as a component can tell. Rules and where they were read (aws-greengrass-lite, modules/):

- the unit: recipe2unit/src/unit_file_generator.c (startup is Type=notify, NotifyAccess=all, RemainAfterExit; run is
  Type=exec; Restart=on-failure, RestartSec=1, three starts in 3600 s; TimeoutStartSec of startup, TimeoutSec of run)
- the script: recipe-runner/src/runner.c
- a unit's state as a component's state: gghealthd/src/sd_bus.c
- a deployment: ggdeploymentd/src/deployment_handler.c (new install units, then the old units stop, then all start;
  300 s for each; nothing is taken back)
- what systemd does with such a unit: systemd.service(5), systemd.kill(5)

There is no shutdown step, no component update, no deferral. UpdateState is answered and brings no unit up here: on
lite it calls cgexec with a cgroup v1 path (gghealthd/src/health.c), and that is not on every device.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from conformance.device import (
    BROKEN,
    FAILED,
    FINISHED,
    INSTALLED,
    RUNNING,
    STARTING,
    STOPPING,
    SUCCEEDED,
    ArtifactMissing,
    BadRecipe,
    Component,
    Device,
    Outcome,
    Recipe,
)  # fmt: skip
from conformance.processes import Running, gone, send
from conformance.recipe import lite_manifest, lite_script, lite_step

RESTART_S = 1.0
BURST, INTERVAL_S = 3, 3600.0
DEFAULT_TIMEOUT_S = 120.0
STOP_S = 90.0
DEPLOYMENT_S = 300.0
ACTIVE, INACTIVE = "active", "inactive"
CLEAN_SIGNALS = {-signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM, -signal.SIGPIPE}

# What systemd-notify --ready and --stopping do; before 253 it knows no --stopping, and says so with exit code 1.
SYSTEMD_NOTIFY = """#!{python} -S
import os, socket, sys
states = {{"--ready": b"READY=1", "--stopping": b"STOPPING=1"}}
if {version} < 253:
    del states["--stopping"]
if sys.argv[1] not in states:
    sys.exit("systemd-notify: unrecognized option '" + sys.argv[1] + "'")
if not os.environ.get("NOTIFY_SOCKET"):
    sys.exit("systemd-notify: No status data could be sent: $NOTIFY_SOCKET was not set")
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(states[sys.argv[1]], os.environ["NOTIFY_SOCKET"])
"""
OLD_SYSTEMD, NEW_SYSTEMD = 252, 257
"""Of Debian 12 and 13. For steps with privilege: others may not reach this Python."""


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
        if self._run and self._run.members() and self.phase != "install":
            self.component.enter(STOPPING)
            self._end(self._run)
        self._thread.join(self._stop_s + 30)
        assert not self._thread.is_alive(), f"the unit of {self.component.name} does not stop"

    def die(self) -> None:
        self._stopping.set()
        if self._run:
            send(self._run.members(), signal.SIGKILL)
        self._thread.join(30)

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
                if self._ready.wait(0.2):
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
            if self.phase == "startup" and not self._ends.wait(0.2):
                self._stopping.wait()  # RemainAfterExit: the unit stays active without a process
            else:
                self.component.enter(FINISHED)
            return None
        return f"exit-code {run.code}"

    def _end(self, run: Running) -> None:
        send(run.members(), signal.SIGTERM)
        if not gone(run.members, self._stop_s):
            send(run.members(), signal.SIGKILL)


class Lite(Device):
    """A core device with nucleus lite."""

    flavour = "lite"
    socket_name = "gg-ipc.socket"

    def __init__(self, root: Path, artifacts: Path | None = None, systemd: int = OLD_SYSTEMD) -> None:
        self.tools = root / "bin"
        self.tools.mkdir(parents=True)
        tool = self.tools / "systemd-notify"
        tool.write_text(SYSTEMD_NOTIFY.format(python=sys.executable, version=systemd))
        tool.chmod(0o755)
        super().__init__(root, artifacts)
        self._units: dict[str, Unit] = {}

    def note(self, component: Component, text: str) -> None:
        self._note(component, text)

    def _get(self, recipe: Recipe, uri: str) -> None:
        """Lite downloads every file anew, also those that a local deployment brought. (get_recipe_artifacts)"""
        raise ArtifactMissing(uri)

    def reported(self, component: Component, state: str) -> None:
        pass

    @contextlib.contextmanager
    def notify_socket(self, told_state: Callable[[str], None]) -> Iterator[Path]:
        """A $NOTIFY_SOCKET."""
        where = self.root / f"notify.{os.urandom(4).hex()}"
        stop = threading.Event()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(where))
            listener.settimeout(0.1)
            where.chmod(0o777)

            def listen() -> None:
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        told_state(listener.recv(4096).decode())

            thread = threading.Thread(target=listen, name="notify", daemon=True)
            thread.start()
            try:
                yield where
            finally:
                stop.set()
                thread.join(5)
                where.unlink(missing_ok=True)

    def deploy(self, *recipes: Recipe, merge: Mapping[str, Mapping[str, Any]] | None = None) -> Outcome:
        with self._changing:
            wanted = self._wanted(recipes, merge or {})
            try:
                for recipe, _ in wanted.values():
                    self._fetch(recipe, lite_manifest(recipe))
            except (BadRecipe, ArtifactMissing) as error:
                return Outcome(FAILED, "FAILED_ROLLBACK_NOT_REQUESTED", str(error))
            changed = [self._changed(*one) for one in wanted.values()]
            failure = self._install([one for one in changed if one]) or self._start(
                [one for one in changed if one]
            )
            if failure:
                return Outcome(FAILED, "FAILED_ROLLBACK_NOT_REQUESTED", failure)
            for name in self.components.keys() - wanted.keys():
                self._units.pop(name).stop()
                del self.components[name]
            return Outcome(SUCCEEDED, "SUCCESSFUL")

    def _changed(self, recipe: Recipe, configuration: dict[str, Any]) -> Component | None:
        """The component, when its unit is to be made anew: another version or configuration, or it does not run."""
        one = self.components.get(recipe.name)
        if one is None:
            one = self.components[recipe.name] = Component(recipe, configuration)
            return one
        same = one.recipe.version == recipe.version and one.configuration == configuration
        one.recipe, one.configuration = recipe, configuration
        return None if same and one.state in {RUNNING, FINISHED} else one

    def _install(self, components: list[Component]) -> str | None:
        units = [Unit(self, one, "install") for one in components if lite_step(one.recipe, "install")]
        for unit in units:
            unit.wait(DEPLOYMENT_S)
            if unit.result != "success":
                return f"{unit.component.name}.install: {unit.result or 'not done in 300 s'}"
        return None

    def _start(self, components: list[Component]) -> str | None:
        """Old units stop first, all of them; then all start."""
        for one in components:
            if unit := self._units.pop(one.name, None):
                unit.stop()
        for unit in self._units.values():
            unit.reset()
        for one in components:
            one.enter(INSTALLED)
            self._up(one)
        for one in components:
            deadline = time.monotonic() + DEPLOYMENT_S
            while one.state not in {RUNNING, FINISHED, BROKEN}:
                if time.monotonic() > deadline:
                    return f"{one.name} {one.recipe.version} is {one.state} after 300 s: {one.reason}"
                time.sleep(0.05)
            if one.state == BROKEN:
                return f"{one.name} {one.recipe.version} is BROKEN: {one.reason}"
        return None

    def _up(self, one: Component) -> None:
        for phase in ("startup", "run"):
            if lite_step(one.recipe, phase):
                self._units[one.name] = Unit(self, one, phase)
                return
        one.enter(FINISHED)

    def close(self) -> None:
        for unit in self._units.values():
            unit.stop()
        self._units.clear()
        self.ipc.stop()

    def power_cut(self) -> None:
        for unit in self._units.values():
            unit.die()
        self._units.clear()
        self.ipc.stop()

    def boot(self) -> None:
        """The target starts each unit; install units are not enabled and do not run again."""
        self.ipc.start()
        for one in self.components.values():
            one.enter(INSTALLED)
            self._up(one)
