# SPDX-License-Identifier: Apache-2.0
"""A component's recipe as the two runtimes read it: which manifest they take, what they put in for a variable.

The rules come from the runtimes' own sources, named beside each; nothing of them is copied. Classic: the files of
aws-greengrass-nucleus 2.18 and its recipe library. Lite: the files of aws-greengrass-lite 2.6.
"""

import copy
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "aarch64", "armv7l": "arm", "i686": "x86"}
ARCHITECTURE = ARCHITECTURES.get(platform.machine(), platform.machine())

LITE_MAX_SCRIPT = 10_000
LITE_MAX_VARIABLE = 256
LITE_MAX_RECIPE = 8196


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


_ABSENT = object()


def pointed(configuration: Any, pointer: str) -> Any:
    """What a JSON pointer names; `_ABSENT` where nothing is. "" names the whole."""
    at = configuration
    for key in pointer.lstrip("/").split("/") if pointer.strip("/") else []:
        at = (
            at.get(key.replace("~1", "/").replace("~0", "~"), _ABSENT) if isinstance(at, Mapping) else _ABSENT
        )
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


def _lifecycle(recipe: Recipe, manifest: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """A manifest's own lifecycle, or the part of the recipe's that its Selections name; `all` where it names none."""
    if own := manifest.get("Lifecycle"):
        return dict(own)
    everywhere = recipe.document.get("Lifecycle", {})
    for name in manifest.get("Selections") or ["all"]:
        if name in everywhere and (not known or name in known):
            return dict(everywhere[name])
    return {}


# --- classic ---------------------------------------------------------------------------------------------------------

# KernelConfigResolver: a pointer has neither ':' nor '}'.
_CLASSIC_VARIABLE = re.compile(r"\{([\w.-]+):([^:}]*)}")


def classic_manifest(recipe: Recipe, device: Mapping[str, str]) -> Mapping[str, Any]:
    """The first manifest whose every platform key matches. Raises BadRecipe. (PlatformHelper.java)"""
    for manifest in recipe.document.get("Manifests", []):
        if all(
            _classic_matches(wanted, device.get(key)) for key, wanted in manifest.get("Platform", {}).items()
        ):
            chosen: Mapping[str, Any] = manifest
            return chosen
    raise BadRecipe(f"{recipe.name}: no manifest matches this device: {dict(device)}")


def _classic_matches(wanted: str, has: str | None) -> bool:
    if wanted == "*":
        return True
    if len(wanted) > 2 and wanted.startswith("/") and wanted.endswith("/"):
        return has is not None and re.fullmatch(wanted[1:-1], has) is not None
    return has == wanted


def classic_steps(
    recipe: Recipe, device: Mapping[str, str], configuration: Mapping[str, Any], place: Place
) -> dict[str, Step]:
    """Every step, its keys in whatever case, with what could be put in; what could not stays as it is written."""
    lifecycle = _lower(_lifecycle(recipe, classic_manifest(recipe, device), ()))
    everywhere = lifecycle.pop("setenv", {})

    def put_in(text: Any) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] != "configuration":
                return place.value(found[1], found[2]) or found[0]
            at = pointed(configuration, found[2])
            if at is _ABSENT:
                return found[0]
            return at if isinstance(at, str) else json.dumps(at)

        return _CLASSIC_VARIABLE.sub(value, str(text))

    made = {}
    for name, step in lifecycle.items():
        whole = {"script": step} if isinstance(step, str) else step
        own = {**everywhere, **whole.get("setenv", {})}
        timeout = whole.get("timeout")
        made[name] = Step(
            put_in(whole["script"]),
            {key: put_in(value) for key, value in own.items()},
            float(put_in(timeout)) if timeout is not None else None,
            str(whole.get("requiresprivilege", "")).lower() == "true",
        )
    return made


def _lower(lifecycle: Mapping[str, Any]) -> dict[str, Any]:
    """Keys in lower case, two levels deep; names of variables stay."""
    return {
        key.lower(): {inner.lower(): value for inner, value in step.items()}
        if isinstance(step, Mapping) and key.lower() != "setenv"
        else step
        for key, step in lifecycle.items()
    }


# --- lite ------------------------------------------------------------------------------------------------------------


def lite_manifest(recipe: Recipe) -> Mapping[str, Any]:
    """The first manifest for lite, Linux and this architecture; other keys are not looked at. (ggl-recipe/recipe.c)"""
    if len(json.dumps(recipe.document)) > LITE_MAX_RECIPE:
        raise BadRecipe(f"{recipe.name}: the recipe is longer than {LITE_MAX_RECIPE} bytes")
    for manifest in recipe.document.get("Manifests", []):
        wanted = manifest.get("Platform")
        if wanted is None:
            raise BadRecipe(f"{recipe.name}: Platform not provided")
        if wanted.get("runtime") not in {"*", "aws_nucleus_lite"} or wanted.get("os", "*") not in {
            "linux",
            "*",
            "all",
        }:
            continue
        if wanted.get("architecture", "*") in {"*", "", ARCHITECTURE} and _lite_lifecycle(recipe, manifest):
            chosen: Mapping[str, Any] = manifest
            return chosen
    raise BadRecipe(f"{recipe.name}: No lifecycle was found for linux")


def _lite_lifecycle(recipe: Recipe, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return _lifecycle(recipe, manifest, ("all", "linux"))


def lite_step(recipe: Recipe, phase: str) -> Step | None:
    """The step as it is written, nothing put in; None where there is none by exactly this name. (recipe.c)"""
    step = _lite_lifecycle(recipe, lite_manifest(recipe)).get(phase)
    if step is None:
        return None
    if isinstance(step, str):
        return Step(step)
    if not isinstance(step.get("Script"), str):
        raise BadRecipe(f"{recipe.name} {phase}: Script is not in the map")
    privileged = step.get("RequiresPrivilege", False)
    if privileged not in {True, False, "true", "false"}:
        raise BadRecipe(f"{recipe.name} {phase}: RequiresPrivilege needs to be a (true/false) value")
    timeout = step.get("Timeout")
    if timeout is not None and not str(timeout).isdecimal():
        raise BadRecipe(f"{recipe.name} {phase}: Timeout must expand to a positive integer value")
    return Step(
        step["Script"], step.get("Setenv", {}), float(timeout) if timeout is not None else None,
        privileged in {True, "true"},
    )  # fmt: skip


def lite_script(recipe: Recipe, phase: str, configuration: Mapping[str, Any], place: Place) -> str:
    """The file that /bin/sh runs for a step. Raises BadRecipe where recipe-runner would end with an error instead.

    (recipe-runner/src/runner.c: every brace begins a variable, values are escaped, startup has two lines more.)
    """
    step = lite_step(recipe, phase)
    assert step is not None, phase
    lines = ["#!/bin/sh\n"]
    for variables in (_lite_lifecycle(recipe, lite_manifest(recipe)).get("Setenv", {}), step.environment):
        for key, value in variables.items():
            if not isinstance(value, str):
                raise BadRecipe(
                    f"{recipe.name} {phase}: Invalid lifecycle Setenv, Key values must be String ({key})"
                )
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
                raise BadRecipe(f"{recipe.name} {phase}: Invalid lifecycle Setenv key {key}")
            # Later sources put single quotes around the value. Without them a blank ends it: the harder rule.
            lines.append(f"export {key}={_lite_put_in(value, configuration, place)}\n")
    lines.append(_lite_put_in(step.script, configuration, place))
    if len(step.script) > LITE_MAX_SCRIPT:
        raise BadRecipe(f"{recipe.name} {phase}: the script is longer than {LITE_MAX_SCRIPT} bytes")
    if phase == "startup":
        lines.append("\nsystemd-notify --ready\nsystemd-notify --stopping\n")
    return "".join(lines)


def _lite_put_in(text: str, configuration: Mapping[str, Any], place: Place) -> str:
    made, rest = [], text
    while rest:
        plain, brace, rest = rest.partition("{")
        made.append(plain)
        if not brace:
            break
        variable, end, rest = rest.partition("}")
        if not end:
            raise BadRecipe("Recipe escape is not terminated")
        if len(variable) > LITE_MAX_VARIABLE:
            raise BadRecipe("Recipe escape exceeded max length")
        made.append(_lite_value(variable, configuration, place))
    return "".join(made)


def _lite_value(variable: str, configuration: Mapping[str, Any], place: Place) -> str:
    kind, colon, key = variable.partition(":")
    if not colon:
        raise BadRecipe(f"No : found in recipe escape sequence: {variable}")
    if kind != "configuration":
        value = place.value(kind, key)
        if value is None:
            raise BadRecipe(f"Unhandled variable substitution: {variable}")
        # Paths end with a slash here, and do not on classic.
        return value + ("/" if kind in {"work", "artifacts"} else "")
    at = pointed(configuration, key)
    if at is _ABSENT:
        raise BadRecipe(f"Failed to get config value for substitution: {key}")
    text = at if isinstance(at, str) else json.dumps(at)
    return re.sub(r'(["\\$`])', r"\\\1", text)
