# SPDX-License-Identifier: Apache-2.0
"""`linewatch promote ENVIRONMENT`: the same bytes, one stage further, when the stage's gate is satisfied."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.filesize import decimal

from linewatch_fleet import images, options, output
from linewatch_fleet.aws import Account
from linewatch_fleet.config import Environment, Fleet
from linewatch_fleet.copying import Content, Copy, Place, carry_out, plan_copy, read_content, verify
from linewatch_fleet.credentials import docker_credentials
from linewatch_fleet.ecr import Ecr, credentials_of
from linewatch_fleet.errors import BadInput, GateRefused
from linewatch_fleet.findings import Scan, read_reports
from linewatch_fleet.gate import (
    Condition,
    judged_platforms,
    judged_release,
    judged_scans,
    judged_tags,
    judged_waivers,
)
from linewatch_fleet.manifest import Release, read_release
from linewatch_fleet.plan import Plan
from linewatch_fleet.registry import Registry
from linewatch_fleet.signing import release_signer


class Stage:
    """A registry with the prefix of its repositories, and ECR's API where it is an ECR."""

    def __init__(self, registry: Registry, prefix: str = "", ecr: Ecr | None = None) -> None:
        self.registry = registry
        self.prefix = prefix
        self.ecr = ecr

    def place(self, repository: str) -> Place:
        """Where an image's repository lies."""
        return Place(self.registry, self.prefix + repository)


def stage_of(environment: Environment) -> Stage:
    """An environment's registry: the account's ECR, or the one that fleet.yaml names."""
    host = environment.registry
    if host:
        return Stage(Registry(host, partial(docker_credentials, host)), environment.repository_prefix)
    account = Account(environment)
    account.check()
    ecr = Ecr(account)
    return Stage(Registry(ecr.sign_in()[0], credentials_of(ecr)), environment.repository_prefix, ecr)


def source_of(fleet: Fleet, environment: Environment, given: str | None) -> Stage:
    """Where the images come from: the stage before, or for the first stage where `make images` pushed them."""
    if environment.promotes_from:
        if given:
            raise BadInput(
                f"--source is for a first stage; {environment.name} promotes from {environment.promotes_from}"
            )
        return stage_of(fleet.environment(environment.promotes_from))
    host = given or images.read_images(images.DEFAULT_FILE).registry
    if not host:
        raise BadInput(
            f"{images.DEFAULT_FILE}: registry: the images lie in the engine only; push them with "
            "make images REGISTRY=HOST:PORT, or name where they lie with --source"
        )
    return Stage(Registry(host, partial(docker_credentials, host)))


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@options.release_file
@click.option("--source", metavar="HOST[:PORT]",
              help="First stage only: the registry that the images were pushed to.  [default: build/images.json's]")  # fmt: skip
@click.option("--scan-report", "scan_reports", type=click.Path(path_type=Path), multiple=True,
              help="Findings of one platform of one image as Trivy or Grype JSON; may be repeated.")  # fmt: skip
@click.option("--verify-layers", is_flag=True, help="Read every layer back and hash it, not manifests only.")
@options.dry_run
@options.as_json
@click.pass_context
def command(ctx: click.Context, environment: str, release_file: Path, source: str | None, scan_reports: tuple[Path, ...],
            verify_layers: bool, dry_run: bool, as_json: bool) -> None:  # fmt: skip
    """Copy a release's images into an environment's registry, when its gate is satisfied.

    The same digests, whole: every platform, attestation and signature. A copy that was cut off goes on when it is run again.
    """
    fleet = options.fleet_of(ctx)
    stage = fleet.environment(environment)
    release = read_release(release_file)
    origin, target = source_of(fleet, stage, source), stage_of(stage)

    with output.progress("reading images", len(release.images)) as advance:
        contents: dict[str, Content] = {}
        for name, image in release.images.items():
            contents[name] = read_content(origin.place(image.repository), image.digest)
            advance(name)
    held: dict[str, str] = {}
    copies = [
        plan_copy(name, contents[name], origin.place(image.repository), target.place(image.repository), release.version, held)
        for name, image in release.images.items()
    ]  # fmt: skip
    conditions = _judged(stage, fleet, release, release_file, contents, copies, origin, scan_reports)
    refused = [one for one in conditions if not one.is_met]

    with output.transfer(
        "copying", 0 if dry_run or refused else sum(copy.bytes_left for copy in copies)
    ) as sent:
        plan = _plan(stage, target, copies, sent, verify_layers)
        if not as_json:
            _show(conditions, None if refused else plan)
        if not (dry_run or refused):
            for step in plan.changes:
                output.say(f"{step.action} {step.what}")
                assert step.do is not None
                step.do()
    if as_json:
        _document(release, stage, conditions, copies, plan, is_applied=not (dry_run or refused))
    if refused:
        raise GateRefused(
            f"{release.version} does not enter {stage.name}: {len(refused)} of {len(conditions)} conditions are not met; "
            "nothing was copied"
        )
    if not dry_run:
        output.say(f"{release.version} is in {stage.name}, digest by digest")


def _judged(stage: Environment, fleet: Fleet, release: Release, release_file: Path, contents: dict[str, Content],
            copies: list[Copy], origin: Stage, scan_reports: tuple[Path, ...]) -> list[Condition]:  # fmt: skip
    today = datetime.now(UTC).date()
    signer, how = release_signer(release_file, fleet.trusted_keys)
    scans = _scans(release, contents, origin, scan_reports) if stage.gate.scan != "off" else []
    return [
        *judged_release(stage.gate, release, str(signer) if signer else None, how),
        *judged_platforms(stage.gate, release, contents),
        *judged_waivers(stage.gate, today),
        *judged_scans(stage.gate, scans, today),
        *judged_tags(copies),
    ]


def _scans(
    release: Release, contents: dict[str, Content], origin: Stage, reports: tuple[Path, ...]
) -> list[Scan]:
    """A report where one is given, else what the source's ECR found: the target has not got the images yet."""
    reported = {(scan.image, scan.platform): scan for scan in read_reports(reports, contents)}
    scans = []
    for name, content in contents.items():
        for platform, manifest in content.platforms.items():
            if (name, platform) in reported:
                scans.append(reported[name, platform])
            elif origin.ecr:
                repository = origin.place(release.images[name].repository).repository
                scans.append(origin.ecr.scan(name, platform, repository, manifest.digest))
            else:
                why = "no findings: give a report with --scan-report"
                scans.append(Scan(name, platform, f"{origin.registry.host} does not scan", missing=why))
    return scans


def _plan(
    stage: Environment, target: Stage, copies: list[Copy], sent: Callable[[int], None], verify_layers: bool
) -> Plan:
    plan = Plan()
    for copy in copies:
        if target.ecr:
            _plan_repository(plan, target.ecr, copy.target.repository, stage.kms_key)
        what = f"image {copy.target}:{copy.tag}"
        if copy.is_done:
            plan.add("keep", what, f"{copy.content.index.digest}, {decimal(copy.content.size)}",
                     partial(verify, copy, layers=True) if verify_layers else None)  # fmt: skip
            continue
        detail = (f"{decimal(copy.bytes_left)} of {decimal(copy.content.size)} in {len(copy.blobs)} of {len(copy.content.blobs)} blobs, "
                  f"{len(copy.manifests)} of {len(copy.content.manifests)} manifests; {copy.content.index.digest}")  # fmt: skip

        do = partial(carry_out, copy, sent, output.say, layers=verify_layers)
        plan.add("copy", what, detail, do)
    return plan


def _plan_repository(plan: Plan, ecr: Ecr, name: str, kms_key: str) -> None:
    found = ecr.repository(name)
    if found is None:
        detail = f"immutable tags, scan on push, {'KMS ' + kms_key if kms_key else 'AES-256'}"
        plan.add("create", f"repository {name}", detail, partial(ecr.create_repository, name, kms_key))
    elif found.get("imageTagMutability") == "MUTABLE":
        plan.add("update", f"repository {name}", "tags become immutable", partial(ecr.make_immutable, name))


def _show(conditions: list[Condition], plan: Plan | None) -> None:
    output.table(("CONDITION", "ABOUT", "RESULT", "DETAIL"),
                 ((one.name, one.about, one.result, one.detail) for one in conditions))  # fmt: skip
    if plan:
        plan.show()


def _document(release: Release, stage: Environment, conditions: list[Condition], copies: list[Copy], plan: Plan, *,
              is_applied: bool) -> None:  # fmt: skip
    content: dict[str, Any] = {
        "release": release.version,
        "commit": release.commit,
        "environment": stage.name,
        "gate": [{"condition": one.name, "about": one.about, "met": one.is_met, "detail": one.detail} for one in conditions],
        "plan": plan.as_json(),
        "images": {
            copy.image: {
                "reference": f"{copy.target}@{copy.content.index.digest}",
                "tag": copy.tag,
                "bytes": copy.content.size,
                "bytes_to_send": copy.bytes_left,
            }
            for copy in copies
        },
        "applied": is_applied,
    }  # fmt: skip
    output.document(content)
