# SPDX-License-Identifier: Apache-2.0
"""Shares of small counts: intervals, exact bounds and tests, in closed form. Pure; the standard library only.

Two bounds with two jobs. `wilson` is for people who look at a trend: its coverage is close to what it says even at ten
orders, and it never leaves 0..1. `p_share_above` decides what a machine may do by itself: it never promises too much, and
however often somebody looks, because a page that shows it is looked at until it says yes. An exact binomial test is for
one look that was agreed on before. Checked against scipy: cloud/tests/test_outcomes_intervals.py
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, inf, lgamma, log, log1p, sqrt
from statistics import NormalDist

# Halvings of 0..1: below a float's own resolution.
_HALVINGS = 50


@dataclass(frozen=True, slots=True)
class Share:
    """A share of counted orders, with the interval that holds the true one at the stated confidence."""

    value: float
    low: float
    high: float


def wilson(hits: int, orders: int, confidence: float = 0.95) -> Share | None:
    """Wilson's score interval for hits of orders; None of no orders."""
    if orders == 0:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / orders, z * z / orders
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * sqrt(share * (1 - share) / orders + spread / (4 * orders))
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == orders else min(1.0, middle + half)
    return Share(share, low, high)


def binomial_cdf(hits: int, orders: int, share: float) -> float:
    """The chance of at most `hits` in `orders` independent ones of this share."""
    if hits >= orders:
        return 1.0
    if hits < 0 or share >= 1:
        return 0.0
    if share <= 0:
        return 1.0
    # Away from the mean the chances only fall, so the smaller side is summed until nothing is added any more.
    if hits <= orders * share:
        return min(1.0, _falling_sum(range(hits, -1, -1), orders, share))
    return max(0.0, 1.0 - _falling_sum(range(hits + 1, orders + 1), orders, share))


def p_share_above(wrong: int, orders: int, share: float) -> float:
    """Small speaks for a true share under `share`; under P it is ever below p with a chance of at most p.

    One over a test martingale: the likelihood of every smaller share, taken together evenly, over that of `share`. If the
    true share is `share` or more, one more order does not make it grow on average, so by Ville's inequality it ever
    reaches 1/p with a chance of at most p. In closed form: the tail of one more order over (orders + 1) share times the
    chance of what was seen.
    """
    if wrong >= orders * share:
        # No smaller share explains it better. Here the tail below would also be lost in rounding.
        return 1.0
    if share >= 1:
        return 0.0
    tail = 1.0 - binomial_cdf(wrong, orders + 1, share)
    return min(1.0, exp(log(share) + log(orders + 1) + _log_chance(wrong, orders, share) - log(tail)))


def upper_bound(wrong: int, orders: int, error: float) -> float:
    """The true share is at most this whenever somebody looks, but for a chance of `error`: where `p_share_above` meets it."""
    seen = wrong / orders if orders else 0.0
    low, high = seen, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_share_above(wrong, orders, middle) > error else (low, middle)
    return high


def right_needed(wrong: int, orders: int, share: float, level: float) -> int:
    """How many more orders, all of them right, bring `p_share_above` to the level; 0 when it is there already."""

    def is_enough(more: int) -> bool:
        return p_share_above(wrong, orders + more, share) <= level

    if is_enough(0):
        return 0
    least, most = 0, 1
    while not is_enough(most):
        least, most = most, most * 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if is_enough(middle) else (middle, most)
    return most


def p_same_share(hits: int, orders: int, other_hits: int, other_orders: int) -> float:
    """Fisher's exact test, two-sided: the chance of a split as uneven as this one if both had one share."""
    both_hits, both = hits + other_hits, orders + other_orders

    def log_chance(k: int) -> float:
        return (
            _log_choose(orders, k) + _log_choose(other_orders, both_hits - k) - _log_choose(both, both_hits)
        )

    # As in R and scipy: splits that are equal but for rounding count as equal.
    seen = log_chance(hits) + 1e-7
    splits = range(max(0, both_hits - other_orders), min(orders, both_hits) + 1)
    return min(1.0, sum(exp(chance) for chance in map(log_chance, splits) if chance <= seen))


def _falling_sum(counts: Iterable[int], orders: int, share: float) -> float:
    total = 0.0
    for count in counts:
        chance = exp(_log_chance(count, orders, share))
        total += chance
        if chance < total * 1e-17:
            break
    return total


def _log_chance(hits: int, orders: int, share: float) -> float:
    """0 < share < 1."""
    return _log_choose(orders, hits) + hits * log(share) + (orders - hits) * log1p(-share)


def _log_choose(of: int, taken: int) -> float:
    if not 0 <= taken <= of:
        return -inf
    return lgamma(of + 1) - lgamma(taken + 1) - lgamma(of - taken + 1)
