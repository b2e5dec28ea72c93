# SPDX-License-Identifier: Apache-2.0
"""What a work order says, put together from the events that raised it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from work_orders.observed import observed_at
from work_orders.policy import Decision
from work_orders.policy_data import PolicyData


def describe(
    asset: Mapping[str, Any],
    failure_mode: str,
    decision: Decision,
    events: Sequence[Mapping[str, Any]],
    data: PolicyData,
    *,
    pilot: bool,
) -> dict[str, Any]:
    """The order's facts. `events`: the CloudEvents of `decision.event_ids`, oldest first, at least one."""
    # A product's risk may stay high over a good part; the bad ones tell what is wrong.
    telling = [event for event in events if event["data"]["verdict"].get("result") != "OK"] or events
    last = telling[-1]["data"]
    verdict, origin = last["verdict"], last["origin"]
    words = data.failure_mode(failure_mode)
    return {
        **{name: asset.get(name) for name in ("asset_name", "location", "criticality", "thing_name")},
        **{name: origin[name] for name in ("site", "line", "station")},
        "failure_type": words.failure_type,
        "severity": verdict.get("severity", verdict.get("score", 0.0)),
        "risk": round(decision.risk, 4),
        "priority": data.severity_word(decision.risk),
        "ai_generated": True,
        "pilot": pilot,
        "policy_version": data.version,
        "recommended_action": words.action(decision.risk),
        "time_to_failure": time_to_failure(verdict.get("time_to_failure"), last.get("cycle_period_s")),
        "evidence": [evidence for event in telling for evidence in event["data"].get("evidence", [])],
        "event_ids": list(decision.event_ids),
        "observed_at": observed_at(origin),
        "model": {name: verdict.get("model", {}).get(name) for name in ("name", "version", "digest")},
    }


def time_to_failure(stated: Mapping[str, Any] | None, cycle_period_s: float | None) -> dict[str, Any] | None:
    """The model's interval, with hours where they can be told: unit "hour", or cycles of a known length."""
    if not stated:
        return None
    points = {name: stated[name] for name in ("p10", "p50", "p90") if name in stated}
    hours: dict[str, float] | None = None
    if stated.get("unit") == "hour":
        hours = dict(points)
    elif cycle_period_s:
        hours = {name: round(value * cycle_period_s / 3600.0, 2) for name, value in points.items()}
    return {
        **points,
        "unit": stated.get("unit", "cycle"),
        "hours": hours,
        "beyond_horizon": stated.get("beyond_horizon", False),
    }
