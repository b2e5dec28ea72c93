# SPDX-License-Identifier: Apache-2.0
"""The durable memory of an edge process: events that the next hop does not have yet.

Guarantee: `append` returns once its rows are on disk (WAL, synchronous=FULL, one transaction = one group commit), and
a row leaves only through `settle` (the next hop has it), `bury` (it never will, with a reason) or a drop that the
stream's policy asks for and that is counted in the same transaction. A kill or a power cut at any point delivers an
event at least once; `event_id` makes the repeat harmless at the next hop. Not covered: loss of the disk.

Full: a stream holds at most `max_bytes` (payload plus ROW_OVERHEAD). At the limit `WhenFull` decides who loses.
    reject            `append` raises SpoolFull; the caller holds, and the hop before it fills.
    shed_good         the oldest routine events go; when only alarms are left, as `reject`.
    overwrite_oldest  the oldest events go, alarms too.
Age: events older than `max_age_s` expire. Age is counted by the spool clock, which runs while the process runs and is
kept in the file, so a wall clock that jumps by a year expires nothing.
Order: `oldest` gives alarms before routine events, each in the order of arrival.

Proved by: runtime/tests/test_spool.py, tests/faults/test_kills.py.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from linewatch_runtime.records import (
    ROW_OVERHEAD,
    DropReport,
    Record,
    SpoolDamaged,
    SpoolFull,
    Stored,
    StreamLimit,
    StreamState,
    WhenFull,
)

SETTLED_KEPT = 20_000
"""Ids of settled events that are remembered; far more than any producer has in flight (PUBLISH_WINDOW)."""

BURIED_KEPT = 1_000

PAGE_BYTES = 4096

RESERVED_BYTES = 16 * 1024 * 1024
"""Of the file, kept from `append`, at most a quarter of the cap: settling remembers ids and needs pages before it frees
any. Without it a full file whose alarms leave first stayed full for ever."""

LATEST_FIRST_EPOCH = 0xF000_0000
"""A broken clock must leave the counter room to rise within 32 bits."""

SCHEMA_VERSION = 1
"""Of spool.sql, kept in the file. A file of a newer release is opened all the same: releases only add."""

_ALL = ""  # the row of `counts` that belongs to no stream

__all__ = [
    "ROW_OVERHEAD", "DropReport", "Record", "Spool", "SpoolDamaged", "SpoolFull", "SpoolWorker", "Stored",
    "StreamLimit", "StreamState", "WhenFull",
]  # fmt: skip


class Spool:
    """One SQLite file. Use it from one thread only (SpoolWorker)."""

    def __init__(
        self, path: Path, limit: StreamLimit | None = None, file_max_bytes: int = 256 * 1024 * 1024
    ) -> None:
        """Opens or makes the file.

        Args:
            path: the file; its directory must exist.
            limit: for each stream.
            file_max_bytes: cap of the file itself. Keep it well below the volume: a SQLite file on a disk that is
                really full can neither append nor delete.

        Raises:
            SpoolDamaged: the file is no spool, or a page of it can't be read.
        """
        self.limit = limit or StreamLimit()
        pages = file_max_bytes // PAGE_BYTES
        self._append_pages = pages - min(RESERVED_BYTES // PAGE_BYTES, pages // 4)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        except sqlite3.OperationalError as error:
            raise SpoolDamaged(f"{path}: {error}; the directory must be there and writable") from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            # FULL: under NORMAL a committed row can vanish in a power cut.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA max_page_count = {pages}")
            self._db.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
            self._db.executescript(Path(__file__).with_name("spool.sql").read_text())
            if self._db.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise SpoolDamaged(
                f"{path}: {error}; move the file away to start a new one, and keep it"
            ) from error
        self._opened_at = time.monotonic()
        self._clock_base = self._number("clock_ms") / 1000

    def close(self) -> None:
        """Folds the log into the file and closes it."""
        self._db.close()

    def append(
        self, records: Sequence[Record], counts: Mapping[str, int] | None = None,
        marks: Iterable[tuple[str, str]] = (),
    ) -> int:  # fmt: skip
        """Puts the records on disk, all or none, with the counts and the marks (source, mark) in the same transaction.

        Returns:
            How many were new. The others were known: stored before, or settled not long ago.

        Raises:
            SpoolFull: no room by the stream's policy, or no room on the disk.
        """
        with self._transaction(records[0].stream if records else _ALL):
            new = sum(self._insert(record) for record in records)
            for name, amount in (counts or {}).items():
                self._count(_ALL, name, amount)
            self._db.executemany("INSERT OR IGNORE INTO marks VALUES (?, ?)", marks)
            self._keep_clock()
            if new and self._used_pages() > self._append_pages:
                raise SpoolFull(records[0].stream, "the file's cap is reached, over all streams")
        return new

    def oldest(
        self, limit: int, *, by_class: bool = True, after: int = 0, except_streams: Sequence[str] = ()
    ) -> list[Stored]:
        """The next events to deliver: alarms first, then by position. `by_class=False`: by position alone."""
        order = "alarm DESC, position" if by_class else "position"
        skipped = ", ".join("?" * len(except_streams))
        rows = self._db.execute(
            f"SELECT position, event_id, stream, topic, payload, alarm, stored_at FROM events"  # noqa: S608
            f" WHERE position > ? AND stream NOT IN ({skipped}) ORDER BY {order} LIMIT ?",
            (after, *except_streams, limit),
        )
        now = self.clock()
        return [
            Stored(position, Record(event_id, stream, topic, payload, bool(alarm)), max(0.0, now - stored_at))
            for position, event_id, stream, topic, payload, alarm, stored_at in rows
        ]

    def settle(self, event_ids: Iterable[str]) -> int:
        """Lets events go that the next hop has. Returns how many were here; the others had left before."""
        with self._transaction(_ALL):
            gone = 0
            for event_id in event_ids:
                stream = self._remove(event_id)
                if stream is not None:
                    self._count(stream, "settled", 1)
                    self._db.execute("INSERT OR IGNORE INTO settled (event_id) VALUES (?)", (event_id,))
                    gone += 1
            self._db.execute(
                "DELETE FROM settled WHERE number <= (SELECT max(number) FROM settled) - ?", (SETTLED_KEPT,)
            )
            self._keep_clock()
        return gone

    def bury(self, record: Record, reason: str) -> None:
        """Puts an event aside that can never be delivered; it need not have been stored before."""
        with self._transaction(record.stream):
            self._remove(record.event_id)
            self._db.execute(
                "INSERT INTO buried (event_id, stream, topic, reason, payload) VALUES (?, ?, ?, ?, ?)",
                (record.event_id, record.stream, record.topic, reason, record.payload),
            )
            self._db.execute(
                "DELETE FROM buried WHERE number <= (SELECT max(number) FROM buried) - ?", (BURIED_KEPT,)
            )
            self._db.execute("INSERT OR IGNORE INTO settled (event_id) VALUES (?)", (record.event_id,))
            self._count(record.stream, "buried", 1)

    def buried(self, limit: int = BURIED_KEPT) -> list[tuple[Record, str]]:
        """What was buried, newest first, with the reasons."""
        rows = self._db.execute(
            "SELECT event_id, stream, topic, payload, reason FROM buried ORDER BY number DESC LIMIT ?",
            (limit,),
        )
        return [(Record(*row[:4]), row[4]) for row in rows]

    def expire(self) -> int:
        """Drops events older than the limit's age, counted as `expired`. Returns how many."""
        with self._transaction(_ALL):
            rows = self._db.execute(
                "SELECT event_id, stream FROM events WHERE stored_at < ?",
                (self.clock() - self.limit.max_age_s,),
            ).fetchall()
            for event_id, _ in rows:
                self._drop(event_id, "expired")
            self._keep_clock()
        return len(rows)

    def take_unreported_drops(self, make: DropReport) -> int:
        """Turns drops that nobody upstream was told of into one event for each (stream, reason).

        Counter and event change in one transaction, so that a drop is told once. Returns how many events were made.
        """
        with self._transaction(_ALL):
            rows = self._db.execute(
                "SELECT stream, name, value FROM counts WHERE name LIKE 'unreported:%' AND value > 0"
            ).fetchall()
            for stream, name, value in rows:
                self._store(make(stream, name.partition(":")[2], value))
                self._db.execute("UPDATE counts SET value = 0 WHERE stream = ? AND name = ?", (stream, name))
        return len(rows)

    def counts(self, stream: str = _ALL) -> dict[str, int]:
        """What was counted, by name; without a stream, the caller's own counts."""
        return dict(self._db.execute("SELECT name, value FROM counts WHERE stream = ?", (stream,)))

    def marks(self, source: str) -> set[str]:
        """The marks of a source."""
        return {row[0] for row in self._db.execute("SELECT mark FROM marks WHERE source = ?", (source,))}

    def forget(self, source: str, marks: Iterable[str]) -> None:
        """Takes marks of a source away."""
        with self._transaction(_ALL):
            self._db.executemany(
                "DELETE FROM marks WHERE source = ? AND mark = ?", [(source, mark) for mark in marks]
            )

    def streams(self) -> list[StreamState]:
        """Every stream that was ever used, by name."""
        now = self.clock()
        states = []
        for name, events, used in self._db.execute(
            "SELECT stream, events, bytes FROM streams ORDER BY stream"
        ).fetchall():
            first = self._db.execute(
                "SELECT min(stored_at) FROM events WHERE stream = ?", (name,)
            ).fetchone()[0]
            counts = self.counts(name)
            dropped = {
                key.partition(":")[2]: value for key, value in counts.items() if key.startswith("dropped:")
            }
            states.append(
                StreamState(
                    name,
                    events,
                    used,
                    self.limit.max_bytes,
                    max(0.0, now - first) if first is not None else 0.0,
                    counts.get("stored", 0),
                    counts.get("settled", 0),
                    counts.get("buried", 0),
                    dropped,
                )
            )
        return states

    def next_epoch(self) -> int:
        """A number above that of every earlier start: a counter kept in the file, one more at each start.

        A new file begins at the unix seconds of its first start, so that it is also above what a lost file had: the
        cloud orders by (epoch, sequence). Only there does the wall clock matter.
        """
        with self._transaction(_ALL):
            epoch = (self._number("epoch") or max(0, min(int(time.time()), LATEST_FIRST_EPOCH))) + 1
            self._set_number("epoch", epoch)
        return epoch

    def clock(self) -> float:
        """Seconds that processes have had this file open, in total; never jumps. A kill loses what passed since the
        last commit.
        """
        return self._clock_base + time.monotonic() - self._opened_at

    def _insert(self, record: Record) -> bool:
        known = self._db.execute(
            "SELECT 1 FROM events WHERE event_id = ?1 UNION ALL SELECT 1 FROM settled WHERE event_id = ?1",
            (record.event_id,),
        ).fetchone()
        if known:
            return False
        self._make_room(record)
        self._store(record)
        return True

    def _store(self, record: Record) -> None:
        self._db.execute(
            "INSERT INTO events (event_id, stream, topic, payload, alarm, stored_at) VALUES (?, ?, ?, ?, ?, ?)",
            (record.event_id, record.stream, record.topic, record.payload, record.alarm, self.clock()),
        )
        self._fill(record.stream, 1, record.size)
        self._count(record.stream, "stored", 1)

    def _make_room(self, record: Record) -> None:
        row = self._db.execute("SELECT bytes FROM streams WHERE stream = ?", (record.stream,)).fetchone()
        excess = (row[0] if row else 0) + record.size - self.limit.max_bytes
        if excess <= 0:
            return
        policy = self.limit.when_full
        if record.size > self.limit.max_bytes or policy is WhenFull.REJECT:
            raise SpoolFull(record.stream, f"its {self.limit.max_bytes} bytes are used")
        shed = policy is WhenFull.SHED_GOOD
        # One part per class, merged: each part comes in the index's order, so that only the victims are read.
        of_class = "SELECT event_id, length(payload), position FROM events WHERE stream = ?1 AND alarm = "
        rows = self._db.execute(
            of_class + ("0" if shed else f"0 UNION ALL {of_class}1") + " ORDER BY position", (record.stream,)
        )
        victims = []
        for event_id, length, _ in rows:
            if excess <= 0:
                break
            victims.append(event_id)
            excess -= length + ROW_OVERHEAD
        if excess > 0:
            raise SpoolFull(
                record.stream, f"its {self.limit.max_bytes} bytes are used by alarms, which are never shed"
            )
        for event_id in victims:
            self._drop(event_id, "shed_good" if shed else "overwritten")

    def _drop(self, event_id: str, reason: str) -> None:
        stream = self._remove(event_id)
        if stream is not None:
            self._count(stream, f"dropped:{reason}", 1)
            self._count(stream, f"unreported:{reason}", 1)

    def _remove(self, event_id: str) -> str | None:
        row = self._db.execute(
            "DELETE FROM events WHERE event_id = ? RETURNING stream, length(payload)", (event_id,)
        ).fetchone()
        if row is None:
            return None
        self._fill(row[0], -1, -(row[1] + ROW_OVERHEAD))
        return str(row[0])

    def _used_pages(self) -> int:
        pages, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        )
        return int(pages) - int(free)

    def _fill(self, stream: str, events: int, size: int) -> None:
        self._db.execute(
            "INSERT INTO streams VALUES (?1, ?2, ?3)"
            " ON CONFLICT (stream) DO UPDATE SET events = events + ?2, bytes = bytes + ?3",
            (stream, events, size),
        )

    def _count(self, stream: str, name: str, amount: int) -> None:
        self._db.execute(
            "INSERT INTO counts VALUES (?1, ?2, ?3) ON CONFLICT (stream, name) DO UPDATE SET value = value + ?3",
            (stream, name, amount),
        )

    def _number(self, name: str) -> int:
        row = self._db.execute("SELECT value FROM numbers WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def _set_number(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO numbers VALUES (?, ?)", (name, value))

    def _keep_clock(self) -> None:
        self._set_number("clock_ms", int(self.clock() * 1000))

    def _transaction(self, stream: str) -> "_Transaction":
        return _Transaction(self._db, stream)


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT. COMMIT returns when the log is on disk: that line keeps the guarantee of `append`."""

    def __init__(self, db: sqlite3.Connection, stream: str) -> None:
        self._db = db
        self._stream = stream

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._db.execute("COMMIT")
                return
            except sqlite3.OperationalError as failed:
                error = failed
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise SpoolFull(
                self._stream, "the disk, or the file's own cap, is full; free some space"
            ) from error
        if kind is None:
            raise error


Result = TypeVar("Result")


class SpoolWorker:
    """The one thread that touches a spool's file; the event loop never waits for the disk."""

    def __init__(self, make: Callable[[], Spool]) -> None:
        """Opens the spool in its thread. Raises what `make` raises."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        try:
            self.spool = self._thread.submit(make).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """The function's result, run in the spool's thread, one at a time in the order of the calls."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*arguments))

    def close(self) -> None:
        """Waits for what was asked, then closes the file."""
        self._thread.submit(self.spool.close).result()
        self._thread.shutdown()
