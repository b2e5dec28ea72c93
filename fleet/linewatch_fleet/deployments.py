# SPDX-License-Identifier: Apache-2.0
"""The next deployment of a target, worked out from its present one. Nothing here asks anybody.

A deployment is the whole state of its target: what it does not name is uninstalled. So the next one is the present one
with our parts replaced, and what belongs to somebody else stays as it is.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from linewatch_fleet.components import RELEASE_TAG
from linewatch_fleet.config import Environment

NAME_PREFIX: Final = "linewatch-"
ROLLED_BACK_TAG: Final = "linewatch:rolled-back"
OUTCOME_TAG: Final = "linewatch:outcome"
CONFIGURATION_CHECK_S: Final = 60

Components = dict[str, dict[str, Any]]
"""As GetDeployment and CreateDeployment have them: by name, componentVersion, configurationUpdate, runWith."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One component as we want it."""

    version: str
    configuration: Mapping[str, Any] = field(default_factory=dict)
    reset: bool = False
    """Take the version's defaults first: a device keeps what it has, also where a new version's defaults differ."""


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the difference between two deployments."""

    component: str
    before: str
    after: str
    configuration: tuple[str, ...]


def merged(present: Mapping[str, Any], wishes: Mapping[str, Wish], without: Iterable[str] = ()) -> Components:
    """The present components with ours replaced. runWith, which only an operator sets, stays."""
    dropped = set(without)
    result = {name: copy.deepcopy(dict(one)) for name, one in present.items() if name not in dropped}
    for name, wish in wishes.items():
        entry: dict[str, Any] = {"componentVersion": wish.version}
        update: dict[str, Any] = {}
        if wish.configuration:
            update["merge"] = json.dumps(wish.configuration, sort_keys=True, ensure_ascii=False)
        if wish.reset:
            update["reset"] = [""]
        if update:
            entry["configurationUpdate"] = update
        if "runWith" in result.get(name, {}):
            entry["runWith"] = result[name]["runWith"]
        result[name] = entry
    return result


def configuration_of(component: Mapping[str, Any]) -> dict[str, Any]:
    """What a deployment merges into a component's configuration."""
    configuration: dict[str, Any] = json.loads(component.get("configurationUpdate", {}).get("merge", "{}"))
    return configuration


def is_same(present: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two deployments mean the same state. A reset is not state: it was done when it was done."""
    return _state(present) == _state(after)


def _state(components: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (one["componentVersion"], configuration_of(one), one.get("runWith") or None)
        for name, one in components.items()
    }


def changes(present: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every component of both, in the order of their names; those that stay have the same text before and after."""
    rows = []
    for name in sorted({*present, *after}):
        one, other = present.get(name), after.get(name)
        rows.append(
            Change(
                name,
                one["componentVersion"] if one else "-",
                other["componentVersion"] if other else "removed",
                _configuration_change(one or {}, other) if other else (),
            )
        )
    return rows


def _configuration_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    one, other = _flat(configuration_of(before)), _flat(configuration_of(after))
    told = [f"{key}: {one.get(key, '-')} -> {other.get(key, '-')}" for key in sorted({*one, *other}) if one.get(key) != other.get(key)]  # fmt: skip
    if after.get("configurationUpdate", {}).get("reset") and not before.get("configurationUpdate", {}).get(
        "reset"
    ):
        told.append("defaults anew")
    return tuple(told)


def _flat(configuration: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in configuration.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def deep_merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` above `base`, map by map, as Greengrass merges configurations."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = (
            deep_merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        )
    return result


def release_of(deployment: Mapping[str, Any]) -> str:
    """The release that a deployment brings; empty when it is none of ours."""
    tagged: str = deployment.get("tags", {}).get(RELEASE_TAG, "")
    name: str = deployment.get("deploymentName", "")
    return tagged or (name.removeprefix(NAME_PREFIX) if name.startswith(NAME_PREFIX) else "")


def request(
    target: str,
    environment: Environment,
    components: Components,
    release: str,
    present: Mapping[str, Any] | None,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What CreateDeployment is asked.

    The client token holds the deployment that this one was worked out from: two people who decide the same at the same
    time make one deployment, and a command that lost the answer may ask again.
    """
    before = present["deploymentId"] if present else "none"
    content = json.dumps([target, before, release, components, dict(tags or {})], sort_keys=True)
    return {
        "targetArn": target,
        "deploymentName": f"{NAME_PREFIX}{release}",
        "components": components,
        "deploymentPolicies": policies(environment),
        "iotJobConfiguration": job(environment, is_group=":thinggroup/" in target),
        "tags": {RELEASE_TAG: release, "linewatch:environment": environment.name, **(tags or {})},
        "clientToken": hashlib.sha256(content.encode()).hexdigest(),
    }


def policies(environment: Environment) -> dict[str, Any]:
    """A device that can't run the deployment goes back to what it ran; a part under inspection is finished first."""
    return {
        "failureHandlingPolicy": "ROLLBACK",
        "componentUpdatePolicy": {
            "action": "NOTIFY_COMPONENTS",
            "timeoutInSeconds": environment.rollout.notify_timeout_s,
        },
        "configurationValidationPolicy": {"timeoutInSeconds": CONFIGURATION_CHECK_S},
    }


def job(environment: Environment, *, is_group: bool) -> dict[str, Any]:
    """How fast it spreads, when it stops by itself, and how long one device may take."""
    rollout = environment.rollout
    timeout = {"timeoutConfig": {"inProgressTimeoutInMinutes": rollout.timeout_minutes}}
    if not is_group:
        return timeout
    return {
        "jobExecutionsRolloutConfig": {
            "exponentialRate": {
                "baseRatePerMinute": rollout.base_per_minute,
                "incrementFactor": rollout.increment_factor,
                "rateIncreaseCriteria": {"numberOfSucceededThings": rollout.increase_after_successes},
            },
            "maximumPerMinute": rollout.maximum_per_minute,
        },
        "abortConfig": {
            "criteriaList": [
                {
                    "failureType": "ALL",
                    "action": "CANCEL",
                    "thresholdPercentage": rollout.abort_percentage,
                    "minNumberOfExecutedThings": rollout.abort_after_devices,
                }
            ]
        },
        **timeout,
    }
