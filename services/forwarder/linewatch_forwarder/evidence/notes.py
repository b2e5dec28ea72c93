# SPDX-License-Identifier: Apache-2.0
"""What the forwarder tells capture of its evidence: what an open work order holds, and what the cloud has.

    <evidence directory>-state/pins                one event id a line; replaced whole
    <evidence directory>-state/uploaded/{line}     one file a line, as {yyyymmdd}/{name}; grows at its end

Capture reads them (linewatch_capture/evidence_notes.py): pins keep a part's evidence, and an uploaded part goes before
one that is only here. A lost line of `uploaded` costs one conditional request, so it is not forced to the disk; lost
pins could cost evidence, so they are. Both are bounded: the pins by the device shadow, the list by the files there are.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

MOST_PINS = 512
"""Far above what a device shadow of 8 KB can name."""


def state_dir_of(evidence_dir: Path) -> Path:
    """Where the notes about this evidence lie."""
    return evidence_dir.with_name(evidence_dir.name + "-state")


class EvidenceNotes:
    """Writes the notes, and reads them at the start."""

    def __init__(self, state_dir: Path) -> None:
        """Raises OSError when the directory can't be used."""
        self._pins_file = state_dir / "pins"
        self._uploaded_dir = state_dir / "uploaded"
        self._uploaded_dir.mkdir(parents=True, exist_ok=True)
        self.pins: frozenset[str] = frozenset(_lines(self._pins_file))
        """Event ids that open work orders hold, as far as this device knows."""
        self._uploaded = {path.name: set(_lines(path)) for path in self._lists()}

    def uploaded(self, line: str) -> Collection[str]:
        """Files of a line that the cloud has, as {yyyymmdd}/{name}."""
        return self._uploaded.get(line, set())

    def pin(self, event_ids: Collection[str]) -> bool:
        """Holds these and no others; on disk when it returns. Whether that is a change. Raises OSError."""
        wanted = frozenset(
            sorted(event_ids, reverse=True)[:MOST_PINS]
        )  # the newest, should there ever be more
        if wanted == self.pins:
            return False
        _replace(self._pins_file, wanted, durable=True)
        self.pins = wanted
        return True

    def add_uploaded(self, line: str, name: str) -> None:
        """The cloud has this file. Raises OSError."""
        with (self._uploaded_dir / line).open("ab") as file:
            # A kill or a full disk may have left half a line; what is glued to it would be lost, too.
            file.write(b"" if _ends_whole(self._uploaded_dir / line) else b"\n")
            file.write(f"{name}\n".encode())
        self._uploaded.setdefault(line, set()).add(name)

    def keep_only(self, line: str, present: Collection[str]) -> None:
        """Forgets files that are gone, once they are the larger half. Raises OSError."""
        noted = self._uploaded.get(line, set())
        left = noted & set(present)
        if len(noted) > 2 * len(left) + 100:
            _replace(self._uploaded_dir / line, left, durable=False)
            self._uploaded[line] = left

    def _lists(self) -> Iterator[Path]:
        return (path for path in self._uploaded_dir.iterdir() if not path.name.startswith("."))


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = content[: content.rfind(b"\n") + 1]
    return whole.decode("ascii", "replace").split()


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _replace(path: Path, lines: Collection[str], *, durable: bool) -> None:
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("wb") as file:
        file.write("".join(f"{line}\n" for line in sorted(lines)).encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())
    unfinished.replace(path)
    if durable:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
