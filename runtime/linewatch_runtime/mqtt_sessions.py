# SPDX-License-Identifier: Apache-2.0
"""How the sessions of one client id end, how long to wait before the next, and whether somebody else has that id too.

A twin is a second process with the same client id: each one's connect ends the other's session, for ever. A broker may
say so (0x8E); few do, mosquitto 2.0.11 and rumqttd just close. Then SHORT_SESSIONS in a row are the sign of it; or, where
the other one takes its time, as many within TWIN_GONE_AFTER_S from a broker that never failed to answer in between.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable

from prometheus_client import Counter, Gauge

from linewatch_runtime.suspects import OF_A_PACKET

log = logging.getLogger(__name__)

SESSION_TAKEN_OVER = 0x8E

LONGEST_BACKOFF_S = 15.0
SHORT_SESSION_S = 2.0
SHORT_SESSIONS = 5

TWIN_BACKOFF_S = (4.0, 12.0)
"""Between two connects of a client id that has a twin: so slow that the two are no load for the broker, and each gets
some seconds of every round."""

TWIN_GONE_AFTER_S = 60.0
"""A session that has lasted this long, five times the longest pause of a twin, has no twin any more."""

_TWIN = Gauge("linewatch_mqtt_twin", "1 while another process uses this role's client id", ["role"])
_FORGOTTEN = Counter(
    "linewatch_mqtt_sessions_forgotten", "Kept sessions that the broker had lost when we came back", ["role"]
)
_TAKEN_OVER = Counter("linewatch_mqtt_taken_over", "Sessions that another process's connect ended", ["role"])


class Sessions:
    """The history of one client id, as far as it matters for the next session."""

    def __init__(self, client_id: str, role: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client_id = client_id
        self._clock = clock
        self._taken_over = _TAKEN_OVER.labels(role)
        self._forgotten = _FORGOTTEN.labels(role)
        self._is_first = True
        self._ends: deque[float] = deque(maxlen=SHORT_SESSIONS)
        self._failures = self._short = 0
        self._began_at: float | None = None
        self._twin = ""
        _TWIN.labels(role).set_function(lambda: float(bool(self.twin)))

    @property
    def twin(self) -> str:
        """Says that another process uses this client id, for people; empty where nothing looks like it."""
        lasts = self._began_at is not None and self._clock() - self._began_at >= TWIN_GONE_AFTER_S
        return "" if lasts else self._twin

    def begin(self, *, is_kept: bool = True) -> None:
        """A session is there; `is_kept` is False where the broker should have kept the last one and did not."""
        self._began_at = self._clock()
        if not (is_kept or self._is_first):
            self._forgotten.inc()
            log.warning("mqtt_session_forgotten", extra={"client_id": self._client_id})
        self._is_first = False

    def end(self, code: int, *, by_us: bool = False) -> None:
        """It ended, with the reason code of the broker's DISCONNECT; 0 where it gave none."""
        if self._began_at is None:
            return
        twin, lasted_s, self._began_at = self.twin, self._clock() - self._began_at, None
        self._failures = 0
        explained = by_us or code in OF_A_PACKET  # a broker that blames what we sent speaks of no twin
        self._short = self._short + 1 if lasted_s < SHORT_SESSION_S and not explained else 0
        if not explained:
            self._ends.append(self._clock())
        if code == SESSION_TAKEN_OVER:
            self._taken_over.inc()
            self._twin = (
                f"another process connects with the client id {self._client_id}; stop it, or give it its own"
            )
            if not twin:
                log.error("mqtt_client_id_taken", extra={"reason": self._twin})
        elif self._short >= SHORT_SESSIONS or self._ends_often:
            self._twin = (
                f"{SHORT_SESSIONS} sessions in a row were ended, by a broker that takes each new one:"
                f" does another process use the client id {self._client_id}?"
            )
            if not twin:
                log.error("mqtt_sessions_short", extra={"reason": self._twin})
        else:
            self._twin = twin

    def fail(self) -> None:
        """A connect led to no session: the broker is away, or was. No twin does that."""
        self._began_at = None
        self._short = 0
        self._ends.clear()
        self._failures = min(self._failures + 1, 8)

    @property
    def _ends_often(self) -> bool:
        return len(self._ends) == SHORT_SESSIONS and self._clock() - self._ends[0] < TWIN_GONE_AFTER_S

    def pause_s(self) -> float:
        """How long to wait before the next connect, with full jitter."""
        if self._twin:
            return random.uniform(*TWIN_BACKOFF_S)  # noqa: S311
        return random.uniform(0.05, min(LONGEST_BACKOFF_S, 0.5 * 2**self._failures))  # noqa: S311
