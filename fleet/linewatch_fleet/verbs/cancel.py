# SPDX-License-Identifier: Apache-2.0
"""`linewatch cancel ENVIRONMENT`: the deployment that is being rolled out goes to no further device."""

from collections import Counter

import click

from linewatch_fleet import options, output, rollout_options
from linewatch_fleet.aws import Account
from linewatch_fleet.devices import DONE, UNDER_WAY, Device, read_devices
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import GateRefused
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.target import target_of


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@rollout_options.thing
@options.dry_run
@options.as_json
@click.pass_context
def command(ctx: click.Context, environment: str, thing: str | None, dry_run: bool, as_json: bool) -> None:
    """Cancel the deployment that is being rolled out.

    Devices that have received it carry it out and keep it; the others keep what they run. Nothing is taken back:
    `linewatch rollback` does that.
    """
    stage = options.environment_of(ctx, environment)
    with documented("docs/rolling-back.md"):
        account = Account(stage)
        account.check()
        cloud = Greengrass(account)
        target = target_of(cloud, thing)
        present = cloud.latest(target.arn)
        if present is None:
            raise GateRefused(f"nothing was ever deployed to {target.words}")
        deployment_id, name = present["deploymentId"], present.get("deploymentName", "")
        if present["deploymentStatus"] != "ACTIVE":
            raise GateRefused(
                f"{name} ({deployment_id}) is {present['deploymentStatus']}: there is nothing to cancel"
            )
        devices = read_devices(cloud, target.things, components=False)
        rows = [
            (device.name, device.state(deployment_id), _meaning(device, deployment_id)) for device in devices
        ]
        if not dry_run:
            cloud.cancel(deployment_id)
    if as_json:
        keys = ("device", "state", "means")
        states = [dict(zip(keys, row, strict=True)) for row in rows]
        output.document(
            {"deployment": deployment_id, "name": name, "cancelled": not dry_run, "devices": states}
        )
        return
    output.table(("DEVICE", "STATE", "CANCELLING MEANS"), rows)
    counted = Counter(row[2] for row in rows)
    summary = ", ".join(f"{count} {meaning}" for meaning, count in counted.most_common()) or "no devices"
    output.say(f"{'would cancel' if dry_run else 'cancelled'} {name} ({deployment_id}): {summary}")
    if not dry_run:
        output.say(
            "a device that joins the group now gets nothing until the next `linewatch deploy` or `linewatch rollback`"
        )


def _meaning(device: Device, deployment_id: str) -> str:
    state = device.state(deployment_id)
    if state in DONE:
        return "keeps the new release"
    if state == "IN_PROGRESS":
        return "finishes it"
    return "keeps what it runs" if state not in UNDER_WAY else "never gets it, keeps what it runs"
