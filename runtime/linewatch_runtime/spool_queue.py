# SPDX-License-Identifier: Apache-2.0
"""What comes next out of a spool: the order, and that every row is the one that went in.

Cost: by the rows asked for and the number of streams, never by the backlog.
"""

import heapq
import itertools
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from linewatch_runtime.records import Record, StreamLimit, StreamState
from linewatch_runtime.spool_file import Inconsistent

Row = tuple[int, Record, float, bool]
"""position, record, stored_at, sound: its CRC holds, or it is of an older release and has none"""

NO_TEXT = "\N{REPLACEMENT CHARACTER}"
"""Stands where the disk holds no UTF-8 any more."""

_ROW = "position, event_id, stream, topic, payload, alarm, stored_at, crc"


def oldest(
    db: sqlite3.Connection, limit: int, *, by_class: bool, after: int, except_streams: Collection[str]
) -> list[Row]:
    """The next rows.

    Raises:
        Inconsistent: an index leaves rows out; the file has to be built anew.
    """
    if except_streams:
        rows = _of_streams(db, limit, by_class=by_class, after=after, except_streams=except_streams)
    elif by_class:
        rows = _of_classes(db, limit, after)
    else:
        rows = db.execute(
            f"SELECT {_ROW} FROM events WHERE position > ? ORDER BY position LIMIT ?",  # noqa: S608
            (after, limit),
        ).fetchall()
    found = [_checked(row) for row in rows]
    _check_ids(db, found)
    if len(found) < limit and not after:
        _check_count(db, len(found), except_streams)
    return found


def _checked(row: Sequence[object]) -> Row:
    position, event_id, stream, topic, payload, alarm, stored_at, crc = row
    if not (isinstance(position, int) and isinstance(payload, bytes) and isinstance(stored_at, int | float)):
        raise Inconsistent("a row of events has values of other types")
    record = Record(str(event_id), str(stream), str(topic), payload, bool(alarm))
    sound = crc == record.crc if crc is not None else NO_TEXT not in f"{event_id}{stream}{topic}"
    return position, record, stored_at, sound


def _of_classes(db: sqlite3.Connection, limit: int, after: int) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for alarm in (1, 0):
        rows += db.execute(
            f"SELECT {_ROW} FROM events WHERE alarm = ? AND position > ? ORDER BY position LIMIT ?",  # noqa: S608
            (alarm, after, limit - len(rows)),
        ).fetchall()
    return rows


def _of_streams(
    db: sqlite3.Connection, limit: int, *, by_class: bool, after: int, except_streams: Collection[str]
) -> list[tuple[object, ...]]:
    """From each wanted stream's own head: a backlog that rests is not even looked at."""
    wanted = [
        stream
        for (stream,) in db.execute("SELECT stream FROM streams WHERE events > 0").fetchall()
        if stream not in except_streams
    ]

    def heads(alarm: int) -> Iterator[int]:
        statement = "SELECT position FROM events WHERE stream = ? AND alarm = ? AND position > ? ORDER BY position LIMIT ?"
        each = [db.execute(statement, (stream, alarm, after, limit)).fetchall() for stream in wanted]
        return (position for (position,) in heapq.merge(*each))

    merged: Iterable[int]
    merged = itertools.chain(heads(1), heads(0)) if by_class else heapq.merge(heads(1), heads(0))
    chosen = list(itertools.islice(merged, limit))
    marks = ", ".join("?" * len(chosen))
    rows = {
        row[0]: row
        for row in db.execute(f"SELECT {_ROW} FROM events WHERE position IN ({marks})", chosen)  # noqa: S608
    }
    if len(rows) < len(chosen):
        raise Inconsistent("an index of events names rows that are not there")
    return [rows[position] for position in chosen]


def _check_ids(db: sqlite3.Connection, found: Sequence[Row]) -> None:
    """A row that its id does not lead to could never be settled, and would be sent for ever."""
    sound = {record.event_id: position for position, record, _, is_sound in found if is_sound}
    if dict(positions_of(db, list(sound))) != sound:
        raise Inconsistent("the index of event ids does not name every row")


def _check_count(db: sqlite3.Connection, found: int, except_streams: Collection[str]) -> None:
    """Whoever got less than was asked for has all that is there, and then the count has to agree."""
    if found == _counted(db, except_streams):
        return
    with _snapshot(db):  # another process may have written between the two looks
        marks = ", ".join("?" * len(except_streams))
        there = db.execute(
            f"SELECT count(*) FROM events NOT INDEXED WHERE stream NOT IN ({marks})",  # noqa: S608
            (*except_streams,),
        ).fetchone()[0]
        counted = _counted(db, except_streams)
        visible = db.execute("SELECT count(*) FROM events WHERE alarm IN (0, 1)").fetchone()[0]
        rows = db.execute("SELECT count(*) FROM events NOT INDEXED").fetchone()[0]
    if there != counted or visible != rows:
        raise Inconsistent(f"{there} events are there, {counted} were counted")


class _snapshot:  # noqa: N801 - reads like contextlib's own
    """Several reads of one moment."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN")

    def __exit__(self, *_: object) -> None:
        self._db.execute("ROLLBACK")


def _counted(db: sqlite3.Connection, except_streams: Collection[str]) -> int:
    return sum(
        events
        for stream, events in db.execute("SELECT stream, events FROM streams").fetchall()
        if stream not in except_streams
    )


def positions_of(db: sqlite3.Connection, event_ids: Sequence[str]) -> list[tuple[str, int]]:
    """(event id, position) of those that are here."""
    rows: list[tuple[str, int]] = in_chunks(
        db, "SELECT event_id, position FROM events WHERE event_id IN ({})", event_ids
    )
    return rows


def in_chunks(db: sqlite3.Connection, statement: str, values: Sequence[str]) -> list[Any]:
    """The rows of a statement with one list of values, however many they are."""
    rows: list[Any] = []
    for start in range(0, len(values), 500):
        chunk = values[start : start + 500]
        rows += db.execute(statement.format(", ".join("?" * len(chunk))), chunk).fetchall()
    return rows


def states(db: sqlite3.Connection, limit: StreamLimit, now: float) -> list[StreamState]:
    """Every stream that was ever used, by name."""
    counts: dict[str, dict[str, int]] = {}
    for stream, name, value in db.execute("SELECT stream, name, value FROM counts WHERE stream != ''"):
        if isinstance(value, int):
            counts.setdefault(stream, {})[name] = value
    told = []
    for name, events, used in db.execute(
        "SELECT stream, events, bytes FROM streams ORDER BY stream"
    ).fetchall():
        # Rows are stored in the order of the spool clock: the oldest is the first of its class.
        firsts = [
            row[0]
            for alarm in (1, 0)
            for row in db.execute(
                "SELECT stored_at FROM events WHERE stream = ? AND alarm = ? ORDER BY position LIMIT 1",
                (name, alarm),
            )
            if isinstance(row[0], int | float)
        ]
        mine = counts.get(name, {})
        dropped = {key.partition(":")[2]: value for key, value in mine.items() if key.startswith("dropped:")}
        told.append(
            StreamState(
                name, events, used, limit.max_bytes, max(0.0, now - min(firsts, default=now)),
                mine.get("stored", 0), mine.get("settled", 0), mine.get("buried", 0), dropped,
            )
        )  # fmt: skip
    return told
