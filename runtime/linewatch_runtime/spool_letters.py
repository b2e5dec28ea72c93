# SPDX-License-Identifier: Apache-2.0
"""Dead letters: events that can never be delivered, kept with the reason for a person, who may put them back."""

import sqlite3

from linewatch_runtime.records import Record
from linewatch_runtime.spool_file import Change
from linewatch_runtime.spool_room import count_drop


def put(db: sqlite3.Connection, change: Change, record: Record, reason: str, crc: int, kept: int) -> None:
    """Keeps the event; with more than `kept` the oldest goes, counted as `dead_letters_full`."""
    db.execute(
        "INSERT INTO buried (event_id, stream, topic, reason, payload, alarm, crc) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (record.event_id, record.stream, record.topic, reason, record.payload, record.alarm, crc),
    )
    gone = db.execute(
        "DELETE FROM buried WHERE number <= (SELECT number FROM buried ORDER BY number DESC LIMIT 1 OFFSET ?)"
        " RETURNING stream",
        (kept,),
    ).fetchall()
    for (stream,) in gone:
        count_drop(change, stream, "dead_letters_full")


def newest(db: sqlite3.Connection, limit: int) -> list[tuple[int, Record, str]]:
    """Number, event, reason."""
    rows = db.execute(
        "SELECT number, event_id, stream, topic, payload, alarm, reason FROM buried ORDER BY number DESC LIMIT ?",
        (limit,),
    )
    return [(row[0], _record(row[1:6]), row[6]) for row in rows]


def take(db: sqlite3.Connection, number: int) -> Record | None:
    """The event, no longer buried and no longer known; None when there is none, or it is damaged."""
    row = db.execute(
        "SELECT event_id, stream, topic, payload, alarm, crc FROM buried WHERE number = ?", (number,)
    ).fetchone()
    if row is None:
        return None
    record = _record(row[:5])
    if row[5] is not None and row[5] != record.crc:
        return None  # not the bytes that were stored: they never travel
    db.execute("DELETE FROM buried WHERE number = ?", (number,))
    db.execute("DELETE FROM settled WHERE event_id = ?", (record.event_id,))
    return record


def _record(row: tuple[str, str, str, bytes, int | None]) -> Record:
    # An older release kept no class. What can't be read as routine is an alarm.
    return Record(*row[:4], alarm=row[4] != 0)
