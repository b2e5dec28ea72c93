# SPDX-License-Identifier: Apache-2.0
"""The spool's file: how it is opened, brought to this release's schema, checked, and changed.

Guarantee: `Change` returns once its rows are on disk (WAL, synchronous=FULL, one transaction = one group commit).
"""

import os
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

from linewatch_runtime.records import SpoolDamaged, SpoolFull, VolumeFull
from linewatch_runtime.spool_wal import PAGE_BYTES, hides_commits

WAL_BYTES = 4 * 1024 * 1024

OPENING_BYTES = 1024 * 1024
"""With less than this free a file that can't be opened is held up by its volume: SQLite needs 32 KiB for the log's
index and some pages of log, and a file system some blocks of its own."""

SCHEMA_VERSION = 2
"""Of spool.sql and ADDED, kept in the file. A file of a newer release is opened all the same: releases only add."""

ADDED = {"events": ("crc",), "buried": ("alarm", "crc")}
"""Columns that came after version 1, all INTEGER and empty in the rows of an older release."""

CHECKED_WHOLE_BYTES = 64 * 1024 * 1024
"""A larger file is not read whole at the start: 1,000,000 events took 1.5 s from memory, and a card reads 25 MB/s. What
is damaged there is found when it is used: SQLite sees a broken page, the row's CRC a broken row, and `oldest` an index
that leaves rows out."""

NEEDED = {
    "numbers": {"name", "value"},
    "events": {"position", "event_id", "stream", "topic", "alarm", "stored_at", "payload", "crc"},
    "settled": {"number", "event_id"},
    "buried": {"number", "event_id", "stream", "topic", "reason", "payload", "alarm", "crc"},
    "streams": {"stream", "events", "bytes"},
    "marks": {"source", "mark"},
    "counts": {"stream", "name", "value"},
}
_SMALL = ("numbers", "streams", "counts", "settled")

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Inconsistent(sqlite3.DatabaseError):
    """SQLite reads the file, but what it reads can't be."""


def is_damage(error: BaseException) -> bool:
    """Whether the file itself is bad. A disk that fails or is full is not: there, trying again helps."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, Inconsistent) or (code is not None and code & 0xFF in _DAMAGE)


def open_file(path: Path, pages: int, *, whole: bool = False) -> sqlite3.Connection:
    """The file, made if it is not there, with this release's schema; `whole`: looked at from end to end.

    Raises:
        sqlite3.DatabaseError: for which `is_damage` holds.
        SpoolDamaged: no file can be opened here at all.
    """
    if hides_commits(path):
        # SQLite would open the file without a word, and leave out what was committed behind the damage.
        raise Inconsistent("its write-ahead log is damaged")
    if _versions(path) not in {b"", b"\1\1", b"\2\2"}:
        raise Inconsistent("its header is damaged")  # SQLite would only call it read-only
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=10)
    except sqlite3.OperationalError as error:
        raise (
            volume_full(path, error)
            or SpoolDamaged(f"{path}: {error}; the directory must be there and writable")
        ) from error
    db.text_factory = _text
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # FULL: under NORMAL a committed row can vanish in a power cut.
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA max_page_count = {pages}")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        bring_up_to_date(db)
        check(db, whole=whole)
    except BaseException as error:
        db.close()
        if isinstance(error, sqlite3.DatabaseError) and not is_damage(error):
            raise (
                volume_full(path, error)
                or SpoolDamaged(f"{path}: {error}; the file and its directory must be writable")
            ) from error
        raise
    return db


def volume_full(path: Path, error: sqlite3.DatabaseError) -> VolumeFull | None:
    """The error, if the file could not be opened because its volume has no room; SQLite tells it as an I/O error, too."""
    try:
        told = os.statvfs(path.parent)
    except OSError:
        return None
    no_names = bool(told.f_files) and not told.f_favail
    if is_damage(error) or not (told.f_bavail * told.f_frsize < OPENING_BYTES or no_names):
        return None
    return VolumeFull(f"{path}: the volume is full ({error}); make room on it, and it goes on by itself")


def bring_up_to_date(db: sqlite3.Connection) -> None:
    """Adds what this release's schema has more than the file's."""
    try:
        db.executescript(Path(__file__).with_name("spool.sql").read_text())
        db.execute("BEGIN IMMEDIATE")
        for table, columns in ADDED.items():
            for column in columns:
                if column not in _columns(db, table):
                    db.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER")
        if db.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # as an index on a column that is not there
            raise Inconsistent(f"its schema is no spool's: {error}") from error
        raise


def check(db: sqlite3.Connection, *, whole: bool = False) -> None:
    """Raises Inconsistent, or what SQLite does, for damage that a bounded look shows; `whole`: a look at all of it."""
    for table, needed in NEEDED.items():
        if missing := needed - _columns(db, table):
            raise Inconsistent(f"table {table} has no column {min(missing)}")
    size = db.execute("PRAGMA page_count").fetchone()[0] * PAGE_BYTES
    checks = (
        ["integrity_check(1)"]
        if whole or size <= CHECKED_WHOLE_BYTES
        else [f"quick_check({table})" for table in _SMALL]
    )
    for one in checks:
        found = db.execute(f"PRAGMA {one}").fetchone()[0]
        if found != "ok":
            raise Inconsistent(" ".join(found.split()))


def _text(raw: bytes) -> str:
    """A flipped bit can make text that is no UTF-8: its row is damaged, not unreadable."""
    return raw.decode(errors="replace")


def _versions(path: Path) -> bytes:
    """The header's write and read version; empty for a file that is new or no database."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        header = file.read(20)
    return header[18:20] if header.startswith(b"SQLite format 3\0") else b""


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA table_info({table})")}


class Change:
    """BEGIN IMMEDIATE … COMMIT, with the counts and fills that go with it.

    COMMIT returns when the log is on disk: that line keeps the guarantee.
    """

    def __init__(self, db: sqlite3.Connection, stream: str) -> None:
        self._db = db
        self._stream = stream
        self._counts: dict[tuple[str, str], int] = {}
        self._fills: dict[str, tuple[int, int]] = {}

    def count(self, stream: str, name: str, amount: int) -> None:
        """Adds to a count."""
        self._counts[stream, name] = self._counts.get((stream, name), 0) + amount

    def fill(self, stream: str, events: int, size: int) -> None:
        """Adds to a stream's fill."""
        before = self._fills.get(stream, (0, 0))
        self._fills[stream] = (before[0] + events, before[1] + size)

    def used(self, stream: str) -> int:
        """Counted bytes of a stream, with what this change has done."""
        row = self._db.execute("SELECT bytes FROM streams WHERE stream = ?", (stream,)).fetchone()
        return (row[0] if row else 0) + self._fills.get(stream, (0, 0))[1]

    def __enter__(self) -> Self:
        self._db.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._write()
                self._db.execute("COMMIT")
                return
            except sqlite3.DatabaseError as failed:
                error = failed
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise SpoolFull(
                self._stream, "the disk, or the file's own cap, is full; free some space"
            ) from error
        if kind is None:
            raise error

    def _write(self) -> None:
        self._db.executemany(
            "INSERT INTO counts VALUES (?1, ?2, ?3) ON CONFLICT (stream, name) DO UPDATE SET value = value + ?3",
            [(*key, amount) for key, amount in self._counts.items()],
        )
        self._db.executemany(
            "INSERT INTO streams VALUES (?1, ?2, ?3)"
            " ON CONFLICT (stream) DO UPDATE SET events = events + ?2, bytes = bytes + ?3",
            [(stream, *fill) for stream, fill in self._fills.items()],
        )
