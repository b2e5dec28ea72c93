# SPDX-License-Identifier: Apache-2.0
"""The files of the evidence directory that the cloud does not have yet, the most valuable first.

What an open work order holds goes first; then uncertain parts, certain defects, and the sample of good ones, each the
oldest first: that is what capture would let go first. How many files there are is capture's budget to bound.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from linewatch_forwarder.evidence.notes import EvidenceNotes

MEDIA_TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".csv": "text/csv"}
RANKS = {"review": 0, "ok": 2}
"""By the mark behind the event id; 1 without one. Capture sets the marks (linewatch_capture/evidence_value.py)."""

LOOK_EVERY_S = 5.0
SETTLED_NS = 2_000_000_000
MOST_SET_ASIDE = 1000

_NAME = re.compile(r"[A-Za-z0-9-]{1,64}(\.[a-z]{1,16}){1,3}", re.ASCII)
_LINE = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_DAY = re.compile(r"[0-9]{8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """One file that waits; `name` is {yyyymmdd}/{file}, below the line's directory."""

    line: str
    name: str
    path: Path
    size_bytes: int

    @property
    def event_id(self) -> str:
        """Of the part that it shows."""
        return self.path.name.partition(".")[0]

    @property
    def media_type(self) -> str:
        """By its ending."""
        return MEDIA_TYPES[self.path.suffix]

    @property
    def rank(self) -> int:
        """0 for uncertain parts, 1 for certain defects, 2 for good parts."""
        return RANKS.get(self.path.name.split(".")[1], 1)


@dataclass(slots=True)
class _Day:
    """A day of a line as it was listed. `changed_ns` is the directory's time before that."""

    changed_ns: int = -1
    names: set[str] = field(default_factory=set)
    waiting: dict[str, EvidenceFile] = field(default_factory=dict)


class WaitingFiles:
    """Looks at the directory from time to time; each day's folder only when it has changed. For one thread."""

    def __init__(self, root: Path, notes: EvidenceNotes) -> None:
        self._root = root
        self._notes = notes
        self._days: dict[tuple[str, str], _Day] = {}
        self._order: list[EvidenceFile] = []
        self._sorted_for: frozenset[str] = frozenset()
        self._look_at = 0.0
        self._aside: dict[EvidenceFile, None] = {}

    @property
    def count(self) -> int:
        """How many wait."""
        return sum(len(day.waiting) for day in self._days.values())

    @property
    def size_bytes(self) -> int:
        """Their bytes."""
        return sum(file.size_bytes for day in self._days.values() for file in day.waiting.values())

    def next(self) -> EvidenceFile | None:
        """The most valuable one; None when nothing waits. Raises OSError when the directory can't be read."""
        if time.monotonic() >= self._look_at:
            self._look()
            self._look_at = time.monotonic() + LOOK_EVERY_S
        elif self._sorted_for != self._notes.pins:
            self._sort()
        while self._order:
            file = self._order[-1]
            if file in self._waiting(file).values() and file not in self._aside:
                return file
            self._order.pop()
        return None

    def done(self, file: EvidenceFile) -> None:
        """It is uploaded, or gone."""
        self._waiting(file).pop(file.path.name, None)

    def set_aside(self, file: EvidenceFile) -> None:
        """Not again before the next start; of very many the first may come again."""
        self._aside[file] = None
        if len(self._aside) > MOST_SET_ASIDE:
            del self._aside[next(iter(self._aside))]

    def _waiting(self, file: EvidenceFile) -> dict[str, EvidenceFile]:
        day = self._days.get((file.line, file.name.partition("/")[0]))
        return day.waiting if day else {}

    def _look(self) -> None:
        found = {(line.name, day.name): day for line in self._lines() for day in _folders(line, _DAY)}
        gone_days = self._days.keys() - found.keys()
        for gone in gone_days:
            del self._days[gone]
        changed = {line for line, _ in found} if gone_days else set()
        for key, path in found.items():
            day = self._days.setdefault(key, _Day())
            try:
                now_ns = path.stat().st_mtime_ns
                if now_ns != day.changed_ns:
                    self._list(key[0], path, day)
                    # One that comes within the same tick of the disk's clock would not show.
                    day.changed_ns = now_ns if abs(time.time_ns() - now_ns) > SETTLED_NS else -1
                    changed.add(key[0])
            except FileNotFoundError:
                continue  # its last file went this moment
        for line in changed:
            present = (
                f"{day}/{name}" for (of, day), one in self._days.items() if of == line for name in one.names
            )
            self._notes.keep_only(line, set(present))
        if changed or self._sorted_for != self._notes.pins:
            self._sort()

    def _list(self, line: str, path: Path, day: _Day) -> None:
        there = {
            file.name for file in path.iterdir() if _NAME.fullmatch(file.name) and file.suffix in MEDIA_TYPES
        }
        uploaded = self._notes.uploaded(line)
        for name in day.waiting.keys() - there:
            del day.waiting[name]
        for name in there - day.waiting.keys():
            relative = f"{path.name}/{name}"
            if relative not in uploaded:
                try:
                    size = (path / name).lstat().st_size
                except FileNotFoundError:
                    continue
                day.waiting[name] = EvidenceFile(line, relative, path / name, size)
        day.names = there

    def _lines(self) -> Iterator[Path]:
        return (path for path in _folders(self._root, _LINE) if path.name != "latest")

    def _sort(self) -> None:
        pins = self._notes.pins
        waiting = [file for day in self._days.values() for file in day.waiting.values()]
        # Taken from the end.
        waiting.sort(key=lambda file: (file.event_id not in pins, file.rank, file.name), reverse=True)
        self._order, self._sorted_for = waiting, pins


def _folders(directory: Path, wanted: re.Pattern[str]) -> Iterator[Path]:
    try:
        yield from (path for path in directory.iterdir() if wanted.fullmatch(path.name) and path.is_dir())
    except FileNotFoundError:
        return
