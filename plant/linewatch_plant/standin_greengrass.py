# SPDX-License-Identifier: Apache-2.0
"""The stand-in for AWS IoT Greengrass v2's control plane: components, deployments and simulated core devices.

Real SDKs talk to it over HTTP; rest_json.py checks every request and response against botocore's own model. It keeps
what it holds in memory, for one account and region. A deployment is the whole state of its target and a new one
replaces it; a component version never changes; a device follows every target it belongs to.

What differs from AWS: no IAM (`service.denied` refuses by operation) and no request limits; a component version becomes
DEPLOYABLE after `components.describes_until_deployable` looks, not after seconds; dependencies are not resolved and nothing is
updated by itself; no IoT job stands behind a deployment, so rate, abort criteria and timeouts are stored and checked
by shape but not acted on; a device never acts by itself: a test says what it does (SimulatedCore); a page holds at
most `page` entries whatever `maxResults` says; ListEffectiveDeployments shows the newest deployment of each target only.

    python -m linewatch_plant.standin_greengrass      until SIGTERM or SIGINT; prints AWS_ENDPOINT_URL_GREENGRASSV2
"""

import json
import re
import signal
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from linewatch_plant.greengrass_components import (
    NAME,
    PUBLIC,
    SEMVER,
    ComponentRegistry,
    invalid,
    not_found,
    paged,
)
from linewatch_plant.ministack_process import REGION
from linewatch_plant.rest_json import Refusal, RestJsonService, Serving
from linewatch_plant.simulated_core import OPEN, SimulatedCore

ACCOUNT = "000000000000"


class StandinGreengrass:
    """A running stand-in."""

    def __init__(
        self,
        *,
        account: str = ACCOUNT,
        region: str = REGION,
        public: Mapping[str, Sequence[str]] = PUBLIC,
        artifact: Callable[[str], bytes | None] | None = None,
        page: int = 3,
        port: int = 0,
    ) -> None:
        """`artifact` gets an s3:// URI and gives its content, or None: then the component version FAILED."""
        self.account, self.region, self.page = account, region, page
        self.components = ComponentRegistry(account, region, page, public, artifact)
        self.cores: dict[str, SimulatedCore] = {}
        self._deployments: dict[str, dict[str, Any]] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        handlers = {}
        for name in OPERATIONS:
            method = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            handlers[name] = getattr(self.components, method, None) or getattr(self, f"_{method}")
        self.service = RestJsonService("greengrassv2", handlers)
        self._serving = Serving(self.service, port)
        self.endpoint_url = self._serving.url

    def stop(self) -> None:
        """Ends it; what it held is gone."""
        self._serving.stop()

    def group_arn(self, group: str) -> str:
        """A thing group's ARN."""
        return f"arn:aws:iot:{self.region}:{self.account}:thinggroup/{group}"

    def thing_arn(self, thing: str) -> str:
        """A thing's ARN."""
        return f"arn:aws:iot:{self.region}:{self.account}:thing/{thing}"

    def add_core(self, name: str, *groups: str, **described: Any) -> SimulatedCore:
        """A device that has connected once; it is given its groups' deployments, as a new member is."""
        core = SimulatedCore(name, [self.thing_arn(name), *map(self.group_arn, groups)], **described)
        self.cores[name] = core
        for deployment in self._deployments.values():
            if deployment["isLatestForTarget"] and deployment["deploymentStatus"] == "ACTIVE":
                self._offer(core, deployment)
        return core

    def finish(self, deployment_id: str) -> None:
        """Every device of the target carries the deployment out."""
        deployment = self._deployments[deployment_id]
        for core in self.cores.values():
            if deployment["targetArn"] in core.targets:
                core.succeeds(deployment["targetArn"])
        if ":thing/" in deployment["targetArn"]:
            deployment["deploymentStatus"] = "COMPLETED"

    # --- deployments

    def _create_deployment(self, asked: dict[str, Any]) -> dict[str, Any]:
        token = asked.get("clientToken", "")
        if token in self._answers:
            return self._answers[token]
        _check_components(asked.get("components", {}))
        deployment_id, job = str(uuid.uuid4()), str(uuid.uuid4())
        earlier = [one for one in self._deployments.values() if one["targetArn"] == asked["targetArn"]]
        for one in earlier:
            one["isLatestForTarget"] = False
            if one["deploymentStatus"] == "ACTIVE":
                one["deploymentStatus"] = "INACTIVE"
        kept = {name: value for name, value in asked.items() if name not in ("clientToken", "tags")}
        deployment = {
            **kept,
            "deploymentId": deployment_id,
            "revisionId": str(len(earlier) + 1),
            "deploymentStatus": "ACTIVE",
            "iotJobId": job,
            "iotJobArn": f"arn:aws:iot:{self.region}:{self.account}:job/{job}",
            "creationTimestamp": datetime.now(UTC),
            "isLatestForTarget": True,
            "tags": dict(asked.get("tags", {})),
        }
        self._deployments[deployment_id] = deployment
        for core in self.cores.values():
            self._offer(core, deployment)
        answer = {name: deployment[name] for name in ("deploymentId", "iotJobId", "iotJobArn")}
        return self._remember(token, answer)

    @staticmethod
    def _offer(core: SimulatedCore, deployment: Mapping[str, Any]) -> None:
        if deployment["targetArn"] in core.targets:
            core.receive(deployment)

    def _get_deployment(self, asked: dict[str, Any]) -> dict[str, Any]:
        deployment = self._deployment(asked["deploymentId"])
        return {**deployment, "tags": deployment["tags"] or None}

    def _list_deployments(self, asked: dict[str, Any]) -> dict[str, Any]:
        shown = [
            {
                name: deployment[name]
                for name in (
                    "targetArn",
                    "revisionId",
                    "deploymentId",
                    "deploymentName",
                    "creationTimestamp",
                    "deploymentStatus",
                    "isLatestForTarget",
                )
                if name in deployment
            }
            for deployment in reversed(self._deployments.values())
            if asked.get("targetArn", deployment["targetArn"]) == deployment["targetArn"]
            and (asked.get("historyFilter") == "ALL" or deployment["isLatestForTarget"])
        ]
        return paged(self.page, "deployments", shown, asked)

    def _cancel_deployment(self, asked: dict[str, Any]) -> dict[str, Any]:
        deployment = self._deployment(asked["deploymentId"])
        if deployment["deploymentStatus"] != "ACTIVE":
            raise _conflict(
                deployment, f"Deployment is {deployment['deploymentStatus']} and can't be canceled"
            )
        deployment["deploymentStatus"] = "CANCELED"
        for core in self.cores.values():
            core.cancelled(asked["deploymentId"])
        return {"message": "Deployment has been canceled"}

    def _delete_deployment(self, asked: dict[str, Any]) -> dict[str, Any]:
        deployment = self._deployment(asked["deploymentId"])
        if deployment["deploymentStatus"] == "ACTIVE":
            raise _conflict(deployment, "Deployment is active; cancel it first")
        del self._deployments[asked["deploymentId"]]
        return {}

    def _deployment(self, deployment_id: str) -> dict[str, Any]:
        if deployment_id not in self._deployments:
            raise not_found(deployment_id, "deployment")
        return self._deployments[deployment_id]

    # --- core devices

    def _list_core_devices(self, asked: dict[str, Any]) -> dict[str, Any]:
        shown = [
            core.described()
            for core in self.cores.values()
            # As AWS does: who once deployed for the group, also after leaving it; a new member is not there yet.
            if ("thingGroupArn" not in asked or asked["thingGroupArn"] in core.followed)
            and asked.get("status", core.status) == core.status
            and asked.get("runtime", core.runtime) == core.runtime
        ]
        return paged(self.page, "coreDevices", shown, asked)

    def _get_core_device(self, asked: dict[str, Any]) -> dict[str, Any]:
        core = self._core(asked)
        return {**core.described(), "coreVersion": core.core_version}

    def _delete_core_device(self, asked: dict[str, Any]) -> dict[str, Any]:
        core = self._core(asked)
        working = [one for one in core.effective.values() if one["coreDeviceExecutionStatus"] in OPEN]
        if working:
            raise _conflict(working[0], "The core device has a deployment in progress")
        del self.cores[core.name]
        return {}

    def _list_installed_components(self, asked: dict[str, Any]) -> dict[str, Any]:
        return paged(self.page, "installedComponents", _as_now(self._core(asked).installed), asked)

    def _list_effective_deployments(self, asked: dict[str, Any]) -> dict[str, Any]:
        return paged(self.page, "effectiveDeployments", _as_now(self._core(asked).effective), asked)

    def _core(self, asked: dict[str, Any]) -> SimulatedCore:
        name = asked["coreDeviceThingName"]
        if name not in self.cores:
            raise not_found(name, "coreDevice")
        return self.cores[name]

    # --- tags and what all share

    def _tag_resource(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._tags(asked["resourceArn"]).update(asked["tags"])
        return {}

    def _untag_resource(self, asked: dict[str, Any]) -> dict[str, Any]:
        for key in asked["tagKeys"]:
            self._tags(asked["resourceArn"]).pop(key, None)
        return {}

    def _list_tags_for_resource(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"tags": self._tags(asked["resourceArn"]) or None}

    def _tags(self, arn: str) -> dict[str, str]:
        kind, _, name = arn.split(":", 5)[5].partition(":")
        tags: dict[str, str] = (
            self._deployment(name) if kind == "deployments" else self.components.version(arn)
        )["tags"]
        return tags

    def _remember(self, token: str, answer: dict[str, Any]) -> dict[str, Any]:
        if token:
            self._answers[token] = answer
        return answer


OPERATIONS = (
    "CreateComponentVersion",
    "DescribeComponent",
    "GetComponent",
    "ListComponents",
    "ListComponentVersions",
    "DeleteComponent",
    "CreateDeployment",
    "GetDeployment",
    "ListDeployments",
    "CancelDeployment",
    "DeleteDeployment",
    "ListCoreDevices",
    "GetCoreDevice",
    "DeleteCoreDevice",
    "ListInstalledComponents",
    "ListEffectiveDeployments",
    "TagResource",
    "UntagResource",
    "ListTagsForResource",
)


def _check_components(components: Mapping[str, Mapping[str, Any]]) -> None:
    for name, component in components.items():
        if not NAME.fullmatch(name):
            raise invalid(f"components: {name!r} is not a component's name")
        if not SEMVER.fullmatch(component["componentVersion"]):
            raise invalid(f"{name}: {component['componentVersion']!r} is not one version")
        update = component.get("configurationUpdate", {})
        try:
            merge = json.loads(update.get("merge", "{}"))
        except ValueError as error:
            raise invalid(f"{name}: configurationUpdate.merge is not JSON") from error
        if not isinstance(merge, dict):
            raise invalid(f"{name}: configurationUpdate.merge is not a JSON object")
        for pointer in update.get("reset", []):
            if pointer and not pointer.startswith("/"):
                raise invalid(f"{name}: configurationUpdate.reset: {pointer!r} is not a JSON pointer")


def _as_now(entries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies: a test may change a device's own while the answer is written."""
    return [dict(entry) for entry in list(entries.values())]


def _conflict(deployment: Mapping[str, Any], message: str) -> Refusal:
    return Refusal(
        "ConflictException", message, resourceId=deployment["deploymentId"], resourceType="deployment"
    )


def main() -> None:
    """Runs the stand-in in the foreground."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    standin = StandinGreengrass()
    print(f"AWS_ENDPOINT_URL_GREENGRASSV2={standin.endpoint_url}", flush=True)
    stop.wait()
    standin.stop()


__all__ = ["ACCOUNT", "OPERATIONS", "PUBLIC", "SimulatedCore", "StandinGreengrass"]

if __name__ == "__main__":
    main()
