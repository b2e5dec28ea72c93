# SPDX-License-Identifier: Apache-2.0
"""A recipe as the rules look at it: its manifests, its lifecycles wherever they stand, its steps and their scripts.

Nothing here assumes that the recipe is right: what has the wrong type is left to the schema's rules.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from linewatch_fleet.errors import BadInput
from linewatch_fleet.recipes import docker_commands

STEPS = ("bootstrap", "install", "startup", "run", "shutdown", "recover", "uninstall")

_STEP_KEYS = {"script", "requiresprivilege", "skipif", "timeout", "setenv"}


@dataclass(frozen=True, slots=True)
class Step:
    """One lifecycle step."""

    path: str
    name: str
    """In lower case."""
    body: dict[str, Any]
    """The step as an object; a step that is a text has it as Script."""
    setenv: dict[str, Any]
    """The lifecycle's variables and the step's own."""

    @property
    def script(self) -> str:
        """The script with continued lines joined; empty where there is none."""
        text = self.body.get("Script", "")
        return re.sub(r"\\\n\s*", " ", text) if isinstance(text, str) else ""

    @property
    def docker_runs(self) -> list[str]:
        """Each `docker run` of the script, to the end of the command, written one way (docker_commands)."""
        return docker_commands.docker_runs(self.script, self.setenv)


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """A lifecycle: the recipe's, one of its selections, or a manifest's."""

    path: str
    body: dict[str, Any]

    @property
    def setenv(self) -> dict[str, Any]:
        """Its variables."""
        value = _either_case(self.body, "Setenv")
        return value if isinstance(value, dict) else {}

    @property
    def steps(self) -> list[Step]:
        """Its steps, whatever the case of their names."""
        steps = []
        for key, value in self.body.items():
            if key.lower() in STEPS and isinstance(value, str | dict):
                body = {"Script": value} if isinstance(value, str) else {
                    **value, "Script": _either_case(value, "Script"), "Setenv": _either_case(value, "Setenv")
                }  # fmt: skip
                own = body.get("Setenv")
                variables = {**self.setenv, **(own if isinstance(own, dict) else {})}
                steps.append(Step(f"{self.path}.{key}", key.lower(), body, variables))
        return steps


@dataclass(frozen=True)
class Recipe:
    """A recipe."""

    document: dict[str, Any]
    text: str
    is_yaml: bool = False
    repeated: list[str] = field(default_factory=list)
    """Keys that stand twice in one object."""

    @property
    def name(self) -> str:
        """ComponentName, or nothing."""
        value = self.document.get("ComponentName", "")
        return value if isinstance(value, str) else ""

    @cached_property
    def manifests(self) -> list[tuple[str, dict[str, Any]]]:
        """(path, manifest) of those that are objects."""
        found = self.document.get("Manifests")
        return [
            (f"Manifests[{i}]", one) for i, one in enumerate(found if isinstance(found, list) else [])
            if isinstance(one, dict)
        ]  # fmt: skip

    @cached_property
    def platforms(self) -> list[tuple[str, dict[str, Any]]]:
        """(path, platform) of each manifest; empty where there is none."""
        return [
            (f"{path}.Platform", one["Platform"] if isinstance(one.get("Platform"), dict) else {})
            for path, one in self.manifests
        ]

    @cached_property
    def lifecycles(self) -> list[Lifecycle]:
        """Every lifecycle."""
        found = []
        top = self.document.get("Lifecycle")
        if isinstance(top, dict) and top:
            selections = {key: value for key, value in top.items() if key.lower() not in {*STEPS, "setenv"}}
            selected = {
                k: v for k, v in selections.items() if isinstance(v, dict) and not _looks_like_step(v)
            }
            found += [Lifecycle(f"Lifecycle.{key}", value) for key, value in selected.items()]
            if not selected:
                found.append(Lifecycle("Lifecycle", top))
        for path, manifest in self.manifests:
            if isinstance(manifest.get("Lifecycle"), dict) and manifest["Lifecycle"]:
                found.append(Lifecycle(f"{path}.Lifecycle", manifest["Lifecycle"]))
        return found

    @cached_property
    def steps(self) -> list[Step]:
        """Every step of every lifecycle."""
        return [step for lifecycle in self.lifecycles for step in lifecycle.steps]

    @cached_property
    def artifacts(self) -> list[tuple[str, str]]:
        """(path, URI) of every artifact."""
        found = []
        for path, manifest in self.manifests:
            artifacts = manifest.get("Artifacts")
            for i, one in enumerate(artifacts if isinstance(artifacts, list) else []):
                uri = _either_case(one, "Uri") if isinstance(one, dict) else None
                if isinstance(uri, str):
                    found.append((f"{path}.Artifacts[{i}].Uri", uri))
        return found

    @cached_property
    def images(self) -> list[tuple[str, str]]:
        """(path, image) of every docker artifact, without `docker:`."""
        return [
            (path, uri.removeprefix("docker:")) for path, uri in self.artifacts if uri.startswith("docker:")
        ]

    @cached_property
    def dependencies(self) -> dict[str, dict[str, Any]]:
        """By component name."""
        found = self.document.get("ComponentDependencies")
        items = found.items() if isinstance(found, dict) else []
        return {name: one for name, one in items if isinstance(one, dict)}

    @cached_property
    def defaults(self) -> Any:
        """DefaultConfiguration."""
        configuration = self.document.get("ComponentConfiguration")
        return configuration.get("DefaultConfiguration", {}) if isinstance(configuration, dict) else {}

    def texts(self) -> Iterator[tuple[str, str]]:
        """(path, text) of everything in which the nucleus replaces variables: scripts and the values of Setenv."""
        for lifecycle in self.lifecycles:
            for key, value in lifecycle.setenv.items():
                if isinstance(value, str):
                    yield f"{lifecycle.path}.Setenv.{key}", value
        for step in self.steps:
            if isinstance(step.body.get("Script"), str):
                yield f"{step.path}.Script", step.body["Script"]
            own = step.body.get("Setenv")
            for key, value in (own if isinstance(own, dict) else {}).items():
                if isinstance(value, str):
                    yield f"{step.path}.Setenv.{key}", value


def read(path: Path) -> Recipe:
    """Reads a recipe, JSON or YAML. Raises BadInput."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {path}; `make recipes` writes ours to build/recipes/") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: can't be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str = "recipe") -> Recipe:
    """The recipe of a text. Raises BadInput."""
    repeated: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in found]
        repeated.extend(key for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(found)

    is_yaml = False
    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except ValueError:
        is_yaml = True
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BadInput(f"{name}: is neither JSON nor YAML: {error}") from error
    if not isinstance(document, dict):
        raise BadInput(
            f"{name}: is no recipe: it must be an object with RecipeFormatVersion, ComponentName, Manifests, …"
        )
    return Recipe(document, text, is_yaml, repeated)


def _either_case(body: dict[str, Any], key: str) -> Any:
    return next((value for name, value in body.items() if str(name).lower() == key.lower()), None)


def _looks_like_step(value: dict[str, Any]) -> bool:
    return any(str(key).lower() in _STEP_KEYS - {"setenv"} for key in value)
