# SPDX-License-Identifier: Apache-2.0
"""A deployment on its way: refused while another is under way, made, looked at again, followed to its end."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from linewatch_fleet import output
from linewatch_fleet.deployments import OUTCOME_TAG
from linewatch_fleet.devices import DONE, UNDER_WAY, Device, failure, read_devices
from linewatch_fleet.errors import CommandFailed, GateRefused
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.target import Target

NOT_SENT: Final = "NOT SENT"


def check_quiet(present: Mapping[str, Any] | None, devices: Sequence[Device], *, replace: bool) -> None:
    """Refuses while devices work on the present deployment. Raises GateRefused."""
    if present is None:
        return
    states = Counter(device.state(present["deploymentId"]) for device in devices if device.core)
    name = present.get("deploymentName") or present["deploymentId"]
    if states["IN_PROGRESS"] and not replace:
        raise GateRefused(
            f"{name} is being rolled out: {states['IN_PROGRESS']} of {len(devices)} devices work on it; wait for it, "
            "stop it with `linewatch cancel`, or replace it with --replace"
        )
    waiting = states["QUEUED"] + states["IN_PROGRESS"]
    if waiting:
        output.say(
            f"{waiting} of {len(devices)} devices have not finished {name} yet; the new deployment replaces it for them"
        )


def conflicts(
    cloud: Greengrass, target: Target, devices: Sequence[Device], after: Mapping[str, Any]
) -> list[str]:
    """Devices for which another of their targets wants another version: Greengrass fails the deployment on them."""
    read: dict[str, Mapping[str, Any]] = {}
    found = []
    for device in devices:
        for one in device.current:
            deployment_id = one["deploymentId"]
            if one["targetArn"] == target.arn or one["coreDeviceExecutionStatus"] not in (*UNDER_WAY, *DONE):
                continue
            if deployment_id not in read:
                read[deployment_id] = (cloud.deployment(deployment_id) or {}).get("components", {})
            found += [
                f"{device.name}: {name} {after[name]['componentVersion']} here, {other['componentVersion']} by "
                f"{one['deploymentName'] or deployment_id} for {one['targetArn'].rpartition(':')[2]}"
                for name, other in sorted(read[deployment_id].items())
                if name in after and after[name]["componentVersion"] != other["componentVersion"]
            ]
    return found


def create(cloud: Greengrass, request: Mapping[str, Any], present: Mapping[str, Any] | None) -> str:
    """Makes the deployment. Raises CommandFailed when somebody else made one for the target at the same time.

    AWS has no "only if nothing changed": the newest wins as a whole. So what was worked out is looked at again before
    and after; what slips through between is told.
    """
    target = request["targetArn"]
    seen = present["deploymentId"] if present else None
    now = cloud.latest(target)
    if (now["deploymentId"] if now else None) != seen:
        raise CommandFailed(
            _overtaken(now, "nothing was changed; run the command again, it starts from there")
        )
    deployment_id = cloud.deploy(request)
    made = cloud.deployment(deployment_id)
    if made is None:
        return deployment_id  # it is not shown yet; what follows is asked again anyway
    if not made.get("isLatestForTarget", True):
        raise CommandFailed(_overtaken(cloud.latest(target), f"it has replaced this one ({deployment_id})"))
    before, after = (present or {}).get("revisionId", "0"), made.get("revisionId", "")
    if before.isdigit() and after.isdigit() and int(after) > int(before) + 1:
        raise CommandFailed(
            f"another deployment for this target was made in the same moment, and {deployment_id} has replaced it; "
            "what it changed is gone: have it run again"
        )
    return deployment_id


def _overtaken(now: Mapping[str, Any] | None, what: str) -> str:
    name = f"{now.get('deploymentName', '')} ({now['deploymentId']})" if now else "nobody's"
    return f"somebody else deployed to this target at the same time: {name}; {what}"


def follow(
    cloud: Greengrass, target: Target, deployment_id: str, every_s: float, limit_s: float
) -> list[Device]:
    """Watches until every device that ever connected has finished, or the limit; gives the devices as they are then."""
    deadline = time.monotonic() + limit_s
    told: dict[str, str] = {}
    while True:
        devices = read_devices(cloud, target.things, components=False)
        for device in devices:
            state = _state(device, deployment_id)
            if told.get(device.name) != state:
                told[device.name] = state
                output.say(f"{device.name}: {state}")
        open_states = [state for state in told.values() if state in (*UNDER_WAY, NOT_SENT)]
        made = cloud.deployment(deployment_id)
        if made and made["deploymentStatus"] == "CANCELED":
            open_states = [state for state in open_states if state == "IN_PROGRESS"]
        if not open_states or time.monotonic() > deadline:
            return devices
        time.sleep(every_s)


def _state(device: Device, deployment_id: str) -> str:
    if device.core is None:
        return "never connected; it gets the deployment when it does"
    found = device.deployment(deployment_id)
    if found is None:
        return NOT_SENT
    state: str = found["coreDeviceExecutionStatus"]
    return state if state in (*UNDER_WAY, *DONE, "CANCELED") else failure(found)


def outcome(devices: Sequence[Device], deployment_id: str) -> str:
    """`succeeded`, `failed` where a device did not take it, `open` where one has not finished, or none ever connected."""
    states = {device.state(deployment_id) for device in devices if device.core}
    if states - {*DONE, *UNDER_WAY, NOT_SENT}:
        return "failed"
    return "open" if states - {*DONE} or not states else "succeeded"


def note_outcome(cloud: Greengrass, deployment_id: str, result: str) -> None:
    """Writes what came of a deployment beside it: `linewatch rollback` passes over one that failed."""
    if result != "open":
        cloud.tag_deployment(deployment_id, {OUTCOME_TAG: result})
