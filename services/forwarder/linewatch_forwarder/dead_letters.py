# SPDX-License-Identifier: Apache-2.0
"""The command for dead letters: `python -m linewatch_forwarder.dead_letters list | show N | replay N… | replay --all`.

It works on the forwarder's own file, beside the forwarder or without it. A replay puts an event back among those that
wait, with the id and the bytes that it had, so that the cloud takes it once whatever it took before. What is refused
again is buried again, under a new number.

Exit codes: 0 done; 1 something that was named is not there, or is no event and stays; 2 it can't work here: a setting,
the file, the arguments; 3 no room, or the file is busy: what was not told as replayed is where it was.
"""

import argparse
import json
import sqlite3
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from linewatch_forwarder.arrivals import arrival
from linewatch_forwarder.streams.ledger import Ledger
from linewatch_forwarder.streams.port import DeadLetter
from linewatch_forwarder.streams.settings import FILES, StreamSettings
from linewatch_runtime.mqtt import Message
from linewatch_runtime.records import SpoolDamaged, SpoolFull, StreamLimit
from linewatch_runtime.settings import EXIT_BAD_SETTINGS, load, service_settings
from linewatch_runtime.spool import BURIED_KEPT, Spool

EXIT_NOT_ALL = 1
EXIT_BUSY = 3

LISTED = 20


class _Settings(StreamSettings):
    """Of the forwarder's settings those of its streams: dead letters can be read whatever is wrong with the uplink."""

    model_config = service_settings("FORWARDER_")


@dataclass(frozen=True, slots=True)
class Drawer:
    """Where the dead letters lie. `newest` gives the youngest first; `replay` returns how many it put back."""

    newest: Callable[[int], list[DeadLetter]]
    replay: Callable[[Collection[int]], int]
    close: Callable[[], None]

    def find(self, number: int) -> DeadLetter | None:
        """The one with this number; None when there is none."""
        return next((one for one in self.newest(BURIED_KEPT) if one.number == number), None)


def open_drawer(settings: StreamSettings) -> Drawer:
    """The forwarder's own, while it may be running.

    Raises:
        SpoolDamaged: there is no such file, or it can't be read.
    """
    path = settings.state_dir / FILES[settings.streams]
    if not path.exists():  # opening would make one
        raise SpoolDamaged(
            f"{path}: there is no such file; ask where the forwarder runs, as with docker exec linewatch-forwarder"
        )
    limit = StreamLimit(settings.stream_max_bytes, settings.stream_max_age_s, settings.when_full)
    if settings.streams == "stream_manager":
        ledger = Ledger(path, limit, settings.file_max_bytes)
        return Drawer(ledger.dead_letters, ledger.replay, ledger.close)
    spool = Spool(path, limit, settings.file_max_bytes, heals=False)

    def newest(most: int) -> list[DeadLetter]:
        return [DeadLetter(number, record, reason) for number, record, reason in spool.buried(most)]

    return Drawer(newest, spool.replay, spool.close)


def list_letters(drawer: Drawer, limit: int, *, as_json: bool) -> int:
    """Tells the newest."""
    letters = drawer.newest(BURIED_KEPT)
    shown = letters[:limit]
    if as_json:
        print(json.dumps({"count": len(letters), "dead_letters": [_facts(one) for one in shown]}))
        return 0
    if not letters:
        print("no dead letters")
        return 0
    print(f"{len(shown)} of {len(letters)} dead letters, newest first:")
    for one in shown:
        print(
            f"{one.number:>7}  {_plain(one.record.event_id):36}  {_plain(one.record.stream)}  {_plain(one.reason)}"
        )
    return 0


def show(drawer: Drawer, number: int, *, as_json: bool) -> int:
    """Tells one, with what it says."""
    letter = drawer.find(number)
    if letter is None:
        return _missing(number)
    try:
        event: object = json.loads(letter.record.payload)
    except (ValueError, RecursionError):
        event = letter.record.payload.decode(errors="backslashreplace")
    facts = _facts(letter) | {"event": event}
    print(json.dumps(facts, indent=None if as_json else 2))
    return 0


def replay(drawer: Drawer, numbers: Sequence[int], *, as_json: bool) -> int:
    """Puts them back, oldest first, one by one: each line told is done, whatever comes after it. None named: all."""
    known = {one.number: one for one in drawer.newest(BURIED_KEPT)}
    replayed: list[int] = []
    stay: dict[int, str] = {}
    is_busy = False
    for number in sorted(set(numbers or known)):
        try:
            why = _put_back(drawer, number, known.get(number))
        except SpoolFull as error:
            why, is_busy = f"no room: {error}", True
        except sqlite3.OperationalError as error:
            why, is_busy = f"the file is busy: {error}; try again", True
        if why:
            stay[number] = why
        else:
            replayed.append(number)
        if not as_json:
            print(f"{number:>7}  {_plain(why) or 'on its way again'}", file=sys.stderr if why else sys.stdout)
        if is_busy:
            return _replayed(replayed, stay, EXIT_BUSY, as_json=as_json)
    return _replayed(replayed, stay, EXIT_NOT_ALL if stay else 0, as_json=as_json)


def _put_back(drawer: Drawer, number: int, letter: DeadLetter | None) -> str:
    """Why it was not put back; empty when it was."""
    if letter is None:
        return "there is no dead letter with this number"
    judged = arrival(Message(letter.record.topic, letter.record.payload, 1, 0, False, {}, 0))
    if judged.reason:  # the cloud would only call it poison
        return f"it is no event and stays: {judged.reason}"
    return "" if drawer.replay([number]) else "it is gone, its event waits already, or its bytes are damaged"


def _replayed(replayed: list[int], stay: dict[int, str], code: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"replayed": replayed, "not_replayed": stay}))
    elif not replayed and not stay:
        print("no dead letters")
    return code


def _facts(letter: DeadLetter) -> dict[str, object]:
    record = letter.record
    return {
        "number": letter.number, "event_id": record.event_id, "stream": record.stream, "topic": record.topic,
        "class": "alarm" if record.alarm else "routine", "bytes": len(record.payload), "reason": letter.reason,
    }  # fmt: skip


def _missing(number: int) -> int:
    print(f"there is no dead letter {number}; `list` tells those that there are", file=sys.stderr)
    return EXIT_NOT_ALL


def _plain(text: str) -> str:
    """What came from outside may hold what moves a terminal's cursor."""
    return "".join(one if one.isprintable() else "�" for one in text)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="linewatch_forwarder.dead_letters",
        description="Events that could not be delivered and lie aside on this device.",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of text")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the newest, with the reasons")
    listing.add_argument("--limit", type=int, default=LISTED, help=f"how many at most; {LISTED} unless told")
    showing = commands.add_parser("show", help="one, with the whole event")
    showing.add_argument("number", type=int)
    replaying = commands.add_parser("replay", help="put them back, to be delivered")
    which = replaying.add_mutually_exclusive_group(required=True)
    which.add_argument("numbers", type=int, nargs="*", default=[])
    which.add_argument("--all", action="store_true")
    for one in (listing, showing, replaying):
        one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    asked = _arguments(arguments)
    settings = load(_Settings, is_whole=False)
    try:
        drawer = open_drawer(settings)
    except SpoolDamaged as error:
        print(f"FORWARDER_STATE_DIR: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    try:
        if asked.command == "list":
            return list_letters(drawer, asked.limit, as_json=asked.json)
        if asked.command == "show":
            return show(drawer, asked.number, as_json=asked.json)
        return replay(drawer, asked.numbers, as_json=asked.json)
    except sqlite3.OperationalError as error:
        print(f"FORWARDER_STATE_DIR: {settings.state_dir}: {error}; try again", file=sys.stderr)
        return EXIT_BUSY
    finally:
        drawer.close()


if __name__ == "__main__":
    sys.exit(main())
