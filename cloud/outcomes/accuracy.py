# SPDX-License-Identifier: Apache-2.0
"""How often the alarms were right, by what technicians found. Pure; docs/accuracy.md has the shape.

Every share has its own denominator, and what can't be known is null with the reason beside it: a rejected order was
judged by nobody, an order without a finding counts for nothing, and a fault that no order pointed at is known only
where somebody reported it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any, Literal, get_args

from outcomes.intervals import Share, wilson
from outcomes.outcome import Outcome

By = Literal["", "model", "line", "failure_mode"]
Per = Literal["month", "week"]
JUDGED = ("confirmed", "other_fault", "no_fault")

CONFIDENCE = 0.95
"""Of every interval of this page."""
MAX_GROUPS = 50
"""Of one report; those with the most orders. What is left out is counted."""
BINS = 10
MIN_FOR_ECE = 30
"""Judged orders; with fewer the expected calibration error measures chance."""

_GROUP: Mapping[str, Callable[[Outcome], str]] = {
    "model": lambda one: one.model,
    "line": lambda one: f"{one.site}/{one.line}" if one.line else "",
    "failure_mode": lambda one: one.failure_mode,
}


def report(
    outcomes: Sequence[Outcome],
    open_orders: Mapping[str, int],
    *,
    by: str,
    per: str,
    first_day: date,
    last_day: date,
    left_out: int = 0,
) -> dict[str, Any]:
    """The whole answer but for `generated_at`. `left_out`: outcomes of the window that were not read, for being too many.

    `outcomes`: those of the window, in any order; rejected orders among them. ValueError names a wrong parameter.
    """
    if by not in get_args(By):
        raise ValueError(f"by: must be one of model, line, failure_mode or empty, got {by!r}")
    if per not in get_args(Per):
        raise ValueError(f"per: must be month or week, got {per!r}")
    ended = [one for one in outcomes if one.kind != "rejected"]
    groups = _groups(ended, by)
    shown = sorted(groups, key=lambda group: (-len(groups[group]), group))[:MAX_GROUPS]
    periods = _periods(first_day, last_day, per)
    total = tally(ended, "")
    return {
        "first_day": first_day.isoformat(),
        "last_day": last_day.isoformat(),
        "by": by or None,
        "per": per,
        "confidence": CONFIDENCE,
        "total": _row(None, None, total),
        "groups": [_row(group, None, tally(groups[group], by)) for group in shown],
        "trend": [
            _row(group, period, tally(of_period, by))
            for group, of_group in ([(group, groups[group]) for group in shown] if by else [(None, ended)])
            for period, of_period in _by_period(of_group, periods, per)
        ],
        "reliability": reliability(ended),
        "open": dict(open_orders),
        "decisions": decisions(outcomes),
        "left_out": {"outcomes": left_out, "groups": len(groups) - len(shown)},
        "notes": _notes(outcomes, total, left_out),
    }


def tally(outcomes: Iterable[Outcome], by: str) -> dict[str, Any]:
    """Counts and shares of orders and escapes; `by` says what they have in common."""
    outcomes = list(outcomes)
    orders = [one for one in outcomes if one.kind == "order"]
    found: Counter[str] = Counter(one.finding for one in orders)
    judged = sum(found[finding] for finding in JUDGED)
    escapes = None if by == "model" else len(outcomes) - len(orders)
    missed = wilson(found["confirmed"], found["confirmed"] + escapes, CONFIDENCE) if escapes else None
    return {
        "orders": len(orders),
        "judged": judged,
        **{finding: found[finding] for finding in (*JUDGED, "unstated")},
        "precision": _shown(wilson(found["confirmed"], judged, CONFIDENCE)),
        "overkill": _shown(wilson(found["no_fault"], judged, CONFIDENCE)),
        "why_not": None if judged else "no ended order has a finding yet" if orders else "no order ended",
        "escapes": escapes,
        "recall_at_most": _shown(missed),
        "recall_why_not": None if missed else _why_no_recall(escapes),
    }


def reliability(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Whether a risk of 0.9 was confirmed nine times of ten. Judged orders whose risk is known."""
    judged = [(one.risk, one.finding == "confirmed") for one in _judged(outcomes) if one.risk is not None]
    bins: list[dict[str, Any]] = []
    error = 0.0
    for number in range(BINS):
        inside = [(risk, hit) for risk, hit in judged if min(int(risk * BINS), BINS - 1) == number]
        share = wilson(hits := sum(hit for _, hit in inside), len(inside), CONFIDENCE)
        if share is None:
            continue
        mean_risk = sum(risk for risk, _ in inside) / len(inside)
        error += len(inside) / len(judged) * abs(mean_risk - share.value)
        bins.append({
            "from": number / BINS, "to": (number + 1) / BINS, "orders": len(inside),
            "mean_risk": round(mean_risk, 4), "confirmed": hits, "share": _shown(share),
        })  # fmt: skip
    is_told = len(judged) >= MIN_FOR_ECE
    why_not = f"{len(judged)} judged orders; with fewer than {MIN_FOR_ECE} it would measure chance"
    return {
        "orders": len(judged),
        "bins": bins,
        "ece": round(error, 4) if is_told else None,
        "why_not": None if is_told else why_not,
    }


def decisions(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Per person: what was approved and has ended, what was found then, and what was rejected; the busiest first."""
    rows: dict[str, Counter[str]] = {}
    for one in outcomes:
        if one.kind == "escape":
            continue
        row = rows.setdefault(one.approved_by, Counter())
        row["rejected" if one.kind == "rejected" else "approved"] += 1
        if one.kind == "order" and one.finding in JUDGED:
            row[one.finding] += 1
    names = sorted(rows, key=lambda name: (-rows[name]["approved"] - rows[name]["rejected"], name))
    return [
        {
            "by": name,
            "approved": rows[name]["approved"],
            "rejected": rows[name]["rejected"],
            "judged": sum(rows[name][finding] for finding in JUDGED),
            **{finding: rows[name][finding] for finding in JUDGED},
        }
        for name in names[:MAX_GROUPS]
    ]


def _judged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.kind == "order" and one.finding in JUDGED]


def _groups(outcomes: Iterable[Outcome], by: str) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for one in outcomes:
        # What names no model or line, such as most escapes, is in the total alone.
        if by and (group := _GROUP[by](one)):
            groups.setdefault(group, []).append(one)
    return groups


def _periods(first_day: date, last_day: date, per: str) -> list[str]:
    days = ((first_day + timedelta(n)) for n in range((last_day - first_day).days + 1))
    return list(dict.fromkeys(_period(day, per) for day in days))


def _period(day: date, per: str) -> str:
    """2026-11, or 2026-W47 of ISO 8601."""
    year, week, _ = day.isocalendar()
    return day.isoformat()[:7] if per == "month" else f"{year}-W{week:02}"


def _by_period(
    outcomes: Iterable[Outcome], periods: Sequence[str], per: str
) -> list[tuple[str, list[Outcome]]]:
    found: dict[str, list[Outcome]] = {period: [] for period in periods}
    for one in outcomes:
        period = _period(date.fromisoformat(one.closed_at[:10]), per)
        if period in found:
            found[period].append(one)
    return list(found.items())


def _row(group: str | None, period: str | None, counted: Mapping[str, Any]) -> dict[str, Any]:
    return {"group": group, "period": period, **counted}


def _shown(share: Share | None) -> dict[str, float] | None:
    return {name: round(value, 4) for name, value in asdict(share).items()} if share else None


def _why_no_recall(escapes: int | None) -> str:
    if escapes is None:
        return "an escape names no model: nobody knows which one should have seen it"
    return "no escape was reported; whether none happened or nobody reported one is not known"


def _notes(outcomes: Iterable[Outcome], total: Mapping[str, Any], left_out: int) -> list[str]:
    rejected = sum(one.kind == "rejected" for one in outcomes)
    notes = []
    if total["unstated"]:
        notes.append(
            f"{total['unstated']} of {total['orders']} ended orders have no finding; the shares speak about the other "
            f"{total['judged']}."
        )
    if rejected:
        notes.append(
            f"Rejected orders ({rejected}) are in no share: nobody looked at the machine. The shares speak about orders "
            "that were carried out."
        )
    if total["recall_at_most"]:
        notes.append("Escapes that nobody reported are not known: the true recall is at most what is shown.")
    if left_out:
        notes.append(f"{left_out} outcomes, the oldest, were too many for one report; ask for fewer months.")
    return notes
