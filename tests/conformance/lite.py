# SPDX-License-Identifier: Apache-2.0
"""Nucleus lite (2.6), as far as a component can tell. Where the rules were read (aws-greengrass-lite, modules/):
ggdeploymentd/src/deployment_handler.c: new install units, then the old units stop, then all start; 300 s for each;
nothing is taken back.

There is no shutdown step, no component update, no deferral. UpdateState is answered and brings no unit up here: on
lite it calls cgexec with a cgroup v1 path (gghealthd/src/health.c), and that is not on every device.
"""

import contextlib
import os
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
    SUCCEEDED,
    ArtifactMissing,
    BadRecipe,
    Component,
    Device,
    Outcome,
    Recipe,
)  # fmt: skip
from conformance.lite_unit import Unit
from conformance.recipe_lite import lite_manifest, lite_step

DEPLOYMENT_S = 300.0

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
                thread.join(60)
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
