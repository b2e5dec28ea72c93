# SPDX-License-Identifier: Apache-2.0
"""`linewatch status ENVIRONMENT`: what each device runs, what is wrong with it, and why."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from linewatch_fleet import errors, options, output, rollout_options
from linewatch_fleet.aws import Account
from linewatch_fleet.devices import Device, age, read_devices, starting, troubles
from linewatch_fleet.documented import documented
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.history import History
from linewatch_fleet.shortfalls import shortfalls, unsent
from linewatch_fleet.target import target_of


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@rollout_options.thing
@options.as_json
@click.pass_context
def command(ctx: click.Context, environment: str, thing: str | None, as_json: bool) -> None:
    """Tell per device what runs, what is wrong and why. Exit code 4 when something is.

    REPORTED is how old the device's last word is: a device that is switched off looks as it did then.
    """
    stage = options.environment_of(ctx, environment)
    with documented("docs/deploying.md"):
        account = Account(stage)
        account.check()
        cloud = Greengrass(account)
        target = target_of(cloud, thing)
        history = History(cloud, target.arn)
        devices = read_devices(cloud, target.things)
        present = next(iter(history), None)
        now = datetime.now(UTC)
        patience = timedelta(minutes=stage.rollout.timeout_minutes)
        told = [_told(device, present, history, now, patience) for device in devices]
    if as_json:
        output.document({"target": target.arn, "deployment": _deployment(present), "devices": told})
    else:
        _show(told)
        unwell = sum(bool(one["wrong"]) for one in told)
        output.say(f"{target.words}: {len(told)} devices, {unwell} unwell; deployed: {_words(present)}")
    if any(one["wrong"] for one in told):
        ctx.exit(errors.UNHEALTHY)


def _told(
    device: Device, present: Mapping[str, Any] | None, history: History, now: datetime, patience: timedelta
) -> dict[str, Any]:
    core = device.core or {}
    installed = {one["componentName"]: one["componentVersion"] for one in device.installed}
    return {
        "device": device.name,
        "status": core.get("status", "UNKNOWN"),
        "reported": core.get("lastStatusUpdateTimestamp"),
        "age": age(now - core["lastStatusUpdateTimestamp"]) if core else "never",
        "nucleus": core.get("coreVersion", ""),
        "platform": "/".join(core[key] for key in ("platform", "architecture") if key in core),
        "runtime": core.get("runtime", ""),
        "release": history.running(installed),
        "deployment": device.state(present["deploymentId"]) if present and core else "",
        "wrong": [*troubles(device, now), *shortfalls(device, present, now, patience)],
        "starting": [*starting(device), *unsent(device, present)],
        "components": {
            one["componentName"]: {"version": one["componentVersion"], "state": one.get("lifecycleState", "")}
            for one in device.installed
        },
    }


def _show(told: list[dict[str, Any]]) -> None:
    columns = ("device", "status", "age", "nucleus", "platform", "release", "deployment")
    rows: list[tuple[str, ...]] = []
    for one in told:
        first, *others = one["wrong"] or one["starting"] or [""]
        rows.append((*(one[column] for column in columns), first))
        rows += [("",) * len(columns) + (other,) for other in others]
    output.table(
        ("DEVICE", "STATUS", "REPORTED", "NUCLEUS", "PLATFORM", "RELEASE", "DEPLOYMENT", "WRONG"), rows
    )


def _words(present: Mapping[str, Any] | None) -> str:
    if present is None:
        return "nothing"
    return f"{present.get('deploymentName') or present['deploymentId']} ({present['deploymentStatus']})"


def _deployment(present: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if present is None:
        return None
    names = ("deploymentId", "deploymentName", "deploymentStatus", "revisionId", "creationTimestamp")
    return {name: present.get(name) for name in names}
