# SPDX-License-Identifier: Apache-2.0
"""Hours of a plant's week in which nothing is created or announced that can wait. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = len(DAYS) * DAY_MINUTES

LONGEST = timedelta(days=14)
"""Windows that follow each other without a gap are one, and this long at most. `covers_a_week` refuses a week of them; where
the clocks change, the one free hour of a week may be in the next one."""

CLOCKS_OF = 2026
"""The year whose changes of clocks `covers_a_week` looks at: what was read once is read again, whenever that is."""


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A window of each of these days, by the plant's own clock; `until` before `since` ends on the next day."""

    days: frozenset[str]
    since: time
    until: time
    zone: ZoneInfo
    # Risk from which an order waits for nothing.
    lets_through: float

    def end(self, at: datetime) -> datetime | None:
        """When the window that `at` lies in ends; None outside."""
        local = at.astimezone(self.zone)
        for days_ago in (0, 1):
            day = local.date() - timedelta(days=days_ago)
            if DAYS[day.weekday()] not in self.days:
                continue
            begins = datetime.combine(day, self.since, self.zone)
            last_day = day + timedelta(days=1) if self.until <= self.since else day
            ends = datetime.combine(last_day, self.until, self.zone)
            # Compared in UTC: on one zone's wall clock an hour may be there twice, or not at all.
            if begins.astimezone(UTC) <= at < ends.astimezone(UTC):
                return ends.astimezone(UTC)
        return None


def quiet_until(windows: Iterable[QuietHours], at: datetime, risk: float) -> datetime | None:
    """When the quiet hours that hold at this moment end, for an order of this risk; None when they don't hold it."""
    holding = [window for window in windows if risk < window.lets_through]
    ends: datetime | None = None
    # Each look goes on to a later end.
    while ends is None or ends < at + LONGEST:
        later = [end for window in holding if (end := window.end(ends or at)) is not None]
        if not later:
            break
        ends = max(later)
    return ends


def covers_a_week(windows: Collection[QuietHours]) -> bool:
    """Whether no minute of a week is outside of them all, in any season: two zones' clocks change on different days."""
    zones = list({window.zone.key: window.zone for window in windows}.values())
    noons = (datetime(CLOCKS_OF, 1, 1, 12, tzinfo=UTC) + timedelta(days=day) for day in range(366))
    seasons = {tuple(noon.astimezone(zone).utcoffset() for zone in zones) for noon in noons}
    return any(
        _is_covered(windows, {zone.key: offset for zone, offset in zip(zones, season, strict=True)})
        for season in seasons
    )


def _is_covered(windows: Iterable[QuietHours], offsets: dict[str, timedelta | None]) -> bool:
    quiet = bytearray(WEEK_MINUTES)
    for window in windows:
        since, until = (moment.hour * 60 + moment.minute for moment in (window.since, window.until))
        length = (until - since - 1) % DAY_MINUTES + 1
        ahead = int((offsets[window.zone.key] or timedelta()).total_seconds()) // 60
        for day in window.days:
            begins = (DAYS.index(day) * DAY_MINUTES + since - ahead) % WEEK_MINUTES
            ends = begins + length
            quiet[begins : min(ends, WEEK_MINUTES)] = b"\1" * (min(ends, WEEK_MINUTES) - begins)
            over = max(0, ends - WEEK_MINUTES)
            quiet[:over] = b"\1" * over
    return all(quiet)
