# SPDX-License-Identifier: Apache-2.0
"""Our closed forms against scipy's, and against what they promise."""

import random
from itertools import accumulate
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from outcomes.intervals import (
    binomial_cdf,
    p_same_share,
    p_share_above,
    right_needed,
    upper_bound,
    wilson,
)


@st.composite
def counts(draw: st.DrawFn, most: int = 3000) -> tuple[int, int]:
    orders = draw(st.integers(1, most))
    return draw(st.integers(0, orders)), orders


@settings(deadline=None)
@given(counts(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_the_trends_interval_is_scipys_wilson(counted: tuple[int, int], confidence: float) -> None:
    ours = wilson(*counted, confidence)
    theirs = stats.binomtest(*counted).proportion_ci(confidence, method="wilson")

    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_no_orders_have_no_share() -> None:
    assert wilson(0, 0) is None
    assert p_share_above(0, 0, 0.1) == 1.0
    assert upper_bound(0, 0, 0.05) == pytest.approx(1.0)


@settings(deadline=None)
@given(counts(), st.floats(0.001, 0.999))
def test_the_binomial_is_scipys(counted: tuple[int, int], share: float) -> None:
    assert binomial_cdf(*counted, share) == pytest.approx(
        stats.binom.cdf(*counted, share), rel=1e-6, abs=1e-12
    )


@settings(deadline=None)
@given(counts(), st.sampled_from([0.05, 0.1, 0.2, 0.4]))
def test_the_test_is_the_likelihood_of_every_smaller_share_over_that_of_the_stated(
    counted: tuple[int, int], share: float
) -> None:
    wrong, orders = counted
    right = orders - wrong

    # The mean over 0..share of q^wrong (1-q)^right is an incomplete beta function.
    of_all = special.betainc(wrong + 1, right + 1, share)
    grown = (
        special.betaln(wrong + 1, right + 1)
        - wrong * np.log(share)
        - right * np.log1p(-share)
        - np.log(share)
    )

    theirs = 1.0 if of_all == 0 else min(1.0, 1 / (of_all * np.exp(min(600.0, grown))))
    assert p_share_above(wrong, orders, share) == pytest.approx(theirs, rel=1e-6, abs=1e-200)


def test_the_test_by_hand() -> None:
    smaller = np.linspace(0, 0.1, 200_001)
    ratio = smaller**2 * (1 - smaller) ** 28 / (0.1**2 * 0.9**28)

    assert p_share_above(2, 30, 0.1) == pytest.approx(min(1.0, 1 / ratio.mean()), rel=1e-4)
    assert p_share_above(0, 50, 0.1) == pytest.approx(1 / ((1 - smaller) ** 50 / 0.9**50).mean(), rel=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.100001, 0.13, 0.3])
def test_whoever_looks_after_every_order_is_misled_no_more_often_than_told(share: float) -> None:
    """The control is the exact binomial test, which holds for one look."""
    chance = random.Random(8)
    pilots, orders, level = 2_000, 150, 0.05
    misled = {"ours": 0, "one look": 0}
    p_ours = [[p_share_above(k, n, 0.1) for k in range(n + 1)] for n in range(orders + 1)]
    p_once = [stats.binom.cdf(np.arange(n + 1), n, 0.1) for n in range(orders + 1)]
    for _ in range(pilots):
        wrong = list(accumulate(int(chance.random() < share) for _ in range(orders)))
        misled["ours"] += any(p_ours[n][k] <= level for n, k in enumerate(wrong, 1))
        misled["one look"] += any(p_once[n][k] <= level for n, k in enumerate(wrong, 1))

    most = level * pilots + 3 * sqrt(pilots * level * (1 - level))
    assert misled["ours"] <= most
    if share < 0.11:
        assert misled["one look"] > 1.5 * most


@settings(deadline=None)
@given(counts(), st.sampled_from([0.001, 0.025, 0.05]))
def test_the_bound_is_where_the_test_meets_its_level(counted: tuple[int, int], error: float) -> None:
    bound = upper_bound(*counted, error)

    assert counted[0] / counted[1] <= bound <= 1
    assert bound > 0.999 or p_share_above(*counted, min(1.0, bound + 1e-6)) <= error
    assert p_share_above(*counted, bound - 1e-6) > error


def test_far_more_wrong_than_stated_never_speaks_for_it() -> None:
    for wrong, orders, share in ((50, 60, 0.01), (900, 1000, 0.05), (3000, 3000, 0.001), (10, 100, 0.1)):
        assert p_share_above(wrong, orders, share) == 1.0


@settings(deadline=None)
@given(counts(80), counts(80))
def test_the_test_of_two_halves_is_scipys_fisher(one: tuple[int, int], other: tuple[int, int]) -> None:
    table = [[one[0], one[1] - one[0]], [other[0], other[1] - other[0]]]

    assert p_same_share(*one, *other) == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-5)


@settings(deadline=None)
@given(counts(200), st.sampled_from([0.05, 0.1, 0.2]), st.sampled_from([0.05, 0.025, 0.01]))
def test_so_many_more_are_needed_and_one_less_is_too_few(
    counted: tuple[int, int], share: float, level: float
) -> None:
    wrong, orders = counted

    more = right_needed(wrong, orders, share, level)

    assert p_share_above(wrong, orders + more, share) <= level
    assert more == 0 or p_share_above(wrong, orders + more - 1, share) > level


def test_what_a_pilot_without_a_false_alarm_needs() -> None:
    assert right_needed(0, 0, 0.1, 0.05) == 43
    assert upper_bound(0, 43, 0.05) <= 0.1 < upper_bound(0, 42, 0.05)
    assert right_needed(1, 0, 0.1, 0.05) > right_needed(0, 0, 0.1, 0.05)
