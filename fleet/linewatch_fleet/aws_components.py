# SPDX-License-Identifier: Apache-2.0
"""AWS's own components in our deployments, each at one version.

A component that a deployment does not name is chosen by the device, newest first, when it resolves dependencies: a new
nucleus then restarts every device on a day that nobody picked. So each is named. The table holds the series that this
release was made for; within a series the version that a target already has stays, and a target that has none gets the
newest that AWS offers in its region. `components` in fleet.yaml names an exact version, or "" to leave one out.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from linewatch_fleet.config import Environment
from linewatch_fleet.errors import GateRefused
from linewatch_fleet.greengrass import AWS_OWN, Greengrass
from linewatch_fleet.recipes.render import PRIVATE_ECR
from linewatch_fleet.versions import version_key

NUCLEUS: Final = "aws.greengrass.Nucleus"
NUCLEUS_LITE: Final = "aws.greengrass.NucleusLite"
DOCKER: Final = "aws.greengrass.DockerApplicationManager"
TOKENS: Final = "aws.greengrass.TokenExchangeService"
STREAMS: Final = "aws.greengrass.StreamManager"
LOGS: Final = "aws.greengrass.LogManager"
CLI: Final = "aws.greengrass.Cli"

SERIES: Final[Mapping[str, str]] = {
    NUCLEUS: "2.18",
    NUCLEUS_LITE: "2.6",
    CLI: "2.18",
    LOGS: "2.3",
    DOCKER: "2.0",
    TOKENS: "2.0",
    STREAMS: "2.3",
}
"""Releases of July 2026: developer guide, "Release: AWS IoT Greengrass Core v2.18.0"; Stream Manager 2.3 of April 2026."""

LITE: Final = "aws_nucleus_lite"
CLASSIC: Final = "aws_nucleus_classic"


def runtime_of(runtimes: Iterable[str]) -> str:
    """The nucleus of a target's devices; the classic one where none has connected yet. Raises GateRefused for a mixture."""
    found = set(runtimes) or {CLASSIC}
    if len(found) > 1:
        raise GateRefused(
            "the target has devices with the classic nucleus and with nucleus lite, and one deployment can't name "
            "both; put them into two thing groups (two environments of fleet.yaml)"
        )
    return found.pop()


def wanted(environment: Environment, present: Iterable[str], runtime: str) -> list[str]:
    """AWS's components that a deployment must name, `present` being what it names already."""
    there = set(present)
    names = [NUCLEUS_LITE] if runtime == LITE else [NUCLEUS, CLI, LOGS]
    if PRIVATE_ECR.match(environment.registry_host):
        names += [DOCKER, TOKENS]
    if environment.configuration.get("io.linewatch.Forwarder", {}).get("Streams") == "stream_manager":
        names.append(STREAMS)  # a recipe's dependencies can't follow its configuration, a deployment can
    # Otherwise nothing of ours needs Stream Manager; where somebody else has it, it must not move either.
    names += [name for name in (DOCKER, TOKENS, STREAMS) if name in there and name not in names]
    names += [name for name in environment.components if name.startswith(AWS_OWN) and name not in names]
    return [name for name in names if environment.components.get(name) != ""]


def left_out(environment: Environment) -> set[str]:
    """Components that fleet.yaml wants to be without."""
    return {name for name, version in environment.components.items() if version == ""}


def pinned(cloud: Greengrass, environment: Environment, name: str, before: str) -> str:
    """The version to name, `before` being the one that is named now. Raises GateRefused when AWS has none that fits."""
    asked = environment.components.get(name)
    if asked:
        if asked != before and cloud.component(name, asked) is None:
            there = ", ".join(cloud.versions(name)[:5]) or "none"
            raise GateRefused(
                f"fleet.yaml: components: {name}: AWS has no version {asked} in {environment.region}; it has {there}"
            )
        return asked
    series = SERIES.get(name, "")
    if before and version_key(before)[0][:2] >= version_key(series)[0]:
        return before
    offered = cloud.versions(name)
    fitting = [version for version in offered if version.startswith(f"{series}.") and "-" not in version]
    if not fitting:
        raise GateRefused(
            f"AWS has no {name} {series}.x in {environment.region}, only {', '.join(offered[:5]) or 'none'}; "
            "name the version to use in fleet.yaml: components"
        )
    return max(fitting, key=version_key)


def log_upload(components: Iterable[str]) -> dict[str, Any]:
    """LogManager's configuration: our components' logs and the nucleus's go to CloudWatch; files stay below 10 MB each."""
    limits = {"diskSpaceLimit": "10", "diskSpaceLimitUnit": "MB", "deleteLogFileAfterCloudUpload": "false"}
    return {
        "logsUploaderConfiguration": {
            "systemLogsConfiguration": {"uploadToCloudWatch": "true", "minimumLogLevel": "WARN", **limits},
            "componentLogsConfigurationMap": {
                name: {"minimumLogLevel": "INFO", **limits} for name in sorted(components)
            },
        },
        "periodicUploadIntervalSec": "300",
    }
