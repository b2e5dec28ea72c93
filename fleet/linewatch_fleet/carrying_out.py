# SPDX-License-Identifier: Apache-2.0
"""What deploy and rollback do alike once the next deployment is known: show, make, follow, end with a code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click

from linewatch_fleet import deployments, errors, output, rolling_out
from linewatch_fleet.devices import Device, troubles
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.history import came_of
from linewatch_fleet.target import Target

SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class How:
    """What the command line says of the way."""

    dry_run: bool
    as_json: bool
    replace: bool
    wait: bool
    every_s: float
    limit_min: int


@dataclass(slots=True)
class Decided:
    """One deployment, worked out."""

    target: Target
    present: Mapping[str, Any] | None
    devices: Sequence[Device]
    components: deployments.Components
    release: str
    tags: Mapping[str, str]


def carry_out(ctx: click.Context, cloud: Greengrass, decided: Decided, how: How) -> None:
    """Shows the difference, and makes the deployment unless it is there already or --dry-run is given."""
    before = (decided.present or {}).get("components", {})
    lines = deployments.changes(before, decided.components)
    told: dict[str, Any] = {
        "target": decided.target.arn,
        "release": decided.release,
        "devices": len(decided.target.things),
        "changes": [vars_of(line) for line in lines],
    }
    if not how.as_json:
        output.table(("COMPONENT", "FROM", "TO", "CONFIGURATION"), _rows(lines))
    for conflict in rolling_out.conflicts(cloud, decided.target, decided.devices, decided.components):
        output.say(f"warning: {conflict}: Greengrass will fail this deployment there")
    is_there = (
        decided.present is not None
        and decided.present["deploymentStatus"] not in ("CANCELED", "FAILED")
        # The same components under nobody's tag are somebody else's deployment: nobody could tell its release later.
        and deployments.release_of(decided.present) == decided.release
        and deployments.is_same(before, decided.components)
    )
    deployment_id = decided.present["deploymentId"] if is_there and decided.present else None
    if is_there:
        output.say(
            f"already deployed to {decided.target.words}: {(decided.present or {}).get('deploymentName')}"
        )
    elif not how.dry_run:
        rolling_out.check_quiet(decided.present, decided.devices, replace=how.replace)
        request = deployments.request(
            decided.target.arn,
            cloud.environment,
            decided.components,
            decided.release,
            decided.present,
            decided.tags,
        )
        deployment_id = rolling_out.create(cloud, request, decided.present)
        _note_what_came(cloud, decided)
        output.say(
            f"deployment {deployment_id} to {decided.target.words} ({len(decided.target.things)} devices)"
        )
    told |= {
        "deployment": deployment_id,
        "already_deployed": is_there,
        "applied": not how.dry_run and not is_there,
    }
    if how.wait and deployment_id and not how.dry_run:
        _follow(ctx, cloud, decided, deployment_id, how, told)
    elif how.as_json:
        output.document(told)


def _note_what_came(cloud: Greengrass, decided: Decided) -> None:
    """Devices soon say no more of a deployment that was replaced: what they say of it now is written beside it."""
    present = decided.present
    if (
        present is None
        or not deployments.release_of(present)
        or deployments.OUTCOME_TAG in present.get("tags", {})
    ):
        return
    came = came_of(present, decided.devices)
    if came:
        cloud.tag_deployment(present["deploymentId"], {deployments.OUTCOME_TAG: came})


def _follow(
    ctx: click.Context,
    cloud: Greengrass,
    decided: Decided,
    deployment_id: str,
    how: How,
    told: dict[str, Any],
) -> None:
    devices = rolling_out.follow(cloud, decided.target, deployment_id, how.every_s, how.limit_min * 60)
    result = rolling_out.outcome(devices, deployment_id)
    rolling_out.note_outcome(cloud, deployment_id, result)
    now = datetime.now(UTC)
    rows = [(one.name, one.state(deployment_id), "; ".join(troubles(one, now))) for one in devices]
    if how.as_json:
        output.document({**told, "outcome": result, "states": [dict(zip(("device", "state", "wrong"), row, strict=True)) for row in rows]})  # fmt: skip
    else:
        output.table(("DEVICE", "STATE", "WRONG"), rows)
        output.say(f"{decided.release}: {result}")
    if result != "succeeded":
        if result == "open":
            output.say(_why_open(devices, decided.target, how.limit_min))
        ctx.exit(errors.UNHEALTHY)


def _why_open(devices: Sequence[Device], target: Target, limit_min: int) -> str:
    if not devices:
        return f"{target.words} has no devices: nothing shows yet whether this release runs"
    if not any(one.core for one in devices):
        names = ", ".join(one.name for one in devices)
        return f"no device ever connected ({names}): nothing shows yet whether this release runs; they get it when they do"
    return f"not all devices finished within {limit_min} minutes; `linewatch status` tells when they do"


def _rows(lines: Sequence[deployments.Change]) -> list[tuple[str, str, str, str]]:
    """A row for each component, and one more for each further key of its configuration, up to a screen's worth."""
    rows = []
    for line in lines:
        shown = list(line.configuration[:SHOWN])
        if len(line.configuration) > SHOWN:
            shown.append(f"and {len(line.configuration) - SHOWN} more: --json shows them")
        first, *others = shown or [""]
        rows.append((line.component, line.before, "" if line.before == line.after else line.after, first))
        rows += [("", "", "", other) for other in others]
    return rows


def vars_of(line: deployments.Change) -> dict[str, Any]:
    """A line of the difference for --json."""
    return {
        "component": line.component,
        "from": line.before,
        "to": line.after,
        "configuration": line.configuration,
    }
