# SPDX-License-Identifier: Apache-2.0
"""THE FLOW of evidence: the most valuable file that waits -> bucket -> noted as uploaded.

Guarantee: events come first. A file is begun only while nothing keeps events from going out at once, and within
LOOK_S of the moment that they wait the bytes of a file stop, until they are gone. Nothing here is waited for by a flow
of events, and nothing that fails here ends the process.
A file that is gone is none to upload. What only a person can heal is told with the remedy, and tried seldom.
"""

import asyncio
import logging
import random
from collections.abc import Callable

from linewatch_forwarder.evidence import metrics
from linewatch_forwarder.evidence.files import EvidenceFile, WaitingFiles
from linewatch_forwarder.evidence.notes import EvidenceNotes
from linewatch_forwarder.evidence.s3_upload import Failure, Interrupted, Pace, S3Upload, Vanished
from linewatch_runtime.lifecycle import in_daemon_thread, wait_until

log = logging.getLogger(__name__)

LOOK_S = 0.25
NOTHING_TO_DO_S = 1.0
LONGEST_BACKOFF_S = 60.0
FOR_A_PERSON_S = 600.0
"""How seldom what only a person can heal is tried again at most."""

TRIES_OF_A_FILE = 5
"""Failures in a row that concern one file only; then the others go on without it until the next start."""


class EvidenceUploads:
    """Uploads while events leave it room."""

    def __init__(
        self, files: WaitingFiles, notes: EvidenceNotes, upload: S3Upload, pace: Pace, why_wait: Callable[[], str]
    ) -> None:  # fmt: skip
        """`why_wait`: why events come first now; empty while they do not."""
        self._files = files
        self._notes = notes
        self._upload = upload
        self._pace = pace
        self._why_wait = why_wait
        self._state = "waiting"
        self._why = ""
        self._trouble = ""
        self._failures = 0
        self._of_file: tuple[EvidenceFile | None, int] = (None, 0)
        self._uploaded = self._uploaded_bytes = 0
        # As last looked at: the files belong to whichever thread works on them.
        self._waiting_files = self._waiting_bytes = 0

    def told(self) -> dict[str, object]:
        """For the status topic: state idle, uploading, waiting (why) or troubled (trouble)."""
        return {
            "state": self._state,
            "why": self._why,
            "trouble": self._trouble,
            "waiting_files": self._waiting_files,
            "waiting_bytes": self._waiting_bytes,
            "uploaded": self._uploaded,
            "uploaded_bytes": self._uploaded_bytes,
            "pinned": len(self._notes.pins),
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Uploads until `stop`; the file in hand is left where it is."""
        while not stop.is_set():
            if self._why_waits():
                await wait_until(stop, LOOK_S)
                continue
            try:
                file = await asyncio.to_thread(self._files.next)
                self._measure()
                if file is None:
                    self._state = "idle"
                    await wait_until(stop, NOTHING_TO_DO_S)
                    continue
                self._state = "uploading"
                size = await self._one(file, stop)
            except Interrupted:
                continue
            except Failure as failure:
                await wait_until(stop, self._failed(file, failure))
            except OSError as error:
                await wait_until(stop, self._failed(None, Failure("disk", str(error), heals=True)))
            else:
                self._succeeded(size)

    async def _one(self, file: EvidenceFile, stop: asyncio.Event) -> int:
        """Uploads one file in a thread of its own, which is told to stop when events wait. Returns its bytes."""
        self._pace.stop.clear()
        sent: list[int] = []

        def call() -> None:
            sent.append(self._upload_and_note(file))

        uploading = asyncio.create_task(in_daemon_thread(call), name="evidence upload")
        try:
            while not (await asyncio.wait({uploading}, timeout=LOOK_S))[0]:
                if stop.is_set():
                    raise Interrupted  # the thread is a daemon, and what it did is on disk
                if self._why_waits():
                    self._pace.stop.set()
            await uploading
        finally:
            self._pace.stop.set()
            if not uploading.done():
                uploading.cancel()
        return sent[0]

    def _upload_and_note(self, file: EvidenceFile) -> int:
        begun = self._upload.begun
        if begun is not None and begun != file.path and not begun.exists():
            self._upload.forget(begun)
        try:
            size = self._upload.upload(file)
        except Vanished:
            self._upload.forget(file.path)
            self._files.done(file)
            return 0
        self._notes.add_uploaded(file.line, file.name)
        self._files.done(file)
        return size

    def _why_waits(self) -> bool:
        self._why = self._why_wait()
        if self._why:
            self._state = "waiting"
        return bool(self._why)

    def _succeeded(self, size: int) -> None:
        if self._trouble:
            log.info("evidence_uploads_again")
        self._trouble, self._failures, self._of_file = "", 0, (None, 0)
        if size:
            self._uploaded += 1
            self._uploaded_bytes += size
            metrics.UPLOADED.inc()
            metrics.UPLOADED_BYTES.inc(size)
        self._measure()

    def _failed(self, file: EvidenceFile | None, failure: Failure) -> float:
        """Notes it, and returns how long to rest."""
        metrics.FAILURES.labels(failure.reason).inc()
        if str(failure) != self._trouble:
            log.error("evidence_not_uploaded", extra={"reason": str(failure), "heals": failure.heals})
        self._trouble, self._state = str(failure), "troubled"
        self._failures += 1
        if failure.of_file and file is not None:
            tries = self._of_file[1] + 1 if self._of_file[0] == file else 1
            self._of_file = (file, tries)
            if tries >= TRIES_OF_A_FILE:
                log.error(
                    "evidence_set_aside", extra={"file": f"{file.line}/{file.name}", "reason": str(failure)}
                )
                self._files.set_aside(file)
                self._failures = 0
        longest = LONGEST_BACKOFF_S if failure.heals or failure.of_file else FOR_A_PERSON_S
        least = 0.0 if failure.heals or failure.of_file else 5.0
        return random.uniform(least, max(least, min(longest, 2.0 ** min(self._failures, 10))))  # noqa: S311

    def _measure(self) -> None:
        self._waiting_files, self._waiting_bytes = self._files.count, self._files.size_bytes
        metrics.WAITING_FILES.set(self._waiting_files)
        metrics.WAITING_BYTES.set(self._waiting_bytes)
