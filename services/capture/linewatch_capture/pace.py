# SPDX-License-Identifier: Apache-2.0
"""When the next part is due."""

import asyncio
import time

from linewatch_runtime.lifecycle import wait_until


class Pace:
    """At most `rate` parts a second."""

    def __init__(self, rate: float, *, by_the_clock: bool) -> None:
        """`by_the_clock`: lateness is caught up, as a camera's clock does; otherwise the next period starts late."""
        self._period_s = 1 / rate
        self._by_the_clock = by_the_clock
        self._due = time.monotonic()

    async def next(self, stop: asyncio.Event) -> bool:
        """Waits until a part is due. False when a stop was asked."""
        delay = self._due - time.monotonic()
        if delay > 0:
            await wait_until(stop, delay)
        else:
            await asyncio.sleep(0)  # a source that is always late must not starve the flow
        self._due = (self._due if self._by_the_clock else max(self._due, time.monotonic())) + self._period_s
        return not stop.is_set()
