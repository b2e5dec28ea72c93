# SPDX-License-Identifier: Apache-2.0
"""`linewatch deploy ENVIRONMENT`: a published release becomes the state of a thing group or a thing."""

from pathlib import Path

import click
from click.core import ParameterSource

from linewatch_fleet import options, rollout_options
from linewatch_fleet.aws import Account
from linewatch_fleet.carrying_out import Decided, How, carry_out
from linewatch_fleet.devices import read_devices
from linewatch_fleet.documented import documented
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.manifest import read_release
from linewatch_fleet.next_deployment import changed_wanted, present_release, release_wanted, worked_out
from linewatch_fleet.published import Bucket, manifest_digest
from linewatch_fleet.target import target_of


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@options.release_file
@rollout_options.thing
@click.option("--with", "add", multiple=True, metavar="COMPONENT=VERSION",
              help="Keep the release that is deployed and add or change this component, such as a model of your own.")  # fmt: skip
@click.option("--without", "remove", multiple=True, metavar="COMPONENT",
              help="Keep the release that is deployed and take this component away.")  # fmt: skip
@rollout_options.rollout
@options.dry_run
@options.as_json
@click.pass_context
def command(
    ctx: click.Context, environment: str, release_file: Path, thing: str | None, add: tuple[str, ...], remove: tuple[str, ...],
    replace: bool, wait: bool, every_s: float, limit_min: int, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Roll a published release out to an environment's thing group, or to a thing.

    A deployment is the whole state of its target. This one is made from the present one: components that are not
    Linewatch's stay as they are, with their configuration. --dry-run shows the difference.
    """
    stage = options.environment_of(ctx, environment)
    is_part = bool(add or remove)
    if is_part and ctx.get_parameter_source("release_file") == ParameterSource.COMMANDLINE:
        raise click.UsageError("--with and --without keep the release that is deployed; leave --release out")
    with documented("docs/deploying.md"):
        account = Account(stage)
        account.check()
        cloud, bucket = Greengrass(account), Bucket.of(account)
        target = target_of(cloud, thing)
        present = cloud.latest(target.arn)
        release = present_release(cloud, target.arn, present)
        wanted = (
            changed_wanted(present, release, add, remove)
            if is_part
            else release_wanted(
                bucket, read_release(release_file).version, release, manifest_digest(release_file)
            )
        )
        devices = read_devices(cloud, target.things, components=False)
        components = worked_out(account, cloud, present, devices, wanted)
        decided = Decided(target, present, devices, components, wanted.release, {})
        carry_out(ctx, cloud, decided, How(dry_run, as_json, replace, wait, every_s, limit_min))
