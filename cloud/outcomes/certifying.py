# SPDX-License-Identifier: Apache-2.0
"""From which threshold on may orders be created without asking, for a stated risk and confidence? Pure.

Many thresholds are tried on the same orders, and the best-looking one of many looks better than it is. So each is a
hypothesis ("of the orders above it, more than `risk` are wrong"), tested in a way that holds however often somebody looks
(intervals.p_share_above), and the confidence is shared out before anybody looks: half for the threshold that holds now, a quarter each in equal parts for the stricter and
the looser ones, and whoever passes hands its part on to the next looser one (Wiens' fallback procedure, in the frame of Learn then
Test). With probability `confidence` not one certified threshold is above the risk, whatever the shares are and however
they depend on each other; monotone they need not be.

Asked for: the next orders come like these (exchangeable), and one order's outcome is not another's. Proved by
simulation, with the plug-in choice as the control: cloud/tests/test_outcomes_certifying.py
"""

from collections.abc import Sequence
from dataclasses import dataclass

from outcomes.intervals import p_share_above, right_needed, upper_bound

GRID = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55)
"""Thresholds that are tried, fixed before any outcome is seen; the present one comes to them."""

FOR_PRESENT = 0.5
"""Part of the error that is spent on the threshold that holds now: it is the question that is asked most. The stricter
ones and the looser ones have a quarter each."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One order: the highest threshold at which it would have been created without asking, and whether it was wrong."""

    risk: float
    is_wrong: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """One threshold and what the orders above it say."""

    threshold: float
    is_present: bool
    orders: int
    wrong: int
    # How little the orders speak for a share above the risk; valid whenever it is looked at.
    p: float
    # Certified when p is not above this; 0 for one that nothing was left for.
    level: float
    is_certified: bool
    # The stated one.
    risk: float

    @property
    def upper(self) -> float | None:
        """The true share is at most this, with confidence 1 - level; None without a level."""
        return upper_bound(self.wrong, self.orders, self.level) if self.level else None

    @property
    def confirmed_needed(self) -> int | None:
        """Further orders, all of them right, that would certify it now; None without a level."""
        return right_needed(self.wrong, self.orders, self.risk, self.level) if self.level else None


def thresholds(present: float, above: float) -> tuple[float, ...]:
    """Those to try, strictest first. Up to `above`, the band in which a person is asked, no alarm is raised."""
    return tuple(sorted({present, *(one for one in GRID if one > above)}, reverse=True))


def shares(tried: Sequence[float], present: float) -> list[float]:
    """The part of the error that each threshold has of its own; together 1."""
    sides = [[one for one in tried if one > present], [one for one in tried if one < present]]
    there = [side for side in sides if side]
    own = {one: (1 - FOR_PRESENT) / len(there) / len(side) for side in there for one in side}
    return [own.get(one, FOR_PRESENT if there else 1.0) for one in tried]


def is_above(order_risk: float, threshold: float, *, inclusive: bool) -> bool:
    """Whether the policy would have created the order at this threshold."""
    return order_risk >= threshold if inclusive else order_risk > threshold


def certify(
    orders: Sequence[Scored],
    risk: float,
    error: float,
    tried: Sequence[float],
    present: float,
    *,
    inclusive: bool = False,
) -> list[Candidate]:
    """Every threshold with its verdict, strictest first. `error`: 1 - confidence, for all of them together."""
    found: list[Candidate] = []
    handed_on = 0.0
    for threshold, share in zip(tried, shares(tried, present), strict=True):
        above = [one for one in orders if is_above(one.risk, threshold, inclusive=inclusive)]
        wrong = sum(one.is_wrong for one in above)
        level = handed_on + share * error
        p = p_share_above(wrong, len(above), risk)
        is_certified = bool(level) and p <= level
        # What failed keeps its part: nobody else may spend it.
        handed_on = level if is_certified else 0.0
        found.append(
            Candidate(threshold, threshold == present, len(above), wrong, p, level, is_certified, risk)
        )
    return found
