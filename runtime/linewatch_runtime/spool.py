# SPDX-License-Identifier: Apache-2.0
"""The durable memory of an edge process: events that the next hop does not have yet.

Guarantee: `append` returns once its rows are on disk (spool_file.Change), and a row leaves only through `settle` (the
next hop has it), `bury` (it never will, with a reason) or a drop that the stream's policy asks for and that is counted
in the same transaction. A kill or a power cut at any point delivers an event at least once; `event_id` makes the repeat
harmless at the next hop. Not covered: loss of the disk.

Damage: each row bears a CRC, and a row that fails it is set aside and counted, never delivered. A file that SQLite
can't read, or that contradicts itself, is salvaged into a new one and kept beside it (spool_salvage).

Full: a stream holds at most `max_bytes` (payload plus ROW_OVERHEAD). At the limit `WhenFull` decides who loses.
    reject            `append` raises SpoolFull; the caller holds, and the hop before it fills.
    shed_good         the oldest routine events go; when only alarms are left, as `reject`.
    overwrite_oldest  the oldest events go, alarms too.
Age: events older than `max_age_s` expire. Age is counted by the spool clock, which runs while the process runs and is
kept in the file, so a wall clock that jumps by a year expires nothing.
Order: `oldest` gives alarms before routine events, each in the order of arrival.
Releases: an older release opens this file and goes on with it; its rows have no CRC and pass.

Proved by: runtime/tests/test_spool*.py, tests/faults/test_kills.py.
"""

import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from linewatch_runtime import (
    spool_letters,
    spool_numbers,
    spool_queue,
    spool_rebuild,
    spool_room,
    spool_salvage,
)
from linewatch_runtime.records import (
    ROW_OVERHEAD,
    DropReport,
    Record,
    SpoolDamaged,
    SpoolFull,
    SpoolTrouble,
    Stored,
    StreamLimit,
    StreamState,
    WhenFull,
)
from linewatch_runtime.spool_file import SCHEMA_VERSION, Change, check, is_damage, open_file
from linewatch_runtime.spool_numbers import LATEST_FIRST_EPOCH
from linewatch_runtime.spool_wal import PAGE_BYTES
from linewatch_runtime.spool_worker import SpoolWorker

log = logging.getLogger(__name__)

SETTLED_KEPT = 20_000
"""Ids of settled events that are remembered; far more than any producer has in flight (PUBLISH_WINDOW)."""

BURIED_KEPT = 1_000

RESERVED_BYTES = 16 * 1024 * 1024
"""Of the file, kept from `append`, at most a quarter of the cap: settling remembers ids and needs pages before it frees
any. Without it a full file whose alarms leave first stayed full for ever."""

EXPIRED_AT_ONCE = 2_000
"""Rows of a class that one `expire` looks at: the spool's thread serves others in between."""

_ALL = ""  # the row of `counts` that belongs to no stream

__all__ = [
    "LATEST_FIRST_EPOCH", "PAGE_BYTES", "ROW_OVERHEAD", "SCHEMA_VERSION", "DropReport", "Record", "Spool", "SpoolDamaged", "SpoolFull",
    "SpoolTrouble", "SpoolWorker", "Stored", "StreamLimit", "StreamState", "WhenFull",
]  # fmt: skip


class Spool:
    """One SQLite file. Use it from one thread only (SpoolWorker)."""

    def __init__(
        self, path: Path, limit: StreamLimit | None = None, file_max_bytes: int = 256 * 1024 * 1024,
        *, heals: bool = True,
    ) -> None:  # fmt: skip
        """Opens or makes the file.

        Args:
            path: the file; its directory must exist.
            limit: for each stream.
            file_max_bytes: cap of the file itself. Keep it well below the volume: a SQLite file on a disk that is
                really full can neither append nor delete.
            heals: salvage a damaged file. False for a command that opens the file of a service that runs.

        Raises:
            SpoolDamaged: the file can't be opened, or is damaged and can't be salvaged.
        """
        self.path = path
        self.limit = limit or StreamLimit()
        self._pages = file_max_bytes // PAGE_BYTES
        self._append_pages = self._pages - min(RESERVED_BYTES // PAGE_BYTES, self._pages // 4)
        self._heals = heals
        self._db = self._open()
        self._opened_at = time.monotonic()
        self._clock_base = spool_numbers.kept_clock(self._db)

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
        with self._change(records[0].stream if records else _ALL) as change:
            new = self._unknown(records)
            self._admit(change, new)
            for name, amount in (counts or {}).items():
                change.count(_ALL, name, amount)
            self._db.executemany("INSERT OR IGNORE INTO marks VALUES (?, ?)", marks)
            spool_numbers.keep_clock(self._db, self.clock())
            if new and self._used_pages() > self._append_pages:
                raise SpoolFull(records[0].stream, "the file's cap is reached, over all streams")
        return len(new)

    def oldest(
        self, limit: int, *, by_class: bool = True, after: int = 0, except_streams: Sequence[str] = ()
    ) -> list[Stored]:
        """The next events to deliver: alarms first, then by position. `by_class=False`: by position alone.

        They are in memory whole: 200 events of 128 KB are 25 MB.
        """
        while True:
            rows = spool_queue.oldest(
                self._db, limit, by_class=by_class, after=after, except_streams=except_streams
            )
            damaged = [(row[0], row[1]) for row in rows if not row[3]]
            if not damaged or not self._set_aside(damaged):
                now = self.clock()
                return [Stored(row[0], row[1], max(0.0, now - row[2])) for row in rows if row[3]]

    def settle(self, event_ids: Iterable[str]) -> int:
        """Lets events go that the next hop has. Returns how many were here; the others had left before."""
        with self._change(_ALL) as change:
            rows = self._remove(change, list(event_ids))
            for stream in rows.values():
                change.count(stream, "settled", 1)
            self._remember(rows)
            spool_numbers.keep_clock(self._db, self.clock())
        return len(rows)

    def bury(self, record: Record, reason: str, *, once: bool = False) -> bool:
        """Puts an event aside that can never be delivered; it need not have been stored before.

        With more than BURIED_KEPT of them the oldest goes, counted as `dead_letters_full`. Returns whether it was put
        aside: with `once` not what is here, or has left not long ago.
        """
        with self._change(record.stream) as change:
            if once and not self._unknown([record]):
                return False
            self._remove(change, [record.event_id])
            spool_letters.put(self._db, change, record, reason, record.crc, BURIED_KEPT)
            self._remember([record.event_id])
            change.count(record.stream, "buried", 1)
        return True

    def buried(self, limit: int = BURIED_KEPT) -> list[tuple[int, Record, str]]:
        """What was buried, newest first: its number, the event, the reason."""
        return spool_letters.newest(self._db, limit)

    def replay(self, numbers: Iterable[int]) -> int:
        """Puts buried events back, behind all others of their class, all or none; counted as `replayed`.

        A second process may do it while the service runs. Numbers that are gone, and damaged events, are left out.

        Returns:
            How many are on their way again.

        Raises:
            SpoolFull: as for `append`.
        """
        with self._change(_ALL) as change:
            taken = [spool_letters.take(self._db, number) for number in numbers]
            records = self._unknown([one for one in taken if one is not None])
            self._admit(change, records, "replayed")
            spool_numbers.keep_clock(self._db, self.clock())
            if records and self._used_pages() > self._append_pages:
                raise SpoolFull(records[0].stream, "the file's cap is reached, over all streams")
        return len(records)

    def expire(self) -> int:
        """Drops events older than the limit's age, counted as `expired`; call again until none went. Returns how many."""
        old = self.clock() - self.limit.max_age_s
        # The oldest of a class come first, so no index by age is needed.
        first = (
            "SELECT position, stream, length(payload) FROM"
            " (SELECT position, stream, payload, stored_at FROM events WHERE alarm = ? ORDER BY position LIMIT ?)"
            " WHERE stored_at < ?"
        )
        with self._change(_ALL) as change:
            victims = [
                row for alarm in (1, 0) for row in self._db.execute(first, (alarm, EXPIRED_AT_ONCE, old))
            ]
            spool_room.drop(self._db, change, victims, "expired")
            spool_numbers.keep_clock(self._db, self.clock())
        return len(victims)

    def take_unreported_drops(self, make: DropReport) -> int:
        """Turns drops that nobody upstream was told of into one event for each (stream, reason).

        Counter and event change in one transaction, so that a drop is told once. Returns how many events were made.
        """
        unreported = "SELECT stream, name, value FROM counts WHERE name LIKE 'unreported:%' AND value > 0"
        if not self._db.execute(unreported).fetchone():
            return 0
        with self._change(_ALL) as change:
            rows = self._db.execute(unreported).fetchall()
            self._store(change, [make(stream, name.partition(":")[2], value) for stream, name, value in rows])
            for stream, name, value in rows:
                change.count(stream, name, -value)
        return len(rows)

    def counts(self, stream: str = _ALL) -> dict[str, int]:
        """What was counted, by name; without a stream, the caller's own counts."""
        return dict(self._db.execute("SELECT name, value FROM counts WHERE stream = ?", (stream,)))

    def marks(self, source: str) -> set[str]:
        """The marks of a source."""
        return {row[0] for row in self._db.execute("SELECT mark FROM marks WHERE source = ?", (source,))}

    def forget(self, source: str, marks: Iterable[str]) -> None:
        """Takes marks of a source away."""
        with self._change(_ALL):
            self._db.executemany(
                "DELETE FROM marks WHERE source = ? AND mark = ?", [(source, mark) for mark in marks]
            )

    def streams(self) -> list[StreamState]:
        """Every stream that was ever used, by name."""
        return spool_queue.states(self._db, self.limit, self.clock())

    def next_epoch(self) -> int:
        """A number above that of every earlier start: a counter kept in the file, one more at each start.

        A new file begins at the unix seconds of its first start, so that it is also above what a lost file had: the
        cloud orders by (epoch, sequence). Only there does the wall clock matter.
        """
        with self._change(_ALL):
            return spool_numbers.next_epoch(self._db)

    def clock(self) -> float:
        """Seconds that processes have had this file open, in total; never jumps. A kill loses what passed since the
        last commit.
        """
        return self._clock_base + time.monotonic() - self._opened_at

    def is_damaged(self, error: sqlite3.DatabaseError) -> bool:
        """Whether the error means that the file is damaged. A schema or an index that is off shows as other errors too."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if is_damage(error) or code not in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT}:
            return is_damage(error)
        try:
            check(self._db, whole=True)
        except sqlite3.DatabaseError as found:
            return is_damage(found)
        return False

    def heal(self, reason: str, *, look_again: bool = False) -> None:
        """Puts a salvaged file in this one's place and goes on with it; `look_again`: only if it is damaged indeed.

        Raises:
            SpoolDamaged: not now; everything is as it was, and the spool is closed until `heal` succeeds.
        """
        self._db.close()
        if not self._heals:
            raise SpoolDamaged(f"{self.path}: {reason}; the service that owns the file salvages it")
        if look_again:
            self._db = self._open(whole=True)
            return
        spool_salvage.finish(self.path)
        spool_salvage.salvage(self.path, reason)
        self._db = open_file(self.path, self._pages)

    def _open(self, *, whole: bool = False) -> sqlite3.Connection:
        """The file; salvaged when two looks find it damaged, because SQLite tells one failed read (EIO) as damage too."""
        try:
            if self._heals:
                spool_salvage.finish(self.path)
            try:
                return open_file(self.path, self._pages, whole=whole)
            except sqlite3.DatabaseError:
                return open_file(self.path, self._pages, whole=whole)
        except OSError as error:
            raise SpoolDamaged(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            if not self._heals:
                raise SpoolDamaged(f"{self.path}: {error}; the service that owns it salvages it") from error
            spool_salvage.salvage(self.path, str(error))
            return open_file(self.path, self._pages)

    def _unknown(self, records: Sequence[Record]) -> list[Record]:
        """Each record once, without those that are here or have left not long ago."""
        new: dict[str, Record] = {}
        for record in records:
            new.setdefault(record.event_id, record)
        ids = list(new)
        settled = spool_queue.in_chunks(
            self._db, "SELECT event_id, number FROM settled WHERE event_id IN ({})", ids
        )
        for event_id, _ in (*spool_queue.positions_of(self._db, ids), *settled):
            del new[event_id]
        return list(new.values())

    def _admit(self, change: Change, records: list[Record], counted_as: str = "stored") -> None:
        """Makes room and stores: the whole batch at once if it can, by halves where parts of it compete."""
        if not records:
            return
        if spool_room.fits(self._db, change, self.limit, records):
            self._store(change, records, counted_as)
            return
        middle = len(records) // 2
        self._admit(change, records[:middle], counted_as)
        self._admit(change, records[middle:], counted_as)

    def _store(self, change: Change, records: Iterable[Record], counted_as: str = "stored") -> None:
        now = self.clock()
        rows = []
        for one in records:
            rows.append((one.event_id, one.stream, one.topic, one.payload, one.alarm, now, one.crc))
            change.fill(one.stream, 1, one.size)
            change.count(one.stream, counted_as, 1)
        self._db.executemany(
            "INSERT INTO events (event_id, stream, topic, payload, alarm, stored_at, crc) VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def _remove(self, change: Change, event_ids: list[str]) -> dict[str, str]:
        """Takes events out; event id -> stream of those that were here."""
        rows = spool_queue.in_chunks(
            self._db,
            "SELECT position, stream, length(payload), event_id FROM events WHERE event_id IN ({})",
            event_ids,
        )
        for _, stream, length in spool_room.sound(row[:3] for row in rows):
            change.fill(stream, -1, -(length + ROW_OVERHEAD))
        self._db.executemany("DELETE FROM events WHERE position = ?", [row[:1] for row in rows])
        return {row[3]: row[1] for row in rows}

    def _remember(self, event_ids: Iterable[str]) -> None:
        """Ids that have left, so that a late repeat is known. Bounded: the oldest are forgotten."""
        self._db.executemany(
            "INSERT OR IGNORE INTO settled (event_id) VALUES (?)", [(event_id,) for event_id in event_ids]
        )
        self._db.execute(
            "DELETE FROM settled WHERE number <= (SELECT max(number) FROM settled) - ?", (SETTLED_KEPT,)
        )

    def _set_aside(self, damaged: Sequence[tuple[int, Record]]) -> bool:
        """Buries rows whose CRC fails, counted as `damaged`. False on a full disk: they stay, and are passed over.

        Their ids are not remembered: whoever still has such an event may send it again.
        """
        try:
            with self._change(_ALL) as change:
                for position, record in damaged:
                    crc = self._db.execute(
                        "SELECT crc FROM events WHERE position = ?", (position,)
                    ).fetchone()[0]
                    spool_letters.put(self._db, change, record, spool_rebuild.DAMAGED, crc, BURIED_KEPT)
                    spool_room.drop(
                        self._db, change, [(position, record.stream, len(record.payload))], "damaged"
                    )
        except SpoolFull as full:
            log.error("damaged_events_not_set_aside", extra={"count": len(damaged), "reason": full.detail})
            return False
        log.error("events_damaged", extra={"count": len(damaged)})
        return True

    def _used_pages(self) -> int:
        pages, free = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        )
        return int(pages) - int(free)

    def _change(self, stream: str) -> Change:
        return Change(self._db, stream)
