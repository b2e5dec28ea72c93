# SPDX-License-Identifier: Apache-2.0
"""A recipe as the classic nucleus reads it. (componentmanager/KernelConfigResolver.java, and PlatformHelper.java of its
recipe library)
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from conformance.recipe import ABSENT, ARCHITECTURE, BadRecipe, Place, Recipe, Step, lifecycle_of, pointed

__all__ = ["ARCHITECTURE", "classic_manifest", "classic_steps"]

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
    lifecycle = _lower(lifecycle_of(recipe, classic_manifest(recipe, device), ()))
    everywhere = lifecycle.pop("setenv", {})

    def put_in(text: Any) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] != "configuration":
                return place.value(found[1], found[2]) or found[0]
            at = pointed(configuration, found[2])
            if at is ABSENT:
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
