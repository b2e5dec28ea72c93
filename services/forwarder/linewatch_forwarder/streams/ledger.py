# SPDX-License-Identifier: Apache-2.0
"""What Stream Manager does not know of the events it holds: which the cloud has, how old they are, what became of each.

Stream Manager keeps the messages; this file keeps, for each message stream, up to which sequence number everything is
accounted for, and a row for each event below it that still waits. So the checkpoint is one number and a set: a number
up to `accounted` without a row is settled, buried or counted as lost. Also here: dead letters, counts, ids of what left
not long ago, the start counter, and the few events that the forwarder makes itself or replays.

Guarantee: one transaction for each change, on disk when it returns (WAL, synchronous=FULL). A crash between Stream
Manager's answer and our row loses nothing: the next start reads what lies above `accounted` and takes it in, by its id.
If the whole file is lost, that is everything that Stream Manager still holds: delivered again, and dropped by the cloud
by the ids. Age is counted by a clock of this file, as the spool's is (decision 6).
"""

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from linewatch_forwarder.streams.port import DeadLetter
from linewatch_runtime.records import DropReport, Record, SpoolDamaged, SpoolFull, StreamLimit, StreamState
from linewatch_runtime.spool import BURIED_KEPT, LATEST_FIRST_EPOCH, SETTLED_KEPT

PAGE_BYTES = 4096

SCHEMA_VERSION = 1

GAP = "stream_gap"
"""Reason of a loss that neither the size nor the age of the stream explains."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that the cloud does not have yet.

    Attributes:
        message_stream: where Stream Manager holds it, at `sequence`; empty: `record` is held here.
        size: counted bytes.
    """

    position: int
    event_id: str
    stream: str
    alarm: bool
    age_s: float
    size: int
    message_stream: str
    sequence: int
    record: Record | None


@dataclass(frozen=True, slots=True)
class Placed:
    """A message of Stream Manager that holds an event."""

    event_id: str
    stream: str
    alarm: bool
    message_stream: str
    sequence: int
    size: int


@dataclass(frozen=True, slots=True)
class Account:
    """A message stream as the ledger knows it.

    Attributes:
        accounted: the highest sequence number of which it is known what became; -1: none.
        bytes: counted bytes of all that was ever appended.
        span: counted bytes from the oldest waiting event to the end: what must not be overwritten.
    """

    accounted: int = -1
    bytes: int = 0
    span: int = 0


class Ledger:
    """One SQLite file. Use it from one thread only."""

    def __init__(self, path: Path, limit: StreamLimit, file_max_bytes: int = 256 * 1024 * 1024) -> None:
        """Opens or makes the file.

        Raises:
            SpoolDamaged: it can't be read.
        """
        self.limit = limit
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        except sqlite3.OperationalError as error:
            raise SpoolDamaged(f"{path}: {error}; the directory must be there and writable") from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            # FULL: under NORMAL a settled row can come back in a power cut, and a drop can be told twice.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA max_page_count = {file_max_bytes // PAGE_BYTES}")
            self._db.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
            self._db.executescript(Path(__file__).with_name("ledger.sql").read_text())
            if self._db.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise SpoolDamaged(f"{path}: {error}") from error
        self._opened_at = time.monotonic()
        self._clock_base = self._number("clock_ms") / 1000

    def close(self) -> None:
        """Folds the log into the file and closes it."""
        self._db.close()

    # --- what Stream Manager holds -----------------------------------------------------------------------------------

    def accounts(self) -> dict[str, Account]:
        """Every message stream that was ever ours, by name."""
        rows = self._db.execute(
            "SELECT name, accounted, bytes, bytes - (SELECT min(begins) FROM waiting WHERE message_stream = name)"
            " FROM message_streams"
        )
        return {row[0]: Account(row[1], row[2], row[3] or 0) for row in rows}

    def unknown(self, records: Sequence[Record]) -> list[Record]:
        """Those whose event is neither here nor left not long ago, each id once."""
        new: dict[str, Record] = {}
        for record in records:
            if record.event_id not in new and not self._knows(record.event_id):
                new[record.event_id] = record
        return list(new.values())

    def place(self, placed: Iterable[Placed]) -> int:
        """Takes in what Stream Manager holds now. Returns how many events were new; repeats are done with at once."""
        with self._transaction():
            new = sum(
                self._take_in(one) for one in placed if one.sequence > self._accounted(one.message_stream)
            )
            self._keep_clock()
        return new

    def lose(self, message_stream: str, below: int, by_size: str, kept_bytes: int) -> dict[str, int]:
        """Counts what waited below a sequence number and is gone from Stream Manager.

        Args:
            message_stream: its name.
            below: Stream Manager's oldest sequence number.
            by_size: the reason when the stream's size explains it.
            kept_bytes: counted bytes at the end of a stream that are never overwritten.

        Returns:
            How many were lost, by reason.
        """
        lost: dict[str, int] = {}
        with self._transaction():
            rows = self._db.execute(
                "SELECT event_id, stored_at, (SELECT bytes FROM message_streams WHERE name = ?1) - begins FROM waiting"
                " WHERE message_stream = ?1 AND sequence < ?2",
                (message_stream, below),
            ).fetchall()
            for event_id, stored_at, span in rows:
                by_age = "expired" if self.clock() - stored_at > self.limit.max_age_s else GAP
                reason = by_size if span > kept_bytes else by_age
                self._drop(event_id, reason)
                lost[reason] = lost.get(reason, 0) + 1
            # Numbers of which this file never knew an event, because the process died before it could: never told as
            # committed, so a producer still has them.
            self._db.execute(
                "UPDATE message_streams SET accounted = max(accounted, ?) WHERE name = ?", (below - 1, message_stream)
            )  # fmt: skip
        return lost

    def replace(self, message_stream: str, placed: Sequence[Placed]) -> int:
        """Begins a message stream anew with what it holds now: its store is another, or an older one.

        What waited and is not there is counted as lost, and what is there and unknown waits. Returns how many were lost.
        """
        there = {one.event_id for one in placed}
        with self._transaction():
            rows = self._db.execute(
                "SELECT event_id FROM waiting WHERE message_stream = ?", (message_stream,)
            ).fetchall()
            gone = [event_id for (event_id,) in rows if event_id not in there]
            for event_id in gone:
                self._drop(event_id, GAP)
            self._db.execute("INSERT OR REPLACE INTO message_streams VALUES (?, -1, 0)", (message_stream,))
            # Below zero first: a row must not meet the old number of another.
            self._db.execute(
                "UPDATE waiting SET sequence = -1 - position WHERE message_stream = ?", (message_stream,)
            )
            for one in placed:
                self._take_in(one)
        return len(gone)

    # --- what goes on to the cloud -----------------------------------------------------------------------------------

    def oldest(
        self, limit: int, except_streams: Collection[str] = (), except_ids: Collection[str] = ()
    ) -> list[Waiting]:
        """The next events to deliver: alarms first, then by position."""
        skipped = ", ".join("?" * len(except_streams))
        rows = self._db.execute(
            "SELECT position, event_id, stream, alarm, stored_at, size, message_stream, sequence, topic, payload"  # noqa: S608
            f" FROM waiting WHERE stream NOT IN ({skipped}) ORDER BY alarm DESC, position LIMIT ?",
            (*except_streams, limit + len(except_ids)),
        )
        now = self.clock()
        found = []
        for position, event_id, stream, alarm, stored_at, size, place, sequence, topic, payload in rows:
            if event_id in except_ids:
                continue
            held = None if place else Record(event_id, stream, topic, payload, bool(alarm))
            found.append(Waiting(
                position, event_id, stream, bool(alarm), max(0.0, now - stored_at), size, place or "", sequence or 0, held
            ))  # fmt: skip
        return found[:limit]

    def settle(self, event_ids: Iterable[str]) -> int:
        """Lets events go that the cloud has. Returns how many were here."""
        gone = 0
        with self._transaction():
            for event_id in event_ids:
                stream = self._remove(event_id)
                if stream is not None:
                    self._count(stream, "settled", 1)
                    self._remember(event_id)
                    gone += 1
            self._trim()
            self._keep_clock()
        return gone

    def bury(self, record: Record, reason: str) -> None:
        """Puts an event aside that can never be delivered; it need not have been here before."""
        with self._transaction():
            self._remove(record.event_id)
            self._db.execute(
                "INSERT INTO buried (event_id, stream, topic, alarm, reason, payload) VALUES (?, ?, ?, ?, ?, ?)",
                (record.event_id, record.stream, record.topic, record.alarm, reason, record.payload),
            )
            self._db.execute(
                "DELETE FROM buried WHERE number <= (SELECT max(number) FROM buried) - ?", (BURIED_KEPT,)
            )
            self._remember(record.event_id)
            self._trim()
            self._count(record.stream, "buried", 1)

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """What was buried, youngest first."""
        rows = self._db.execute(
            "SELECT number, event_id, stream, topic, payload, alarm, reason FROM buried ORDER BY number DESC LIMIT ?",
            (limit,),
        )
        return [
            DeadLetter(row[0], Record(row[1], row[2], row[3], row[4], bool(row[5])), row[6]) for row in rows
        ]

    def replay(self, numbers: Collection[int]) -> int:
        """Puts dead letters back to be delivered; they are held here from then on. Returns how many."""
        replayed = 0
        with self._transaction():
            for number in sorted(numbers):
                row = self._db.execute(
                    "DELETE FROM buried WHERE number = ? RETURNING event_id, stream, topic, payload, alarm", (number,)
                ).fetchone()  # fmt: skip
                if row is None:
                    continue
                self._db.execute("DELETE FROM settled WHERE event_id = ?", (row[0],))
                if not self._knows(row[0]):
                    self._hold(Record(row[0], row[1], row[2], row[3], bool(row[4])))
                    replayed += 1
        return replayed

    def expire(self) -> int:
        """Drops events older than the limit's age. Returns how many."""
        with self._transaction():
            rows = self._db.execute(
                "SELECT event_id FROM waiting WHERE stored_at < ?", (self.clock() - self.limit.max_age_s,)
            ).fetchall()
            for (event_id,) in rows:
                self._drop(event_id, "expired")
            self._keep_clock()
        return len(rows)

    # --- what became of it -------------------------------------------------------------------------------------------

    def take_unreported_drops(self, make: DropReport) -> int:
        """Turns drops into events that are held here: counter and event change in one transaction, so each is told once."""
        with self._transaction():
            rows = self._db.execute(
                "SELECT stream, name, value FROM counts WHERE name LIKE 'unreported:%' AND value > 0"
            ).fetchall()
            for stream, name, value in rows:
                self._hold(make(stream, name.partition(":")[2], value))
                self._db.execute("UPDATE counts SET value = 0 WHERE stream = ? AND name = ?", (stream, name))
        return len(rows)

    def streams(self, max_bytes: int) -> list[StreamState]:
        """Every stream that was ever used, by name; `max_bytes`: what one may hold."""
        now = self.clock()
        counts: dict[str, dict[str, int]] = {}
        for stream, name, value in self._db.execute("SELECT stream, name, value FROM counts"):
            counts.setdefault(stream, {})[name] = value
        fill = {
            name: (events, size)
            for name, events, size in self._db.execute("SELECT stream, events, bytes FROM streams")
        }
        states = []
        for name in sorted(fill.keys() | counts.keys()):
            found = counts.get(name, {})
            (first,) = self._db.execute(
                "SELECT min(stored_at) FROM waiting WHERE stream = ?", (name,)
            ).fetchone()
            dropped = {
                key.partition(":")[2]: value for key, value in found.items() if key.startswith("dropped:")
            }
            states.append(StreamState(
                name, *fill.get(name, (0, 0)), max_bytes, max(0.0, now - first) if first is not None else 0.0,
                found.get("stored", 0), found.get("settled", 0), found.get("buried", 0), dropped,
            ))  # fmt: skip
        return states

    def next_epoch(self) -> int:
        """A number above that of every earlier start; a new file begins at the unix seconds, as a spool does."""
        with self._transaction():
            epoch = (self._number("epoch") or max(0, min(int(time.time()), LATEST_FIRST_EPOCH))) + 1
            self._db.execute("INSERT OR REPLACE INTO numbers VALUES ('epoch', ?)", (epoch,))
        return epoch

    def clock(self) -> float:
        """Seconds that processes have had this file open, in total; never jumps."""
        return self._clock_base + time.monotonic() - self._opened_at

    # --- parts of a transaction --------------------------------------------------------------------------------------

    def _take_in(self, one: Placed) -> bool:
        """Accounts for one message, and lets its event wait if it is new."""
        begins = self._account(one.message_stream, one.sequence, one.size)
        moved = self._db.execute(
            "UPDATE waiting SET sequence = ?, begins = ? WHERE event_id = ? AND message_stream = ? AND sequence < 0",
            (one.sequence, begins, one.event_id, one.message_stream),
        )
        if moved.rowcount or self._knows(one.event_id):
            return False
        self._db.execute(
            "INSERT INTO waiting (event_id, stream, alarm, stored_at, size, message_stream, sequence, begins)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (one.event_id, one.stream, one.alarm, self.clock(), one.size, one.message_stream, one.sequence, begins),
        )  # fmt: skip
        self._fill(one.stream, 1, one.size)
        self._count(one.stream, "stored", 1)
        return True

    def _knows(self, event_id: str) -> bool:
        return bool(
            self._db.execute(
                "SELECT 1 FROM waiting WHERE event_id = ?1 UNION ALL SELECT 1 FROM settled WHERE event_id = ?1",
                (event_id,),
            ).fetchone()
        )

    def _accounted(self, message_stream: str) -> int:
        row = self._db.execute(
            "SELECT accounted FROM message_streams WHERE name = ?", (message_stream,)
        ).fetchone()
        return int(row[0]) if row else -1

    def _account(self, message_stream: str, sequence: int, size: int) -> int:
        """Counts a message. Returns the counted bytes before it."""
        (end,) = self._db.execute(
            "INSERT INTO message_streams VALUES (?1, ?2, ?3)"
            " ON CONFLICT (name) DO UPDATE SET accounted = ?2, bytes = bytes + ?3 RETURNING bytes",
            (message_stream, sequence, size),
        ).fetchone()
        return int(end) - size

    def _hold(self, record: Record) -> None:
        self._db.execute(
            "INSERT INTO waiting (event_id, stream, alarm, stored_at, size, topic, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (record.event_id, record.stream, record.alarm, self.clock(), record.size, record.topic, record.payload),
        )  # fmt: skip
        self._fill(record.stream, 1, record.size)
        self._count(record.stream, "stored", 1)

    def _drop(self, event_id: str, reason: str) -> None:
        stream = self._remove(event_id)
        if stream is not None:
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

    def _number(self, name: str) -> int:
        row = self._db.execute("SELECT value FROM numbers WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def _keep_clock(self) -> None:
        self._db.execute("INSERT OR REPLACE INTO numbers VALUES ('clock_ms', ?)", (int(self.clock() * 1000),))

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
