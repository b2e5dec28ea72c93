# SPDX-License-Identifier: Apache-2.0
"""A target's earlier deployments: which release a device runs, which one came before, and what came of each."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from linewatch_fleet.deployments import OUTCOME_TAG, ROLLED_BACK_TAG, release_of
from linewatch_fleet.devices import DONE, Device, has_failed
from linewatch_fleet.greengrass import Greengrass

OURS: Final = "io.linewatch."
FAILED: Final = ("FAILED", "CANCELED")
LOOKED_AT: Final = 10
"""Deployments that are read to say what a device runs; older ones are no longer told apart."""


@dataclass(frozen=True, slots=True)
class Found:
    """An earlier deployment to go back to."""

    deployment: Mapping[str, Any] | None
    passed_over: Sequence[str]
    """What was newer and not taken, each with the reason, in words."""
    only_failed: bool = False
    """There was no other: `deployment` is one of those in `passed_over`."""


class History:
    """The deployments of one target, newest first, each read at most once."""

    def __init__(self, cloud: Greengrass, target_arn: str) -> None:
        self._cloud = cloud
        self._listed = cloud.history(target_arn)
        self._read: dict[str, Mapping[str, Any] | None] = {}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for listed in self._listed:
            deployment_id = listed["deploymentId"]
            if deployment_id not in self._read:
                self._read[deployment_id] = self._cloud.deployment(deployment_id)
            found = self._read[deployment_id]
            if found is not None:
                yield found

    def running(self, installed: Mapping[str, str]) -> str:
        """The newest release whose components are what a device has installed; empty when none is."""
        for deployment in itertools.islice(self, LOOKED_AT):
            ours = ours_of(deployment)
            release = release_of(deployment)
            if ours and release and ours.items() <= installed.items():
                return release
        return ""

    def release_below(self, foreign: Mapping[str, Any]) -> str:
        """The release that a deployment of somebody else was worked out from; empty when it has nothing of ours.

        The one whose components it has; should they have been changed, the newest that was deployed.
        """
        if not ours_of(foreign):
            return ""
        versions = {name: one["componentVersion"] for name, one in foreign.get("components", {}).items()}
        return self.running(versions) or next(iter(self.releases()), "")

    def before(self, present: Mapping[str, Any], release: str, devices: Sequence[Device]) -> Found:
        """The newest deployment of another release than the present one that did not fail and was not rolled back from."""
        avoided = {release}
        passed_over: list[str] = []
        for deployment in self:
            avoided.add(deployment.get("tags", {}).get(ROLLED_BACK_TAG, ""))
            earlier = release_of(deployment)
            if deployment["deploymentId"] == present["deploymentId"] or not earlier or earlier in avoided:
                continue
            why = failure_of(deployment, devices)
            if not why:
                return Found(deployment, passed_over)
            passed_over.append(f"{earlier} ({deployment['deploymentId']}): {why}")
        return Found(None, passed_over)

    def of_release(self, release: str, devices: Sequence[Device]) -> Found:
        """The newest deployment of a release that did not fail; where all did, the newest."""
        passed_over: list[str] = []
        newest = None
        for deployment in self:
            if release_of(deployment) != release:
                continue
            why = failure_of(deployment, devices)
            if not why:
                return Found(deployment, passed_over)
            passed_over.append(f"{release} ({deployment['deploymentId']}): {why}")
            newest = newest or deployment
        return Found(newest, passed_over, only_failed=newest is not None)

    def releases(self) -> list[str]:
        """Every release that was deployed, newest first."""
        return list(dict.fromkeys(release for one in self if (release := release_of(one))))


def ours_of(deployment: Mapping[str, Any]) -> dict[str, str]:
    """Versions of a deployment's components that are Linewatch's, models of one's own included."""
    components = deployment.get("components", {})
    return {name: one["componentVersion"] for name, one in components.items() if name.startswith(OURS)}


def failure_of(deployment: Mapping[str, Any], devices: Sequence[Device]) -> str:
    """Why a deployment is nothing to go back to; empty when it succeeded somewhere, and when nothing is known.

    A deployment to a group has no end of its own in AWS. What is known was written beside it, by `--wait` or by the
    deployment after it, or is what its devices still say.
    """
    if deployment["deploymentStatus"] in FAILED:
        return f"it is {deployment['deploymentStatus']}"
    if deployment.get("tags", {}).get(OUTCOME_TAG) == "failed":
        return "it failed"
    good, bad = _counted(deployment["deploymentId"], devices)
    return f"it failed on {bad} of {len(devices)} devices and succeeded on none" if bad and not good else ""


def is_known(deployment: Mapping[str, Any], devices: Sequence[Device]) -> bool:
    """Whether anybody saw what came of a deployment."""
    return OUTCOME_TAG in deployment.get("tags", {}) or any(_counted(deployment["deploymentId"], devices))


def came_of(deployment: Mapping[str, Any], devices: Sequence[Device]) -> str:
    """`succeeded` on every device, `partly`, `failed` on some and succeeded on none; empty while nobody has ended it."""
    good, bad = _counted(deployment["deploymentId"], devices)
    if not good:
        return "failed" if bad else ""
    return "succeeded" if good == len(devices) else "partly"


def _counted(deployment_id: str, devices: Sequence[Device]) -> tuple[int, int]:
    ended = [one for device in devices if (one := device.deployment(deployment_id)) is not None]
    good = sum(one["coreDeviceExecutionStatus"] in DONE for one in ended)
    return good, sum(map(has_failed, ended))
