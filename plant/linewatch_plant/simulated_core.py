# SPDX-License-Identifier: Apache-2.0
"""A Greengrass core device as the cloud sees it: what it was told to run and what it last reported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

OPEN = ("QUEUED", "IN_PROGRESS")


@dataclass(slots=True)
class SimulatedCore:
    """One device. A test drives it: `starts`, `succeeds`, `fails`, `reports`.

    Attributes:
        targets: ARNs of the thing and of the thing groups it is in.
        followed: thing groups it ever deployed for; ListCoreDevices goes by these, also after it left the group.
        effective: the newest deployment of each target, as ListEffectiveDeployments answers.
        installed: components by name, as ListInstalledComponents answers.
    """

    name: str
    targets: list[str]
    core_version: str = "2.18.0"
    platform: str = "linux"
    architecture: str = "amd64"
    runtime: str = "aws_nucleus_classic"
    status: str = "HEALTHY"
    seen: datetime = field(default_factory=lambda: datetime.now(UTC))
    followed: set[str] = field(default_factory=set)
    effective: dict[str, dict[str, Any]] = field(default_factory=dict)
    installed: dict[str, dict[str, Any]] = field(default_factory=dict)
    _components: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def receive(self, deployment: Mapping[str, Any]) -> None:
        """A deployment reaches the device's job queue and replaces the target's earlier one."""
        now = datetime.now(UTC)
        self.effective[deployment["targetArn"]] = {
            "deploymentId": deployment["deploymentId"],
            "deploymentName": deployment.get("deploymentName", ""),
            "iotJobId": deployment["iotJobId"],
            "iotJobArn": deployment["iotJobArn"],
            "targetArn": deployment["targetArn"],
            "coreDeviceExecutionStatus": "QUEUED",
            "creationTimestamp": deployment["creationTimestamp"],
            "modifiedTimestamp": now,
        }
        self._components[deployment["targetArn"]] = deployment.get("components", {})

    def starts(self, target: str) -> None:
        """The device works on the target's deployment."""
        self._set(target, "IN_PROGRESS")

    def succeeds(self, target: str) -> None:
        """The device runs the union of its targets' components, or fails where two want different versions."""
        wanted: dict[str, str] = {}
        for components in self._components.values():
            for name, component in components.items():
                version = component["componentVersion"]
                if wanted.setdefault(name, version) != version:
                    self.fails(
                        target,
                        "FAILED_NO_STATE_CHANGE",
                        ["DEPLOYMENT_FAILURE", "COMPONENT_VERSION_REQUIREMENTS_NOT_MET"],
                    )
                    return
        self._set(target, "COMPLETED" if ":thing/" in target else "SUCCEEDED", "SUCCESSFUL")
        if ":thinggroup/" in target:
            self.followed.add(target)
        source = self.effective[target]["deploymentId"]
        self.installed = {
            name: self.installed[name]
            if self.installed.get(name, {}).get("componentVersion") == version
            else self._component(name, version, source)
            for name, version in wanted.items()
        }
        self.core_version = wanted.get("aws.greengrass.Nucleus", self.core_version)
        self.status = "HEALTHY"

    def fails(self, target: str, reason: str, stack: Sequence[str] = (), types: Sequence[str] = ()) -> None:
        """The device ends the target's deployment without success; what it ran before stays."""
        self._set(
            target, "FAILED", reason, statusDetails={"errorStack": list(stack), "errorTypes": list(types)}
        )

    def reports(self, component: str, state: str, details: str = "", codes: Sequence[str] = ()) -> None:
        """A component changes its state."""
        now = datetime.now(UTC)
        entry = self.installed[component]
        entry.update(lifecycleState=state, lastStatusChangeTimestamp=now, lastReportedTimestamp=now)
        entry["lifecycleStateDetails"] = details or None
        entry["lifecycleStatusCodes"] = list(codes)
        self.seen = now
        self.status = (
            "UNHEALTHY"
            if any(entry["lifecycleState"] in ("ERRORED", "BROKEN") for entry in self.installed.values())
            else "HEALTHY"
        )

    def cancelled(self, deployment_id: str) -> None:
        """A deployment that has not been taken yet will not be."""
        for effective in self.effective.values():
            if (
                effective["deploymentId"] == deployment_id
                and effective["coreDeviceExecutionStatus"] == "QUEUED"
            ):
                effective["coreDeviceExecutionStatus"] = "CANCELED"
                effective["modifiedTimestamp"] = datetime.now(UTC)

    def described(self) -> dict[str, Any]:
        """As ListCoreDevices answers."""
        return {
            "coreDeviceThingName": self.name,
            "status": self.status,
            "lastStatusUpdateTimestamp": self.seen,
            "platform": self.platform,
            "architecture": self.architecture,
            "runtime": self.runtime,
        }

    def _set(self, target: str, status: str, reason: str = "", **details: Any) -> None:
        self.seen = datetime.now(UTC)
        # At once: a test drives the device in a thread of its own while somebody asks how it is.
        self.effective[target].update(
            coreDeviceExecutionStatus=status, modifiedTimestamp=self.seen, reason=reason or None, **details
        )

    @staticmethod
    def _component(name: str, version: str, source: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {
            "componentName": name,
            "componentVersion": version,
            "lifecycleState": "FINISHED" if name.startswith("io.linewatch.model.") else "RUNNING",
            "isRoot": True,
            "lastStatusChangeTimestamp": now,
            "lastReportedTimestamp": now,
            "lastInstallationSource": source,
            "lifecycleStatusCodes": [],
        }
