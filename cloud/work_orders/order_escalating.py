# SPDX-License-Identifier: Apache-2.0
"""How an order gets worse: band or priority rise with the risk, and never fall. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from work_orders.order_items import MOST_ESCALATIONS, OPEN, WorkOrder, text_of
from work_orders.order_notes import with_note
from work_orders.order_table import Change


@dataclass(frozen=True, slots=True)
class Rise:
    """What the case asks for by now."""

    band: str
    priority: str
    risk: float
    # In words, for people.
    why: str
    # The event that it came with.
    at_event: str
    # For this risk; empty: as before.
    recommended_action: str = ""
    # What the event says (document.seen_in).
    seen: Mapping[str, Any] = field(default_factory=dict)


def escalated(order: WorkOrder, now_s: float, rise: Rise) -> Change | None:
    """The ERP's order gets a note. None when nothing rises, when the order has ended, and after MOST_ESCALATIONS."""
    rises = rise.risk > order.risk and (rise.band, rise.priority) != (order.band, order.priority)
    if order.status not in OPEN or not rises or len(order.escalations) >= MOST_ESCALATIONS:
        return None
    step = {
        "at": text_of(now_s), "band": rise.band, "priority": rise.priority, "risk": rise.risk, "why": rise.why,
        "event_id": rise.at_event, **rise.seen,
    }  # fmt: skip
    action = {"recommended_action": rise.recommended_action} if rise.recommended_action else {}
    text = f"Severity rose: risk {order.risk:.2f} to {rise.risk:.2f}, priority {rise.priority}. {rise.why}"
    if rise.recommended_action and rise.recommended_action != order.recommended_action:
        text += f". What to do now: {rise.recommended_action}"
    key = f"escalated/{len(order.escalations) + 1}"
    note = {"key": key, "text": text, "by": "policy", "at": step["at"]}
    values = {
        **(with_note(order, note) or {}), **action, "band": rise.band, "priority": rise.priority,
        "escalations": json.dumps([*order.escalations, step]),
    }  # fmt: skip
    return Change("escalated", "policy", {"text": text, **step, **action}, values)
