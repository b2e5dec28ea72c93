# SPDX-License-Identifier: Apache-2.0
"""What evidence is worth, and what goes first when its budget is full. Pure; docs/decisions/0027 has the reasons.

Evidence of an open work order never goes. Else: the sample of good parts before certain defects, and these before
uncertain parts, which a person or the next training can learn most from. Within a class, what the cloud has goes before
what is only here, and the older before the newer. A class that is down to its reserve is passed over while another is
not: a run of uncertain parts must not cost the last picture of every defect, nor the whole sample.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Worth(enum.IntEnum):
    """A part's class, the first to go first."""

    GOOD = 0
    CERTAIN = 1
    UNCERTAIN = 2


MARKS: Mapping[Worth, str] = {Worth.GOOD: ".ok", Worth.CERTAIN: "", Worth.UNCERTAIN: ".review"}
"""What stands behind the event id in a file's name, so that a restart knows the class. Before release 0.3 uncertain
parts had no mark: they count as certain."""

RESERVES: Mapping[Worth, float] = {Worth.GOOD: 0.05, Worth.CERTAIN: 0.25, Worth.UNCERTAIN: 0.0}
"""Shares of the budget that a class keeps while another has more than its own."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The evidence of one part: its files stay and go together."""

    event_id: str
    worth: Worth
    size_bytes: int
    is_uploaded: bool = False


def worth_of(name: str) -> Worth:
    """The class by a file's name, such as `0198….review.heatmap.png`."""
    behind = name.partition(".")[2]
    marked = (worth for worth, mark in MARKS.items() if mark and behind.startswith(f"{mark[1:]}."))
    return next(marked, Worth.CERTAIN)


def order_within(kept: Kept) -> tuple[bool, str]:
    """Sorts one class, the first to go first. A UUIDv7 begins with its time, so ids sort by age."""
    return (not kept.is_uploaded, kept.event_id)


def first_to_go(first_of: Mapping[Worth, Kept], bytes_of: Mapping[Worth, int], max_bytes: int) -> Kept | None:
    """Which part's evidence goes next; None when none may.

    Args:
        first_of: of each class, the first by `order_within` that no open work order holds.
        bytes_of: of each class, the bytes that no open work order holds, the newcomer's among them.
        max_bytes: the budget.
    """
    candidates = sorted(first_of)
    above = (worth for worth in candidates if bytes_of.get(worth, 0) > RESERVES[worth] * max_bytes)
    chosen = next(above, candidates[0] if candidates else None)
    return None if chosen is None else first_of[chosen]
