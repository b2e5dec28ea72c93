# SPDX-License-Identifier: Apache-2.0
"""How long each stream holds at the present rate, and how long the backlog takes to drain. Pure.

"7 days and 10 MB" is two promises, and the smaller one holds: at ten parts a second 10 MB are full within an hour. So
the rate at which a stream fills is measured, and the retention that follows from it is told. Likewise the drain.

All times are of a monotonic clock. Memory: one small estimate for each stream.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from linewatch_runtime.records import StreamState

WINDOW_S = 600.0
"""A fill rate's time constant: what is older than this counts for little."""

DRAIN_WINDOW_S = 60.0

IDLE_AFTER_S = 60.0
"""A line that stands is not a line with a low rate: after this long without an event its estimate rests, so that it
tells on Monday morning what it told on Friday."""

LONGEST_STEP_S = 30.0
"""Between two looks. A longer one is a process that was held or a memory that could not be asked; it measures nothing."""

KNOWN_AFTER_S = 10.0
"""Seconds of measuring below which a rate is not told. What can't be known is None, never a guess."""

CAUGHT_UP_S = 3.0
"""What comes within this time may be on its way without being a backlog."""

KNOWN_SIZE_AFTER = 20
"""Waiting events from which their mean size on disk is taken instead of their size on arrival."""


@dataclass(slots=True)
class Rate:
    """Things per second: sums that forget, so it is right from the start on and bounded for ever.

    `steps` are (things, seconds) that were measured; `per_s` is None until KNOWN_AFTER_S of them.
    """

    window_s: float
    things: float = 0.0
    seconds: float = 0.0
    measured_s: float = 0.0

    def note(self, things: float, seconds: float) -> None:
        """Adds a step."""
        kept = math.exp(-seconds / self.window_s)
        self.things = self.things * kept + things
        self.seconds = self.seconds * kept + seconds
        self.measured_s = min(self.measured_s + seconds, self.window_s)

    @property
    def per_s(self) -> float | None:
        """None: not known yet."""
        return self.things / self.seconds if self.measured_s >= KNOWN_AFTER_S else None


@dataclass(frozen=True, slots=True)
class Arrived:
    """Events that came into a stream since the process began, and their bytes on arrival."""

    events: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """What a stream holds at the present rate.

    Attributes:
        rate_per_s: events that come, while they come; None: not known yet.
        seconds: how far back the stream reaches before the oldest is dropped; None: not known yet.
        limit: what ends it: "bytes" of the stream, "file" of all streams, "age"; empty: not known yet.
    """

    rate_per_s: float | None = None
    seconds: float | None = None
    limit: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """The way out.

    Attributes:
        state: "caught_up"; "draining"; "growing": more comes than goes; "stopped": nothing goes; "unknown": not measured.
        rate_per_s: events that went while there was a backlog, as last measured; None: never.
        seconds: until the backlog is gone; None where the state does not tell. While stopped: how long it will take
            once it goes again.
    """

    state: str = "unknown"
    rate_per_s: float | None = None
    seconds: float | None = None


@dataclass(slots=True)
class _Fill:
    rate: Rate = field(default_factory=lambda: Rate(WINDOW_S))
    arrived: Arrived = field(default_factory=Arrived)
    quiet_s: float = 0.0
    size: float = 0.0

    def look(self, arrived: Arrived, state: StreamState, seconds: float) -> None:
        came = arrived.events - self.arrived.events
        self.quiet_s = 0.0 if came else self.quiet_s + seconds
        if arrived.events and self.quiet_s <= IDLE_AFTER_S and 0 < seconds <= LONGEST_STEP_S:
            self.rate.note(came, seconds)
        if state.events >= KNOWN_SIZE_AFTER:
            self.size = state.bytes / state.events
        elif came:
            self.size = self.size or (arrived.bytes - self.arrived.bytes) / came
        self.arrived = arrived

    @property
    def bytes_per_s(self) -> float:
        return (self.rate.per_s or 0.0) * self.size


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    waiting: int
    gone: int
    is_stopped: bool


class Retentions:
    """Measures, one look at a time."""

    def __init__(self, max_age_s: float, file_max_bytes: float) -> None:
        """`file_max_bytes`: what all streams together may hold; math.inf where only each stream's own limit counts."""
        self._max_age_s = max_age_s
        self._file_max_bytes = file_max_bytes
        self._fills: dict[str, _Fill] = {}
        self._out = Rate(DRAIN_WINDOW_S)
        self._last: _Look | None = None

    def look(
        self, now: float, states: Sequence[StreamState], arrived: Mapping[str, Arrived], *, is_stopped: bool
    ) -> None:
        """Takes a look's counts in.

        Args:
            now: monotonic seconds.
            states: of every stream.
            arrived: by stream.
            is_stopped: whether nothing goes out now: not connected, or all is refused.
        """
        waiting, gone = sum(one.events for one in states), sum(one.settled + one.buried for one in states)
        before, self._last = self._last, _Look(now, waiting, gone, is_stopped)
        if before is None:
            self._fills = {name: _Fill(arrived=so_far) for name, so_far in arrived.items()}
            return
        seconds = now - before.at
        for one in states:
            fill = self._fills.setdefault(one.name, _Fill())
            fill.look(arrived.get(one.name, Arrived()), one, seconds)
        if not 0 < seconds <= LONGEST_STEP_S:
            return
        went = gone - before.gone
        # Only with a backlog at both ends a step tells how fast the way out is, and not how little there was to send.
        if (
            min(waiting, before.waiting) >= CAUGHT_UP_S * max(went, 1)
            and not (is_stopped or before.is_stopped)
            and went >= 0
        ):
            self._out.note(went, seconds)

    def of(self, state: StreamState) -> Retention:
        """What this stream holds."""
        fill = self._fills.get(state.name)
        rate = fill.rate.per_s if fill else None
        if fill is None or rate is None or not fill.bytes_per_s:
            return Retention()
        limits = {
            "age": self._max_age_s,
            "bytes": state.max_bytes / fill.bytes_per_s,
            "file": self._file_max_bytes / sum(one.bytes_per_s for one in self._fills.values()),
        }
        limit = min(limits, key=lambda name: limits[name])
        return Retention(rate, limits[limit], limit)

    @property
    def drain(self) -> Drain:
        """The way out, over all streams."""
        out, last = self._out.per_s, self._last
        if last is None:
            return Drain()
        coming = sum(fill.rate.per_s or 0.0 for fill in self._fills.values() if fill.quiet_s <= IDLE_AFTER_S)
        net = (out or 0.0) - coming
        seconds = last.waiting / net if net > 0 else None
        if not last.waiting or (last.waiting <= CAUGHT_UP_S * coming and not last.is_stopped):
            return Drain("caught_up", out, 0.0)
        if last.is_stopped:
            return Drain("stopped", out, seconds)
        if out is None:
            return Drain("unknown")
        return Drain("draining" if net > 0 else "growing", out, seconds)
