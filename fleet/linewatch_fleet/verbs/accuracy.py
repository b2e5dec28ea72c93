# SPDX-License-Identifier: Apache-2.0
"""`linewatch accuracy ENVIRONMENT`: how often the alarms were right, by what technicians found."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from linewatch_fleet import options, output
from linewatch_fleet.aws import explained
from linewatch_fleet.documented import documented
from linewatch_fleet.judged import PAGE, Judged, shown
from outcomes.reports import MOST_MONTHS, USUAL_MONTHS
from outcomes.reports import accuracy as accuracy_of

_COUNTS = ("orders", "judged", "confirmed", "other_fault", "no_fault", "unstated")
_HEADINGS = ("ORDERS", "JUDGED", "CONFIRMED", "OTHER FAULT", "NO FAULT", "UNSTATED", "PRECISION (95 %)", "OVERKILL (95 %)",
             "ESCAPES")  # fmt: skip


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.option("--by", type=click.Choice(["model", "line", "failure_mode"]), help="Group the orders.")
@click.option("--months", type=click.IntRange(1, MOST_MONTHS), default=USUAL_MONTHS, show_default=True,
              help="Calendar months, the present one counted.")  # fmt: skip
@click.option("--per", type=click.Choice(["month", "week"]), default="month", show_default=True,
              help="Step of the trend.")  # fmt: skip
@options.as_json
@click.pass_context
def command(
    ctx: click.Context, environment: str, by: str | None, months: int, per: str, as_json: bool
) -> None:
    """Tell how often the alarms were right: by group, over time, and by risk. docs/accuracy.md says what counts as what."""
    with documented(PAGE), explained():
        told = accuracy_of(Judged(ctx, environment).outcomes, months=months, by=by or "", per=per)
    if as_json:
        output.document(told)
        return
    output.table(
        ("GROUP", *_HEADINGS), [_row("all", told["total"]), *(_row(g["group"], g) for g in told["groups"])]
    )
    trend = [
        _row(row["period"], row, row["group"] or "")
        for row in told["trend"]
        if row["orders"] or row["escapes"]
    ]
    if trend:
        output.table((per.upper(), "GROUP", *_HEADINGS), trend)
    _reliability(told["reliability"])
    _decisions(told["decisions"])
    waiting = ", ".join(
        f"{count} {status.replace('_', ' ')}" for status, count in told["open"].items() if count
    )
    output.say(f"{told['first_day']} to {told['last_day']}; not ended yet: {waiting or 'none'}")
    for note in _unknown(told):
        output.say(note)


def _row(first: str, counted: Mapping[str, Any], *more: str) -> Sequence[object]:
    counts = (counted[name] for name in _COUNTS)
    return (
        first,
        *more,
        *counts,
        shown(counted["precision"]),
        shown(counted["overkill"]),
        counted["escapes"],
    )


def _reliability(told: Mapping[str, Any]) -> None:
    if told["bins"]:
        rows = [
            (
                f"{one['from']:g} to {one['to']:g}",
                one["orders"],
                f"{one['mean_risk']:.2f}",
                shown(one["share"]),
            )
            for one in told["bins"]
        ]
        output.table(("RISK", "JUDGED", "MEAN RISK", "CONFIRMED (95 %)"), rows)


def _decisions(told: Sequence[Mapping[str, Any]]) -> None:
    names = ("approved", "rejected", "judged", "confirmed", "other_fault", "no_fault")
    if told:
        headings = ("DECIDED BY", *(name.replace("_", " ").upper() for name in names))
        output.table(headings, [(one["by"], *(one[name] for name in names)) for one in told])


def _unknown(told: Mapping[str, Any]) -> list[str]:
    """What the tables can't show, and why."""
    total, reliability = told["total"], told["reliability"]
    recall = total["recall_at_most"]
    lines = [*told["notes"]]
    if total["why_not"]:
        lines.append(f"No precision: {total['why_not']}.")
    lines.append(
        f"Recall: at most {shown(recall)}." if recall else f"Recall is not known: {total['recall_why_not']}."
    )
    ece = reliability["ece"]
    why_not = f"is not told: {reliability['why_not']}."
    lines.append(
        f"Expected calibration error {'of the risk: ' + format(ece, '.3f') if ece is not None else why_not}"
    )
    return lines
