# SPDX-License-Identifier: Apache-2.0
"""A core device with a stand-in for its nucleus: what both runtimes have in common.

A deployment names the whole set of components, as on a real device. `classic.py` and `lite.py` say how a component
lives and what a failed deployment leaves behind.
"""

import itertools
import os
import shutil
import subprocess
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brokers import wait_for
from conformance.recipe import BadRecipe, Place, Recipe, Step, configured
from nucleus_ipc import SOCKET_VARIABLE, NucleusIpc, Reported

NEW, INSTALLED, STARTING, RUNNING = "NEW", "INSTALLED", "STARTING", "RUNNING"
ERRORED, BROKEN, STOPPING, FINISHED = "ERRORED", "BROKEN", "STOPPING", "FINISHED"

SUCCEEDED, FAILED = "SUCCEEDED", "FAILED"
PULL_S = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a deployment. `detail` is the cloud's word for what was left behind."""

    status: str
    detail: str
    reason: str = ""


class ArtifactMissing(Exception):
    """The runtime could not get an artifact; the text names it."""


@dataclass(eq=False, slots=True)
class Component:
    """What a device holds of a component."""

    recipe: Recipe
    configuration: dict[str, Any]
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    states: list[tuple[float, str]] = field(default_factory=lambda: [(time.monotonic(), NEW)])
    reason: str = ""
    """Why it is ERRORED or BROKEN."""

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def state(self) -> str:
        return self.states[-1][1]

    def enter(self, state: str, reason: str = "") -> None:
        if state != self.state:
            self.states.append((time.monotonic(), state))
        if reason:
            self.reason = reason

    def entered(self, state: str) -> int:
        """How often it has come into the state."""
        return [name for _, name in self.states].count(state)


class Device(ABC):
    """A device below `root`. Ends everything at `close`."""

    flavour = ""

    def __init__(self, root: Path, artifacts: Path | None = None, thing_name: str = "device-1") -> None:
        """`artifacts`: <component>/<version>/<file>, where s3:// artifacts are taken from instead."""
        self.root = root
        self.artifacts = artifacts
        self.thing_name = thing_name
        for folder in ("work", "logs", "packages"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self.components: dict[str, Component] = {}
        self.ipc = NucleusIpc(root / self.socket_name, lite=self.flavour == "lite")
        self.ipc.on_state = self._heard
        self.ipc.start()
        self._changing = threading.RLock()
        self._numbers = itertools.count(1)

    @property
    @abstractmethod
    def socket_name(self) -> str: ...

    @abstractmethod
    def deploy(self, *recipes: Recipe, merge: Mapping[str, Mapping[str, Any]] | None = None) -> Outcome:
        """Brings the device to this whole set, waits for the outcome. `merge`: component -> configuration."""

    @abstractmethod
    def reported(self, component: Component, state: str) -> None:
        """A component said UpdateState."""

    @abstractmethod
    def close(self) -> None:
        """Stops every component and the nucleus."""

    @abstractmethod
    def power_cut(self) -> None:
        """Every process of the nucleus and of its components is gone at once; containers are the engine's matter."""

    @abstractmethod
    def boot(self) -> None:
        """Starts the nucleus and what was deployed last."""

    # --- what tests ask ---

    def state(self, recipe: Recipe) -> str:
        return self.components[recipe.name].state

    def log(self, recipe: Recipe) -> str:
        """All that the component's steps wrote."""
        path = self._log(recipe.name)
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, recipe: Recipe, state: str, deadline_s: float = 240.0, *, times: int = 1) -> None:
        """Until the component is in the state, and has come into it so often."""
        one = self.components[recipe.name]
        wait_for(
            lambda: one.state == state and one.entered(state) >= times,
            f"{recipe.name} is {state} (time {times}) on {self.flavour}; it is {one.states} {one.reason}",
            deadline_s,
        )

    def restart_ipc(self) -> None:
        """The IPC server goes and comes back with a new socket file."""
        self.ipc.stop()
        self.ipc.start()

    # --- for the flavours ---

    def _heard(self, report: Reported) -> None:
        for one in list(self.components.values()):
            if one.token == report.token:
                self.reported(one, report.state)

    def _log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def _note(self, component: Component, text: str) -> None:
        """A line of the runtime's own in the component's log."""
        with self._log(component.name).open("a") as log:
            log.write(f"[{self.flavour}] {text}\n")

    def _place(self, recipe: Recipe) -> Place:
        return Place(self.root, recipe.name, recipe.version, self.thing_name)

    def _work(self, name: str) -> Path:
        folder = self.root / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        return folder

    def _environment(self, component: Component) -> dict[str, str]:
        """What a step finds besides its Setenv. (ShellRunner.java, GenericExternalService; runner.c)"""
        inherited = {
            key: os.environ[key] for key in ("DOCKER_HOST", "DOCKER_CONFIG", "LANG") if key in os.environ
        }
        return {
            **inherited,
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            SOCKET_VARIABLE: str(self.ipc.path),
            "SVCUID": component.token,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": component.token,
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_IOT_THING_NAME": self.thing_name,
            "GGC_VERSION": "2.18.2" if self.flavour == "classic" else "2.6.0",
            "GG_ROOT_CA_PATH": str(self.root / "rootCA.pem"),
        }

    def _fetch(self, recipe: Recipe, manifest: Mapping[str, Any]) -> None:
        """Pulls images that are not here; a local deployment brings its files along. Raises ArtifactMissing.

        An image that is here is not asked for again. (DockerImageDownloader.downloadRequired; get_recipe_artifacts)
        """
        place = self._place(recipe)
        for kind in ("path", "decompressedPath"):
            Path(str(place.value("artifacts", kind))).mkdir(parents=True, exist_ok=True)
        if self.artifacts and (given := self.artifacts / recipe.name / recipe.version).is_dir():
            shutil.copytree(given, Path(str(place.value("artifacts", "path"))), dirs_exist_ok=True)
        for artifact in manifest.get("Artifacts", []):
            uri = str(artifact["Uri"])
            if uri.startswith("docker:"):
                pull(uri.removeprefix("docker:"))
            else:
                self._get(recipe, uri)

    @abstractmethod
    def _get(self, recipe: Recipe, uri: str) -> None:
        """Gets a file. Raises ArtifactMissing: no device here has a cloud."""

    def _wanted(
        self, recipes: Collection[Recipe], merge: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, tuple[Recipe, dict[str, Any]]]:
        """Recipe and configuration of each component after the deployment."""
        made = {}
        for recipe in recipes:
            present = self.components.get(recipe.name)
            made[recipe.name] = (
                recipe,
                configured(
                    present and present.configuration, recipe.defaults, merge.get(recipe.name, {}), []
                ),
            )
        return made


def pull(reference: str) -> None:
    """Unless it is here. Raises ArtifactMissing."""
    here = subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=False)
    if here.returncode == 0:
        return
    try:
        pulled = subprocess.run(
            ["docker", "pull", "-q", reference], capture_output=True, text=True, timeout=PULL_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise ArtifactMissing(f"docker:{reference}: not within {PULL_S} s") from late
    if pulled.returncode != 0:
        raise ArtifactMissing(f"docker:{reference}: {pulled.stderr.strip()}")


__all__ = [
    "BROKEN", "ERRORED", "FAILED", "FINISHED", "INSTALLED", "NEW", "RUNNING", "STARTING", "STOPPING", "SUCCEEDED",
    "ArtifactMissing", "BadRecipe", "Component", "Device", "Outcome", "Recipe", "Step",
]  # fmt: skip
