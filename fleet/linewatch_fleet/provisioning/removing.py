# SPDX-License-Identifier: Apache-2.0
"""Removing what provision made: devices first, because a policy or a group that is in use can't be deleted."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import CommandFailed, GateRefused
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.plan import Plan
from linewatch_fleet.provisioning.core_policy import delete_policy, policy_name
from linewatch_fleet.provisioning.device import Registry, claimed
from linewatch_fleet.provisioning.devices import FORWARDER
from linewatch_fleet.provisioning.marks import ENVIRONMENT, code, is_ours

# IoT forgets an attachment some seconds after it was removed.
_SETTLE_S = 60.0
_SETTLING = ("DeleteConflictException", "InvalidRequestException")


class Removal:
    """Plans the removal of devices, and of what was rolled out to them."""

    def __init__(self, account: Account) -> None:
        self._environment = account.environment
        self._iot = account.client("iot")
        self._control = account.client("greengrassv2")
        self._greengrass = Greengrass(account)
        self._registry = Registry(self._iot)

    def things(self) -> list[str]:
        """Things that provision made for this environment."""
        return self._registry.things(self._environment.name)

    def plan_device(self, name: str, plan: Plan) -> None:
        """Plans the removal of a device and its forwarder. Raises GateRefused where they aren't provision's."""
        rolled_out, own = Plan(), Plan()
        self.plan_deployments(self._greengrass.target_arn(thing=name), rolled_out)
        if self._greengrass.core(name) is not None:
            rolled_out.add(
                "delete", f"core device {name}", "what it reported", partial(self._forget_core, name)
            )
        things = [thing for thing in (name + FORWARDER, name) if self._plan_certificates(thing, own)]
        policy = policy_name(name)
        if self._is_our_policy(policy):
            own.add(
                "delete",
                f"policy {policy}",
                "",
                partial(_patiently, partial(delete_policy, self._iot, policy)),
            )
        # The device's own thing last: as long as something is left, the environment's list of things leads to it.
        for thing in things:
            own.add("delete", f"thing {thing}", "", partial(_patiently, partial(self._delete_thing, thing)))
        # Greengrass's records bear no mark; they are provision's only where the things are, or what a cut left of them.
        if rolled_out.steps and not own.steps:
            raise GateRefused(
                f"{rolled_out.steps[0].what} is not of a device that linewatch provision made for "
                f"{self._environment.name}; it is left alone"
            )
        plan.steps += rolled_out.steps + own.steps

    def plan_deployments(self, target: str, plan: Plan) -> None:
        """Plans the end of every deployment of a target."""
        for one in self._greengrass.history(target):
            name = one.get("deploymentName") or one["deploymentId"]
            plan.add(
                "delete",
                f"deployment {name}",
                target.rpartition(":")[2],
                partial(self._end_deployment, one["deploymentId"]),
            )

    def _plan_certificates(self, name: str, plan: Plan) -> bool:
        """Plans the end of a thing's certificates; False where there is no such thing."""
        described = self._registry.describe(name)
        if described is None:
            return False
        if described.get("attributes", {}).get(ENVIRONMENT) != self._environment.name:
            raise GateRefused(
                f"thing {name} was not provisioned for {self._environment.name}; it is left alone"
            )
        known = claimed(described)
        # A certificate's id is the last part of its ARN.
        foreign = [arn for arn in self._registry.principals(name) if arn.rpartition("/")[2] not in known]
        if foreign:
            raise GateRefused(
                f"thing {name} has a certificate that provision did not make: {foreign[0].rpartition('/')[2]}; "
                "detach it first, or leave the device"
            )
        for certificate_id in known:
            plan.add("delete", f"certificate of {name}", f"{certificate_id[:12]}…", partial(self._registry.retire, name, certificate_id))  # fmt: skip
        return True

    def _delete_thing(self, name: str) -> None:
        # Of a certificate that was claimed after the plan was made, nothing may be left behind.
        for certificate_id in claimed(self._registry.describe(name) or {}):
            self._registry.retire(name, certificate_id)
        self._iot.delete_thing(thingName=name)

    def _is_our_policy(self, name: str) -> bool:
        try:
            arn = self._iot.get_policy(policyName=name)["policyArn"]
        except ClientError as error:
            if code(error) == "ResourceNotFoundException":
                return False
            with explained():
                raise
        with explained():
            return is_ours(self._iot.list_tags_for_resource(resourceArn=arn)["tags"], self._environment.name)

    def _end_deployment(self, deployment_id: str) -> None:
        found = self._greengrass.deployment(deployment_id)
        if found is None:
            return
        if found["deploymentStatus"] == "ACTIVE":
            self._greengrass.cancel(deployment_id)
        _patiently(partial(self._unless_absent, self._control.delete_deployment, deploymentId=deployment_id))

    def _forget_core(self, name: str) -> None:
        _patiently(partial(self._unless_absent, self._control.delete_core_device, coreDeviceThingName=name))

    @staticmethod
    def _unless_absent(operation: Callable[..., Any], **asked: Any) -> None:
        try:
            operation(**asked)
        except ClientError as error:
            if code(error) != "ResourceNotFoundException":
                raise


def _patiently(action: Callable[[], None]) -> None:
    """Tries again while AWS still sees what was detached a moment ago. Raises CommandFailed."""
    deadline = time.monotonic() + _SETTLE_S
    pause = 0.2
    while True:
        try:
            action()
        except ClientError as error:
            if code(error) not in (*_SETTLING, "ConflictException") or time.monotonic() > deadline:
                with explained():
                    raise
        except CommandFailed as error:
            if not any(word in error.message for word in _SETTLING) or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
