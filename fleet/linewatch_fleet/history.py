# SPDX-License-Identifier: Apache-2.0
"""A target's earlier deployments: which release a device runs, and which one came before."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from linewatch_fleet.deployments import OUTCOME_TAG, ROLLED_BACK_TAG, release_of
from linewatch_fleet.greengrass import Greengrass

OURS: Final = "io.linewatch."
FAILED: Final = ("FAILED", "CANCELED")
LOOKED_AT: Final = 10
"""Deployments that are read to say what a device runs; older ones are no longer told apart."""


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
            components = deployment.get("components", {})
            ours = {
                name: one["componentVersion"] for name, one in components.items() if name.startswith(OURS)
            }
            release = release_of(deployment)
            if ours and release and ours.items() <= installed.items():
                return release
        return ""

    def before(self, present: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The newest deployment of another release that was neither cancelled nor failed nor rolled back from.

        A deployment to a group has no end of its own in AWS, so that it failed is known only where a `--wait` saw it.
        """
        avoided = {release_of(present)}
        for deployment in self:
            avoided.add(deployment.get("tags", {}).get(ROLLED_BACK_TAG, ""))
            if deployment["deploymentId"] == present["deploymentId"]:
                continue
            release = release_of(deployment)
            failed = (
                deployment["deploymentStatus"] in FAILED
                or deployment.get("tags", {}).get(OUTCOME_TAG) == "failed"
            )
            if release and release not in avoided and not failed:
                return deployment
        return None

    def of_release(self, release: str) -> Mapping[str, Any] | None:
        """The newest deployment of a release."""
        return next((one for one in self if release_of(one) == release), None)

    def releases(self) -> list[str]:
        """Every release that was deployed, newest first."""
        return list(dict.fromkeys(release for one in self if (release := release_of(one))))
