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

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from linewatch_forwarder.streams.ledger_file import LedgerFile
from linewatch_forwarder.streams.port import DeadLetter
from linewatch_runtime.records import (
    DropReport,
    Record,
    SpoolDamaged,
    SpoolFull,
    StreamLimit,
    StreamState,
    VolumeFull,
)
from linewatch_runtime.spool import BURIED_KEPT

log = logging.getLogger(__name__)

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


class Ledger(LedgerFile):
    """What waits, by message stream and by class."""

    # --- what Stream Manager holds -----------------------------------------------------------------------------------

    def accounts(self) -> dict[str, Account]:
        """Every message stream that was ever ours, by name."""
        rows = self._db.execute(
            "SELECT name, accounted, bytes, bytes - (SELECT min(begins) FROM waiting WHERE message_stream = name)"
            " FROM message_streams"
        )
        return {row[0]: Account(row[1], row[2], row[3] or 0) for row in rows}

    def unknown(self, records: Sequence[Record]) -> list[Record]:
        """Those whose event is neither here nor left not long ago, each id once. Raises SpoolFull by the file's cap."""
        new: dict[str, Record] = {}
        for record in records:
            if record.event_id not in new and not self._knows(record.event_id):
                new[record.event_id] = record
        if new and self.is_full:
            raise SpoolFull(records[0].stream, "the cap of the ledger's file is reached, over all streams")
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

    def bury(self, record: Record, reason: str, once: bool = False) -> bool:
        """Puts an event aside that can never be delivered; it need not have been here before.

        With more than BURIED_KEPT of them the oldest goes, counted as `dead_letters_full`. Returns whether it was put aside: with `once` not what is here, or has left not long ago.
        """
        with self._transaction():
            if once and self._knows(record.event_id):
                return False
            self._remove(record.event_id)
            self._db.execute(
                "INSERT INTO buried (event_id, stream, topic, alarm, reason, payload) VALUES (?, ?, ?, ?, ?, ?)",
                (record.event_id, record.stream, record.topic, record.alarm, reason, record.payload),
            )
            gone = self._db.execute(
                "DELETE FROM buried WHERE number <="
                " (SELECT number FROM buried ORDER BY number DESC LIMIT 1 OFFSET ?) RETURNING stream",
                (BURIED_KEPT,),
            ).fetchall()
            for (stream,) in gone:
                self._count_drop(stream, "dead_letters_full")
            self._remember(record.event_id)
            self._trim()
            self._count(record.stream, "buried", 1)
        return True

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
        """Puts dead letters back to be delivered; they are held here from then on, counted as `replayed`. Returns how many.

        Raises:
            SpoolFull: by the file's cap; none was put back.
        """
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
                    self._hold(Record(row[0], row[1], row[2], row[3], bool(row[4])), "replayed")
                    replayed += 1
            if replayed and self.is_full:
                raise SpoolFull("the ledger", "the cap of its file is reached, over all streams")
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

    # --- parts of a transaction ---------------------------------------------------------------------------------------------

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


def open_ledger(path: Path, limit: StreamLimit, file_max_bytes: int) -> Ledger:
    """The ledger at `path`. One that can't be read is put aside, never deleted: its dead letters are in it.

    A new one takes in all that Stream Manager holds, so that nothing that waits is lost.

    Raises:
        SpoolDamaged: there can't be a ledger at all.
        VolumeFull: not now; nothing was put aside.
    """
    try:
        return Ledger(path, limit, file_max_bytes)
    except VolumeFull:
        raise
    except SpoolDamaged as error:
        if not path.is_file():
            raise
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        for ending in ("", "-wal", "-shm"):
            part = path.with_name(path.name + ending)
            if part.exists():
                part.rename(aside.with_name(aside.name + ending))
        log.error("ledger_put_aside", extra={"reason": str(error), "kept_as": str(aside)})
        return Ledger(path, limit, file_max_bytes)
