# SPDX-License-Identifier: Apache-2.0
"""Pictures and windows that people look at, in one directory that capture writes and the console reads.

    {line}/{yyyymmdd}/{event_id}.jpg           the frame as it came (.png where it is one)
    {line}/{yyyymmdd}/{event_id}.heatmap.png   8-bit grey, over the whole frame
    {line}/{yyyymmdd}/{event_id}.csv           a sensor window
    …/{event_id}.ok.jpg, .review.jpg           the same of a good part, and of an uncertain one (evidence_value.py)
    latest/{line}/{station}.jpg|.png|.csv      frame, heat map, window of the newest part; replaced atomically

Guarantee: what an event names is on disk (fsync, rename, fsync of the directory) before the event is. A full or
broken disk costs the evidence, never the event; that is said in the log and counted. `latest/` promises nothing.
Full: at `max_bytes` what is worth least goes (evidence_value.py); what an open work order holds never goes, and when
nothing else is left a new part's evidence is not kept, which is said in the log and counted, too. The stations of a line
share its budget (evidence_budget.py). The forwarder uploads; nobody but capture removes.
"""

import asyncio
import datetime
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_capture import metrics
from linewatch_capture.evidence_budget import EvidenceBudget, EvidenceFull
from linewatch_capture.evidence_notes import EvidenceNotes, state_dir_of
from linewatch_capture.evidence_value import Worth
from linewatch_capture.grey_png import grey_png
from linewatch_capture.parts import Frame, Judged, NotInspected, Outcome, Part, Window

log = logging.getLogger(__name__)


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

    def close(self) -> None:
        """Nothing."""


class EvidenceDirectory:
    """The evidence of one line, with a budget."""

    def __init__(self, root: Path, line: str, station: str, ok_share: float, max_bytes: int) -> None:
        """Lists what is there. Raises OSError when the directory can't be made or read."""
        self._root = root
        self._line = line
        self._latest = root / "latest" / line / station
        self._ok_share = ok_share
        self._budget = EvidenceBudget(root / line, max_bytes, EvidenceNotes(state_dir_of(root), line))
        self._latest.parent.mkdir(parents=True, exist_ok=True)
        self._failing = self._full = False

    async def keep(self, event_id: str, part: Part, outcome: Outcome) -> Sequence[event_pb2.Evidence]:
        """Writes in a thread of its own. What can't be written is left out."""
        return await asyncio.to_thread(self._keep, event_id, part, outcome)

    def close(self) -> None:
        """Lets the line's files go."""
        self._budget.close()

    def _keep(self, event_id: str, part: Part, outcome: Outcome) -> list[event_pb2.Evidence]:
        files = list(files_of(part, outcome))
        try:
            kept = self._write(event_id, part, files, outcome) if self._wanted(event_id, outcome) else []
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

    def _write(
        self, event_id: str, part: Part, files: Sequence[EvidenceFile], outcome: Outcome
    ) -> list[event_pb2.Evidence]:
        day = datetime.datetime.fromtimestamp(part.taken_at, datetime.UTC).strftime("%Y%m%d")
        try:
            names = self._budget.keep(
                day, event_id, worth(outcome), {file.suffix: file.content for file in files}
            )
        except EvidenceFull as full:
            metrics.EVIDENCE_NOT_KEPT.inc()
            if not self._full:
                log.error("evidence_full", extra={"event_id": event_id, "reason": str(full)})
            self._is_full(full=True)
            return []
        if self._full:
            log.info("evidence_has_room", extra={"event_id": event_id})
        self._is_full(full=False)
        return [
            event_pb2.Evidence(
                kind=file.kind, digest=f"sha256:{hashlib.sha256(file.content).hexdigest()}",
                path=f"{self._line}/{names[file.suffix]}", media_type=file.media_type,
                size_bytes=len(file.content),
            )
            for file in files
        ]  # fmt: skip

    def _is_full(self, *, full: bool) -> None:
        self._full = full
        metrics.EVIDENCE_FULL.set(full)

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


def worth(outcome: Outcome) -> Worth:
    """The class of a judged part's evidence."""
    if not isinstance(outcome, Judged) or outcome.verdict.result == verdict_pb2.Verdict.REVIEW:
        return Worth.UNCERTAIN
    return Worth.GOOD if outcome.is_good else Worth.CERTAIN


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


def _replace(path: Path, content: bytes) -> None:
    """The file under its name, whole at any moment, on disk some time later."""
    unfinished = path.with_name(f".{path.name}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
