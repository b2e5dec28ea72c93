# SPDX-License-Identifier: Apache-2.0
"""How parts reach the flow: one by one from a source that can wait, else through a slot of one where the newest wins."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

from linewatch_capture import metrics
from linewatch_capture.frame_loop import Arrival
from linewatch_capture.parts import Part


async def one_by_one(parts: AsyncIterator[Part]) -> AsyncIterator[Arrival]:
    """Each part in turn; the next is taken when the flow is ready for it."""
    async for part in parts:
        metrics.PARTS_TAKEN.inc()
        yield Arrival(part)


class NewestWins:
    """A slot of one. A part that a newer one replaces before the flow took it is skipped, and counted."""

    def __init__(self, why: Callable[[], str]) -> None:
        """`why` gives the reason at the moment of a skip: "replaced_by_newer" or "spool_full"."""
        self._why = why
        self._part: Part | None = None
        self._skipped: Counter[str] = Counter()
        self._skipped_marks: list[str] = []
        self._ended = False
        self._changed = asyncio.Event()

    async def fill(self, parts: AsyncIterator[Part], stop: asyncio.Event) -> None:
        """Puts the parts in by the source's own clock, until it ends. Run it as a task.

        After a stop what lies in the slot is left: it was not recorded, so the source gives it again.
        """
        async for part in parts:
            metrics.PARTS_TAKEN.inc()
            if self._part is not None:
                self._skipped[self._why()] += 1
                self._skipped_marks.append(self._part.mark)
            self._part = part
            self._changed.set()
        if stop.is_set():
            self._part = None
        self._ended = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Arrival]:
        """The newest part each time the flow asks."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._part is not None:
                arrival = Arrival(self._part, dict(self._skipped), tuple(self._skipped_marks))
                self._part = None
                self._skipped.clear()
                self._skipped_marks.clear()
                if self._ended:
                    self._changed.set()
                yield arrival
            elif self._ended:
                return
