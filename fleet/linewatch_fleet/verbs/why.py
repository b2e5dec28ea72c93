# SPDX-License-Identifier: Apache-2.0
"""`linewatch why ENVIRONMENT REFERENCE`: why this work order exists, as one timeline."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from api.dossier import to_json
from api.why import SHOWN_FIRST, why
from linewatch_fleet import errors, options, output
from linewatch_fleet.aws import Account
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import CommandFailed
from linewatch_fleet.order_desk import open_desk

LONGEST_ANSWER = 60


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.argument("reference", metavar="REFERENCE")
@click.option("--save", "save_to", type=click.Path(path_type=Path, dir_okay=False), help="Keep all that is stored about it "
              "in a file that `linewatch verify --file` reads.")  # fmt: skip
@click.option("--no-erp", is_flag=True, help="Do not ask the ERP what its order bears.")
@options.as_json
@click.pass_context
def command(
    ctx: click.Context, environment: str, reference: str, save_to: Path | None, no_erp: bool, as_json: bool
) -> None:
    """Tell why a work order exists: what was seen, which model and rule spoke, who decided, what the ERP said.

    Exit code 4 when a record is not what was written.
    """
    with documented("docs/why.md"):
        account = Account(options.environment_of(ctx, environment))
        account.check()
        desk = open_desk(account)
        order = desk.order(reference)
        dossier = desk.dossier(order)
        anchor, why_not = (None, "") if no_erp else desk.anchor(order)
    if why_not and order.erp_id:
        output.say(f"{reference}: {why_not}")
    told = why(dossier, anchor)
    if as_json:
        output.document(told)
    else:
        show(told)
    if save_to is not None:
        saved = to_json(dossier, anchor)
        try:
            save_to.write_text(json.dumps(saved, ensure_ascii=False, indent=1), encoding="utf-8")
        except OSError as error:
            raise CommandFailed(f"--save {save_to}: {error.strerror or error}") from error
        output.say(f"saved in {save_to}; `linewatch verify --file {save_to}` checks it, without an account")
    output.say(verdict(told))
    if told["faults"]:
        ctx.exit(errors.UNHEALTHY)


def verdict(told: Mapping[str, Any]) -> str:
    """One line: whether the records are what was written."""
    if told["faults"]:
        first = told["faults"][0]
        place = (
            f"{first['where']}, entry {first['number']}" if first["number"] is not None else first["where"]
        )
        more = f" (and {len(told['faults']) - 1} more)" if len(told["faults"]) > 1 else ""
        return f"{told['reference']}: NOT as it was written: {place}: {first['why']}{more}"
    if not told["verified"]:
        return f"{told['reference']}: no records cover it: {'; '.join(told['not_checked'])}"
    unchecked = f"; not checked: {'; '.join(told['not_checked'])}" if told["not_checked"] else ""
    return f"{told['reference']}: {len(told['entries']) + told['left_out']} records are as they were written{unchecked}"


def _taken(part: Mapping[str, Any]) -> str:
    if not part["taken_at"]:
        return "not kept any more"
    return str(part["taken_at"]) + ("" if part["is_time_known"] else ", by a clock that was not synchronised")


def show(told: Mapping[str, Any]) -> None:
    """The timeline as tables: parts, evidence, models, rule, what happened, calls of the ERP."""
    parts = told["parts"]
    output.table(
        ("PART", "TAKEN", "RESULT", "LABEL", "RISK"),
        [
            (
                part["event_id"],
                _taken(part),
                part["result"],
                part["label"],
                "" if part["risk"] is None else f"{part['risk']:.2f}",
            )
            for part in parts
        ],
    )
    output.table(
        ("EVIDENCE", "FILE", "DIGEST"),
        [(one["kind"], one["path"], one["digest"]) for part in parts for one in part["evidence"]],
    )
    models = {part["model"].get("digest"): part["model"] for part in parts}
    output.table(
        ("MODEL", "DIGEST", "TRAINED ON"),
        [
            (
                " ".join(str(model.get(name) or "") for name in ("name", "version")).strip(),
                digest,
                model.get("training_data_digest") or "not on record",
            )
            for digest, model in models.items()
        ],
    )
    policy = told["policy"]
    known = "" if policy["is_known"] else " (not known here any more)"
    output.table(("RULE", "DIGEST"), [(f"policy {policy['version']}{known}", policy["digest"])])
    rows = [(one["number"], one["at"], one["by"], one["text"]) for one in told["entries"]]
    if told["left_out"]:
        rows.insert(SHOWN_FIRST, ("…", "", "", f"{told['left_out']} entries are left out; --save has them"))
    output.table(("NO", "AT", "BY", "WHAT HAPPENED"), rows)
    audited = [
        (one["number"], one["by"], one["detail"]["audit"])
        for one in told["entries"]
        if one["detail"].get("audit")
    ]
    if audited:
        output.table(("NO", "DECIDED BY", "ENTRY OF THE CONSOLE'S AUDIT LOG"), audited)
    calls = [
        (
            call["number"],
            call.get("method"),
            call.get("path"),
            call.get("outcome"),
            call.get("ms"),
            _cut(call.get("answer")),
        )
        for call in told["erp"]["calls"]
    ]
    if calls:
        output.table(("NO", "ERP CALL", "PATH", "OUTCOME", "MS", "ANSWER"), calls)


def _cut(answer: object) -> str:
    """An answer's beginning; --json has what was kept of it."""
    text = str(answer or "")
    return text if len(text) <= LONGEST_ANSWER else text[: LONGEST_ANSWER - 1] + "…"
