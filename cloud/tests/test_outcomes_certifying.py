# SPDX-License-Identifier: Apache-2.0
"""The guarantee of the pilot's exit, counted over simulated pilots whose truth is known."""

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from math import sqrt
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcomes.certifying import Candidate, Scored, certify, shares, thresholds
from outcomes.intervals import binomial_cdf, p_share_above

RISK, CONFIDENCE, PILOTS = 0.1, 0.95, 2_000
ERROR = 1 - CONFIDENCE
TRIED = thresholds(0.8, 0.5)

Truth = Callable[[float], float]
"""P(wrong) of an order by its risk, which is uniform over 0.5 to 1."""

TRUTHS: dict[str, Truth] = {
    # Every threshold is exactly at the stated risk, or above it by a hair: every certificate is an error.
    "always a hair above the risk": lambda _: RISK + 1e-6,
    "falls with the risk": lambda x: 0.3 * (1 - x) / 0.5,
    "a cliff below 0.8": lambda x: 0.05 if x > 0.8 else 0.4,
    # The strictest orders are the worst: nothing here may rely on a falling share.
    "rises with the risk": lambda x: 0.3 * (x - 0.5),
    "the model is bad": lambda _: 0.35,
}


def true_share(truth: Truth, threshold: float, steps: int = 500) -> float:
    """P(wrong) of all orders above the threshold, by the truth itself."""
    places = [threshold + (1 - threshold) * (n + 0.5) / steps for n in range(steps)]
    return sum(map(truth, places)) / steps


def pilot(chance: random.Random, truth: Truth, orders: int) -> list[Scored]:
    risks = [chance.uniform(0.5, 1) for _ in range(orders)]
    return [Scored(risk, chance.random() < truth(risk)) for risk in risks]


def loosest(candidates: Sequence[Candidate]) -> float | None:
    return min((one.threshold for one in candidates if one.is_certified), default=None)


def plug_in(orders: Sequence[Scored]) -> float | None:
    """The control: the loosest threshold that looks good enough on the same orders."""
    good = []
    for threshold in TRIED:
        above = [one for one in orders if one.risk > threshold]
        if above and sum(one.is_wrong for one in above) / len(above) <= RISK:
            good.append(threshold)
    return min(good, default=None)


def best_bound(orders: Sequence[Scored]) -> float | None:
    """The control that looks right: an exact test at the full confidence for each, and then the loosest is taken."""
    good = []
    for threshold in TRIED:
        above = [one for one in orders if one.risk > threshold]
        if above and binomial_cdf(sum(one.is_wrong for one in above), len(above), RISK) <= ERROR:
            good.append(threshold)
    return min(good, default=None)


def broken(truth: Truth, orders: int, choose: Callable[[list[Scored]], float | None], seed: int = 1) -> int:
    """Pilots of PILOTS after which more orders than RISK would have been wrong."""
    chance = random.Random(seed)
    shares_by = {one: true_share(truth, one) for one in TRIED}
    chosen = [choose(pilot(chance, truth, orders)) for _ in range(PILOTS)]
    return sum(one is not None and shares_by[one] > RISK for one in chosen)


def ours(orders: Sequence[Scored]) -> float | None:
    return loosest(certify(orders, RISK, ERROR, TRIED, 0.8))


# Three standard errors of a count whose expectation is at most ERROR * PILOTS: one false alarm in a thousand runs.
MOST = ERROR * PILOTS + 3 * sqrt(PILOTS * ERROR * (1 - ERROR))


@pytest.mark.parametrize("orders", [60, 200])
@pytest.mark.parametrize("name", TRUTHS)
def test_over_thousands_of_pilots_the_guarantee_is_broken_in_no_more_than_it_says(
    name: str, orders: int
) -> None:
    assert broken(TRUTHS[name], orders, ours) <= MOST


def test_any_certified_threshold_is_good_not_only_the_one_that_is_taken() -> None:
    chance, truth = random.Random(7), TRUTHS["a cliff below 0.8"]
    shares_by = {one: true_share(truth, one) for one in TRIED}
    wrong = sum(
        any(
            one.is_certified and shares_by[one.threshold] > RISK
            for one in certify(pilot(chance, truth, 200), RISK, ERROR, TRIED, 0.8)
        )
        for _ in range(PILOTS)
    )

    assert wrong <= MOST


@pytest.mark.parametrize("orders", [60, 200])
def test_control_the_threshold_that_looks_best_breaks_it(orders: int) -> None:
    count = broken(TRUTHS["always a hair above the risk"], orders, plug_in)

    assert count > 5 * MOST


def test_control_an_exact_bound_for_each_and_then_the_best_of_them_breaks_it_too() -> None:
    count = broken(TRUTHS["always a hair above the risk"], 200, best_bound)

    assert count > MOST


def test_whoever_looks_after_every_tenth_order_is_not_misled_more_often() -> None:
    chance, truth = random.Random(5), TRUTHS["always a hair above the risk"]
    misled = once = 0
    for _ in range(500):
        grown = pilot(chance, truth, 150)
        misled += any(ours(grown[:n]) is not None for n in range(10, 151, 10))
        once += any(best_bound(grown[:n]) is not None for n in range(10, 151, 10))

    most = ERROR * 500 + 3 * sqrt(500 * ERROR * (1 - ERROR))
    assert misled <= most
    assert once > 2 * most  # the control


def test_a_test_that_may_be_looked_at_needs_its_confidence_shared_out_too() -> None:
    """The control tries each threshold at the full confidence, by the same test."""
    chance, pilots, most_orders = random.Random(1), 600, 500
    p = cache(lambda wrong, orders: p_share_above(wrong, orders, RISK))
    misled = unshared = 0
    for _ in range(pilots):
        grown = pilot(chance, TRUTHS["always a hair above the risk"], most_orders)
        misled += any(ours(grown[:n]) is not None for n in range(50, most_orders + 1, 50))
        unshared += any(_looks(grown, threshold, p) for threshold in TRIED)

    most = ERROR * pilots + 3 * sqrt(pilots * ERROR * (1 - ERROR))
    assert misled <= most
    assert unshared > most


def _looks(orders: Sequence[Scored], threshold: float, p: Callable[[int, int], float]) -> bool:
    """Whether one threshold is ever certified alone, looked at after each order above it."""
    wrong = accumulate(int(one.is_wrong) for one in orders if one.risk > threshold)
    return any(p(count, n) <= ERROR for n, count in enumerate(wrong, 1))


def test_a_window_that_moves_is_certified_more_often_than_stated_and_a_fixed_one_is_not() -> None:
    """The report's default begins with the model's first order. The control looks at half a year, every week for years."""
    chance, runs, level = random.Random(3), 600, ERROR / 2  # the present threshold's own part
    p = cache(lambda wrong, orders: p_share_above(wrong, orders, RISK))
    moving = fixed = 0
    for _ in range(runs):
        weeks = [_week(chance, RISK + 1e-6) for _ in range(5 * 52)]
        ends = [(0, 0), *accumulate(weeks, lambda a, b: (a[0] + b[0], a[1] + b[1]))]
        fixed += any(p(*end) <= level for end in ends[1:])
        half_years = zip(ends[26:], ends, strict=False)
        moving += any(p(end[0] - was[0], end[1] - was[1]) <= level for end, was in half_years)

    most = level * runs + 3 * sqrt(runs * level * (1 - level))
    assert fixed <= most
    assert moving > most


def _week(chance: random.Random, share: float) -> tuple[int, int]:
    orders = chance.randint(0, 10)
    return sum(chance.random() < share for _ in range(orders)), orders


def test_a_good_model_is_let_out_of_its_pilot() -> None:
    chance = random.Random(3)
    chosen = [ours(pilot(chance, lambda _: 0.02, 300)) for _ in range(200)]

    assert sum(one is not None and one <= 0.8 for one in chosen) > 180


def test_the_parts_of_the_error_are_shared_out_once() -> None:
    assert sum(shares(TRIED, 0.8)) == pytest.approx(1)
    assert shares(TRIED, 0.8)[TRIED.index(0.8)] == 0.5
    assert sum(shares(TRIED[:4], 0.95)) == pytest.approx(1)
    assert sum(shares(TRIED, 0.55)) == pytest.approx(1)
    assert shares([0.8], 0.8) == [1.0]
    assert shares(TRIED, 0.8)[0] == pytest.approx(0.25 / 3)
    assert shares(TRIED, 0.8)[-1] == pytest.approx(0.25 / 5)
    assert thresholds(0.8, 0.6) == (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65)


def test_fifty_one_orders_without_a_false_alarm_certify_the_present_threshold() -> None:
    enough = certify([Scored(0.85, False)] * 51, RISK, ERROR, TRIED, 0.8)
    too_few = certify([Scored(0.85, False)] * 50, RISK, ERROR, TRIED, 0.8)

    assert loosest(enough) == min(TRIED)
    assert loosest(too_few) is None
    present = next(one for one in too_few if one.is_present)
    assert (present.orders, present.wrong, present.confirmed_needed) == (50, 0, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), max_size=60), st.floats(0.01, 0.5))
def test_a_certificate_is_the_bound_under_the_risk(rows: list[tuple[float, bool]], risk: float) -> None:
    for one in certify([Scored(*row) for row in rows], risk, ERROR, TRIED, 0.8):
        if one.upper is not None and abs(one.upper - risk) > 1e-6:
            assert one.is_certified == (one.upper <= risk and one.orders > 0)
            assert (one.confirmed_needed == 0) == one.is_certified


def test_the_page_tells_how_many_orders_are_needed() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/accuracy.md").read_text()
    row = re.search(r"\| orders needed \|(.*)\|", page)

    def needed(wrong: int, risk: float) -> int:
        return next(n for n in range(wrong + 1, 500) if p_share_above(wrong, n, risk) <= 0.025)

    assert row is not None
    assert [int(cell) for cell in row[1].split("|")] == [needed(wrong, 0.1) for wrong in range(4)]
    assert f"At risk 0.2: {needed(0, 0.2)} without a wrong one; at 0.05: {needed(0, 0.05)}" in page
    record = Path(__file__).resolve().parents[2] / "docs/decisions"
    one_look = next(n for n in range(1, 500) if binomial_cdf(0, n, 0.1) <= 0.025)
    assert f"{needed(0, 0.1)} instead of {one_look}" in next(record.glob("0035-*")).read_text()
