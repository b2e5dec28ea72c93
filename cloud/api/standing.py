# SPDX-License-Identifier: Apache-2.0
"""Where an order stands, why, what was tried and what happens next, in words for whoever has to do something. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime

from work_orders.order_items import NEVER, WorkOrder, text_of
from work_orders.orders import STRANDED_AFTER_S

# The sweep's own rate and a run of it.
LATE_S = 900.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Sentences; `is_stuck`: somebody or the sweep has to do something that should have happened by now."""

    where: str
    why: str
    tried: str
    next: str
    is_stuck: bool


def standing(order: WorkOrder, now_s: float) -> Standing:
    """How the order stands at this moment."""
    words = _WORDS.get(order.status, _ended)
    found = words(order, now_s)
    behind = _behind(order, now_s)
    if not behind:
        return found
    return Standing(found.where, found.why, found.tried, f"{found.next} {behind}".strip(), is_stuck=True)


def _awaiting(order: WorkOrder, _now_s: float) -> Standing:
    told = order.item.get("announced_at")
    announced = (
        f"Announced at {told}"
        if told
        else "Not announced yet: nobody is subscribed, quiet hours, or SNS is away"
    )
    ends = order.expires_approval_at
    then = {"create": "it is created", "reject": "it is rejected"}.get(
        str(order.item.get("on_expiry")), "it waits on"
    )
    return Standing(
        f"It waits for a supervisor since {order.item['created_at']}.",
        f"{announced}; {int(order.item.get('reminders', 0))} reminders.",
        "",
        f"If nobody decides until {ends}, {then}." if ends else "It waits until somebody decides.",
        is_stuck=False,
    )


def _creating(order: WorkOrder, now_s: float) -> Standing:
    if order.hold_until > now_s:
        return Standing(
            f"It is held back until {text_of(order.hold_until)}.",
            "Quiet hours of the policy; a risk that they let through ends the wait.",
            "",
            "Then the sweep places it in the ERP, or asks a supervisor where a pilot holds by then. Until then a supervisor "
            "can approve it, which places it at once, or reject it.",
            is_stuck=False,
        )
    begun = datetime.fromisoformat(str(order.item["updated_at"])).timestamp()
    is_stranded = now_s - begun > STRANDED_AFTER_S + LATE_S
    return Standing(
        f"It is being placed in the ERP since {order.item['updated_at']}.",
        "Its message was lost, and the sweep has not come for it: look whether the sweep runs."
        if is_stranded
        else "The queue tries it, three times within 15 minutes.",
        _tried(order),
        _due(order, now_s),
        is_stuck=is_stranded,
    )


def _parked(order: WorkOrder, now_s: float) -> Standing:
    if order.is_refused:
        return Standing(
            "It is parked: the ERP refused it.",
            f"The ERP said: {order.item.get('failure') or 'nothing'}",
            _tried(order),
            "Nothing by itself: mend the cause, then `linewatch orders replay`.",
            is_stuck=True,
        )
    return Standing(
        "It is parked: the ERP did not answer.",
        f"The last try ended with: {order.item.get('failure') or 'nothing known'}",
        _tried(order),
        _due(order, now_s),
        is_stuck=True,
    )


def _created(order: WorkOrder, _now_s: float) -> Standing:
    return Standing(
        f"It is in the ERP as {order.erp_id}.",
        f"Status there: {order.item.get('erp_status') or 'not known'}",
        _tried(order),
        "The technician's finding ends it: by the ERP, or by the console.",
        is_stuck=False,
    )


def _ended(order: WorkOrder, _now_s: float) -> Standing:
    item = order.item
    by, at = item.get("closed_by") or item.get("decided_by"), item.get("closed_at") or item.get("decided_at")
    why = item.get("finding") or item.get("reason") or ""
    into = f" into {order.merged_into}" if order.merged_into else ""
    return Standing(
        f"It was {order.status}{into} by {by} at {at}.", str(why), _tried(order), "", is_stuck=False
    )


_WORDS = {"awaiting_approval": _awaiting, "creating": _creating, "parked": _parked, "created": _created}


def _tried(order: WorkOrder) -> str:
    if not order.attempts:
        return ""
    times = int(order.item.get("failures", 0))
    same = f", the last {times} of them in the same way" if times > 1 else ""
    last = order.item.get("tried_at")
    tries = f"{order.attempts} {'try' if order.attempts == 1 else 'tries'} without an order"
    return f"{tries}{same}{f'; the last at {last}' if last else ''}."


def _due(order: WorkOrder, now_s: float) -> str:
    if order.due_at == NEVER:
        return "Nothing by itself."
    due = datetime.fromisoformat(order.due_at).timestamp()
    if due <= now_s:
        return "The sweep takes it in its next run."
    return f"The sweep takes it from {datetime.fromtimestamp(due, UTC):%Y-%m-%d %H:%M:%S} UTC on."


def _behind(order: WorkOrder, now_s: float) -> str:
    if now_s - datetime.fromisoformat(str(order.item["updated_at"])).timestamp() < LATE_S:
        return ""  # the flow is at it, or the sweep's next run
    told = []
    if order.shadow in ("pending", "left_out"):
        why = "there was no room" if order.shadow == "left_out" else "the sweep writes it"
        told.append(f"The device's shadow does not show it yet: {why}.")
    if order.pending_notes and order.erp_id:
        told.append(f"{len(order.pending_notes)} notes wait to be told to the ERP.")
    return " ".join(told)
