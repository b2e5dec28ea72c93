# SPDX-License-Identifier: Apache-2.0
"""A target's devices: what each runs, what is wrong with it and why, in words that fit on a line.

A device tells its state at its start, with deployments, when a component's state changes, and once a day. A device that
is off therefore looks as it did last: how old the word is stands beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from linewatch_fleet.greengrass import Greengrass

SILENT_AFTER: Final = timedelta(hours=25)
"""A device reports every 24 hours by default (nucleus, fleetStatus.periodicStatusPublishIntervalSeconds)."""

UNDER_WAY: Final = ("QUEUED", "IN_PROGRESS")
DONE: Final = ("SUCCEEDED", "COMPLETED")
RUNS: Final = ("RUNNING", "FINISHED")
STARTS: Final = ("NEW", "INSTALLED", "STARTING", "STOPPING")
AT_ONCE: Final = 8
"""Devices that are asked about at the same time; AWS allows more, but our retries should stay rare."""


@dataclass(frozen=True, slots=True)
class Device:
    """One thing of the target. `core` is None when it never connected."""

    name: str
    core: Mapping[str, Any] | None
    installed: Sequence[Mapping[str, Any]]
    effective: Sequence[Mapping[str, Any]]

    @property
    def current(self) -> list[Mapping[str, Any]]:
        """The newest deployment of each of the device's targets; what came before it says nothing any more."""
        newest: dict[str, Mapping[str, Any]] = {}
        for one in sorted(self.effective, key=lambda one: one["creationTimestamp"]):
            newest[one["targetArn"]] = one
        return list(newest.values())

    def deployment(self, deployment_id: str) -> Mapping[str, Any] | None:
        """How far the device is with a deployment; None when it was not sent to it."""
        return next((one for one in self.effective if one["deploymentId"] == deployment_id), None)

    def state(self, deployment_id: str) -> str:
        """The same in one word."""
        found = self.deployment(deployment_id)
        return found["coreDeviceExecutionStatus"] if found else "NOT SENT"


def read_devices(cloud: Greengrass, names: Iterable[str], *, components: bool = True) -> list[Device]:
    """Asks AWS about each device; `components` False leaves out what they run."""

    def read(name: str) -> Device:
        core = cloud.core(name)
        if core is None:
            return Device(name, None, (), ())
        return Device(name, core, cloud.installed(name) if components else (), cloud.effective(name))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(read, names))


def troubles(device: Device, now: datetime) -> list[str]:
    """What is wrong with a device; empty when it is well."""
    if device.core is None:
        return ["never connected"]
    found = []
    silence = now - device.core["lastStatusUpdateTimestamp"]
    if silence > SILENT_AFTER:
        found.append(f"silent for {age(silence)}")
    found += [_trouble(one) for one in device.installed if one.get("lifecycleState") not in (*RUNS, *STARTS)]
    found += [failure(one) for one in device.current if has_failed(one)]
    if device.core["status"] != "HEALTHY" and not found:
        found.append(f"the nucleus says {device.core['status']}")
    return found


def starting(device: Device) -> list[str]:
    """Components that do not run yet and are not wrong either."""
    return [
        f"{one['componentName']} {one['lifecycleState']}"
        for one in device.installed
        if one.get("lifecycleState") in STARTS
    ]


def failure(effective: Mapping[str, Any]) -> str:
    """Why a deployment did not succeed on a device."""
    details = effective.get("statusDetails") or {}
    # The stack goes from the general to the particular: DEPLOYMENT_FAILURE, ..., DOCKER_IMAGE_NOT_FOUND.
    stack = [code for code in details.get("errorStack", []) if code != "DEPLOYMENT_FAILURE"]
    words = [effective.get("reason") or "", " > ".join(stack)]
    why = ": ".join(word for word in words if word) or "no reason given"
    name = effective["deploymentName"] or effective["deploymentId"]
    return plain(f"deployment {name} {effective['coreDeviceExecutionStatus']}: {why}")


def plain(text: str) -> str:
    """One line without control characters: a device's words must not steer the terminal of whoever reads them."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def age(silence: timedelta) -> str:
    """How long ago, in the largest unit that fits."""
    minutes = max(0, int(silence.total_seconds() // 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 72 * 60 else f"{minutes // 1440} d"


def has_failed(effective: Mapping[str, Any]) -> bool:
    """Whether a device ended a deployment without success."""
    return effective["coreDeviceExecutionStatus"] not in (*DONE, *UNDER_WAY, "CANCELED")


def _trouble(component: Mapping[str, Any]) -> str:
    codes = " ".join(component.get("lifecycleStatusCodes", []))
    details = component.get("lifecycleStateDetails") or ""
    why = ": ".join(word for word in (codes, details) if word)
    state = component.get("lifecycleState", "without a state")
    what = f"{component['componentName']} {component['componentVersion']} {state}"
    return plain(f"{what} ({why})" if why else what)
