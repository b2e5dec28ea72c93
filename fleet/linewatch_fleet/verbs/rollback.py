# SPDX-License-Identifier: Apache-2.0
"""`linewatch rollback ENVIRONMENT`: the release before becomes the state of a target again."""

from collections.abc import Mapping
from typing import Any

import click

from linewatch_fleet import options, output, rollout_options
from linewatch_fleet.aws import Account
from linewatch_fleet.carrying_out import Decided, How, carry_out
from linewatch_fleet.deployments import ROLLED_BACK_TAG, configuration_of, release_of
from linewatch_fleet.devices import read_devices
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput, GateRefused
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.history import OURS, History
from linewatch_fleet.next_deployment import Wanted, of_present_release, worked_out
from linewatch_fleet.published import Bucket
from linewatch_fleet.target import target_of


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.option("--to", "version", metavar="VERSION", help="This release, instead of the one before.")
@rollout_options.thing
@rollout_options.rollout
@options.dry_run
@options.as_json
@click.pass_context
def command(
    ctx: click.Context, environment: str, version: str | None, thing: str | None,
    replace: bool, wait: bool, every_s: float, limit_min: int, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Deploy the previous release again, with the configuration that it had.

    Passed over: releases whose deployment failed or was cancelled, and those that were rolled back from before.
    Components that are not Linewatch's, AWS's own among them, stay as they are now.
    """
    stage = options.environment_of(ctx, environment)
    with documented("docs/rolling-back.md"):
        account = Account(stage)
        account.check()
        cloud, bucket = Greengrass(account), Bucket.of(account)
        target = target_of(cloud, thing)
        present = cloud.latest(target.arn)
        if present is None or not release_of(present):
            raise GateRefused(
                f"no release of Linewatch is deployed to {target.words}: there is nothing to roll back"
            )
        earlier = _earlier(History(cloud, target.arn), present, version)
        wanted = _wanted(bucket, present, earlier)
        output.say(f"rolling {target.words} back from {release_of(present)} to {wanted.release}")
        devices = read_devices(cloud, target.things, components=False)
        components = worked_out(account, cloud, present, devices, wanted)
        tags = {ROLLED_BACK_TAG: release_of(present)}
        decided = Decided(target, present, devices, components, wanted.release, tags)
        carry_out(ctx, cloud, decided, How(dry_run, as_json, replace, wait, every_s, limit_min))


def _earlier(history: History, present: Mapping[str, Any], version: str | None) -> Mapping[str, Any]:
    if version is None:
        found = history.before(present)
        if found is None:
            raise GateRefused(
                f"no release before {release_of(present)} that succeeded was deployed here; name one with --to, or publish "
                "and deploy it"
            )
        return found
    found = history.of_release(version)
    if found is None:
        raise BadInput(
            f"--to {version}: was never deployed here; there were: {', '.join(history.releases())}; "
            "`linewatch deploy` deploys any published release"
        )
    return found


def _wanted(bucket: Bucket, present: Mapping[str, Any], earlier: Mapping[str, Any]) -> Wanted:
    """The earlier deployment's part of Linewatch; models of one's own that came later stay."""
    release = release_of(earlier)
    record = bucket.record(release)
    then = {
        name: one
        for name, one in earlier.get("components", {}).items()
        if (name in record.components if record else name.startswith(OURS))
    }
    return Wanted(
        release,
        {name: one["componentVersion"] for name, one in then.items()},
        without=of_present_release(bucket, present) - set(then),
        then={name: configuration_of(one) for name, one in then.items()},
    )
