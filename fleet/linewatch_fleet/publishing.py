# SPDX-License-Identifier: Apache-2.0
"""The plan that makes components of a release (or one model) deployable in an environment.

The order is what makes a command that was cut off harmless: artifacts, component versions, AWS's word that they can be
deployed, and last the release's record. Whatever was done plans as `keep` the next time.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from linewatch_fleet import output
from linewatch_fleet.components import CONTENT_TAG, RELEASE_TAG, Standing, content_digest, standing
from linewatch_fleet.errors import CommandFailed, GateRefused
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.plan import Plan
from linewatch_fleet.preparing import artifact_digests, artifact_key
from linewatch_fleet.published import Bucket, Record, record_key
from linewatch_fleet.recipes import lint
from linewatch_fleet.recipes.render import Artifact, Component


def check_recipes(components: Sequence[Component]) -> None:
    """Lints every recipe. Raises GateRefused for what a device would not take; warnings are told."""
    found = [(component.name, one) for component in components for one in lint.lint_text(component.text)]
    told = {severity: [f"{name}: {one.path}: {one.found}: {one.reason}; {one.remedy} ({one.rule})"
                       for name, one in found if one.severity == severity] for severity in ("warning", "error")}  # fmt: skip
    for line in told["warning"]:
        output.say(f"warning: {line}")
    if told["error"]:
        raise GateRefused("\n".join(told["error"]))


def add_components(
    plan: Plan, cloud: Greengrass, bucket: Bucket, components: Sequence[Component], release: str
) -> dict[str, str]:
    """Adds what makes the components deployable, and gives the version that each has. Raises GateRefused."""
    judged = [(component, artifact_digests(component)) for component in components]
    standings = [standing(cloud, component.recipe, digests) for component, digests in judged]
    refusals = [one.refusal for one in standings if one.refusal]
    for (component, digests), one in zip(judged, standings, strict=True):
        if one.version == component.version:
            refusals += _add_artifacts(plan, bucket, component, digests)
    if refusals:
        raise GateRefused("\n".join(refusals))
    waiting = []
    for (component, digests), one in zip(judged, standings, strict=True):
        _add_version(plan, cloud, component, digests, one, release)
        if one.action != "keep":
            waiting.append(one)
    for one in waiting:
        what = f"component {one.name} {one.version}"
        plan.add("run", what, "wait until AWS calls it DEPLOYABLE", partial(cloud.wait_deployable, one.name, one.version))  # fmt: skip
    return {one.name: one.version for one in standings}


def add_record(plan: Plan, bucket: Bucket, record: Record) -> None:
    """Adds the release's record. Raises GateRefused when the release was published from another manifest."""
    key = record_key(record.release)
    before = bucket.record(record.release)
    what = f"s3://{bucket.name}/{key}"
    if before is None:
        plan.add("write", what, f"release {record.release} is published", partial(bucket.put, key, record.text(), "application/json"))  # fmt: skip
    elif before == record:
        plan.add("keep", what, f"release {record.release} is published")
    else:
        why = (
            "from another release.yaml"
            if before.manifest != record.manifest
            else "with other component versions"
        )
        raise GateRefused(
            f"release {record.release} was published {why}, and a release never changes; raise VERSION"
        )


def _add_artifacts(plan: Plan, bucket: Bucket, component: Component, digests: Mapping[str, str]) -> list[str]:
    refusals = []
    for artifact in component.artifacts:
        key = artifact_key(component, artifact.name)
        there = bucket.digest(key)
        what = f"s3://{bucket.name}/{key}"
        if there is None:
            plan.add("copy", what, digests[artifact.name][:19], partial(_upload, bucket, key, artifact))
        elif there == digests[artifact.name]:
            plan.add("keep", what, "the same bytes are there")
        else:
            refusals.append(
                f"{what} holds other content ({there[:19]}), and nothing is overwritten; raise the version"
            )
    return refusals


def _upload(bucket: Bucket, key: str, artifact: Artifact) -> None:
    bucket.put(key, artifact.content(), "application/octet-stream")


def _add_version(
    plan: Plan,
    cloud: Greengrass,
    component: Component,
    digests: Mapping[str, str],
    one: Standing,
    release: str,
) -> None:
    what = f"component {one.name} {one.version}"
    if one.action in ("keep", "wait"):
        plan.add("keep", what, one.detail)
        return
    if one.action == "replace":
        plan.add("delete", what, one.detail, partial(cloud.delete_component, one.name, one.version))
    tags = {CONTENT_TAG: content_digest(component.recipe, digests), RELEASE_TAG: release}
    plan.add("create", what, one.detail, partial(_create, cloud, component, tags, digests))


def _create(
    cloud: Greengrass, component: Component, tags: Mapping[str, str], digests: Mapping[str, str]
) -> None:
    if cloud.create_component(component.text, tags):
        return
    # Somebody who publishes at the same time was quicker: fine, if it is the same.
    now = standing(cloud, component.recipe, digests)
    if now.refusal:
        raise GateRefused(now.refusal)
    if now.action == "create":
        raise CommandFailed(
            f"AWS says that {component.name} {component.version} is there and shows it not; run the command again"
        )
