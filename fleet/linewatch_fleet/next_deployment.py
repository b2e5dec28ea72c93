# SPDX-License-Identifier: Apache-2.0
"""What a release (or one component more, or less) makes of a target's present deployment."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from linewatch_fleet import aws_components, output
from linewatch_fleet.aws import Account
from linewatch_fleet.configuring import Configuring
from linewatch_fleet.deployments import Components, Wish, configuration_of, deep_merged, merged, release_of
from linewatch_fleet.devices import Device
from linewatch_fleet.errors import BadInput, GateRefused
from linewatch_fleet.greengrass import AWS_OWN, Greengrass
from linewatch_fleet.history import OURS, History
from linewatch_fleet.published import Bucket, stack_outputs

LITE_BYTES: Final = 7000
"""Larger deployments are fetched from the data plane, at 7 KB for a thing and 31 KB for a group; nucleus lite does not do
that (its docs/spec). The smaller bound, so that a device may also get the deployment by its name."""

SERVICES = ("Broker", "Inference", "Capture", "Forwarder", "Console")


@dataclass(slots=True)
class Wanted:
    """The components that the operator wants, by name; what else is there stays, except `without`."""

    release: str
    versions: Mapping[str, str]
    without: set[str] = field(default_factory=set)
    then: Mapping[str, Mapping[str, Any]] | None = None
    """For a rollback: the configurations that these components had. fleet.yaml, which may be what is wrong, is not asked,
    and AWS's components stay where they are."""


def worked_out(
    account: Account,
    cloud: Greengrass,
    present: Mapping[str, Any] | None,
    devices: Sequence[Device],
    wanted: Wanted,
) -> Components:
    """The components of the next deployment. Raises GateRefused, BadInput."""
    environment = account.environment
    before: Mapping[str, Any] = (present or {}).get("components", {})
    _check_deployable(cloud, wanted.versions, environment.name)
    known = {
        "Site": lambda: environment.site,
        "UplinkHost": cloud.uplink_host,
        "CloudApiUrl": lambda: stack_outputs(account).get("ApiUrl", ""),
    }
    runtime = aws_components.runtime_of(
        device.core.get("runtime", aws_components.CLASSIC) for device in devices if device.core
    )
    configuring = Configuring(cloud, known, before, is_lite=runtime == aws_components.LITE)
    if wanted.then is None:
        configuring.check_names({*wanted.versions, *before} - wanted.without)
        wishes = {name: configuring.wish(name, version) for name, version in wanted.versions.items()}
    else:
        wishes = {
            name: configuring.with_reset(name, version, wanted.then[name])
            for name, version in wanted.versions.items()
        }
    services = [name for name in wanted.versions if _is_service(name)]
    for name in aws_components.wanted(environment, before, runtime):
        if wanted.then is not None and name in before:
            continue
        version = aws_components.pinned(
            cloud, environment, name, before.get(name, {}).get("componentVersion", "")
        )
        settings = deep_merged(
            configuration_of(before.get(name, {})), environment.configuration.get(name, {})
        )
        if name == aws_components.LOGS:
            settings = deep_merged(settings, aws_components.log_upload(services))
        wishes[name] = Wish(version, settings)
    left_out = aws_components.left_out(environment) if wanted.then is None else set()
    after = merged(before, wishes, wanted.without | left_out)
    size = len(json.dumps(after))
    if runtime == aws_components.LITE and size > LITE_BYTES:
        raise GateRefused(
            f"this deployment has {size} bytes, and nucleus lite takes about {LITE_BYTES}: it does not fetch larger ones; "
            "shorten `configuration` in fleet.yaml"
        )
    return after


def release_wanted(bucket: Bucket, version: str, present_release: str, manifest: str = "") -> Wanted:
    """A published release. `manifest`: the digest of the release.yaml at hand. Raises GateRefused."""
    record = bucket.record(version)
    if record is None:
        raise GateRefused(f"release {version} is not published here; run `linewatch publish` first")
    if manifest and record.manifest != manifest:
        raise GateRefused(
            f"release {version} was published from another release.yaml than the one at hand; get that one, or raise VERSION"
        )
    gone = of_release(bucket, present_release) - set(record.components)
    return Wanted(version, record.components, without=gone)


def present_release(cloud: Greengrass, target_arn: str, present: Mapping[str, Any] | None) -> str:
    """The release that the target has; also below a deployment that somebody else made, which is then told."""
    if present is None:
        return ""
    release = release_of(present)
    if release:
        return release
    below = History(cloud, target_arn).release_below(present)
    if below:
        name = present.get("deploymentName") or "without a name"
        output.say(
            f"the present deployment ({name}, {present['deploymentId']}) was not made by linewatch; "
            f"the release below it is {below}"
        )
    return below


def of_release(bucket: Bucket, release: str) -> set[str]:
    """The components that a release brings; a user's own models are not among them."""
    record = bucket.record(release) if release else None
    return set(record.components) if record else set()


def changed_wanted(
    present: Mapping[str, Any] | None, present_release: str, add: Sequence[str], remove: Sequence[str]
) -> Wanted:
    """The present deployment with some components more, or less. Raises BadInput, GateRefused."""
    if present is None or not present_release:
        raise GateRefused(
            "no release is deployed to this target yet; deploy one first, without --with and --without"
        )
    there = present.get("components", {})
    versions = {name: one["componentVersion"] for name, one in there.items() if name.startswith(OURS)}
    for text in add:
        name, _, version = text.partition("=")
        if not name or not version or name.startswith(AWS_OWN):
            raise BadInput(f"--with {text!r}: write COMPONENT=VERSION; AWS's own components belong into fleet.yaml: components")  # fmt: skip
        versions[name] = version
    for name in remove:
        if name not in there:
            raise BadInput(
                f"--without {name}: the target does not have it; it has {', '.join(sorted(there))}"
            )
        versions.pop(name, None)
    return Wanted(present_release, versions, without=set(remove))


def _check_deployable(cloud: Greengrass, versions: Mapping[str, str], environment: str) -> None:
    missing = []
    for name, version in sorted(versions.items()):
        found = cloud.component(name, version)
        state = found["status"]["componentState"] if found else "missing"
        if state != "DEPLOYABLE":
            missing.append(f"{name} {version} is {state}")
    if missing:
        raise GateRefused(f"{'; '.join(missing)}; run `linewatch publish {environment}` first")


def _is_service(name: str) -> bool:
    return name.startswith(OURS) and name.removeprefix(OURS).rstrip("0123456789") in SERVICES
