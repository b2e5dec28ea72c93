# SPDX-License-Identifier: Apache-2.0
"""Lets as many parts in as there are workers, a few more wait, the rest is told at once."""

import contextlib
import threading
import time
from collections.abc import Iterator

from linewatch_inference.errors import Busy, DeadlinePassed


class Admission:
    """`workers` parts at a time, at most `queue_limit` waiting for one to end."""

    def __init__(self, workers: int, queue_limit: int) -> None:
        self._free = threading.Semaphore(workers)
        self._queue_limit = queue_limit
        self._lock = threading.Lock()
        self._waiting = 0
        self._busy = 0

    @property
    def waiting(self) -> int:
        """Parts that wait for a worker now."""
        return self._waiting

    @property
    def busy(self) -> int:
        """Workers that judge a part now."""
        return self._busy

    @contextlib.contextmanager
    def worker(self, budget_s: float | None) -> Iterator[float]:
        """Holds a worker for the block; gives the seconds that were waited for it.

        Raises:
            Busy: every worker is busy and the queue is full.
            DeadlinePassed: no worker came free within the caller's budget.
        """
        started = time.perf_counter()
        if not self._free.acquire(blocking=False):
            self._wait(budget_s)
        with self._lock:
            self._busy += 1
        try:
            yield time.perf_counter() - started
        finally:
            with self._lock:
                self._busy -= 1
            self._free.release()

    def _wait(self, budget_s: float | None) -> None:
        with self._lock:
            if self._waiting >= self._queue_limit:
                raise Busy(
                    f"every worker is busy and {self._queue_limit} parts wait; skip this part, or wait one interval"
                )
            self._waiting += 1
        try:
            if not self._free.acquire(timeout=budget_s):
                raise DeadlinePassed(
                    f"no worker was free within the {budget_s:.3f} s that were left; allow more time"
                )
        finally:
            with self._lock:
                self._waiting -= 1
