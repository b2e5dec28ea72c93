# SPDX-License-Identifier: Apache-2.0
"""What a crossed band leads to: an order at once, an order later, or a question to a person. Pure.

Nothing here drops an alarm. What may not be created by itself is asked, and what can wait is held.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from work_orders.policy import Decision
from work_orders.policy_data import PolicyData
from work_orders.quiet_hours import quiet_until


@dataclass(frozen=True, slots=True)
class Consequence:
    """`create` with `hold_until` (seconds since 1970, 0: now), or `ask`; and why, in words for the record."""

    what: Literal["create", "ask"]
    why: str
    hold_until: float = 0.0


def consequence(
    decision: Decision, data: PolicyData, at: float, openings: Iterable[float], *, pilot: bool
) -> Consequence:
    """For a decision with a band. `at`, `openings`: now, and when the asset's episodes were opened, seconds since 1970."""
    if decision.band != "automatic":
        return Consequence("ask", f"band {decision.band}")
    if pilot:
        return Consequence("ask", "pilot: every order awaits approval")
    limit = data.rate_limit
    recent = sum(1 for opened in openings if opened > at - limit.hours * 3600)
    if recent >= limit.orders:
        return Consequence(
            "ask",
            f"rate limit: {recent} orders for this asset within {limit.hours:g} h, {limit.orders} go by themselves",
        )
    quiet = quiet_until(data.quiet_hours, datetime.fromtimestamp(at, UTC), decision.risk)
    if quiet is not None:
        return Consequence(
            "create", f"held for quiet hours until {quiet:%Y-%m-%d %H:%M} UTC", quiet.timestamp()
        )
    return Consequence("create", "band automatic")
