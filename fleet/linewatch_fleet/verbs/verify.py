# SPDX-License-Identifier: Apache-2.0
"""`linewatch verify ENVIRONMENT [REFERENCE...]`, or `--file FILE`: whether records are as they were written."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from api.dossier import Dossier, DossierError, anchor_from, from_json
from api.verifying import findings, notes
from erp.text import Anchor
from linewatch_fleet import errors, options, output
from linewatch_fleet.aws import Account
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput
from linewatch_fleet.order_desk import open_desk

# Bytes of a saved order; 1,000 entries with their ERP calls have less.
LARGEST_FILE = 64 * 1024 * 1024


@click.command()
@click.argument("environment", metavar="[ENVIRONMENT]", required=False)
@click.argument("references", metavar="[REFERENCE]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every order of the environment.")
@click.option("--file", "files", type=click.Path(path_type=Path), multiple=True,
              help="An order that `linewatch why --save` kept; needs no account.")  # fmt: skip
@click.option("--no-erp", is_flag=True, help="Do not ask the ERP what its orders bear.")
@options.as_json
@click.pass_context
def command(
    ctx: click.Context, environment: str | None, references: tuple[str, ...], everything: bool,
    files: tuple[Path, ...], no_erp: bool, as_json: bool,
) -> None:  # fmt: skip
    """Recompute the digests of every record, and name the entry that is not as it was written.

    Exit code 4 when there is one.
    """
    if bool(files) == bool(environment):
        raise BadInput("either ENVIRONMENT, with references or --all, or --file FILE is due")
    if environment and bool(references) == everything:
        raise BadInput("either references or --all is due")
    with documented("docs/why.md"):
        checked = (
            _of_files(files) if files else _of_environment(ctx, str(environment), references, no_erp=no_erp)
        )
        told = [_told(dossier, anchor) for dossier, anchor in checked]
    if as_json:
        output.document({"orders": told})
    else:
        _show(told)
    wrong = sum(bool(one["faults"]) for one in told)
    uncovered = sum(not one["faults"] and not one["records"] for one in told)
    without = f", {uncovered} without records" if uncovered else ""
    output.say(f"{len(told)} orders, {wrong} not as they were written{without}")
    if wrong:
        ctx.exit(errors.UNHEALTHY)


def _of_files(files: tuple[Path, ...]) -> Iterator[tuple[Dossier, Anchor | None]]:
    for file in files:
        try:
            if file.stat().st_size > LARGEST_FILE:
                raise BadInput(f"--file {file}: is larger than {LARGEST_FILE} bytes")
            content = json.loads(file.read_text(encoding="utf-8"))
            dossier, anchor = from_json(content), anchor_from(content)
        except OSError as error:
            raise BadInput(f"--file {file}: {error.strerror or error}") from error
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise BadInput(f"--file {file}: is no JSON: {error}") from error
        except DossierError as error:
            raise BadInput(f"--file {file}: {error}") from error
        yield dossier, anchor


def _of_environment(
    ctx: click.Context, environment: str, references: tuple[str, ...], *, no_erp: bool
) -> Iterator[tuple[Dossier, Anchor | None]]:
    account = Account(options.environment_of(ctx, environment))
    account.check()
    desk = open_desk(account)
    for reference in references or desk.references():
        order = desk.order(reference)
        anchor, why_not = (None, "") if no_erp else desk.anchor(order)
        if why_not and order.erp_id:
            output.say(f"{reference}: {why_not}")
        yield desk.dossier(order), anchor


def _told(dossier: Dossier, anchor: Anchor | None) -> dict[str, Any]:
    return {
        "reference": dossier.reference,
        "records": len(dossier.entries),
        "head": dossier.order.get("head", ""),
        "anchor": anchor and asdict(anchor),
        "faults": [
            {"where": one.where, "number": one.number, "why": one.why} for one in findings(dossier, anchor)
        ],
        "not_checked": notes(dossier, anchor),
    }


def _show(told: list[dict[str, Any]]) -> None:
    rows: list[tuple[object, ...]] = []
    for one in told:
        first, *others = one["faults"] or [None]
        state = "as written" if one["records"] else "no records"
        if first is None:
            rows.append((one["reference"], one["records"], state, "", "", "; ".join(one["not_checked"])))
            continue
        rows.append(
            (one["reference"], one["records"], "CHANGED", first["where"], first["number"], first["why"])
        )
        rows += [("", "", "", other["where"], other["number"], other["why"]) for other in others]
    output.table(("ORDER", "RECORDS", "STATE", "WHERE", "ENTRY", "WHY, OR WHAT WAS NOT CHECKED"), rows)
