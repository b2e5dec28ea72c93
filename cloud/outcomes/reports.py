# SPDX-License-Identifier: Apache-2.0
"""The two reports as people ask for them: parameters in, tables read, the pure modules' answer out.

Raises ValueError("<parameter>: why") for a parameter that can't be used; texts of a query string are taken as numbers.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from outcomes import accuracy as shares
from outcomes import pilot_exit as exits
from outcomes.store import Outcomes
from work_orders.policy_data import PolicyData

MOST_MONTHS, USUAL_MONTHS = 60, 6


def accuracy(
    outcomes: Outcomes,
    *,
    months: int | str = USUAL_MONTHS,
    by: str = "",
    per: str = "month",
    now: datetime | None = None,
) -> dict[str, Any]:
    """GET /accuracy."""
    now = now or datetime.now(UTC)
    first_day = first_day_of(months, now.date())
    found, left_out = outcomes.since(first_day, now.date())
    rejected, unread = outcomes.rejected_since(first_day)
    answer = shares.report(
        [*found, *rejected], outcomes.open_orders(),
        by=by, per=per, first_day=first_day, last_day=now.date(), left_out=left_out + unread,
    )  # fmt: skip
    return {"generated_at": _text(now), **answer}


def pilot_exit(
    outcomes: Outcomes,
    data: PolicyData,
    *,
    risk: float | str = 0.1,
    confidence: float | str = 0.95,
    by: str = "all",
    since: date | str | None = None,
    months: int | str | None = None,
    order_days: float = 3650.0,
    now: datetime | None = None,
) -> dict[str, Any]:
    """GET /pilot-exit. `data`: the policy that holds.

    Counted is from a first day that stays: `since`, or else that of the first order of the models in service. Whoever
    asks for `months` gets a window that moves, and is told what that costs. `order_days`: for how long outcomes are kept.
    """
    now = now or datetime.now(UTC)
    kept_from = max(first_day_of(MOST_MONTHS, now.date()), _kept_from(now, order_days))
    if months not in (None, "") and since not in (None, ""):
        raise ValueError("since: is a first day that stays, and months a window that moves; leave one out")
    beginning: exits.Beginning = "model"
    first_day = kept_from
    if months not in (None, ""):
        beginning, first_day = "months", first_day_of(months, now.date())  # type: ignore[arg-type]
    elif since not in (None, ""):
        beginning, first_day = "since", _day("since", since, now.date())  # type: ignore[arg-type]
    found, left_out = outcomes.since(first_day, now.date())
    rejected, unread = outcomes.rejected_since(first_day)
    answer = exits.report(
        [*found, *rejected], data,
        risk=_number("risk", risk), confidence=_number("confidence", confidence), by=by,
        beginning=beginning, kept_from=kept_from,
        first_day=first_day, last_day=now.date(), left_out=left_out + unread,
    )  # fmt: skip
    return {"generated_at": _text(now), **answer}


def first_day_of(months: int | str, last_day: date) -> date:
    """The first day of a window of so many calendar months, the present one counted."""
    count = _number("months", months)
    if not (count.is_integer() and 1 <= count <= MOST_MONTHS):
        raise ValueError(f"months: must be a whole number from 1 to {MOST_MONTHS}, got {months}")
    month = last_day.year * 12 + last_day.month - int(count)
    return date(month // 12, month % 12 + 1, 1)


def _kept_from(now: datetime, order_days: float) -> date:
    """The first day of which every outcome is still there."""
    return (now - timedelta(days=order_days)).date() + timedelta(days=1)


def _day(name: str, given: date | str, last_day: date) -> date:
    try:
        day = given if isinstance(given, date) else date.fromisoformat(given)
    except ValueError as error:
        raise ValueError(f"{name}: must be a day such as 2026-09-01, got {given!r}") from error
    if not first_day_of(MOST_MONTHS, last_day) <= day <= last_day:
        raise ValueError(f"{name}: must lie within the last {MOST_MONTHS} months, got {day}")
    return day


def _number(name: str, given: float | str) -> float:
    try:
        return float(given)
    except ValueError as error:
        raise ValueError(f"{name}: must be a number, got {given!r}") from error


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
