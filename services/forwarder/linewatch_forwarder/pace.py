# SPDX-License-Identifier: Apache-2.0
"""How fast the flow out may go: so many publishes and so many bytes per second."""

import time
from collections.abc import Callable


class Pace:
    """Spends a budget that does not grow while nothing is sent.

    Over any second at most its rate and one turn more go out: a turn is sent at once and paid for afterwards.
    """

    def __init__(
        self, publishes_per_s: float, bytes_per_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publishes_per_s = publishes_per_s
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._paid_until = clock()

    def spend(self, begun: float, publishes: int, sent_bytes: int) -> float:
        """Pays for a turn that began then, on the same clock. Returns how many seconds the next one has to wait."""
        price_s = max(publishes / self._publishes_per_s, sent_bytes / self._bytes_per_s)
        self._paid_until = max(self._paid_until, begun) + price_s
        return max(0.0, self._paid_until - self._clock())
