# SPDX-License-Identifier: Apache-2.0
"""`linewatch policy check|show|put|what-if`: when alarms become work orders, as data."""

import getpass
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from linewatch_fleet import options, output
from linewatch_fleet.aws import Account, explained
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput, CommandFailed, GateRefused
from linewatch_fleet.published import stack_outputs
from linewatch_fleet.seen_parts import read_assets, read_file, read_parts, save
from work_orders.policies import Policies, PolicyConflictError
from work_orders.policy_data import PATH, PolicyData
from work_orders.policy_reading import PolicyError, parse
from work_orders.records import Records
from work_orders.what_if import Difference, Replay, Replayer, WouldBe, difference

PAGE = "docs/policy.md"
_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def command() -> None:
    """When alarms become work orders: bands, persistence, pilot, quiet hours, limits. docs/policy.md explains each key."""


@command.command()
@click.argument("file", type=_file)
def check(file: Path) -> None:
    """Read FILE as every function will, and say all that is wrong with it, a line each. Needs no account."""
    data, _ = _policy(file)
    output.say(f"{file}: version {data.version}, {data.digest}: {_in_words(data)}")


@command.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.option("--version", help="A version that was put earlier; left out: the one that holds now.")
@click.pass_context
def show(ctx: click.Context, environment: str, version: str | None) -> None:
    """Print the policy that holds in ENVIRONMENT, as JSON."""
    with documented(PAGE), explained():
        try:
            found = _policies(_account(ctx, environment)).document(version)
        except PolicyError as error:
            raise CommandFailed(str(error)) from error
    if found is None and version is not None:
        raise BadInput(f"--version {version}: it was never put in {environment}")
    output.document(found if found is not None else json.loads(PATH.read_text()))
    if found is None:
        output.say("none was put: the policy that the release brings holds")


@command.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.argument("file", type=_file)
@click.option("--by", default=getpass.getuser, help="Who puts it, for the record.", show_default="you")
@click.option("--instead-of", "seen", metavar="VERSION",
              help="Put it only where this version still holds.  [default: the one that holds as the command begins]")  # fmt: skip
@options.dry_run
@click.pass_context
def put(ctx: click.Context, environment: str, file: Path, by: str, seen: str | None, dry_run: bool) -> None:
    """Let FILE hold in ENVIRONMENT, within a minute. A version is put once; the record names who put it.

    Refused where somebody else put another one meanwhile.
    """
    data, document = _policy(file)
    with documented(PAGE), explained():
        policies = _policies(_account(ctx, environment))
        # First: what somebody puts from here on is refused by `put`.
        held = policies.held()
        present = policies.current()
        if seen is not None and seen != (held or present.version):
            raise GateRefused(
                f"somebody put version {held or present.version} meanwhile: look at it and put again"
            )
        output.say(f"{environment}: version {present.version} holds, {_in_words(present)}")
        if dry_run:
            output.say(f"would put version {data.version}, {_in_words(data)}")
            return
        try:
            at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            policies.put(document, by, at, held)
        except PolicyConflictError as error:
            raise GateRefused(str(error)) from error
        except PolicyError as error:
            raise BadInput(f"{file}: {error}") from error
    output.say(f"put version {data.version}, {_in_words(data)}; every function follows within a minute")


@command.command(name="what-if")
@click.argument("environment", metavar="ENVIRONMENT")
@click.argument("file", type=_file)
@click.option(
    "--days", type=click.FloatRange(0.01, 400), default=30.0, show_default=True, help="How far back."
)
@click.option("--against", type=_file, help="The policy to compare with; left out: the one that holds.")
@click.option(
    "--closed-after",
    type=click.FloatRange(0.1, 8_784),
    default=48.0,
    show_default=True,
    help="Hours after which a technician closes an order, in the replay.",
)
@click.option("--events", type=_file, help="Parts that --save wrote, instead of the environment's.")
@click.option("--save", "save_to", type=click.Path(path_type=Path), help="Keep the parts for another replay.")
@options.as_json
@click.pass_context
def what_if(
    ctx: click.Context, environment: str, file: Path, days: float, against: Path | None, closed_after: float,
    events: Path | None, save_to: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell what FILE would have ordered from the last month's predictions. Changes nothing.

    Assumed: every order is approved and closed --closed-after hours later. With --events and --against no account is
    needed. Exit code 0 whatever the difference.
    """
    candidate, _ = _policy(file)
    with documented(PAGE), explained():
        account = None if events and against else _account(ctx, environment)
        present = _policy(against)[0] if against else _policies(_the(account)).current()
        if events:
            assets, parts = read_file(events)
        else:
            outputs = stack_outputs(_the(account))
            assets = read_assets(_the(account), outputs["AssetsTable"])
            until = datetime.now(UTC)
            since = until - timedelta(days=days)
            parts = read_parts(_the(account), outputs["EventsTable"], assets, since, until)
        today = datetime.now(UTC).date()
        replayers = [
            Replayer(assets, data, closed_after_s=closed_after * 3600, pilot=data.pilot.holds(today))
            for data in (present, candidate)
        ]
        begins = ends = 0.0
        for one in save(save_to, assets, parts) if save_to else parts:
            begins, ends = begins or one.at, one.at
            for replayer in replayers:
                replayer.take(one)
    first, second = (replayer.result() for replayer in replayers)
    apart = difference(first, second)
    if as_json:
        output.document({"assumed": {"closed_after_hours": closed_after}, "parts": first.parts,
                         "present": _told(first), "candidate": _told(second)})  # fmt: skip
        return
    _show(first, second, apart)
    output.say(_summary(first, begins, ends, closed_after))


def _the(account: Account | None) -> Account:
    assert account is not None
    return account


def _account(ctx: click.Context, environment: str) -> Account:
    account = Account(options.environment_of(ctx, environment))
    account.check()
    return account


def _policies(account: Account) -> Policies:
    outputs = stack_outputs(account)
    if "PoliciesTable" not in outputs:
        name = account.environment.name
        raise CommandFailed(f"this environment is of an older release; run `linewatch provision {name}`")
    dynamodb = account.tables()
    return Policies(dynamodb, outputs["PoliciesTable"], Records(dynamodb, outputs["RecordsTable"]))


def _policy(file: Path) -> tuple[PolicyData, dict[str, Any]]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return parse(document), document
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} can't be read: {error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadInput(f"{file} is no JSON: {error}") from error
    except PolicyError as error:
        raise BadInput("\n".join(f"{file}: {line}" for line in str(error).split("\n"))) from error


def _in_words(data: PolicyData) -> str:
    strong, weak = data.rules["machine"].bands
    pilot = "no pilot" if not data.pilot.is_on else f"pilot until {data.pilot.until or 'it is ended'}"
    return (
        f"orders above {strong.on:g}, asks from {weak.on:g}, {pilot}, {len(data.quiet_hours)} quiet windows, "
        f"{data.rate_limit.orders} orders per asset in {data.rate_limit.hours:g} h"
    )


def _told(replayed: Replay) -> dict[str, Any]:
    return {
        "version": replayed.policy.version, "digest": replayed.policy.digest, "counts": replayed.counts(),
        "unknown_parts": replayed.unknown, "orders": [order.as_json() for order in replayed.orders],
    }  # fmt: skip


def _show(first: Replay, second: Replay, apart: Difference) -> None:
    names = ("created", "held", "asked", "escalated")
    rows: list[tuple[object, ...]] = [
        (name, first.counts()[name], second.counts()[name], second.counts()[name] - first.counts()[name])
        for name in names
    ]
    output.table(
        ("WOULD BE", f"NOW ({first.policy.version})", f"FILE ({second.policy.version})", "MORE"), rows
    )
    told: list[tuple[object, ...]] = []
    told += [("only now", *_row(order)) for order in apart.only_first]
    told += [("only file", *_row(order)) for order in apart.only_second]
    for one, other in apart.both:
        if (one.what, one.worst) != (other.what, other.worst) or one.at != other.at:
            minutes = (other.at - one.at) / 60
            when = "" if not minutes else f", {abs(minutes):.0f} min {'later' if minutes > 0 else 'earlier'}"
            told.append((f"{one.what} -> {other.what}{when}", *_row(other)))
    if told:
        output.table(
            ("", "AT", "ASSET", "FAILURE MODE", "BAND", "RISK", "WHY"),
            sorted(told, key=lambda row: str(row[1])),
        )


def _row(order: WouldBe) -> tuple[object, ...]:
    at = datetime.fromtimestamp(order.at, UTC)
    return (
        f"{at:%Y-%m-%d %H:%M}",
        order.asset_id,
        order.failure_mode,
        order.band,
        f"{order.risk:.2f}",
        order.why,
    )


def _summary(replayed: Replay, begins: float, ends: float, closed_after: float) -> str:
    if not replayed.parts:
        return "no parts in this time: nothing to replay (parts of releases before 0.3 can't be)"
    since, until = (datetime.fromtimestamp(at, UTC) for at in (begins, ends))
    unknown = f", {replayed.unknown} of them of stations without an asset" if replayed.unknown else ""
    return (
        f"{replayed.parts} parts from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC{unknown}; assumed: all "
        f"approved, closed after {closed_after:g} h"
    )
