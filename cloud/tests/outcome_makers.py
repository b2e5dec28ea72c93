# SPDX-License-Identifier: Apache-2.0
"""Outcomes for tests, without a table."""

from itertools import count
from typing import Any

from outcomes.outcome import Outcome

_numbers = count()


def order(finding: str = "confirmed", risk: float = 0.85, day: str = "2026-11-10", **other: Any) -> Outcome:
    """One ended order of the turbofan."""
    number = next(_numbers)
    facts: dict[str, Any] = {
        "kind": "order", "reference": f"lw-{number:016x}", "asset_id": f"ENGINE-{number % 5}",
        "failure_mode": "hpc-degradation", "closed_at": f"{day}T10:00:00.{number % 1000:03}Z", "finding": finding,
        "opened_at": f"{day}T08:00:00.000Z", "criticality": "A", "site": "plant-1", "line": "line-1",
        "station": "engine-1", "model_name": "turbofan", "model_version": "1.0.0", "model_digest": "sha256:1",
        "policy_version": "2.0.0", "band": "automatic", "risk": risk, "highest_risk": risk,
        "approved_by": "M. Keller", "source": "console",
    }  # fmt: skip
    return Outcome(**(facts | other))


def rejected(by: str = "M. Keller", **other: Any) -> Outcome:
    """An order that nobody carried out; by "policy" when its approval expired."""
    return order("unstated", kind="rejected", approved_by=by, **other)


def escape(**other: Any) -> Outcome:
    """A fault that no order pointed at."""
    facts = {
        "kind": "escape",
        "band": "",
        "risk": None,
        "highest_risk": None,
        "model_name": "",
        "model_version": "",
    }
    return order(**{**facts, "line": "", **other})
