# SPDX-License-Identifier: Apache-2.0
"""What capture is doing, in words that the console, the log and the metrics share."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping

from linewatch_capture import metrics

log = logging.getLogger(__name__)

RUNNING, WAITING, STOPPED, OFFLINE = "running", "waiting", "stopped", "offline"

COUNTED = ("sent", "judged", "not_inspected", "skipped")


class Progress:
    """State, detail and counts. Changed from the event loop only."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        """`counts` as the spool has them: they go on over restarts."""
        self.state = WAITING
        metrics.state_is(WAITING)
        self.detail = "starting"
        self.counts: Counter[str] = Counter({name: counts.get(name, 0) for name in COUNTED})
        self.spool_full = False
        self.under_inspection = False
        """Whether inference is asked about a part now; an update waits for the answer (linewatch_runtime.nucleus)."""
        self.changed = asyncio.Event()

    def run(self, detail: str = "") -> None:
        """Parts are judged, or recorded as not inspected with the reason in `detail`."""
        self._set(RUNNING, detail)

    def wait_for(self, detail: str) -> None:
        """Nothing moves and nothing is lost: the source can wait."""
        self._set(WAITING, detail)

    def hold(self, detail: str) -> None:
        """No judging because the spool is full."""
        self.spool_full = True
        metrics.SPOOL_FULL.set(1)
        self._set(STOPPED, detail)

    def resume(self) -> None:
        """There is room again."""
        self.spool_full = False
        metrics.SPOOL_FULL.set(0)

    def end(self, detail: str) -> None:
        """The source has ended."""
        self._set(STOPPED, detail)

    def leave(self) -> None:
        """The process is ending, in order."""
        self._set(OFFLINE, "the process was stopped")

    @contextlib.contextmanager
    def inspecting(self) -> Iterator[None]:
        """A part is under inspection for the block; one at a time."""
        self.under_inspection = True
        try:
            yield
        finally:
            self.under_inspection = False

    def why_skipped(self) -> str:
        """The reason for a part that is skipped now (event.proto, PartsSkipped)."""
        return "spool_full" if self.spool_full else "replaced_by_newer"

    def _set(self, state: str, detail: str) -> None:
        if state != self.state:
            level = logging.INFO if state == RUNNING else logging.WARNING
            log.log(level, "state_changed", extra={"state": state, "detail": detail})
        if (state, detail) != (self.state, self.detail):
            self.state, self.detail = state, detail
            metrics.state_is(state)
            self.changed.set()
