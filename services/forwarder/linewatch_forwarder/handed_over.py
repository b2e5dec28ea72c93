# SPDX-License-Identifier: Apache-2.0
"""Events that somebody took who may still lose them, such as the Greengrass nucleus with its spooler in memory.

They stay in the streams. When the uplink's session is still the same after the resend window they count as accepted;
when it changed before that, they are due again. A kill of this process forgets the window: all of it is sent again,
and the cloud drops the repeats.
"""

import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from itertools import takewhile

MOST_HANDED_OVER = 5_000
"""Events in the window at once. Then nothing more is sent until some have ripened, so that over a long time no more than
this many in each window go out; for a window of 10 s that is 500 events per second."""


class HandedOver:
    """The resend window of one uplink."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._session = 0
        self._taken_at: dict[str, float] = {}  # by event id, oldest first

    @property
    def event_ids(self) -> AbstractSet[str]:
        """What must not be sent again now."""
        return self._taken_at.keys()

    @property
    def room(self) -> int:
        """How many events may be sent now."""
        return MOST_HANDED_OVER - len(self._taken_at)

    def take(self, event_ids: Iterable[str], session: int) -> None:
        """Notes what was handed over in this session of the uplink."""
        self.forget_other_than(session)
        now = self._clock()
        for event_id in event_ids:
            self._taken_at[event_id] = now

    def forget_other_than(self, session: int) -> bool:
        """Makes what an earlier session took due again. Returns whether there was any."""
        if session == self._session:
            return False
        self._session = session
        had_some = bool(self._taken_at)
        self._taken_at.clear()
        return had_some

    def ripe(self) -> list[str]:
        """What may be settled."""
        latest = self._clock() - self._window_s
        return [event_id for event_id, at in takewhile(lambda one: one[1] <= latest, self._taken_at.items())]

    def let_go(self, event_ids: Iterable[str]) -> None:
        """Forgets what has left the streams."""
        for event_id in event_ids:
            self._taken_at.pop(event_id, None)
