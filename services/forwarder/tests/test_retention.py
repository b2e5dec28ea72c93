# SPDX-License-Identifier: Apache-2.0
"""What is told of how long a stream holds and how long its backlog drains, in made-up time."""

import math
from dataclasses import dataclass, field

import pytest

from linewatch_forwarder.retention import Arrived, Drain, Retention, Retentions
from linewatch_runtime.records import StreamState

DAY_S = 24 * 3600.0
MB = 1024 * 1024
ONE = "predictions-line-1"


@dataclass
class Line:
    """A stream that fills and drains as told, looked at once a second."""

    retentions: Retentions = field(default_factory=lambda: Retentions(7 * DAY_S, math.inf))
    name: str = ONE
    max_bytes: int = 10 * MB
    size: int = 1000
    size_on_disk: int = 400
    now: float = 1000.0
    came: int = 0
    gone: int = 0

    @property
    def state(self) -> StreamState:
        waiting = self.came - self.gone
        return StreamState(
            self.name, waiting, waiting * self.size_on_disk, self.max_bytes, 0.0, self.came, self.gone, 0, {}
        )

    def pass_s(
        self, seconds: int, comes: float = 0.0, goes: float = 0.0, *, is_stopped: bool = False
    ) -> None:
        """`comes` and `goes`: events per second."""
        came, gone = float(self.came), float(self.gone)
        for _ in range(seconds):
            self.now += 1
            came += comes
            gone = min(gone + goes, int(came))
            self.came, self.gone = int(came), int(gone)
            arrived = {self.name: Arrived(self.came, self.came * self.size)}
            self.retentions.look(self.now, [self.state], arrived, is_stopped=is_stopped)

    @property
    def retention(self) -> Retention:
        return self.retentions.of(self.state)

    @property
    def drain(self) -> Drain:
        return self.retentions.drain


def test_stream_that_fills_within_the_hour_says_so_and_not_seven_days() -> None:
    line = Line()

    line.pass_s(120, comes=10, goes=10)

    held = line.retention
    assert held.rate_per_s == pytest.approx(10)
    assert held.seconds == pytest.approx(10 * MB / 10_000)  # 17 minutes
    assert held.limit == "bytes"


def test_age_binds_where_few_events_come() -> None:
    line = Line()

    line.pass_s(600, comes=0.01, goes=1)

    assert (line.retention.seconds, line.retention.limit) == (7 * DAY_S, "age")


def test_file_binds_where_many_streams_share_it() -> None:
    line = Line(Retentions(7 * DAY_S, 1 * MB))

    line.pass_s(120, comes=10, goes=10)

    assert (line.retention.seconds, line.retention.limit) == (pytest.approx(MB / 10_000), "file")


def test_size_is_what_a_waiting_event_takes_on_disk() -> None:
    line = Line()

    line.pass_s(120, comes=10, is_stopped=True)

    assert line.retention.seconds == pytest.approx(10 * MB / (10 * 400))


def test_what_is_not_measured_yet_is_not_told() -> None:
    line = Line()
    assert (line.retention, line.drain) == (Retention(), Drain())
    line.pass_s(5, comes=10, goes=10)
    assert line.retention == Retention()

    line.pass_s(10, comes=10, goes=10)

    assert line.retention.seconds is not None


def test_line_that_stands_over_the_weekend_tells_the_same_on_monday() -> None:
    line = Line()
    line.pass_s(600, comes=10, goes=10)
    on_friday = line.retention

    line.pass_s(3 * 24 * 3600)

    assert line.retention.rate_per_s == pytest.approx(on_friday.rate_per_s, rel=0.15)
    line.pass_s(1200, comes=2, goes=2)
    assert line.retention.rate_per_s == pytest.approx(2, rel=0.5), "and follows the line when it runs again"


def test_process_that_slept_for_a_day_measures_no_nonsense() -> None:
    line = Line()
    line.pass_s(120, comes=10, goes=10)
    line.now += DAY_S
    line.pass_s(600, comes=10, goes=10)

    assert 5 < line.retention.rate_per_s < 15
    assert line.drain.state == "caught_up"


def test_backlog_drains_at_the_measured_rate_less_what_comes() -> None:
    line = Line()
    line.pass_s(1000, comes=10, is_stopped=True)
    stopped = line.drain
    assert (stopped.state, stopped.rate_per_s, stopped.seconds) == ("stopped", None, None)

    line.pass_s(30, comes=10, goes=110)

    drain = line.drain
    assert drain.state == "draining"
    assert drain.rate_per_s == pytest.approx(110, rel=0.05)
    assert drain.seconds == pytest.approx((line.came - line.gone) / 100, rel=0.1)
    line.pass_s(200, comes=10, goes=110)
    assert line.drain.state == "caught_up"

    line.pass_s(100, comes=10, is_stopped=True)
    assert line.drain.state == "stopped"
    assert line.drain.seconds == pytest.approx(1000 / 100, rel=0.2), "told by the rate that was measured last"


def test_more_that_comes_than_goes_never_drains_and_says_so() -> None:
    line = Line()

    line.pass_s(300, comes=100, goes=80)

    assert (line.drain.state, line.drain.seconds) == ("growing", None)


def test_events_on_their_way_are_no_backlog() -> None:
    line = Line()
    line.pass_s(2, comes=20)

    line.pass_s(300, comes=20, goes=20)

    assert line.came - line.gone == 40
    assert line.drain == Drain("caught_up", None, 0.0)


def test_clock_that_stands_still_divides_by_nothing() -> None:
    line = Line()
    for _ in range(50):
        line.now -= 1
        line.pass_s(1, comes=10)

    assert line.retention == Retention()
    assert line.drain.rate_per_s is None


def test_memory_is_one_estimate_for_each_stream() -> None:
    line = Line()

    line.pass_s(20_000, comes=3, goes=3)

    assert len(line.retentions._fills) == 1
