# SPDX-License-Identifier: Apache-2.0
"""The classic nucleus (2.18), as far as a component can tell. Where the rules were read:

- who is asked before an update: lifecyclemanager/UpdateSystemPolicyService.java
- what a deployment changes, waits for and takes back: deployment/DeploymentConfigMerger.java and its activators

Not here: bootstrap, hard dependencies (our recipes have none), `docker rmi` of images that no recipe names any more.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance.classic_life import Life
from conformance.device import (
    BROKEN,
    FAILED,
    FINISHED,
    NEW,
    RUNNING,
    SUCCEEDED,
    ArtifactMissing,
    BadRecipe,
    Component,
    Device,
    Outcome,
    Recipe,
    Step,
)  # fmt: skip
from conformance.recipe_classic import ARCHITECTURE, classic_manifest, classic_steps


class Classic(Device):
    """A core device with the classic nucleus."""

    flavour = "classic"
    socket_name = "ipc.socket"

    def __init__(
        self, root: Path, artifacts: Path | None = None, platform: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(root, artifacts)
        self.platform = {"os": "linux", "architecture": ARCHITECTURE, **(platform or {})}
        self._lives: dict[str, Life] = {}

    def steps(self, component: Component) -> dict[str, Step]:
        recipe = component.recipe
        return classic_steps(recipe, self.platform, component.configuration, self._place(recipe))

    def note(self, component: Component, text: str) -> None:
        self._note(component, text)

    def _get(self, recipe: Recipe, uri: str) -> None:
        """A file that a local deployment brought is not asked for again."""
        folder = Path(str(self._place(recipe).value("artifacts", "path")))
        if not (folder / uri.rpartition("/")[2]).is_file():
            raise ArtifactMissing(uri)

    def reported(self, component: Component, state: str) -> None:
        if life := self._lives.get(component.name):
            life.ask("reported", state)

    def deploy(self, *recipes: Recipe, merge: Mapping[str, Mapping[str, Any]] | None = None) -> Outcome:
        """Asks the components first (NOTIFY_COMPONENTS, 60 s), takes back what failed (ROLLBACK)."""
        with self._changing:
            wanted = self._wanted(recipes, merge or {})
            try:
                for recipe, _ in wanted.values():
                    self._fetch(recipe, classic_manifest(recipe, self.platform))
            except (BadRecipe, ArtifactMissing) as error:
                return Outcome(FAILED, "FAILED_NO_STATE_CHANGE", str(error))
            self.ipc.update(f"deployment-{next(self._numbers)}")
            before = {one.name: (one.recipe, one.configuration) for one in self.components.values()}
            broken = self._activate(wanted)
            if broken is None:
                return Outcome(SUCCEEDED, "SUCCESSFUL")
            again = self._activate(before)
            detail = "FAILED_ROLLBACK_COMPLETE" if again is None else "FAILED_UNABLE_TO_ROLLBACK"
            return Outcome(FAILED, detail, broken)

    def _activate(self, wanted: Mapping[str, tuple[Recipe, dict[str, Any]]]) -> str | None:
        """Makes the change and waits; why it failed, or None. What did not change is not touched."""
        for name in self.components.keys() - wanted.keys():
            self._stop(name)
            del self.components[name]
        tracked = []
        for name, (recipe, configuration) in wanted.items():
            one = self.components.get(name)
            if one is None:
                one = self.components[name] = Component(recipe, configuration)
                self._lives[name] = Life(self, one)
                tracked.append((one, 0))
                continue
            old = self.steps(one)
            changed = one.recipe.version != recipe.version
            one.recipe, one.configuration = recipe, configuration
            if changed or one.state == BROKEN or old != self.steps(one):
                tracked.append((one, len(one.states)))
                self._lives[name].ask("reinstall")
        return self._settled(tracked)

    def _settled(self, tracked: list[tuple[Component, int]]) -> str | None:
        """Until each is RUNNING or FINISHED after the change, or one is BROKEN. Each step has its own timeout."""
        while True:
            reached = []
            for one, since in tracked:
                later = [state for _, state in one.states[since:]]
                if later and later[-1] == BROKEN:
                    return f"{one.name} {one.recipe.version} is BROKEN: {one.reason}"
                reached.append(_came_up(later, is_new=since == 0))
            if all(reached):
                return None
            time.sleep(0.1)

    def _stop(self, name: str) -> None:
        life = self._lives.pop(name)
        life.ask("stop")
        life.join(240)

    def close(self) -> None:
        for life in self._lives.values():
            life.ask("stop")
        for life in self._lives.values():
            life.join(240)
        self._lives.clear()
        self.ipc.stop()

    def power_cut(self) -> None:
        for life in self._lives.values():
            life.die()
        self._lives.clear()
        self.ipc.stop()

    def boot(self) -> None:
        """Every component is installed and started anew."""
        self.ipc.start()
        for one in self.components.values():
            one.enter(NEW)
            self._lives[one.name] = Life(self, one)


def _came_up(later: list[str], *, is_new: bool) -> bool:
    """Whether the states since the change say that the change is done."""
    if not later or later[-1] not in {RUNNING, FINISHED}:
        return False
    return is_new or NEW in later
