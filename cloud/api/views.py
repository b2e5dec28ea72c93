# SPDX-License-Identifier: Apache-2.0
"""How the API shows stored items. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from work_orders.orders import WorkOrder
from work_orders.policy_data import Approval

_FROM_DOCUMENT = (
    "asset_name", "location", "criticality", "site", "line", "station", "failure_type", "ai_generated",
    "evidence", "evidence_left_out", "event_ids", "model", "pilot", "policy_version", "observed_at",
)  # fmt: skip
_FROM_ITEM = (
    "erp_id", "erp_status", "created_at", "updated_at", "decided_at", "decided_by", "reason", "closed_at", "closed_by",
    "finding", "found_failure", "note", "finding_source", "corrected_at", "corrected_by", "record_digest",
)  # fmt: skip
_IN_DETAIL = (
    "persistence", "thresholds", "raised_in", "needed", "observations", "policy_digest", "event_digests",
)  # fmt: skip


def work_order(order: WorkOrder, approval: Approval | None = None) -> dict[str, Any]:
    """A work order as a list shows it. `approval`: how long an order waits by the policy that holds now."""
    return {
        "reference": order.reference,
        "status": order.status,
        "asset_id": order.asset_id,
        "failure_mode": order.failure_mode,
        "band": order.band,
        "episode": order.episode,
        "attempts": order.attempts,
        **{name: order.document.get(name) for name in _FROM_DOCUMENT},
        **{name: order.item.get(name) for name in _FROM_ITEM},
        "severity": order.severity,
        "recommended_action": order.recommended_action or None,
        "time_to_failure": order.time_to_failure,
        "risk": order.risk,
        "priority": order.priority,
        "hold_until": order.hold_until or None,
        "merged_into": order.merged_into or None,
        "merged": list(order.merged),
        "escalations": [dict(one) for one in order.escalations],
        "notes_pending": len(order.pending_notes),
        "is_refused": order.is_refused,
        "failure": order.item.get("failure") or None,
        "head": order.head or None,
        "records": order.records,
        "approval": waiting(order, approval) if approval else None,
    }


def waiting(order: WorkOrder, approval: Approval) -> dict[str, Any]:
    """How an order's wait for a person stands; `expires_at` null where it waits for ever, or no more."""
    item = order.item
    return {
        "announced_at": item.get("announced_at"),
        "reminded_at": item.get("reminded_at"),
        "reminders": int(item.get("reminders", 0)),
        # As it was announced; a policy that was put later changes nothing about it.
        "expires_at": (order.expires_approval_at or None) if order.status == "awaiting_approval" else None,
        "on_expiry": item.get("on_expiry") or approval.on_expiry,
    }


def facts(order: WorkOrder) -> dict[str, Any]:
    """What a decision needs of the order's document beyond the list."""
    return {name: order.document.get(name) for name in _IN_DETAIL}


def asset(item: Mapping[str, Any] | None, order: WorkOrder) -> dict[str, Any]:
    """The asset as the registry has it now; what the order was opened with where it is not there any more."""
    known: Mapping[str, Any] = item or {}
    return {
        "asset_id": order.asset_id,
        "name": known.get("asset_name") or order.document.get("asset_name"),
        **{
            name: known.get(name) or order.document.get(name) or None
            for name in ("location", "criticality", "warranty_until", "last_maintenance")
        },
        "maintenance_history": known.get("maintenance_history") or [],
        "is_known": item is not None,
    }


def event(item: Mapping[str, Any], asset: Mapping[str, Any] | None) -> dict[str, Any]:
    """An enriched event as the console gets it."""
    return {
        "event": json.loads(item["event"]),
        "asset": dict(asset) if asset else None,
        "is_asset_known": item["is_asset_known"],
        "enriched_at": item["enriched_at"],
    }
