# SPDX-License-Identifier: Apache-2.0
"""`linewatch pilot-exit ENVIRONMENT --risk 0.1`: may orders be created without asking, and from which risk on?"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from linewatch_fleet import options, output
from linewatch_fleet.aws import explained
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput, CommandFailed, GateRefused
from linewatch_fleet.judged import PAGE, Judged, shown
from outcomes.proposal import NothingToProposeError, merged, propose
from outcomes.reports import MOST_MONTHS
from outcomes.reports import pilot_exit as pilot_exit_of
from work_orders.policy_reading import PolicyError, parse

_COLUMNS = ("GROUP", "ABOVE", "ORDERS", "WRONG", "SHARE (95 %)", "AT MOST", "JUSTIFIED", "STILL NEEDED")


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.option(
    "--risk",
    type=float,
    required=True,
    help="Most of the orders created without asking that may be wrong, such as 0.1.",
)
@click.option("--confidence", type=float, default=0.95, show_default=True, help="How sure to be of it.")
@click.option("--by", type=click.Choice(["all", "criticality", "failure_mode"]), default="all", show_default=True,
              help="One threshold for all, or one each; the confidence then holds for all together.")  # fmt: skip
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY",
              help="Count from this day on; left out: from the first order of the models now in service.")  # fmt: skip
@click.option("--months", type=click.IntRange(1, MOST_MONTHS),
              help="Count so many calendar months instead: a window that moves, whose verdict holds for one look.")  # fmt: skip
@click.option("--propose", "propose_to", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the policy with the justified bands, for `linewatch policy check`, `what-if` and `put`.")  # fmt: skip
@options.as_json
@click.pass_context
def command(
    ctx: click.Context, environment: str, risk: float, confidence: float, by: str, since: datetime | None,
    months: int | None, propose_to: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell whether creating orders without asking is justified by what technicians found. Changes nothing.

    With --propose exit code 3 when there is nothing to propose.
    """
    try:
        with documented(PAGE), explained():
            judged = Judged(ctx, environment)
            document = judged.policy()
            told = pilot_exit_of(
                judged.outcomes, parse(document), risk=risk, confidence=confidence, by=by,
                since=since.date() if since else None, months=months, order_days=judged.order_days,
            )  # fmt: skip
    except PolicyError as error:
        raise CommandFailed(
            f"the policy that holds in {environment} is of another release: {error}; run the `linewatch` of that release"
        ) from error
    except ValueError as error:
        raise BadInput(f"--{error}") from error
    patch = _propose(told, document, propose_to) if propose_to else None
    if as_json:
        output.document({**told, **({"proposal": patch} if patch else {})})
    else:
        _show(told)
    if patch:
        output.say(
            f"{propose_to}: version {patch['version']}; next: `linewatch policy what-if {environment} {propose_to}`, then put"
        )


def _propose(told: Mapping[str, Any], document: Mapping[str, Any], file: Path) -> dict[str, Any]:
    try:
        patch = propose(told, document)
        text = json.dumps(merged(document, patch), indent=2, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")
    except NothingToProposeError as error:
        raise GateRefused(f"no other band is justified. {error}") from error
    except PolicyError as error:
        raise GateRefused(
            f"the justified bands would contradict the policy: {error}; change that first"
        ) from error
    except ValueError as error:
        raise BadInput(f"--{error}") from error
    except OSError as error:
        raise BadInput(f"--propose {file}: {error.strerror}") from error
    return patch


def _show(told: Mapping[str, Any]) -> None:
    rows = [
        (
            group["group"],
            f"{one['threshold']:g}{' (now)' if one['is_present'] else ''}",
            one["orders"],
            one["wrong"],
            shown(one["share"]),
            "" if one["upper"] is None else f"{100 * one['upper']:.1f} %",
            "yes" if one["is_certified"] else "no",
            one["confirmed_needed"] or "",
        )
        for group in told["groups"]
        for one in group["candidates"]
    ]
    output.table(_COLUMNS, rows)
    for group in told["groups"]:
        output.say(f"{group['group']}: {group['sentence']}")
        for line in _doubts(group):
            output.say(f"  {line}")
    output.say(told["population"])
    left = told["left_out"]
    if any(left.values()):
        output.say(
            f"Left out: of models no longer in service {left['other_models']}, of releases before 0.3 {left['without_risk']}, "
            f"too many for one report {left['outcomes']}."
        )
    for note in told["notes"]:
        output.say(note)


def _doubts(group: Mapping[str, Any]) -> list[str]:
    worst, drift = group["worst_case"], group["drift"]
    lines = []
    if group["verdict"] == "justified" and worst["verdict"] != "justified":
        lines.append("Not so if every order that expired or has no finding had been wrong.")
    if drift["is_doubtful"]:
        first, second = drift["first"], drift["second"]
        lines.append(
            f"Something changed: {first['wrong']} of the first {first['orders']} were wrong, {second['wrong']} of the last "
            f"{second['orders']}. Do not rely on it before you know what."
        )
    return lines
