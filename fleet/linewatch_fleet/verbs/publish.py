# SPDX-License-Identifier: Apache-2.0
"""`linewatch publish ENVIRONMENT`: a release's components become deployable; `--model DIR`: one model of one's own."""

from pathlib import Path

import click

from linewatch_fleet import options, output, own_model, preparing
from linewatch_fleet.aws import Account
from linewatch_fleet.config import Environment, Fleet
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import GateRefused
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.manifest import read_release
from linewatch_fleet.plan import Plan
from linewatch_fleet.published import Bucket, Record, manifest_digest
from linewatch_fleet.publishing import add_components, add_record, check_recipes
from linewatch_fleet.signing import release_signer


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@options.release_file
@click.option(
    "--model", "package", type=click.Path(path_type=Path), metavar="DIR", help="Publish this model package, and nothing else."
)  # fmt: skip
@options.dry_run
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    environment: str,
    release_file: Path,
    package: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Upload models, render and lint recipes, create component versions: only what changed.

    Devices are not touched; `linewatch deploy` is the next step. Safe to run again at any time.
    """
    fleet = options.fleet_of(ctx)
    stage = fleet.environment(environment)
    with documented("docs/deploying.md"):
        account = Account(stage)
        account.check()
        plan = Plan()
        told = _model(plan, account, package) if package else _release(plan, account, fleet, release_file)
        if not as_json:
            plan.show()
        if not dry_run:
            plan.apply("publishing")
    if as_json:
        output.document({**told, "plan": plan.as_json(), "applied": not dry_run})
    elif not dry_run:
        output.say(f"published in {environment}: {told['published']}")


def _release(plan: Plan, account: Account, fleet: Fleet, release_file: Path) -> dict[str, object]:
    environment = account.environment
    release = read_release(release_file)
    _check_signature(fleet, environment, release_file)
    bucket = Bucket.of(account)
    components = preparing.components(fleet, environment, release, bucket.name)
    check_recipes(components)
    missing = preparing.missing_images(account, release)
    if missing:
        raise GateRefused(
            f"images are not in the registry of {environment.name}: {', '.join(missing)}; "
            f"run `linewatch promote {environment.name}` first"
        )
    versions = add_components(plan, Greengrass(account), bucket, components, release.version)
    add_record(
        plan,
        bucket,
        Record(release=release.version, manifest=manifest_digest(release_file), components=versions),
    )
    return {"published": f"release {release.version}", "components": versions, "bucket": bucket.name}


def _model(plan: Plan, account: Account, package: Path) -> dict[str, object]:
    bucket = Bucket.of(account)
    component = own_model.component_of(package, account.environment, bucket.name)
    check_recipes([component])
    versions = add_components(plan, Greengrass(account), bucket, [component], "")
    return {
        "published": f"{component.name} {component.version}; deploy it with "
        f"`linewatch deploy {account.environment.name} --with {component.name}={component.version}`",
        "components": versions,
        "bucket": bucket.name,
    }


def _check_signature(fleet: Fleet, environment: Environment, release_file: Path) -> None:
    if environment.gate.signature:
        signer, how = release_signer(release_file, fleet.trusted_keys)
        if signer is None:
            raise GateRefused(f"{release_file}: {how}; the gate of {environment.name} wants a signed release")
