# SPDX-License-Identifier: Apache-2.0
"""A new spool file from the rows of a damaged one: which of them are good, and what is missing.

A row with a CRC is good when the CRC holds; one of an older release when it has the shape of an event. Fills are counted
anew. What was lost is the difference to the count that the damaged file kept.
"""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from linewatch_runtime.records import ROW_OVERHEAD, Record
from linewatch_runtime.spool_file import ADDED, bring_up_to_date
from linewatch_runtime.spool_pages import Pages, Reader, Row, Value, shape, usual_roots

DAMAGED = "damaged on disk"
"""Why an event is buried whose bytes are not those that were stored."""

UNKNOWN = "unknown"
"""Stands for the streams when not even their names could be read: one drop of `damaged_unknown` is one such file."""

_TABLES = ("numbers", "counts", "streams", "marks", "settled", "buried", "events", "sqlite_sequence")


@dataclass(slots=True)
class Salvaged:
    """What came out of a damaged file.

    Attributes:
        events: rows that are in the new file.
        set_aside: rows whose CRC failed; buried.
        lost: stream -> events that were there by the count and are not now, those set aside among them. None: the
            counts could not be read either.
    """

    events: int = 0
    set_aside: int = 0
    lost: dict[str, int] | None = None


def build(path: Path, building: Path) -> Salvaged:
    """Makes the file `building` from what can be read at `path`, which is only read. Not yet synced."""
    with contextlib.closing(sqlite3.connect(building, isolation_level=None)) as db, Pages(path) as pages:
        # Nobody trusts this file before it is complete and synced.
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        bring_up_to_date(db)
        schema = Path(__file__).with_name("spool.sql").read_text()
        filling = _Filling(db, Reader(pages, usual_roots(schema)))
        db.execute("BEGIN")
        filling.all()
        db.execute("COMMIT")
        return filling.result


class _Filling:
    """The new file, row by row."""

    def __init__(self, db: sqlite3.Connection, reader: Reader) -> None:
        self._db = db
        self._reader = reader
        self._fills: dict[str, int] | None = None
        self.result = Salvaged()

    def all(self) -> None:
        """Small tables, then the events, then what hung from a damaged page; the counts of the result last."""
        for table, keep in (
            ("numbers", self._number), ("counts", self._count), ("streams", self._stream), ("marks", self._mark),
            ("settled", self._settled), ("buried", self._buried), ("sqlite_sequence", self._sequence),
            ("events", self._event),
        ):  # fmt: skip
            self._each(self._reader.rows(table), keep)
        for index in usual_roots(Path(__file__).with_name("spool.sql").read_text()):
            if index not in _TABLES:
                self._reader.claim(index)
        self._each(self._reader.left_over(), self._left_over)
        self._close_the_books()

    def _each(self, rows: Iterable[tuple[int, Row]], keep: Callable[[int, Row], bool]) -> None:
        for row_id, row in rows:
            if not keep(row_id, row):
                self._reader.flaws += 1

    def _number(self, _: int, row: Row) -> bool:
        if shape(row) != "ti":
            return False
        return self._do("INSERT OR IGNORE INTO numbers VALUES (?, ?)", row)

    def _count(self, _: int, row: Row) -> bool:
        return shape(row) == "tti" and self._do("INSERT OR IGNORE INTO counts VALUES (?, ?, ?)", row)

    def _stream(self, _: int, row: Row) -> bool:
        if shape(row) != "tii":
            return False
        self._fills = (self._fills or {}) | {str(row[0]): int(row[1] or 0)}
        return self._do("INSERT OR IGNORE INTO streams VALUES (?, 0, 0)", row[:1])

    def _mark(self, _: int, row: Row) -> bool:
        return shape(row) == "tt" and self._do("INSERT OR IGNORE INTO marks VALUES (?, ?)", row)

    def _settled(self, row_id: int, row: Row) -> bool:
        return shape(row) == "nt" and self._do(
            "INSERT OR IGNORE INTO settled (number, event_id) VALUES (?, ?)", (row_id, row[1])
        )

    def _buried(self, row_id: int, row: Row) -> bool:
        if shape(row[:6]) != "nttttb" or len(row) > 6 + len(ADDED["buried"]):
            return False
        alarm, crc = (*row[6:], None, None)[:2]
        return self._do(
            "INSERT OR IGNORE INTO buried (number, event_id, stream, topic, reason, payload, alarm, crc)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (row_id, *row[1:6], alarm, crc),
        )

    def _sequence(self, _: int, row: Row) -> bool:
        if shape(row) != "ti" or row[0] not in {"events", "settled", "buried"}:
            return False
        self._do("DELETE FROM sqlite_sequence WHERE name = ?", row[:1])
        return self._do("INSERT INTO sqlite_sequence VALUES (?, ?)", row)

    def _event(self, row_id: int, row: Row) -> bool:
        if shape(row[:7]) not in {"ntttifb", "ntttiib"} or len(row) > 7 + len(ADDED["events"]):
            return False
        _, event_id, stream, topic, alarm, stored_at, payload, crc = (*row, None)[:8]
        assert isinstance(payload, bytes)
        record = Record(str(event_id), str(stream), str(topic), payload, alarm=bool(alarm))
        if crc is not None and (crc != record.crc or alarm not in (0, 1)):
            self._set_aside(record, crc)
            return False
        statement = (
            "INSERT OR IGNORE INTO events (position, event_id, stream, topic, alarm, stored_at, payload, crc)"
            " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE NOT EXISTS (SELECT 1 FROM settled WHERE event_id = ?2)"
        )
        values = (event_id, stream, topic, int(record.alarm), stored_at, payload, crc)
        if not self._db.execute(statement, (row_id, *values)).rowcount:
            # Here already, or settled; or its position was damaged and is another's: then it comes last.
            self._db.execute(statement, (None, *values))
        return True

    def _set_aside(self, record: Record, crc: Value) -> None:
        self.result.set_aside += 1
        self._do(
            "INSERT INTO buried (event_id, stream, topic, reason, payload, alarm, crc) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (record.event_id, record.stream, record.topic, DAMAGED, record.payload, int(record.alarm), crc),
        )

    def _left_over(self, row_id: int, row: Row) -> bool:
        return self._event(row_id, row) or self._buried(row_id, row) or self._settled(row_id, row)

    def _close_the_books(self) -> None:
        """Fills from the rows, and the loss by the count that the damaged file kept."""
        self._do(
            "INSERT INTO streams SELECT stream, count(*), sum(length(payload) + ?) FROM events WHERE true GROUP BY stream"
            " ON CONFLICT (stream) DO UPDATE SET events = excluded.events, bytes = excluded.bytes",
            (ROW_OVERHEAD,),
        )
        now = dict(self._db.execute("SELECT stream, events FROM streams"))
        self.result.events = sum(now.values())
        if self._fills is None and not self.result.events:
            self._fills = {} if not self._reader.flaws else None
        lost = Counter[str]()
        if self._reader.flaws:  # else every row was read, and a count or an index was what was wrong
            for stream, events in (self._fills or {}).items():
                if events > now.get(stream, 0):
                    lost[stream] = events - now.get(stream, 0)
        self.result.lost = dict(lost) if self._fills is not None else None
        told = [(stream, "damaged", count) for stream, count in lost.items()]
        if self.result.lost is None:
            told.append((UNKNOWN, "damaged_unknown", 1))
            self._do("INSERT OR IGNORE INTO streams VALUES (?, 0, 0)", (UNKNOWN,))
        for stream, reason, count in told:
            for name in (f"dropped:{reason}", f"unreported:{reason}"):
                self._add(stream, name, count)
        self._add("", "salvages", 1)
        # The clock may not go back behind what was stored, nor the epoch behind what was told.
        self._do(
            "INSERT INTO numbers SELECT 'clock_ms', CAST(coalesce(max(stored_at), 0) * 1000 AS INTEGER) FROM events"
            " WHERE true ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)", (),
        )  # fmt: skip

    def _add(self, stream: str, name: str, amount: int) -> None:
        self._do(
            "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT (stream, name) DO UPDATE SET value = value + excluded.value",
            (stream, name, amount),
        )

    def _do(self, statement: str, values: Row) -> bool:
        self._db.execute(statement, values)
        return True
