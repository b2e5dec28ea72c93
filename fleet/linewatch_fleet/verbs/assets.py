# SPDX-License-Identifier: Apache-2.0
"""`linewatch assets import|export|check|unknown`: which machine each station's work orders are for."""

import getpass
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from assets import unknown
from assets.csv_file import LARGEST_FILE, AssetFile, AssetsRefusedError, read, written
from assets.importing import Change, ImportConflictError, carry_out, plan
from assets.registry import Registry
from linewatch_fleet import errors, options, output
from linewatch_fleet.aws import Account, explained
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.published import stack_outputs
from work_orders.records import Records

PAGE = "docs/assets.md"
_file = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
_environment = click.argument("environment", metavar="ENVIRONMENT")
_prune = click.option("--prune", is_flag=True, help="Remove stations that the file does not have.")
WORDS = {"add": "add", "change": "change", "remove": "remove", "keep": "not in the file, stays"}


@click.group()
def command() -> None:
    """Which machine each station's work orders are for: the asset registry, as CSV. docs/assets.md explains each column."""


@command.command(name="import")
@_environment
@_file
@_prune
@click.option("--by", default=getpass.getuser, help="Who imports, for the record.", show_default="you")
@options.dry_run
@options.as_json
@click.pass_context
def import_(
    ctx: click.Context, environment: str, file: Path, prune: bool, by: str, dry_run: bool, as_json: bool
) -> None:
    """Let the registry of ENVIRONMENT say what FILE says: all of it, or nothing where one row is wrong."""
    content, asked = _read(file)
    with documented(PAGE):
        place = _Place(_account(ctx, environment))
        with explained(), _refusing(file):
            if dry_run:
                changes = plan(place.registry.rows(), asked, prune=prune)
            else:
                changes = carry_out(place.registry, place.records, asked, content, by, prune=prune)
                unknown.forget(
                    place.tables, place.counters, [one.station_key for one in changes if one.asset]
                )
    _show(changes, as_json)
    output.say(f"{environment}: {'would ' if dry_run else ''}{_counted(changes)}")


@command.command()
@_environment
@_file
@_prune
@options.as_json
@click.pass_context
def check(ctx: click.Context, environment: str, file: Path, prune: bool, as_json: bool) -> None:
    """Read FILE and compare it with the registry of ENVIRONMENT. Exit code 4 where they differ. Changes nothing."""
    _, asked = _read(file)
    with documented(PAGE):
        place = _Place(_account(ctx, environment))
        with explained(), _refusing(file):
            changes = plan(place.registry.rows(), asked, prune=prune)
    _show(changes, as_json)
    output.say(f"{environment}: an import would {_counted(changes)}")
    if changes:
        ctx.exit(errors.UNHEALTHY)


@command.command()
@_environment
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
def export(ctx: click.Context, environment: str, file: Path) -> None:
    """Write the registry of ENVIRONMENT to FILE. Imported again it changes nothing. Exit code 4 where a row can't be used."""
    with documented(PAGE):
        place = _Place(_account(ctx, environment))
        with explained():
            rows = place.registry.rows()
    _write(file, written([row.asset for row in rows.values() if row.asset]))
    wrong = [row for row in rows.values() if not row.asset]
    for row in wrong:
        output.say(f"left out: {row.station_key}: {row.fault}")
    output.say(f"{file}: {len(rows) - len(wrong)} stations")
    if wrong:
        ctx.exit(errors.UNHEALTHY)


@command.command(name="unknown")
@_environment
@options.as_json
@click.pass_context
def unknown_(ctx: click.Context, environment: str, as_json: bool) -> None:
    """List stations that send parts and have no asset. Exit code 4 where there are some."""
    with documented(PAGE):
        place = _Place(_account(ctx, environment))
        with explained():
            known = place.registry.rows()
            found = [
                one for one in unknown.listed(place.tables, place.counters) if one.station_key not in known
            ]
    if as_json:
        output.document([{"station": one.station_key, "first": one.first, "last": one.last} for one in found])
    elif found:
        output.table(("STATION", "FIRST", "LAST"), [(one.station_key, one.first, one.last) for one in found])
    full = f"; the list is full at {unknown.MOST}" if len(found) >= unknown.MOST else ""
    output.say(
        f"{environment}: {len(found)} stations without an asset{full}; what they send is stored and raises nothing"
    )
    if found:
        ctx.exit(errors.UNHEALTHY)


class _Place:
    """The tables of one environment."""

    def __init__(self, account: Account) -> None:
        outputs = stack_outputs(account)
        if "RecordsTable" not in outputs:
            name = account.environment.name
            raise CommandFailed(f"this environment is of an older release; run `linewatch provision {name}`")
        self.tables = account.tables()
        self.registry = Registry(self.tables, outputs["AssetsTable"])
        self.records = Records(self.tables, outputs["RecordsTable"])
        self.counters = outputs["CountersTable"]


class _refusing:  # noqa: N801 - used as a statement
    """Turns what an import refuses into a message that names the file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, AssetsRefusedError):
            raise _bad(self._file, error) from error
        if isinstance(error, ImportConflictError):
            raise CommandFailed(str(error)) from error


def _account(ctx: click.Context, environment: str) -> Account:
    account = Account(options.environment_of(ctx, environment))
    account.check()
    return account


def _read(file: Path) -> tuple[bytes, AssetFile]:
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
        return content, read(content)
    except OSError as error:
        raise BadInput(f"{file}: can't be read: {error.strerror}") from error
    except AssetsRefusedError as error:
        raise _bad(file, error) from error


def _bad(file: Path, error: AssetsRefusedError) -> BadInput:
    return BadInput("\n".join([f"{file}: nothing was imported", *(f"  {one}" for one in error.problems)]))


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as whole:
            whole.write(content)
        Path(whole.name).chmod(0o644)
        os.replace(whole.name, file)  # noqa: PTH105
    except OSError as error:
        raise BadInput(f"{file}: can't be written: {error.strerror}") from error


def _show(changes: Sequence[Change], as_json: bool) -> None:
    if as_json:
        told = [{"what": one.what, "station": one.station_key, "fields": list(one.fields)} for one in changes]
        output.document(told)
    elif changes:
        rows = [(WORDS[one.what], one.station_key, ", ".join(one.fields)) for one in changes]
        output.table(("CHANGE", "STATION", "FIELDS"), rows)


def _counted(changes: Sequence[Change]) -> str:
    counts = Counter(one.what for one in changes)
    done = [f"{what} {counts[what]}" for what in ("add", "change", "remove") if counts[what]]
    stays = (
        f"; {counts['keep']} that the file does not have stay (--prune removes them)"
        if counts["keep"]
        else ""
    )
    return (", ".join(done) or "change nothing") + stays
