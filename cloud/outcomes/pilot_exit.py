# SPDX-License-Identifier: Apache-2.0
"""The pilot's exit: is creating orders without asking justified, from which risk on, and what should the policy say?

Pure; docs/accuracy.md has the shape and what the number speaks about. The statistics are certifying.py's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from math import inf
from typing import Any, Literal, get_args

from outcomes import exit_words
from outcomes.certifying import Candidate, Scored, certify, is_above, thresholds
from outcomes.intervals import p_same_share, wilson
from outcomes.outcome import Outcome
from work_orders.policy import Band
from work_orders.policy_data import PolicyData

By = Literal["all", "criticality", "failure_mode"]
Beginning = Literal["model", "since", "months"]
"""What the window begins with: the first order of the models in service, a stated day, or so many months ago."""
JUDGED = ("confirmed", "other_fault", "no_fault")
POLICY = "policy"
DRIFT = 0.05
"""Chance under which two halves of the window are taken for different ones."""
NEAR_ITS_BEGINNING = timedelta(days=31)
"""An order that ended so near the first day that is read may not have been its model's first."""


def report(
    outcomes: Sequence[Outcome],
    data: PolicyData,
    *,
    risk: float,
    confidence: float,
    by: str,
    beginning: Beginning,
    kept_from: date,
    first_day: date,
    last_day: date,
    left_out: int = 0,
) -> dict[str, Any]:
    """The whole answer but for `generated_at`. `outcomes` of the window; escapes are passed over.

    ValueError names a wrong parameter. `left_out`: outcomes of the window that were too many to be read; `kept_from`: of
    earlier days some may be forgotten.
    """
    if not 0 < risk < 0.5:
        raise ValueError(f"risk: must be above 0 and under 0.5, got {risk:g}")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence: must be at least 0.5 and under 1, got {confidence:g}")
    if by not in get_args(By):
        raise ValueError(f"by: must be one of {', '.join(get_args(By))}, got {by!r}")
    orders = [one for one in outcomes if one.kind != "escape"]
    serving = _serving(orders)
    known = [one for one in orders if one.highest_risk is not None]
    counted = [one for one in known if _version(one) == serving.get(one.model_name)]
    groups = _groups(counted, by, data)
    # The confidence holds for all groups together.
    error = (1 - confidence) / max(1, len(groups))
    automatic = data.rules["machine"].bands[0]
    first_counted = min((date.fromisoformat(one.closed_at[:10]) for one in counted), default=last_day)
    # What begins anew at every look forgets what spoke against it: the test is valid at any moment of one growing set.
    moves = (
        "months" if beginning == "months" else
        "too_many" if left_out else
        "forgotten" if first_day < kept_from else
        "forgotten" if beginning == "model" and counted and first_counted < first_day + NEAR_ITS_BEGINNING else
        ""
    )  # fmt: skip
    if beginning == "model":
        first_day = first_counted
    return {
        "first_day": first_day.isoformat(),
        "last_day": last_day.isoformat(),
        "risk": risk,
        "confidence": confidence,
        "by": by,
        "holds_for": "one_look" if moves else "every_look",
        "counts_as_wrong": ["no_fault", "rejected"],
        "present": {"band": automatic.name, "threshold": automatic.on, "policy_version": data.version},
        "population": exit_words.population(serving, first_day, last_day),
        "groups": [
            _group(name, of_group, data, by, risk, error, is_fixed=not moves)
            for name, of_group in groups.items()
        ],
        "left_out": {
            "other_models": len(known) - len(counted),
            "without_risk": len(orders) - len(known),
            "outcomes": left_out,
        },
        "notes": [
            exit_words.looks(beginning, moves, first_day),
            *exit_words.notes(len(groups), by, automatic.on, **_heard(counted, automatic)),
        ],
    }


def _group(
    name: str,
    outcomes: Sequence[Outcome],
    data: PolicyData,
    by: str,
    risk: float,
    error: float,
    *,
    is_fixed: bool,
) -> dict[str, Any]:
    bands = data.rule("machine", name if by == "criticality" else None).bands
    present, asks = bands[0], bands[1]
    tried = thresholds(present.on, asks.on)
    told = [one for one in outcomes if _is_told(one)]

    def verdict(of: Sequence[Outcome], wrong: Mapping[str, bool]) -> list[Candidate]:
        scored = [Scored(_risk(one, by, data), wrong[one.reference]) for one in of]
        return certify(scored, risk, error, tried, present.on, inclusive=present.on_inclusive)

    candidates = verdict(told, {one.reference: _is_wrong(one) for one in told})
    worst = verdict(outcomes, {one.reference: _is_wrong(one) or not _is_told(one) for one in outcomes})
    word, now = _verdict(candidates, risk), next(one for one in candidates if one.is_present)
    threshold = _loosest(candidates)
    counts = Counter(_word(one) for one in outcomes)
    return {
        "group": name,
        "verdict": word,
        "threshold": threshold,
        "is_present_justified": now.is_certified,
        "sentence": exit_words.sentence(word, candidates, risk, error, is_fixed=is_fixed),
        "confirmed_needed": now.confirmed_needed,
        "share_automatic": _share_automatic(told, threshold, by, data, present),
        "orders": {
            "judged": sum(counts[finding] for finding in JUDGED),
            **{counted: counts[counted] for counted in (*JUDGED, "rejected", "unstated", "expired")},
        },
        "candidates": [_shown(one) for one in candidates],
        "worst_case": {"verdict": _verdict(worst, risk), "threshold": _loosest(worst)},
        "hours_open": _hours_open(told),
        "drift": _drift(told),
    }


def _is_told(one: Outcome) -> bool:
    """Whether somebody said: the technician found or did not find, or a person did not want the order."""
    return _word(one) in {*JUDGED, "rejected"}


def _is_wrong(one: Outcome) -> bool:
    # A person who rejects says that this order should not be created; nobody knows better.
    return _word(one) in {"no_fault", "rejected"}


def _word(one: Outcome) -> str:
    if one.kind == "rejected":
        return "expired" if one.approved_by == POLICY else "rejected"
    return one.finding


def _risk(one: Outcome, by: str, data: PolicyData) -> float:
    """The order's place among the thresholds that are tried.

    An asset whose criticality has a band of its own follows that one: its orders are created or not at any other.
    """
    assert one.highest_risk is not None
    own = data.bands_by_criticality.get(one.criticality)
    if by == "criticality" or own is None:
        return one.highest_risk
    return inf if is_above(one.highest_risk, own[0].on, inclusive=own[0].on_inclusive) else -inf


def _verdict(candidates: Sequence[Candidate], risk: float) -> str:
    if any(one.is_certified for one in candidates):
        return "justified"
    present = next(one for one in candidates if one.is_present)
    too_bad = present.orders > 0 and present.wrong / present.orders > risk
    return "not_justified" if too_bad else "not_enough_outcomes"


def _loosest(candidates: Sequence[Candidate]) -> float | None:
    return min((one.threshold for one in candidates if one.is_certified), default=None)


def _share_automatic(
    told: Sequence[Outcome], threshold: float | None, by: str, data: PolicyData, present: Band
) -> float | None:
    if threshold is None or not told:
        return None
    above = (is_above(_risk(one, by, data), threshold, inclusive=present.on_inclusive) for one in told)
    return round(sum(above) / len(told), 4)


def _drift(told: Sequence[Outcome]) -> dict[str, Any]:
    """Whether the second half of the window looks like the first: what the guarantee rests on."""
    in_order = sorted(told, key=lambda one: one.closed_at)
    halves = [in_order[: len(in_order) // 2], in_order[len(in_order) // 2 :]]
    (first, second) = [(sum(map(_is_wrong, half)), len(half)) for half in halves]
    p = p_same_share(*first, *second) if first[1] else 1.0
    return {
        "first": {"orders": first[1], "wrong": first[0]},
        "second": {"orders": second[1], "wrong": second[0]},
        "p": round(p, 4),
        "is_doubtful": p < DRIFT,
    }


def _hours_open(told: Sequence[Outcome]) -> dict[str, float] | None:
    """From an order's opening to its finding: who comes sooner than these did may find less, and who comes later more."""
    hours = sorted(
        (datetime.fromisoformat(one.closed_at) - datetime.fromisoformat(one.opened_at)).total_seconds() / 3600
        for one in told
        if one.kind == "order" and one.opened_at
    )
    if not hours:
        return None
    return {
        name: round(hours[int(at * (len(hours) - 1))], 1)
        for name, at in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))
    }


def _heard(orders: Sequence[Outcome], automatic: Band) -> dict[str, int]:
    risks = [one.highest_risk for one in orders if one.highest_risk is not None]
    above = sum(is_above(risk, automatic.on, inclusive=automatic.on_inclusive) for risk in risks)
    return {"orders": len(orders), "above": above, "silent": sum(not _is_told(one) for one in orders)}


def _shown(one: Candidate) -> dict[str, Any]:
    share = wilson(one.wrong, one.orders)
    return {
        "threshold": one.threshold,
        "is_present": one.is_present,
        "orders": one.orders,
        "wrong": one.wrong,
        "share": {
            name: round(value, 4) for name, value in
            (("value", share.value), ("low", share.low), ("high", share.high))
        } if share else None,
        "upper": None if one.upper is None else round(one.upper, 4),
        "p": round(one.p, 6),
        "level": round(one.level, 6),
        "is_certified": one.is_certified,
        "confirmed_needed": one.confirmed_needed,
    }  # fmt: skip


def _version(one: Outcome) -> str:
    return one.model_digest or one.model_version


def _serving(orders: Sequence[Outcome]) -> dict[str, str]:
    """By model name the version of its newest order: with a new version the counting begins anew."""
    newest = sorted(orders, key=lambda one: one.opened_at)
    return {one.model_name: _version(one) for one in newest}


def _groups(outcomes: Sequence[Outcome], by: str, data: PolicyData) -> dict[str, list[Outcome]]:
    if by == "all":
        return {"all": list(outcomes)}
    names = {one.criticality if by == "criticality" else one.failure_mode for one in outcomes} - {""}
    # Only what the policy can tell apart: an unknown criticality has no band of its own.
    listed = sorted(names | (set(data.bands_by_criticality) if by == "criticality" else set()))
    return {
        name: [
            one for one in outcomes if name == (one.criticality if by == "criticality" else one.failure_mode)
        ]
        for name in listed
    }
