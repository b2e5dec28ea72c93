# SPDX-License-Identifier: Apache-2.0
"""The audit log on disk: hash-chained entries (linewatch.records), one JSON line each, in files of bounded size.

Each file is a chain of its own whose first entry names the end of the file before it, so that the log stays verifiable
when its oldest file has to go. An entry is on the disk, fsynced, before `append` comes back.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from linewatch.records import Entry, first_fault, following

SEGMENTS = 8
"""Files of the log; a new one ends the oldest."""
LONGEST_LINE = 64 * 1024
_FIELDS = {field.name: field.type for field in fields(Entry)}


class UnreadableError(Exception):
    """A line is no entry."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying found. `fault` is empty where every entry follows from the one before it."""

    entries: int
    segments: int
    head: str
    fault: str


class Segments:
    """The files of one log, written by one process. Every call may raise OSError; after one it can be called again."""

    def __init__(self, directory: Path, largest_bytes: int, now: Callable[[], str]) -> None:
        self.directory = directory
        self._largest = max(largest_bytes // SEGMENTS, LONGEST_LINE)
        self._now = now
        self._lock: int | None = None
        self._file: int | None = None
        self._number = 0
        self._size = 0
        self._last: Entry | None = None

    def append(self, what: str, by: str, detail: Mapping[str, Any]) -> Entry:
        """Adds an entry. Raises OSError: then nothing of it is left in the log."""
        if self._file is None:
            self._open()
        if self._size >= self._largest:
            self._turn()
        return self._add(what, by, detail)

    def close(self) -> None:
        """Lets go of the files."""
        for handle in (self._file, self._lock):
            if handle is not None:
                os.close(handle)
        self._file = self._lock = None

    def _open(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._lock is None:
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                raise OSError(error.errno, "another console writes this audit log") from error
            self._lock = lock
        paths = paths_of(self.directory)
        self._number = number_of(paths[-1]) if paths else 0
        if not paths:
            self._begin(None)
            return
        cut = cut_torn_end(paths[-1])
        self._last, self._size = _last_of(paths[-1]), paths[-1].stat().st_size
        if self._last is None:
            # Empty, or its end can't be read: nothing can follow from it. The next file says so and goes on.
            self._begin(paths[-1])
        else:
            self._file = _opened(paths[-1])
        if cut:
            self._add(
                "cut",
                "",
                {"bytes": cut, "why": "an entry was not whole: the power went while it was written"},
            )

    def _turn(self) -> None:
        """Begins the next file, and lets the oldest go when there are too many."""
        last = self._path(self._number)
        self._begin(last)
        for path in paths_of(self.directory)[:-SEGMENTS]:
            gone = _ends_with(path)
            path.unlink()
            self._add("removed", "", gone)

    def _begin(self, before: Path | None) -> None:
        detail = _ends_with(before) if before else {}
        if before is not None and detail["entries"] == 0 and before.stat().st_size == 0:
            before.unlink()  # a beginning that the power took
            self._number -= 1
            previous = paths_of(self.directory)
            detail = _ends_with(previous[-1]) if previous else {}
        path = self._path(self._number + 1)
        made = _opened(path)
        if self._file is not None:
            os.close(self._file)
        self._file, self._number, self._size, self._last = made, self._number + 1, 0, None
        _sync_directory(self.directory)
        self._add("continues" if detail else "begins", "", detail)

    def _add(self, what: str, by: str, detail: Mapping[str, Any]) -> Entry:
        assert self._file is not None
        entry = following(self._last, f"console/{self._number:08d}", self._now(), what, by, detail)
        line = json.dumps(asdict(entry), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if len(line) > LONGEST_LINE:
            raise OSError(0, f"an entry is longer than {LONGEST_LINE} bytes")
        try:
            _write(self._file, line)
            # The guarantee: what is sent after this was written down, whatever happens to the power.
            os.fsync(self._file)
        except OSError:
            self._undo()
            raise
        self._last, self._size = entry, self._size + len(line)
        return entry

    def _undo(self) -> None:
        """Takes back half an entry; where even that fails, the next call opens anew and cuts it off."""
        handle, self._file = self._file, None
        assert handle is not None
        with contextlib.suppress(OSError):
            os.ftruncate(handle, self._size)
        os.close(handle)

    def _path(self, number: int) -> Path:
        return self.directory / f"audit-{number:08d}.jsonl"


def verify(directory: Path) -> Verdict:
    """Reckons every entry anew. Raises OSError."""
    count, head = 0, ""
    before: dict[str, Any] | None = None
    paths = paths_of(directory)
    for path in paths:
        number = number_of(path)
        try:
            entries = list(entries_of(path))
        except UnreadableError as error:
            return Verdict(count, len(paths), head, f"{path.name}: {error}")
        if fault := first_fault(entries):
            return Verdict(count, len(paths), head, f"{path.name}: {fault.why}")
        if before is not None and number != before["number"] + 1:
            return Verdict(count, len(paths), head, f"{path.name}: the file before it is missing")
        if fault_text := _link_fault(entries, number, before):
            return Verdict(count, len(paths), head, f"{path.name}: {fault_text}")
        count += len(entries)
        head = entries[-1].digest if entries else head
        before = {"number": number, "chain": f"console/{number:08d}", "entries": len(entries), "head": head}
    return Verdict(count, len(paths), head, "")


def newest(directory: Path, limit: int) -> list[Entry]:
    """The newest entries, newest first; lines that can't be read are left out, `verify` names them. Raises OSError."""
    found: list[Entry] = []
    for path in reversed(paths_of(directory)):
        own: list[Entry] = []
        with contextlib.suppress(UnreadableError):
            for entry in entries_of(path):
                own.append(entry)  # noqa: PERF402 - what came before a line that can't be read counts
        found += reversed(own)
        if len(found) >= limit:
            break
    return found[:limit]


def entries_of(path: Path) -> Iterator[Entry]:
    """The entries of a file, oldest first. Raises UnreadableError."""
    with path.open("rb") as lines:
        for place, line in enumerate(lines):
            yield _entry(line, place)


def paths_of(directory: Path) -> list[Path]:
    """The log's files, oldest first."""
    return sorted(directory.glob("audit-????????.jsonl"))


def number_of(path: Path) -> int:
    """The number of a log's file."""
    return int(path.name[6:14])


def cut_torn_end(path: Path) -> int:
    """Cuts off what stands after the last whole line, and gives its length: its `append` never came back."""
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
        return len(content) - whole


def _link_fault(entries: list[Entry], number: int, before: Mapping[str, Any] | None) -> str:
    """Why a file does not continue the one before it. The oldest one left may continue what had to go."""
    if not entries:
        return "" if before else "it is empty"
    named = json.loads(entries[0].detail) if entries[0].what == "continues" else {}
    if entries[0].chain != f"console/{number:08d}":
        return f"it holds the chain {entries[0].chain}"
    if before is None:
        return "" if number == 1 or named else "what it continues is not named"
    expected = {name: before[name] for name in ("chain", "entries", "head")}
    return "" if named == expected else "it does not continue the file before it: one of them was changed"


def _ends_with(path: Path) -> dict[str, Any]:
    """The end of a file, as the next one's first entry names it."""
    count, head = 0, ""
    with contextlib.suppress(UnreadableError):
        for entry in entries_of(path):
            count, head = count + 1, entry.digest
    return {"chain": f"console/{number_of(path):08d}", "entries": count, "head": head}


def _last_of(path: Path) -> Entry | None:
    """The last entry; None when there is none or a line can't be read."""
    last = None
    try:
        for entry in entries_of(path):
            last = entry
    except UnreadableError:
        return None
    return last


def _entry(line: bytes, place: int) -> Entry:
    try:
        content = json.loads(line)
        if content.keys() != _FIELDS.keys() or not line.endswith(b"\n"):
            raise ValueError
        if not all(isinstance(content[name], int if name == "number" else str) for name in _FIELDS):
            raise ValueError
        return Entry(**content)
    except (ValueError, AttributeError, RecursionError) as error:
        raise UnreadableError(f"line {place + 1} is no entry") from error


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _write(handle: int, content: bytes) -> None:
    while content:
        content = content[os.write(handle, content) :]


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
