# SPDX-License-Identifier: Apache-2.0
"""The one thread that touches a spool's file, and what it does when the file or the disk fails.

A disk that fails (EIO, no room, a lock held by a person's command) has lost nothing: the call tells SpoolTrouble and
the next one tries again. A file that is damaged is salvaged in place, and the call is made once more, on the new file:
what failed had changed nothing. SQLite tells a read that failed once as damage, too: a file that is sound at a second
look is left as it is. So no service ends because of its disk while it runs.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from linewatch_runtime.records import SpoolDamaged, SpoolTrouble

if TYPE_CHECKING:
    from linewatch_runtime.spool import Spool

log = logging.getLogger(__name__)

HEAL_AGAIN_S = 1.0
"""A salvage that failed, as on a full disk, reads the whole file again; not at every call. Ten times as long as it took,
where that is more, and a second for so many bytes of the file at most: a busy machine makes a small file's look long."""
HEALED_BYTES_PER_S = 4 * 1024 * 1024

Result = TypeVar("Result")


class SpoolWorker:
    """The event loop never waits for the disk."""

    def __init__(self, make: Callable[[], "Spool"]) -> None:
        """Opens the spool in its thread. Raises what `make` raises."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._next_heal = 0.0
        self._damaged = ""
        self._look_again = True
        try:
            self.spool = self._thread.submit(make).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """The function's result, run in the spool's thread, one at a time in the order of the calls.

        Raises:
            SpoolTrouble: the disk or the file failed; try again.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: self._guarded(function, *arguments)
        )

    def _guarded(self, function: Callable[..., Result], *arguments: object) -> Result:
        if self._damaged:
            self._heal(self._damaged)
        try:
            return function(*arguments)
        except sqlite3.DatabaseError as error:
            if not self._damages(error):
                raise SpoolTrouble("", str(error)) from error
            self._heal(str(error))
        try:
            return function(*arguments)
        except sqlite3.DatabaseError as error:
            if self._damages(error):  # behind a look that found nothing: no look again
                self._damaged, self._look_again = str(error), False
            raise SpoolTrouble("", str(error)) from error

    def _damages(self, error: sqlite3.DatabaseError) -> bool:
        if isinstance(error, sqlite3.ProgrammingError):
            raise error  # a mistake of ours
        return self.spool.is_damaged(error)

    def _heal(self, reason: str) -> None:
        begun = time.monotonic()
        if begun >= self._next_heal:
            try:
                self.spool.heal(reason, look_again=self._look_again)
            except SpoolDamaged as error:
                ended = time.monotonic()
                self._next_heal = ended + self._rest_s(ended - begun)
                self._damaged = str(error)
                log.error("spool_not_salvaged", extra={"reason": str(error)})
            else:
                self._damaged, self._look_again = "", True
                return
        raise SpoolTrouble("", self._damaged)

    def _rest_s(self, took_s: float) -> float:
        path = self.spool.path
        wal = path.with_name(f"{path.name}-wal")
        try:
            size = path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
        except OSError:
            return max(HEAL_AGAIN_S, 10 * took_s)
        return max(HEAL_AGAIN_S, min(10 * took_s, size / HEALED_BYTES_PER_S))

    def close(self) -> None:
        """Waits for what was asked, then closes the file."""
        self._thread.submit(self.spool.close).result()
        self._thread.shutdown()
