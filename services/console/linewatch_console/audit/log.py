# SPDX-License-Identifier: Apache-2.0
"""What people did through this console: written down before it goes out, and what became of it afterwards."""

import asyncio
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import Counter as Metric
from prometheus_client import Gauge

from linewatch.records import Entry
from linewatch_console.audit import segments as on_disk
from linewatch_console.audit.segments import Segments, Verdict

log = logging.getLogger(__name__)

MOST_KEPT = 256
"""Entries that wait in memory while the disk takes none; decisions are refused meanwhile, so these are few."""
MOST_NOISE_PER_HOUR = 120
"""Failed sign-ins and refusals that get an entry each; the rest is counted. Else whoever can reach the page could push
the decisions out of the log."""
HOUR_S = 3600.0
VERDICT_LASTS_S = 10.0

written = Metric("linewatch_console_audit_entries", "Entries written to the audit log", ["what"])
failing = Gauge(
    "linewatch_console_audit_failing", "1 while the audit log can't be written, and nothing be decided"
)
lost = Metric("linewatch_console_audit_lost", "Notes that found no room in memory while the disk took none")


class AuditError(Exception):
    """The log can't be written or read; nothing is decided meanwhile. The text says why, for people."""


class Audit:
    """One log. `clock` gives monotonic seconds. Use it from one event loop."""

    def __init__(self, segments: Segments, clock: Callable[[], float]) -> None:
        self._segments = segments
        self._clock = clock
        self._lock = asyncio.Lock()
        self._kept: deque[tuple[str, str, dict[str, Any]]] = deque()
        self._noise: deque[float] = deque(maxlen=MOST_NOISE_PER_HOUR)
        self._uncounted: Counter[str] = Counter()
        self._verdict: tuple[float, Verdict] | None = None

    @property
    def directory(self) -> Path:
        """Where the log lies."""
        return self._segments.directory

    async def write(self, what: str, by: str, detail: Mapping[str, Any]) -> Entry:
        """Adds an entry and comes back when it is on the disk. Raises AuditError."""
        async with self._lock:
            await self._write_kept()
            return await self._append(what, by, detail)

    async def note(self, what: str, by: str, detail: Mapping[str, Any]) -> None:
        """Adds an entry about what has happened already; it waits in memory while the disk takes none."""
        async with self._lock:
            self._keep(what, by, detail)
            try:
                await self._write_kept()
            except AuditError as error:
                log.error("audit_not_written", extra={"what": what, "by": by, "reason": str(error)})

    async def noise(self, what: str, by: str, detail: Mapping[str, Any]) -> None:
        """Adds an entry that anybody could cause: so many an hour, then one that counts the others."""
        now = self._clock()
        if len(self._noise) == MOST_NOISE_PER_HOUR and self._noise[0] > now - HOUR_S:
            self._uncounted[what] += 1
            return
        self._noise.append(now)
        if self._uncounted:
            counted, self._uncounted = dict(self._uncounted), Counter()
            await self.note("not_listed", "", counted)
        await self.note(what, by, detail)

    async def begin(self) -> None:
        """Names what the last process did not end. Its decisions may have been taken; nobody repeats them."""
        try:
            entries = await asyncio.to_thread(on_disk.newest, self.directory, 2000)
        except OSError as error:
            log.error("audit_unreadable", extra={"reason": _told(error)})
            return
        ended = {_of(entry) for entry in entries if entry.what == "outcome"}
        for entry in reversed(entries):
            if entry.what == "decision" and entry.digest not in ended:
                why = "the console ended before the answer came"
                await self.note("outcome", entry.by, {"of": entry.digest, "outcome": "not_known", "why": why})
        verdict = await asyncio.to_thread(on_disk.verify, self.directory)
        if verdict.fault:
            log.error("audit_fault", extra={"reason": verdict.fault})
        await self.note("started", "", {})

    async def shown(self, limit: int) -> dict[str, Any]:
        """The newest entries, newest first, and whether the log holds together. Raises AuditError."""
        try:
            entries = await asyncio.to_thread(on_disk.newest, self.directory, limit)
            if self._verdict is None or self._clock() - self._verdict[0] > VERDICT_LASTS_S:
                self._verdict = self._clock(), await asyncio.to_thread(on_disk.verify, self.directory)
        except OSError as error:
            raise AuditError(f"this console's audit log can't be read: {_told(error)}") from error
        verdict = self._verdict[1]
        return {
            "entries": [shown(entry) for entry in entries],
            "verified": not verdict.fault,
            "fault": verdict.fault or None,
            "count": verdict.entries,
            "head": verdict.head,
            "waiting": len(self._kept),
        }

    def _keep(self, what: str, by: str, detail: Mapping[str, Any]) -> None:
        if len(self._kept) >= MOST_KEPT:
            lost.inc()
            self._kept.popleft()
        self._kept.append((what, by, dict(detail)))

    async def _write_kept(self) -> None:
        while self._kept:
            await self._append(*self._kept[0])
            self._kept.popleft()

    async def _append(self, what: str, by: str, detail: Mapping[str, Any]) -> Entry:
        try:
            entry = await asyncio.to_thread(self._segments.append, what, by, detail)
        except OSError as error:
            failing.set(1)
            raise AuditError(
                f"this console's audit log can't be written ({_told(error)}), so nothing was decided: "
                "make room below CONSOLE_STATE_DIR and try again"
            ) from error
        failing.set(0)
        written.labels(what).inc()
        return entry


def shown(entry: Entry) -> dict[str, Any]:
    """An entry for the page."""
    return {
        "chain": entry.chain, "number": entry.number, "at": entry.at, "what": entry.what, "by": entry.by,
        "detail": json.loads(entry.detail), "digest": entry.digest, "previous": entry.previous,
    }  # fmt: skip


def utc_now() -> str:
    """RFC 3339 with milliseconds."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


def _of(entry: Entry) -> str:
    return str(shown(entry)["detail"].get("of", ""))


def _told(error: OSError) -> str:
    return error.strerror or str(error)
