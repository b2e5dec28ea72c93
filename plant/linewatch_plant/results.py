# SPDX-License-Identifier: Apache-2.0
"""What a run of the demo came to: the content of build/demo.json."""

import datetime
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer

from linewatch_plant.counts import Counts, percentile

if TYPE_CHECKING:
    from linewatch_plant.plant import Plant


def results(plant: "Plant", counts: Counts) -> dict[str, Any]:
    """Counts, models and latencies, read from what arrived in the cloud."""
    assert plant.cloud is not None
    reader = TypeDeserializer()
    events = {row["event_id"]["S"]: json.loads(row["event"]["S"]) for row in plant.cloud.scan("EventsTable")}
    orders = [reader.deserialize({"M": row}) for row in plant.cloud.scan("WorkOrdersTable")]
    return {
        "parts": counts.parts,
        "events": counts.events,
        "work_orders": counts.work_orders,
        "dead_letters": counts.dead_letters,
        "models": _models(events.values()),
        "latency_ms": {
            "frame_to_verdict": _spread([
                event["data"]["frame_to_verdict_s"] for event in events.values() if "verdict" in event["data"]
            ]),
            "frame_to_work_order": _spread(_order_seconds(events, orders)),
        },
    }  # fmt: skip


def _models(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Labels by model; where a run saw several versions of one, they are named together."""
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    versions: dict[str, set[str]] = defaultdict(set)
    for event in events:
        verdict = event["data"].get("verdict")
        if verdict:
            name = verdict["model"]["name"]
            labels[name][verdict["label"]] += 1
            versions[name].add(verdict["model"]["version"])
    return {
        name: {"version": ", ".join(sorted(versions[name])), "labels": dict(sorted(count.items()))}
        for name, count in sorted(labels.items())
    }


def _order_seconds(
    events: Mapping[str, Mapping[str, Any]], orders: Iterable[Mapping[str, Any]]
) -> list[float]:
    """For each order: from taking the part that made it necessary, the newest of its events, until it was there.

    There is: in the ERP for an order that no person was asked about, in the approval queue for one that was. What a person
    takes to decide, and what quiet hours hold back, is not the way of an order and not in it.
    """
    spans = []
    for order in orders:
        event_ids = json.loads(order["document"])["event_ids"]
        taken = [_moment(events[one]["time"]) for one in event_ids if one in events]
        there = order["created_at"] if _was_asked(order) else order.get("in_erp_at")
        if taken and there and not order.get("hold_until"):
            spans.append((_moment(there) - max(taken)).total_seconds())
    return spans


def _was_asked(order: Mapping[str, Any]) -> bool:
    """Whether it has waited for a person, whoever decided in the end; with the pilot on every order does."""
    return bool(order.get("decided_at")) or order["status"] in ("awaiting_approval", "merged")


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def _spread(seconds: list[float]) -> dict[str, float | None]:
    spread = {name: percentile(seconds, share) for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {name: None if value is None else round(value * 1000, 1) for name, value in spread.items()}
