# SPDX-License-Identifier: Apache-2.0
"""`linewatch dead-letters list|explain|replay|discard`: what the cloud could not handle, why, once more, or never."""

import getpass
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import click

from assets.registry import AssetUnusableError, Registry
from dead_letters import discarding
from dead_letters.explaining import QUEUES, Explanation, Today, explain
from dead_letters.letters import Drawer
from linewatch_fleet import errors, options, output
from linewatch_fleet.aws import Account, explained
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.published import stack_outputs, stack_parameters
from work_orders.records import Records, RecordsConflictError

PAGE = "docs/dead-letters.md"
# Of the template, by our name of the queue.
OUTPUTS = {
    "inspections": "InspectionsDeadLettersUrl",
    "enriched": "EnrichedDeadLettersUrl",
    "rules": "RuleErrorsUrl",
    "lifecycle": "LifecycleDeadLettersUrl",
}
SHOWN = 80

_environment = click.argument("environment", metavar="ENVIRONMENT")
_queues = click.option(
    "--queue", "queues", type=click.Choice(QUEUES), multiple=True, help="Of this queue only."
)
_ids = click.option(
    "--id", "ids", multiple=True, metavar="ID", help="Message id (or its first 8 signs), or event id."
)


@click.group()
def command() -> None:
    """What the cloud could not handle: it lies aside with the reason. docs/dead-letters.md says what each code means."""


@command.command(name="list")
@_environment
@_queues
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Of each queue."
)
@options.as_json
@click.pass_context
def list_(ctx: click.Context, environment: str, queues: Sequence[str], limit: int, as_json: bool) -> None:
    """List dead letters with their reasons. Exit code 4 where there are some."""
    with documented(PAGE), explained():
        cloud = _Cloud(_account(ctx, environment))
        found = [one for queue in queues or QUEUES for one in cloud.explanations(queue, limit)]
        waiting = sum(cloud.drawer(queue).waiting() for queue in queues or QUEUES)
    if as_json:
        output.document([_told(one) for one in found])
    elif found:
        rows = [
            (one.letter.queue, one.letter.message_id, one.letter.event_id, one.letter.at, _cut(one.was),
             "yes" if one.is_readable else "no")
            for one in found
        ]  # fmt: skip
        output.table(("QUEUE", "ID", "EVENT", "SINCE", "WHY", "READABLE NOW"), rows)
    more = f", {len(found)} shown" if waiting > len(found) else ""
    output.say(f"{environment}: {max(waiting, len(found))} dead letters{more}")
    if found or waiting:
        ctx.exit(errors.UNHEALTHY)


@command.command(name="explain")
@_environment
@_queues
@_ids
@options.as_json
@click.pass_context
def explain_(
    ctx: click.Context, environment: str, queues: Sequence[str], ids: Sequence[str], as_json: bool
) -> None:
    """Read letters again with today's code and registry: what is still wrong, or that they are readable now."""
    with documented(PAGE), explained():
        cloud = _Cloud(_account(ctx, environment))
        found = [
            one
            for queue in queues or QUEUES
            for one in cloud.explanations(queue)
            if not ids or _is_chosen(one, ids)
        ]
    _all_found(found, ids)
    if as_json:
        output.document([{**_told(one), "body": one.letter.body} for one in found])
        return
    for one in found:
        _show(one)
    output.say(
        f"{environment}: {len(found)} dead letters, {sum(one.is_readable for one in found)} readable now"
    )


@command.command()
@_environment
@_queues
@_ids
@click.option("--all", "everything", is_flag=True, help="Every letter that is readable now.")
@click.option(
    "--anyway", is_flag=True, help="Those that are not readable, too: they come back as new letters."
)
@options.dry_run
@options.as_json
@click.pass_context
def replay(
    ctx: click.Context, environment: str, queues: Sequence[str], ids: Sequence[str], everything: bool, anyway: bool,
    dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Put letters back among the events that wait, the chosen ones (--id) or --all. Nothing is lost or doubled by it.

    A letter that is still unreadable stays where it is, unless --anyway. Exit code 4 where one stays.
    """
    if bool(ids) == everything:
        raise BadInput("say which: --id ID (as often as needed), or --all")
    done: list[Explanation] = []
    stays: list[Explanation] = []
    with documented(PAGE), explained():
        cloud = _Cloud(_account(ctx, environment))
        for queue in queues or QUEUES:
            with cloud.drawer(queue) as drawer:
                for letter in drawer:
                    one = explain(letter, cloud.today)
                    if ids and not _is_chosen(one, ids):
                        continue
                    is_going = (one.is_readable or anyway) and one.sends not in ("", None)
                    (done if is_going else stays).append(one)
                    if is_going and not dry_run:
                        drawer.replay(letter, cloud.sender(one))
    _all_found([*done, *stays], ids)
    if as_json:
        told = {"replayed" if not dry_run else "would_replay": done, "stays": stays}
        output.document({name: [_told(one) for one in some] for name, some in told.items()})
    elif done or stays:
        rows = [(one.letter.queue, one.letter.message_id, one.letter.event_id, one.goes_to) for one in done]
        rows += [(one.letter.queue, one.letter.message_id, one.letter.event_id, _stays(one)) for one in stays]
        output.table(("QUEUE", "ID", "EVENT", "GOES TO"), rows)
    output.say(f"{environment}: {'would replay' if dry_run else 'replayed'} {len(done)}, {len(stays)} stay")
    if stays:
        ctx.exit(errors.UNHEALTHY)


@command.command()
@_environment
@_queues
@_ids
@click.option("--reason", default="", help="Why it is of no use any more, for the record.")
@click.option("--save", "save_to", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the letters to this new file before they go.")  # fmt: skip
@click.option("--by", default=getpass.getuser, help="Who discards, for the record.", show_default="you")
@options.dry_run
@options.as_json
@click.pass_context
def discard(
    ctx: click.Context, environment: str, queues: Sequence[str], ids: Sequence[str], reason: str,
    save_to: Path | None, by: str, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Throw the chosen letters away for good, with a reason. All that are named, or none where one is not there.

    Each is on record, with its digest, before it goes. There is no --all: what nobody has looked at stays.
    """
    if not ids:
        raise BadInput("say which: --id ID (as often as needed)")
    try:
        why = discarding.reason_of(reason)
    except discarding.ReasonError as error:
        raise BadInput(f"--reason {error}") from error
    if save_to and save_to.exists():
        raise BadInput(f"--save {save_to}: is there already, and nothing is overwritten")
    chosen: list[tuple[Drawer, Explanation]] = []
    with documented(PAGE), explained(), ExitStack() as stack:
        cloud = _Cloud(_account(ctx, environment))
        for queue in queues or QUEUES:
            drawer = stack.enter_context(cloud.drawer(queue))
            found = (explain(letter, cloud.today) for letter in drawer)
            chosen += [(drawer, one) for one in found if _is_chosen(one, ids)]
        letters = [one for _, one in chosen]
        _all_found(letters, ids)
        if save_to and not dry_run:
            _save(letters, save_to)
        for drawer, one in chosen if not dry_run else ():
            drawer.discard(one.letter, partial(cloud.record, one, why, by))
    if as_json:
        told = [_told(one) for one in letters]
        output.document({"would_discard" if dry_run else "discarded": told, "reason": why})
    else:
        for one in letters:
            _show(one)
    output.say(f"{environment}: {'would discard' if dry_run else 'discarded'} {len(letters)}")


class _Cloud:
    """The queues of one environment, and what a letter is read with."""

    def __init__(self, account: Account) -> None:
        self._outputs = stack_outputs(account)
        if "RuleErrorsUrl" not in self._outputs:
            name = account.environment.name
            raise CommandFailed(f"this environment is of an older release; run `linewatch provision {name}`")
        self._account = account
        self._sqs = account.reader("sqs")
        tables = account.tables()
        registry = Registry(tables, self._outputs["AssetsTable"])
        self._records = Records(tables, self._outputs["RecordsTable"])

        @cache
        def row_fault(station_key: str) -> str:
            try:
                registry.get(station_key)
            except AssetUnusableError as error:
                return str(error)
            return ""

        # The stack's own parameter: by another one a letter would be readable here and poison there.
        keep = timedelta(days=int(stack_parameters(account)["EventDays"]))
        self.today = Today(row_fault, keep)

    def drawer(self, queue: str) -> Drawer:
        """The dead letters of one queue."""
        return Drawer(self._sqs, queue, self._outputs[OUTPUTS[queue]])

    def explanations(self, queue: str, limit: int | None = None) -> Iterator[Explanation]:
        """Each letter, read again. They are visible to others afterwards."""
        with self.drawer(queue) as drawer:
            for number, letter in enumerate(drawer, 1):
                yield explain(letter, self.today)
                if number == limit:
                    return

    def record(self, one: Explanation, reason: str, by: str) -> None:
        """Puts on record that the letter is thrown away. Raises CommandFailed, and then it is not."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            self._records.append(discarding.CHAIN, at, "discarded", by, discarding.detail(one, reason))
        except RecordsConflictError as error:
            raise CommandFailed(
                f"others kept writing records ({error}); nothing is lost, try again"
            ) from error

    def sender(self, one: Explanation) -> Callable[[], None]:
        """Sends it where it goes; raises where it can't."""
        if one.goes_to == "bus":
            return lambda: self._to_bus(one.sends)
        url = self._outputs["InspectionsQueueUrl" if one.goes_to == "inspections" else "EnrichedQueueUrl"]
        return lambda: self._sqs.send_message(QueueUrl=url, MessageBody=one.sends)

    def _to_bus(self, entry: dict[str, Any]) -> None:
        bus = self._outputs["EventBusName"]
        answer = self._account.reader("events").put_events(Entries=[{**entry, "EventBusName": bus}])
        if answer["FailedEntryCount"]:
            raise CommandFailed(f"the event bus did not take it: {answer['Entries'][0].get('ErrorMessage')}")


def _account(ctx: click.Context, environment: str) -> Account:
    account = Account(options.environment_of(ctx, environment))
    account.check()
    return account


def _is_chosen(one: Explanation, ids: Sequence[str]) -> bool:
    return any(one.letter.is_called(name) for name in ids)


def _all_found(found: Sequence[Explanation], ids: Sequence[str]) -> None:
    missing = [name for name in ids if not any(one.letter.is_called(name) for one in found)]
    if missing:
        raise CommandFailed(
            f"no dead letter is called {', '.join(missing)}; `linewatch dead-letters list` tells their ids"
        )


def _save(letters: Sequence[Explanation], file: Path) -> None:
    """With their bodies, on the disk before anything goes."""
    text = json.dumps([{**_told(one), "body": one.letter.body} for one in letters], indent=2)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise BadInput(f"--save {file}: {error.strerror}; nothing was discarded") from error


def _told(one: Explanation) -> dict[str, Any]:
    letter = one.letter
    return {
        "queue": letter.queue,
        "id": letter.message_id,
        "event_id": letter.event_id,
        "since": letter.at,
        "code": letter.code,
        "why": one.was,
        "wrong_now": [{"code": code, "why": why} for code, why in one.wrong],
        "goes_to": one.goes_to,
    }


def _show(one: Explanation) -> None:
    letter = one.letter
    now = (
        "; ".join(f"{code}: {why}" for code, why in one.wrong)
        or f"readable; a replay sends it to {one.goes_to}"
    )
    rows = [
        ("queue", letter.queue), ("id", letter.message_id), ("event", letter.event_id), ("since", letter.at),
        ("was", one.was), ("now", now), ("body", _cut(letter.body, 400)),
    ]  # fmt: skip
    output.table(("LETTER", ""), rows)


def _stays(one: Explanation) -> str:
    return _cut("; ".join(f"stays, {code}: {why}" for code, why in one.wrong))


def _cut(text: str, longest: int = SHOWN) -> str:
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."
