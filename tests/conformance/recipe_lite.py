# SPDX-License-Identifier: Apache-2.0
"""A recipe as nucleus lite reads it. (modules/ggl-recipe/src/recipe.c, modules/recipe-runner/src/runner.c)"""

import json
import re
from collections.abc import Mapping
from typing import Any

from conformance.recipe import ABSENT, ARCHITECTURE, BadRecipe, Place, Recipe, Step, lifecycle_of, pointed

LITE_MAX_SCRIPT = 10_000
LITE_MAX_VARIABLE = 256
LITE_MAX_RECIPE = 8196


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
    return lifecycle_of(recipe, manifest, ("all", "linux"))


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
    if at is ABSENT:
        raise BadRecipe(f"Failed to get config value for substitution: {key}")
    text = at if isinstance(at, str) else json.dumps(at)
    return re.sub(r'(["\\$`])', r"\\\1", text)
