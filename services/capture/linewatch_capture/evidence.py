# SPDX-License-Identifier: Apache-2.0
"""Pictures and windows that people look at, in one directory that capture writes and the console reads.

    {line}/{yyyymmdd}/{event_id}.jpg           the frame as it came (.png where it is one)
    {line}/{yyyymmdd}/{event_id}.heatmap.png   8-bit grey, over the whole frame
    {line}/{yyyymmdd}/{event_id}.csv           a sensor window
    …/{event_id}.ok.jpg                        the same of a good part: the first to go
    latest/{line}/{station}.jpg|.png|.csv      frame, heat map, window of the newest part; replaced atomically

Guarantee: what an event names is on disk (fsync, rename, fsync of the directory) before the event is. A full or
broken disk costs the evidence, never the event; that is said in the log and counted. `latest/` promises nothing.
Full: at `max_bytes` the oldest evidence of good parts goes first, then the oldest of all. The files are listed once, at
the start; afterwards a running total is kept. Files may be taken away by others (the forwarder uploads and evicts).
"""

import asyncio
import datetime
import hashlib
import io
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from linewatch.v1 import event_pb2
from linewatch_capture import metrics
from linewatch_capture.grey_png import grey_png
from linewatch_capture.parts import Frame, Judged, NotInspected, Outcome, Part, Window

log = logging.getLogger(__name__)

GOOD_MARK = ".ok"


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """One file to be. `suffix` follows the event id."""

    kind: str
    suffix: str
    media_type: str
    content: bytes


class NoEvidence:
    """Keeps nothing: there is no directory."""

    async def keep(self, event_id: str, part: Part, outcome: Outcome) -> Sequence[event_pb2.Evidence]:  # noqa: ARG002
        """Nothing."""
        return []


class EvidenceDirectory:
    """The evidence of one line, with a budget."""

    def __init__(self, root: Path, line: str, station: str, ok_share: float, max_bytes: int) -> None:
        """Lists what is there. Raises OSError when the directory can't be made or read."""
        self._root = root
        self._line = line
        self._latest = root / "latest" / line / station
        self._ok_share = ok_share
        self._budget = EvidenceBudget(root / line, max_bytes)
        self._latest.parent.mkdir(parents=True, exist_ok=True)
        self._failing = False

    async def keep(self, event_id: str, part: Part, outcome: Outcome) -> Sequence[event_pb2.Evidence]:
        """Writes in a thread of its own. What can't be written is left out."""
        return await asyncio.to_thread(self._keep, event_id, part, outcome)

    def _keep(self, event_id: str, part: Part, outcome: Outcome) -> list[event_pb2.Evidence]:
        files = list(files_of(part, outcome))
        try:
            kept = (
                [self._write(event_id, part, file, outcome) for file in files]
                if self._wanted(event_id, outcome)
                else []
            )
            self._show_latest(files, outcome)
        except OSError as error:
            metrics.EVIDENCE_FAILURES.inc()
            if not self._failing:
                log.error("evidence_failed", extra={"event_id": event_id, "reason": str(error)})
            self._failing = True
            return []
        if self._failing:
            log.info("evidence_works_again", extra={"event_id": event_id})
        self._failing = False
        return kept

    def _wanted(self, event_id: str, outcome: Outcome) -> bool:
        if not isinstance(outcome, Judged):
            return False
        # The tail of a UUIDv7 is random: a share of the ids is a share of the parts, and a repeat decides alike.
        return not outcome.is_good or int(event_id[-8:], 16) < self._ok_share * 2**32

    def _write(self, event_id: str, part: Part, file: EvidenceFile, outcome: Outcome) -> event_pb2.Evidence:
        day = datetime.datetime.fromtimestamp(part.taken_at, datetime.UTC).strftime("%Y%m%d")
        good = isinstance(outcome, Judged) and outcome.is_good
        relative = Path(self._line, day, f"{event_id}{GOOD_MARK if good else ''}{file.suffix}")
        self._budget.make_room(len(file.content))
        _write_durably(self._root / relative, file.content)
        self._budget.add(self._root / relative, len(file.content))
        return event_pb2.Evidence(
            kind=file.kind, digest=f"sha256:{hashlib.sha256(file.content).hexdigest()}", path=relative.as_posix(),
            media_type=file.media_type, size_bytes=len(file.content),
        )  # fmt: skip

    def _show_latest(self, files: Sequence[EvidenceFile], outcome: Outcome) -> None:
        if isinstance(outcome, NotInspected) and outcome.reason == "unreadable_image":
            return
        if all(file.kind != "heatmap" for file in files):
            self._latest.with_name(self._latest.name + ".png").unlink(
                missing_ok=True
            )  # it belongs to an older frame
        # One name for the frame whatever its format, so that a reader has one place to look.
        for file, suffix in (
            (file, {"frame": ".jpg", "heatmap": ".png"}.get(file.kind, ".csv")) for file in files
        ):
            _replace(self._latest.with_name(self._latest.name + suffix), file.content)


class EvidenceBudget:
    """The files of one line, oldest first, and their bytes."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        self._good: deque[tuple[Path, int]] = deque()
        self._other: deque[tuple[Path, int]] = deque()
        self.used_bytes = 0
        # A UUIDv7 begins with its time, so the order of the names is the order of the parts.
        for path in sorted(directory.glob("*/*")):
            if path.name.startswith("."):
                path.unlink(missing_ok=True)  # a kill left it half written
            else:
                self.add(path, path.stat().st_size)

    def add(self, path: Path, size: int) -> None:
        """Counts a file that is there now."""
        files = self._good if GOOD_MARK in path.suffixes else self._other
        files.append((path, size))
        self.used_bytes += size
        metrics.EVIDENCE_BYTES.set(self.used_bytes)

    def make_room(self, size: int) -> None:
        """Removes the oldest files until `size` more bytes fit. Raises OSError when it may not."""
        while self.used_bytes + size > self._max_bytes and (self._good or self._other):
            files = self._good or self._other
            path, freed = files[0]
            path.unlink(missing_ok=True)
            files.popleft()
            self.used_bytes -= freed


def files_of(part: Part, outcome: Outcome) -> Iterator[EvidenceFile]:
    """What there is to see of a part."""
    if isinstance(part.content, Frame):
        png = part.content.is_png
        media_type = "image/png" if png else "image/jpeg"
        yield EvidenceFile("frame", ".png" if png else ".jpg", media_type, part.content.encoded)
    elif isinstance(part.content, Window):
        yield EvidenceFile("window", ".csv", "text/csv", window_csv(part.content))
    if isinstance(outcome, Judged) and outcome.heatmap:
        heatmap = outcome.heatmap
        png_bytes = grey_png(heatmap.values, heatmap.width, heatmap.height)
        yield EvidenceFile("heatmap", ".heatmap.png", "image/png", png_bytes)


def window_csv(window: Window) -> bytes:
    """The window's real records, without the padding, oldest first; the header names cycle and channels."""
    text = io.StringIO()
    text.write(",".join(("cycle", *window.channels)) + "\n")
    rows = zip(window.cycles, window.records, strict=True)
    for cycle, record in list(rows)[window.padded_rows :]:
        text.write(",".join((str(cycle), *(f"{value:g}" for value in record))) + "\n")
    return text.getvalue().encode()


def _write_durably(path: Path, content: bytes) -> None:
    """The file under its name, on disk; or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _replace(path: Path, content: bytes) -> None:
    """The file under its name, whole at any moment, on disk some time later."""
    unfinished = path.with_name(f".{path.name}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
