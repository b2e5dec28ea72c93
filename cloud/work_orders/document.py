# SPDX-License-Identifier: Apache-2.0
"""What a work order says, put together from the events that raised it. Pure."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from work_orders.observed import observed_at
from work_orders.policy import Decision, Risk, Rule
from work_orders.policy_data import PolicyData, digest_of

SHOWN_PLACES = 20
"""Places of the persistence that an order keeps: what a person looks at, far under an item's 400 KB."""

MOST_EVIDENCE_BYTES = 64_000
"""Some two hundred files. An order with its notes and escalations has 400 KB (DynamoDB), an event may name hundreds."""

_OF_ASSET = (
    "asset_name", "location", "criticality", "kind", "thing_name", "warranty_until", "last_maintenance",
)  # fmt: skip


def describe(
    asset: Mapping[str, Any],
    failure_mode: str,
    decision: Decision,
    events: Sequence[Mapping[str, Any]],
    data: PolicyData,
    rule: Rule,
    places: Sequence[Risk] = (),
    *,
    pilot: bool,
) -> dict[str, Any]:
    """The order's facts. `events`: the CloudEvents of `decision.event_ids`, oldest first, at least one.

    `rule`, `places`: what held and what was seen when the band was crossed.
    """
    telling = _telling(events)
    last = telling[-1]["data"]
    verdict, origin = last["verdict"], last["origin"]
    words = data.failure_mode(failure_mode)
    return {
        **{name: asset.get(name) for name in _OF_ASSET},
        **{name: origin[name] for name in ("site", "line", "station")},
        "failure_type": words.failure_type,
        **seen_in(events),
        "risk": round(decision.risk, 4),
        "priority": data.severity_word(decision.risk),
        "ai_generated": True,
        "pilot": pilot,
        "policy_version": data.version,
        "policy_digest": data.digest,
        "thresholds": {
            band.name: {"on": band.on, "inclusive": band.on_inclusive, "off": band.off} for band in rule.bands
        },
        # The order's own band goes up with an escalation; the places below stay those of this one.
        "raised_in": decision.band,
        "needed": rule.needed,
        "observations": rule.observations,
        "persistence": [_place(place, decision, rule) for place in places],
        "recommended_action": words.action(decision.risk),
        **bounded([event["data"].get("evidence", []) for event in telling]),
        "event_ids": list(decision.event_ids),
        # An event is forgotten after EventDays, and may be shown until then: whether it is still the one that counted.
        "event_digests": {event["id"]: digest_of(event) for event in events},
        "observed_at": observed_at(origin),
        "model": {name: verdict.get("model", {}).get(name) for name in ("name", "version", "digest")},
    }


def bounded(of_events: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """`evidence` of the events, oldest first, and `evidence_left_out`: how many files MOST_EVIDENCE_BYTES have no room for.

    The first file of every event comes first, for the device keeps what of an event is named here; then the second of each,
    the newest events' before the older ones'.
    """
    files = [
        (rank, -age, evidence)
        for age, of_event in enumerate(of_events)
        for rank, evidence in enumerate(of_event)
    ]
    left, kept = MOST_EVIDENCE_BYTES, set()
    for rank, newest, evidence in sorted(files, key=lambda one: one[:2]):
        size = len(json.dumps(evidence, separators=(",", ":"))) + 1
        if size > left:
            continue
        left -= size
        kept.add((rank, newest))
    named = [evidence for rank, newest, evidence in files if (rank, newest) in kept]
    return {"evidence": named, "evidence_left_out": len(files) - len(named)}


def seen_in(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How bad the newest of the events says it is, and until when; empty without an event."""
    if not events:
        return {}
    last = _telling(events)[-1]["data"]
    verdict = last["verdict"]
    return {
        "severity": verdict.get("severity", verdict.get("score", 0.0)),
        "time_to_failure": time_to_failure(verdict.get("time_to_failure"), last.get("cycle_period_s")),
    }


def _telling(events: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """A product's risk may stay high over a good part; the bad ones tell what is wrong."""
    return [event for event in events if event["data"]["verdict"].get("result") != "OK"] or events


def _place(place: Risk, decision: Decision, rule: Rule) -> dict[str, Any]:
    return {
        "epoch": place.position.epoch,
        "sequence": place.position.sequence,
        "event_id": place.event_id,
        # None: no part is known to have stood here.
        "risk": round(place.low, 4) if place.event_id else None,
        "over": bool(place.event_id)
        and any(band.holds(place.low) for band in rule.bands if band.name == decision.band),
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
        # An event of before the contract bounded both: JSON has no word for what comes of them.
        hours = hours if all(map(math.isfinite, hours.values())) else None
    return {
        **points,
        "unit": stated.get("unit", "cycle"),
        "hours": hours,
        "beyond_horizon": stated.get("beyond_horizon", False),
    }
