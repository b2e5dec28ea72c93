# SPDX-License-Identifier: Apache-2.0
"""A component's recipe as the two runtimes read it: which manifest they take, what they put in for a variable.

The rules come from the runtimes' own sources, named beside each; nothing of them is copied. Classic: the files of
aws-greengrass-nucleus 2.18 and its recipe library. Lite: the files of aws-greengrass-lite 2.6.
"""

import copy
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "aarch64", "armv7l": "arm", "i686": "x86"}
ARCHITECTURE = ARCHITECTURES.get(platform.machine(), platform.machine())


class BadRecipe(Exception):
    """The runtime can't take this recipe, or this step of it; the text is what its log would say."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe's JSON."""

    document: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        return cls(json.loads(path.read_text()))

    @property
    def name(self) -> str:
        return str(self.document["ComponentName"])

    @property
    def version(self) -> str:
        return str(self.document["ComponentVersion"])

    @property
    def defaults(self) -> dict[str, Any]:
        made: dict[str, Any] = self.document.get("ComponentConfiguration", {}).get("DefaultConfiguration", {})
        return copy.deepcopy(made)

    def changed(self, version: str, texts: Mapping[str, str] | None = None) -> "Recipe":
        """Another version, with each old text replaced by its new one."""
        text = json.dumps(self.document)
        for old, new in (texts or {}).items():
            assert json.dumps(old)[1:-1] in text, f"{self.name} has no {old}"
            text = text.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])
        return Recipe({**json.loads(text), "ComponentVersion": version})


@dataclass(frozen=True, slots=True)
class Place:
    """What a variable may name besides the configuration."""

    root: Path
    name: str
    version: str
    thing_name: str

    def value(self, kind: str, key: str) -> str | None:
        """None where there is no such variable."""
        store = self.root / "packages"
        return {
            ("kernel", "rootPath"): str(self.root),
            ("iot", "thingName"): self.thing_name,
            ("work", "path"): str(self.root / "work" / self.name),
            ("artifacts", "path"): str(store / "artifacts" / self.name / self.version),
            ("artifacts", "decompressedPath"): str(store / "artifacts-unarchived" / self.name / self.version),
        }.get((kind, key))


@dataclass(frozen=True, slots=True)
class Step:
    """One lifecycle step, ready to run. `timeout_s` None: the runtime's default."""

    script: str
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    privileged: bool = False


ABSENT = object()


def pointed(configuration: Any, pointer: str) -> Any:
    """What a JSON pointer names; `ABSENT` where nothing is. "" names the whole."""
    at = configuration
    for key in pointer.lstrip("/").split("/") if pointer.strip("/") else []:
        at = at.get(key.replace("~1", "/").replace("~0", "~"), ABSENT) if isinstance(at, Mapping) else ABSENT
    return at


def configured(
    present: Mapping[str, Any] | None, defaults: Mapping[str, Any], merge: Mapping[str, Any], reset: list[str]
) -> dict[str, Any]:
    """The configuration after a deployment: what is there stays, defaults fill the gaps, reset before merge.

    (KernelConfigResolver.resolveConfigurationToApply; ggdeploymentd/deployment_handler.c writes the defaults with
    timestamp 0, which never wins over what is there.)
    """
    made = copy.deepcopy(dict(present or {}))
    for pointer in reset:
        if not pointer.strip("/"):
            made = {}
            continue
        *path, last = pointer.strip("/").split("/")
        holder = pointed(made, "/".join(path))
        if isinstance(holder, dict):
            holder.pop(last, None)
    return _merged(_merged(copy.deepcopy(dict(defaults)), made), merge)


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in over.items():
        both = isinstance(base.get(key), dict) and isinstance(value, Mapping)
        base[key] = _merged(base[key], value) if both else copy.deepcopy(value)
    return base


def lifecycle_of(recipe: Recipe, manifest: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """A manifest's own lifecycle, or the part of the recipe's that its Selections name; `all` where it names none."""
    if own := manifest.get("Lifecycle"):
        return dict(own)
    everywhere = recipe.document.get("Lifecycle", {})
    for name in manifest.get("Selections") or ["all"]:
        if name in everywhere and (not known or name in known):
            return dict(everywhere[name])
    return {}
