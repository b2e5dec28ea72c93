# SPDX-License-Identifier: Apache-2.0
"""Greengrass's control plane, as far as the verbs need it: every page of every list, and what is absent as None."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import CommandFailed

AWS_OWN: Final = "aws.greengrass."
PENDING: Final = ("REQUESTED", "INITIATED")
DEPLOYABLE_WITHIN_S: Final = 300.0


class Greengrass:
    """Component versions, deployments and core devices of one account and region."""

    def __init__(self, account: Account) -> None:
        self.environment = account.environment
        self._client = account.client("greengrassv2")
        self._iot = account.client("iot")
        self.partition: str = self._client.meta.partition

    # --- component versions

    def component_arn(self, name: str, version: str | None = None) -> str:
        """The ARN of a component, or of one version; AWS's own components belong to `aws`."""
        owner = "aws" if name.startswith(AWS_OWN) else self.environment.account
        arn = f"arn:{self.partition}:greengrass:{self.environment.region}:{owner}:components:{name}"
        return f"{arn}:versions:{version}" if version else arn

    def versions(self, name: str) -> list[str]:
        """The versions that there are, in AWS's order: newest first."""
        found = _unless_absent(lambda: list(self._pages("list_component_versions", "componentVersions",
                                                        arn=self.component_arn(name))))  # fmt: skip
        return [one["componentVersion"] for one in found or []]

    def component(self, name: str, version: str) -> dict[str, Any] | None:
        """State and tags of a version."""
        found: dict[str, Any] | None = _unless_absent(
            lambda: self._client.describe_component(arn=self.component_arn(name, version))
        )
        return found

    def recipe(self, name: str, version: str) -> dict[str, Any] | None:
        """The recipe as AWS keeps it, with digests of artifacts and defaults written in; None when it was deleted."""
        arn = self.component_arn(name, version)
        answer = _unless_absent(lambda: self._client.get_component(arn=arn, recipeOutputFormat="JSON"))
        return None if answer is None else dict(json.loads(answer["recipe"]))

    def create_component(self, recipe: str, tags: Mapping[str, str]) -> bool:
        """Creates a component version; False when somebody else just did."""
        try:
            self._client.create_component_version(inlineRecipe=recipe.encode(), tags=dict(tags))
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConflictException":
                return False
            with explained():
                raise
        return True

    def delete_component(self, name: str, version: str) -> None:
        """Deletes a version that never became deployable."""
        _unless_absent(lambda: self._client.delete_component(arn=self.component_arn(name, version)))

    def wait_deployable(self, name: str, version: str) -> None:
        """Waits until a version can be deployed. Raises CommandFailed with AWS's reason when it can't."""
        deadline = time.monotonic() + DEPLOYABLE_WITHIN_S
        pause = 0.05
        while True:
            found = self.component(name, version)
            # Just made, it may not be shown everywhere yet.
            status = found["status"] if found else {"componentState": "REQUESTED"}
            state = status["componentState"]
            if state == "DEPLOYABLE":
                return
            if state not in PENDING:
                raise CommandFailed(f"component {name} {version} is {state}: {reason_of(status)}")
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"component {name} {version} is {state} after {DEPLOYABLE_WITHIN_S:.0f} s; run the command again"
                )
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

    # --- deployments

    def target_arn(self, group: str = "", thing: str = "") -> str:
        """The ARN of a thing group or of a thing."""
        environment = self.environment
        what = f"thing/{thing}" if thing else f"thinggroup/{group}"
        return f"arn:{self.partition}:iot:{environment.region}:{environment.account}:{what}"

    def history(self, target: str) -> list[dict[str, Any]]:
        """Every deployment of a target, newest first, without its components."""
        with explained():
            found = list(
                self._pages("list_deployments", "deployments", targetArn=target, historyFilter="ALL")
            )
        return sorted(found, key=_revision, reverse=True)

    def latest(self, target: str) -> dict[str, Any] | None:
        """The target's present deployment, whole; None when it never had one."""
        with explained():
            found = list(
                self._pages("list_deployments", "deployments", targetArn=target, historyFilter="LATEST_ONLY")
            )
        newest = max(found, key=_revision, default=None)
        return self.deployment(newest["deploymentId"]) if newest else None

    def deployment(self, deployment_id: str) -> dict[str, Any] | None:
        """One deployment, whole; None when it was deleted."""
        found: dict[str, Any] | None = _unless_absent(
            lambda: self._client.get_deployment(deploymentId=deployment_id)
        )
        return found

    def deploy(self, request: Mapping[str, Any]) -> str:
        """Creates a deployment and gives its id."""
        with explained():
            made: str = self._client.create_deployment(**request)["deploymentId"]
        return made

    def cancel(self, deployment_id: str) -> None:
        """Cancels a deployment for the devices that have not received it yet."""
        with explained():
            self._client.cancel_deployment(deploymentId=deployment_id)

    def tag_deployment(self, deployment_id: str, tags: Mapping[str, str]) -> None:
        """Adds tags to a deployment."""
        place = f"{self.environment.region}:{self.environment.account}"
        arn = f"arn:{self.partition}:greengrass:{place}:deployments:{deployment_id}"
        with explained():
            self._client.tag_resource(resourceArn=arn, tags=dict(tags))

    # --- devices

    def things(self, group: str) -> list[str] | None:
        """Names of the group's things, also of its child groups; None when there is no such group.

        Not ListCoreDevices: it lists only devices that once deployed for the group, also those that have left it.
        """
        pages = self._iot.get_paginator("list_things_in_thing_group")
        found = _unless_absent(
            lambda: [
                thing
                for page in pages.paginate(thingGroupName=group, recursive=True)
                for thing in page.get("things", [])
            ]
        )
        return None if found is None else sorted(found)

    def thing_exists(self, thing: str) -> bool:
        """Whether IoT knows the thing."""
        return _unless_absent(lambda: self._iot.describe_thing(thingName=thing)) is not None

    def core(self, thing: str) -> dict[str, Any] | None:
        """The core device's last report; None when it never connected."""
        found: dict[str, Any] | None = _unless_absent(
            lambda: self._client.get_core_device(coreDeviceThingName=thing)
        )
        return found

    def installed(self, thing: str) -> list[dict[str, Any]]:
        """Every component on the device, dependencies too."""
        asked = {"coreDeviceThingName": thing, "topologyFilter": "ALL"}
        found = _unless_absent(
            lambda: list(self._pages("list_installed_components", "installedComponents", **asked))
        )
        return found or []

    def effective(self, thing: str) -> list[dict[str, Any]]:
        """The deployments that were sent to the device."""
        found = _unless_absent(
            lambda: list(
                self._pages("list_effective_deployments", "effectiveDeployments", coreDeviceThingName=thing)
            )
        )
        return found or []

    def uplink_host(self) -> str:
        """Where devices of this account speak MQTT to."""
        with explained():
            host: str = self._iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
        return host

    def _pages(self, operation: str, member: str, **asked: Any) -> Iterator[dict[str, Any]]:
        for page in self._client.get_paginator(operation).paginate(**asked):
            yield from page.get(member, [])


def reason_of(status: Mapping[str, Any]) -> str:
    """Why a component version is not deployable, in AWS's words."""
    errors = "; ".join(f"{name}: {text}" for name, text in sorted(status.get("errors", {}).items()))
    return errors or status.get("message", "") or "AWS gives no reason"


def _revision(deployment: Mapping[str, Any]) -> tuple[int, Any]:
    # Revision ids are numbers in texts; should one not be, the time of creation decides.
    revision = deployment.get("revisionId", "")
    return int(revision) if revision.isdigit() else 0, deployment.get("creationTimestamp")


def _unless_absent(ask: Callable[[], Any]) -> Any:
    """What AWS answers, or None when it says that there is no such thing."""
    with explained():
        try:
            return ask()
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return None
            raise
