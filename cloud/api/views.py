# SPDX-License-Identifier: Apache-2.0
"""How the API shows stored items. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from work_orders.orders import WorkOrder

_FROM_DOCUMENT = (
    "asset_name", "location", "criticality", "site", "line", "station", "failure_type", "severity", "risk", "priority",
    "ai_generated", "recommended_action", "time_to_failure", "evidence", "event_ids", "model", "pilot", "policy_version",
    "observed_at",
)  # fmt: skip
_FROM_ITEM = (
    "erp_id", "erp_status", "created_at", "updated_at", "decided_at", "decided_by", "reason",
    "closed_at", "closed_by", "finding", "note",
)  # fmt: skip


def work_order(order: WorkOrder, *, with_history: bool = False) -> dict[str, Any]:
    """A work order as the console gets it."""
    shown = {
        "reference": order.reference,
        "status": order.status,
        "asset_id": order.asset_id,
        "failure_mode": order.failure_mode,
        "band": order.band,
        "episode": int(order.item["episode"]),
        "attempts": order.attempts,
        **{name: order.document.get(name) for name in _FROM_DOCUMENT},
        **{name: order.item.get(name) for name in _FROM_ITEM},
    }
    return {**shown, "history": order.item["history"]} if with_history else shown


def event(item: Mapping[str, Any], asset: Mapping[str, Any] | None) -> dict[str, Any]:
    """An enriched event as the console gets it."""
    return {
        "event": json.loads(item["event"]),
        "asset": dict(asset) if asset else None,
        "is_asset_known": item["is_asset_known"],
        "enriched_at": item["enriched_at"],
    }
