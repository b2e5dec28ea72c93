# SPDX-License-Identifier: Apache-2.0
"""`linewatch rollback ENVIRONMENT`: the release before becomes the state of a target again."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from linewatch_fleet import options, output, rollout_options
from linewatch_fleet.aws import Account
from linewatch_fleet.carrying_out import Decided, How, carry_out
from linewatch_fleet.deployments import ROLLED_BACK_TAG, configuration_of, release_of
from linewatch_fleet.devices import Device, read_devices
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput, GateRefused
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.history import OURS, History, is_known, ours_of
from linewatch_fleet.next_deployment import Wanted, of_release, present_release, worked_out
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
    Models of your own and components that are not Linewatch's, AWS's own among them, stay as they are now.
    """
    stage = options.environment_of(ctx, environment)
    with documented("docs/rolling-back.md"):
        account = Account(stage)
        account.check()
        cloud, bucket = Greengrass(account), Bucket.of(account)
        target = target_of(cloud, thing)
        present = cloud.latest(target.arn)
        release = present_release(cloud, target.arn, present)
        if present is None or not release:
            raise GateRefused(
                f"no release of Linewatch is deployed to {target.words}: there is nothing to roll back"
            )
        history = History(cloud, target.arn)
        devices = read_devices(cloud, target.things, components=False)
        _say_only_with(history, present, release, environment)
        earlier = _earlier(history, present, release, devices, version)
        wanted = _wanted(bucket, release, earlier)
        output.say(f"rolling {target.words} back from {release} to {wanted.release}")
        components = worked_out(account, cloud, present, devices, wanted)
        tags = {ROLLED_BACK_TAG: release}
        decided = Decided(target, present, devices, components, wanted.release, tags)
        carry_out(ctx, cloud, decided, How(dry_run, as_json, replace, wait, every_s, limit_min))


def _earlier(
    history: History, present: Mapping[str, Any], release: str, devices: Sequence[Device], version: str | None
) -> Mapping[str, Any]:
    """The deployment to go back to; what is passed over for it is told. Raises GateRefused, BadInput."""
    found = (
        history.before(present, release, devices) if version is None else history.of_release(version, devices)
    )
    if version is not None and found.deployment is not None and found.only_failed:
        output.say(
            f"warning: every deployment of {version} here failed or was cancelled; taking the newest all the same"
        )
        for one in found.passed_over:
            output.say(one)
    else:
        for one in found.passed_over:
            output.say(f"passed over {one}")
        if found.deployment is not None and not is_known(found.deployment, devices):
            output.say(
                f"nothing is known of how {release_of(found.deployment)} ended here; `--wait` would have written it down"
            )
    if found.deployment is None and version is None:
        raise GateRefused(
            f"no release before {release} that succeeded was deployed here; name one with --to, or publish "
            "and deploy it"
        )
    if found.deployment is None:
        raise BadInput(
            f"--to {version}: was never deployed here; there were: {', '.join(history.releases())}; "
            "`linewatch deploy` deploys any published release"
        )
    return found.deployment


def _say_only_with(history: History, present: Mapping[str, Any], release: str, environment: str) -> None:
    """Says how a model comes back, where the deployment before has the same release and only another model."""
    before = next((one for one in history if one["deploymentId"] != present["deploymentId"]), None)
    if before is None or release_of(before) != release:
        return
    then, now = ours_of(before), ours_of(present)
    ways = [f"--with {name}={version}" for name, version in sorted(then.items()) if now.get(name) != version]
    ways += [f"--without {name}" for name in sorted(set(now) - set(then))]
    if ways:
        output.say(
            f"the deployment before this one has release {release} too, and differs by --with or --without only; rollback "
            f"goes to another release and leaves your own models as they are. To undo that change alone: "
            f"linewatch deploy {environment} {' '.join(ways)}"
        )


def _wanted(bucket: Bucket, present_release: str, earlier: Mapping[str, Any]) -> Wanted:
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
        without=of_release(bucket, present_release) - set(then),
        then={name: configuration_of(one) for name, one in then.items()},
    )
