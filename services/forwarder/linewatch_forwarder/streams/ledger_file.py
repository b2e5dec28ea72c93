# SPDX-License-Identifier: Apache-2.0
"""The ledger's file: how it is opened and written, its clock, and the steps that its transactions are made of.

Guarantee: one transaction for each change, on disk when it returns (WAL, synchronous=FULL).
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linewatch_runtime import spool_numbers
from linewatch_runtime.records import Record, SpoolDamaged, SpoolFull, StreamLimit
from linewatch_runtime.spool import SETTLED_KEPT
from linewatch_runtime.spool_file import volume_full

PAGE_BYTES = 4096

RESERVED_BYTES = 16 * 1024 * 1024
"""Of the file, kept from new events, at most a quarter of the cap: settling remembers ids and needs pages before it
frees any."""

SCHEMA_VERSION = 1


class LedgerFile:
    """One SQLite file. Use it from one thread only."""

    def __init__(self, path: Path, limit: StreamLimit, file_max_bytes: int = 256 * 1024 * 1024) -> None:
        """Opens or makes the file.

        Raises:
            SpoolDamaged: it can't be read.
        """
        self.limit = limit
        pages = file_max_bytes // PAGE_BYTES
        self._event_pages = pages - min(RESERVED_BYTES // PAGE_BYTES, pages // 4)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        except sqlite3.OperationalError as error:
            raise (
                volume_full(path, error)
                or SpoolDamaged(f"{path}: {error}; the directory must be there and writable")
            ) from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            # FULL: under NORMAL a settled row can come back in a power cut, and a drop can be told twice.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA max_page_count = {pages}")
            self._db.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
            self._db.executescript(Path(__file__).with_name("ledger.sql").read_text())
            if self._db.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise (volume_full(path, error) or SpoolDamaged(f"{path}: {error}")) from error
        self._opened_at = time.monotonic()
        self._clock_base = spool_numbers.kept_clock(self._db)

    def close(self) -> None:
        """Folds the log into the file and closes it."""
        self._db.close()

    def next_epoch(self) -> int:
        """A number above that of every earlier start; a new file begins at the unix seconds, as a spool does."""
        with self._transaction():
            return spool_numbers.next_epoch(self._db)

    @property
    def is_full(self) -> bool:
        """Whether no further event should come in."""
        used, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        )
        return int(used) - int(free) > self._event_pages

    def clock(self) -> float:
        """Seconds that processes have had this file open, in total; never jumps."""
        return self._clock_base + time.monotonic() - self._opened_at

    def _knows(self, event_id: str) -> bool:
        return bool(
            self._db.execute(
                "SELECT 1 FROM waiting WHERE event_id = ?1 UNION ALL SELECT 1 FROM settled WHERE event_id = ?1",
                (event_id,),
            ).fetchone()
        )

    def _hold(self, record: Record, counted_as: str = "stored") -> None:
        self._db.execute(
            "INSERT INTO waiting (event_id, stream, alarm, stored_at, size, topic, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (record.event_id, record.stream, record.alarm, self.clock(), record.size, record.topic, record.payload),
        )  # fmt: skip
        self._fill(record.stream, 1, record.size)
        self._count(record.stream, counted_as, 1)

    def _drop(self, event_id: str, reason: str) -> None:
        stream = self._remove(event_id)
        if stream is not None:
            self._count_drop(stream, reason)

    def _count_drop(self, stream: str, reason: str) -> None:
        self._count(stream, f"dropped:{reason}", 1)
        self._count(stream, f"unreported:{reason}", 1)

    def _remove(self, event_id: str) -> str | None:
        row = self._db.execute(
            "DELETE FROM waiting WHERE event_id = ? RETURNING stream, size", (event_id,)
        ).fetchone()
        if row is None:
            return None
        self._fill(row[0], -1, -row[1])
        return str(row[0])

    def _remember(self, event_id: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO settled (event_id) VALUES (?)", (event_id,))

    def _trim(self) -> None:
        self._db.execute(
            "DELETE FROM settled WHERE number <= (SELECT max(number) FROM settled) - ?", (SETTLED_KEPT,)
        )

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

    def _keep_clock(self) -> None:
        spool_numbers.keep_clock(self._db, self.clock())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE … COMMIT, which returns when the log is on disk. Raises SpoolFull; nothing changed then."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise SpoolFull(
                    "the ledger", "the disk, or the file's own cap, is full; free some space"
                ) from error
            raise
