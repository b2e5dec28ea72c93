# SPDX-License-Identifier: Apache-2.0
"""What a device lacks of the deployment that is its target's, though no component and no deployment says that it failed."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from linewatch_fleet.devices import DONE, SILENT_AFTER, STARTS, UNDER_WAY, Device, age, plain

NUCLEUS_LITE: Final = "aws.greengrass.NucleusLite"
"""Installed as a package of the operating system; a deployment's version of it does not become what the device has."""


def shortfalls(
    device: Device, present: Mapping[str, Any] | None, now: datetime, patience: timedelta
) -> list[str]:
    """What is missing or takes too long. `patience`: how long one device may take, `rollout.timeout_minutes`."""
    if device.core is None:
        return []
    found = _slow_components(device, now, patience)
    if present is None:
        return found
    name = present.get("deploymentName") or present["deploymentId"]
    state = device.state(present["deploymentId"])
    missing = _missing(device, present)
    told: list[str] = []
    if state in UNDER_WAY:
        told = _slow_deployment(device, present["deploymentId"], name, now, patience)
    elif not missing or state not in (*DONE, "CANCELED", "NOT SENT"):
        pass  # a failure is told with its reason
    elif state in DONE:
        told = [f"{state} {name}, but {one}" for one in missing]
        if not device.installed:
            told = [f"{state} {name}, and runs no component"]
    elif "CANCELED" in (state, present["deploymentStatus"]):
        told = [f"does not run {name}: cancelled before it was sent here ({missing[0]})"]
    elif not device.installed:
        told = [f"runs no component: {name} was not sent here"]
    return found + [plain(one) for one in told]


def unsent(device: Device, present: Mapping[str, Any] | None) -> list[str]:
    """That a rollout which goes on has not come to a device yet: not wrong, and not done either."""
    if device.core is None or present is None or present["deploymentStatus"] != "ACTIVE":
        return []
    if device.state(present["deploymentId"]) != "NOT SENT" or not _missing(device, present):
        return []
    return [plain(f"{present.get('deploymentName') or present['deploymentId']} not sent here yet")]


def _missing(device: Device, present: Mapping[str, Any]) -> list[str]:
    installed = {one["componentName"]: one["componentVersion"] for one in device.installed}
    return [
        f"{name} is {installed[name]}, not {one['componentVersion']}"
        if name in installed
        else f"{name} {one['componentVersion']} is missing"
        for name, one in sorted(present.get("components", {}).items())
        if name != NUCLEUS_LITE and installed.get(name) != one["componentVersion"]
    ]


def _slow_deployment(
    device: Device, deployment_id: str, name: str, now: datetime, patience: timedelta
) -> list[str]:
    effective = device.deployment(deployment_id)
    if effective is None or not _reports(device, now):
        return []
    since = effective.get("modifiedTimestamp") or effective["creationTimestamp"]
    state = effective["coreDeviceExecutionStatus"]
    if now - since <= patience:
        return []
    return [
        plain(
            f"deployment {name} {state} for {age(now - since)}, longer than {age(patience)} (rollout.timeout_minutes)"
        )
    ]


def _slow_components(device: Device, now: datetime, patience: timedelta) -> list[str]:
    if not _reports(device, now):
        return []
    return [
        plain(
            f"{one['componentName']} {one['componentVersion']} {one['lifecycleState']} for {age(now - since)}"
        )
        for one in device.installed
        if one.get("lifecycleState") in STARTS
        and (since := one.get("lastStatusChangeTimestamp")) is not None
        and now - since > patience
    ]


def _reports(device: Device, now: datetime) -> bool:
    # A silent device is told as silent: how far it is with anything nobody knows.
    return device.core is not None and now - device.core["lastStatusUpdateTimestamp"] <= SILENT_AFTER
