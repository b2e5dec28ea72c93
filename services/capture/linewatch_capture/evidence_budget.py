# SPDX-License-Identifier: Apache-2.0
"""The files of one line's evidence and their bytes, shared by every station of the line.

    {line}/{yyyymmdd}/{event_id}{mark}{suffix}    the files; .{name} while one is being written
    {line}/.journal                               what the stations of the line added and removed
    {line}/.lock                                  held by the station that changes something

Guarantee: the files, half-written ones included, never hold more than `max_bytes`, whichever station wrote them and
whoever is killed when. A file is in the journal before it is begun, and a removed one until it is gone, so a kill leaves
a part counted that is not there, never the other way. Half-written files are removed when the line is listed anew: at a
station's start, and when the journal is long or torn. The lock falls with the process that holds it.
"""

import contextlib
import heapq
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from linewatch_capture import metrics
from linewatch_capture.evidence_lock import LineLock, write_durably
from linewatch_capture.evidence_notes import EvidenceNotes
from linewatch_capture.evidence_value import MARKS, Kept, Worth, first_to_go, order_within, worth_of

log = logging.getLogger(__name__)

LONGEST_JOURNAL_BYTES = 1024 * 1024


class EvidenceFull(Exception):
    """The budget holds nothing that may go for this part."""


class JournalTorn(Exception):
    """A kill or a full disk left half a line; the line has to be listed anew."""


@dataclass(slots=True)
class PartFiles:
    """The files of one part, by their path below the line's directory, with their bytes."""

    event_id: str
    worth: Worth
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """All of them."""
        return sum(self.sizes.values())


class EvidenceBudget:
    """Keeps the evidence of one line within `max_bytes`. For one thread."""

    def __init__(self, directory: Path, max_bytes: int, notes: EvidenceNotes) -> None:
        """Lists what is there. Raises OSError when the directory can't be used."""
        self._directory = directory
        self._max_bytes = max_bytes
        self._notes = notes
        self._parts: dict[str, PartFiles] = {}
        self._order: dict[Worth, list[tuple[tuple[bool, str], str]]] = {}
        self._journal: int = -1
        self._read_to = 0
        self.used_bytes = 0
        self._bytes_of: dict[Worth, int] = dict.fromkeys(Worth, 0)
        self._lock = LineLock(directory)
        metrics.EVIDENCE_MAX_BYTES.set(max_bytes)
        try:
            with self._locked():
                self._list_anew()
                # The budget may have been lowered. What may not go, goes once it may.
                with contextlib.suppress(EvidenceFull, OSError):
                    self._make_room(Kept("", Worth.GOOD, 0))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets the line's files go; nothing is kept from here on. Closing twice is harmless."""
        self._lock.close()
        if self._journal >= 0:
            os.close(self._journal)
        self._journal = -1

    def keep(self, day: str, event_id: str, worth: Worth, files: Mapping[str, bytes]) -> dict[str, str]:
        """Writes a part's files, by suffix, and returns their paths below the line's directory; all are on disk then.

        Raises:
            EvidenceFull: what is there is held by open work orders, or the part alone is too large.
            OSError: the disk did not take them; none is there.
        """
        names = {suffix: f"{day}/{event_id}{MARKS[worth]}{suffix}" for suffix in files}
        sizes = {names[suffix]: len(content) for suffix, content in files.items()}
        with self._locked():
            self._follow()
            self._make_room(Kept(event_id, worth, sum(sizes.values())))
            self._note("".join(f"+ {size} {name}\n" for name, size in sizes.items()))
            for name, size in sizes.items():
                self._add(name, size)
            try:
                for suffix, content in files.items():
                    write_durably(self._directory / names[suffix], content)
            except OSError:
                self._remove(event_id)
                raise
        return names

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            finally:
                metrics.EVIDENCE_BYTES.set(self.used_bytes)

    def _make_room(self, newcomer: Kept) -> None:
        """Removes the least valuable until the newcomer fits. Raises EvidenceFull, and has then removed nothing."""
        if self.used_bytes + newcomer.size_bytes <= self._max_bytes:
            return
        self._read_notes()
        held = [self._parts[pin] for pin in self._notes.pins if pin in self._parts]
        if sum(part.size_bytes for part in held) + newcomer.size_bytes > self._max_bytes:
            raise EvidenceFull(
                f"a part of {newcomer.size_bytes} bytes, {sum(part.size_bytes for part in held)} of "
                f"{self._max_bytes} are held by open work orders"
            )
        bytes_of = dict(self._bytes_of)
        bytes_of[newcomer.worth] += newcomer.size_bytes
        for part in held:
            bytes_of[part.worth] -= part.size_bytes
        while self.used_bytes + newcomer.size_bytes > self._max_bytes:
            firsts = {worth: first for worth in Worth if (first := self._first(worth)) is not None}
            chosen = first_to_go(firsts, bytes_of, self._max_bytes)
            if chosen is None:
                raise EvidenceFull("nothing is left that may go")
            self._remove(chosen.event_id)
            bytes_of[chosen.worth] -= chosen.size_bytes
            metrics.EVIDENCE_EVICTED.labels(chosen.worth.name.lower()).inc()

    def _first(self, worth: Worth) -> Kept | None:
        """The first of a class that may go; what is gone or has moved in the order is taken off on the way."""
        order = self._order[worth]
        while order:
            key, event_id = order[0]
            part = self._parts.get(event_id)
            if part is not None and part.worth is worth and event_id not in self._notes.pins:
                kept = self._kept(part)
                if order_within(kept) == key:
                    return kept
            heapq.heappop(order)
        return None

    def _kept(self, part: PartFiles) -> Kept:
        is_uploaded = part.sizes.keys() <= self._notes.uploaded
        return Kept(part.event_id, part.worth, part.size_bytes, is_uploaded)

    def _read_notes(self) -> None:
        """Puts parts in their new place: those that were uploaded since, and those that no order holds any more."""
        pins = self._notes.pins
        moved = {name.partition("/")[2].partition(".")[0] for name in self._notes.read_uploaded()}
        if self._notes.read_pins():
            moved |= pins - self._notes.pins
        for event_id in moved:
            if event_id in self._parts:
                self._put_in_order(self._parts[event_id])

    def _put_in_order(self, part: PartFiles) -> None:
        order = self._order[part.worth]
        heapq.heappush(order, (order_within(self._kept(part)), part.event_id))
        # What moved forward has left an entry behind.
        if len(order) > 2 * len(self._parts) + 64:
            self._sort()

    def _sort(self) -> None:
        self._order = {worth: [] for worth in Worth}
        for part in self._parts.values():
            self._order[part.worth].append((order_within(self._kept(part)), part.event_id))
        for order in self._order.values():
            heapq.heapify(order)

    def _add(self, name: str, size: int) -> None:
        """Counts a file that is there, or is about to be."""
        event_id = Path(name).name.partition(".")[0]
        part = self._parts.get(event_id)
        if part is None:
            part = self._parts[event_id] = PartFiles(event_id, worth_of(Path(name).name))
        grown = size - part.sizes.get(name, 0)
        part.sizes[name] = size
        self.used_bytes += grown
        self._bytes_of[part.worth] += grown
        self._put_in_order(part)

    def _remove(self, event_id: str) -> None:
        """Removes a part's files, and only then counts it as gone. Raises OSError when it may not."""
        part = self._parts[event_id]
        for name in part.sizes:
            path = self._directory / name
            path.unlink(missing_ok=True)
            path.with_name(f".{path.name}").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # the day's last one
        self._forget(event_id)
        # Others see it before the next part is noted; until then they count too much.
        with contextlib.suppress(OSError):
            self._note(f"- {event_id}\n")

    def _forget(self, event_id: str) -> None:
        part = self._parts.pop(event_id, None)
        if part is not None:
            self.used_bytes -= part.size_bytes
            self._bytes_of[part.worth] -= part.size_bytes

    # ---------------------------------------------------------------- the journal, under the lock

    def _follow(self) -> None:
        """Takes over what the other stations did since."""
        try:
            now = (self._directory / ".journal").stat()
        except FileNotFoundError:
            self._list_anew()  # somebody emptied the directory
            return
        try:
            if self._read_to < 0:
                raise JournalTorn
            if not os.path.samestat(now, os.fstat(self._journal)):
                self._open_journal()
                self._list()
            elif now.st_size != self._read_to:
                self._read_journal(now.st_size)
        except JournalTorn:
            self._list_anew()
            return
        if self._read_to > LONGEST_JOURNAL_BYTES:
            self._list_anew()

    def _read_journal(self, size: int) -> None:
        if size < self._read_to:
            raise JournalTorn
        content = os.pread(self._journal, size - self._read_to, self._read_to)
        if not content.endswith(b"\n"):
            raise JournalTorn
        for line in content.decode("utf-8", "replace").splitlines():
            match line.split(" "):
                case ["+", digits, name] if digits.isdigit():
                    self._add(name, int(digits))
                case ["-", event_id]:
                    self._forget(event_id)
                case _:
                    raise JournalTorn
        self._read_to = size

    def _note(self, lines: str) -> None:
        """Raises OSError, and has then noted nothing."""
        content = lines.encode()
        try:
            if os.pwrite(self._journal, content, self._read_to) < len(content):
                raise OSError(f"{self._directory / '.journal'}: the disk is full")
        except OSError:
            os.ftruncate(self._journal, self._read_to)
            raise
        self._read_to += len(content)

    def _list_anew(self) -> None:
        """Lists the files and begins a new journal, which tells the other stations to do the same."""
        unfinished = self._directory / ".journal.new"
        unfinished.write_bytes(b"")
        unfinished.replace(self._directory / ".journal")
        self._open_journal()
        self._list()

    def _open_journal(self) -> None:
        """Raises OSError, and has then left the one before open: a closed one's number would soon be another file's."""
        left, self._journal = self._journal, os.open(self._directory / ".journal", os.O_RDWR | os.O_CLOEXEC)
        if left >= 0:
            os.close(left)

    def _list(self) -> None:
        """Raises OSError; the next one that follows then begins anew."""
        self._read_to = -1
        self._parts.clear()
        self._order = {worth: [] for worth in Worth}
        self.used_bytes = 0
        self._bytes_of = dict.fromkeys(Worth, 0)
        self._notes.read_pins()
        self._notes.read_uploaded()
        for path in self._directory.glob("*/*"):
            if path.name.startswith("."):
                path.unlink(
                    missing_ok=True
                )  # a kill left it half written: nobody writes while we hold the lock
            else:
                with contextlib.suppress(FileNotFoundError):
                    self._add(path.relative_to(self._directory).as_posix(), path.stat().st_size)
        self._read_to = os.fstat(self._journal).st_size
