# SPDX-License-Identifier: Apache-2.0
"""What each component is configured with: fleet.yaml's word, and what the environment itself can tell.

A component's keys are those of its recipe's DefaultConfiguration, so that a mistyped one is refused here and not
silently ignored by a device.
"""

from collections.abc import Callable, Mapping
from typing import Any

from linewatch_fleet.config import Environment
from linewatch_fleet.deployments import Wish, configuration_of
from linewatch_fleet.errors import BadInput
from linewatch_fleet.greengrass import AWS_OWN, Greengrass
from linewatch_fleet.recipes.lint import unsafe_values

Known = Mapping[str, Callable[[], str]]
"""Keys that need not stand in fleet.yaml, and where their values come from."""


class Configuring:
    """Makes wishes of component versions."""

    def __init__(self, cloud: Greengrass, known: Known, present: Mapping[str, Any], *, is_lite: bool) -> None:
        self._cloud = cloud
        self._environment: Environment = cloud.environment
        self._known = known
        self._present = present
        self._is_lite = is_lite
        self._defaults: dict[tuple[str, str], dict[str, Any] | None] = {}

    def check_names(self, names: set[str]) -> None:
        """Refuses configuration for a component that is not deployed."""
        strange = sorted(
            name
            for name in self._environment.configuration
            if name not in names and not name.startswith(AWS_OWN)
        )
        if strange:
            raise BadInput(
                f"fleet.yaml: environments: {self._environment.name}: configuration: {', '.join(strange)} "
                f"would not be deployed; there are: {', '.join(sorted(names))}"
            )

    def wish(self, name: str, version: str) -> Wish:
        """One of our components, configured by fleet.yaml."""
        defaults = self.defaults(name, version) or {}
        asked = self._environment.configuration.get(name, {})
        unknown = sorted(set(asked) - set(defaults))
        if unknown:
            raise BadInput(
                f"fleet.yaml: environments: {self._environment.name}: configuration: {name}: "
                f"{name} {version} has no {', '.join(unknown)}; it has: {', '.join(sorted(defaults))}"
            )
        unsafe = unsafe_values(asked) if self._is_lite else []
        if unsafe:
            raise BadInput(
                f"fleet.yaml: environments: {self._environment.name}: configuration: {name}: {'; '.join(unsafe)}"
            )
        told = {key: value() for key, value in self._known.items() if key in defaults and key not in asked}
        return self.with_reset(name, version, {**told, **asked})

    def with_reset(self, name: str, version: str, configuration: Mapping[str, Any]) -> Wish:
        """A wish that takes the defaults anew where the device would otherwise keep what nobody asks for any more."""
        return Wish(version, configuration, self._needs_reset(name, version, configuration))

    def _needs_reset(self, name: str, version: str, configuration: Mapping[str, Any]) -> bool:
        present = self._present.get(name)
        if present is None:
            return False
        # What a deployment once merged stays on the device when a later one no longer names it.
        if set(configuration_of(present)) - set(configuration):
            return True
        before = present["componentVersion"]
        return before != version and self.defaults(name, before) != self.defaults(name, version)

    def defaults(self, name: str, version: str) -> dict[str, Any] | None:
        """DefaultConfiguration of a version; None when the version was deleted."""
        if (name, version) not in self._defaults:
            recipe = self._cloud.recipe(name, version)
            configuration = (recipe or {}).get("ComponentConfiguration") or {}
            found = configuration.get("DefaultConfiguration") or {}
            self._defaults[name, version] = None if recipe is None else found
        return self._defaults[name, version]
