# SPDX-License-Identifier: Apache-2.0
"""What a supervisor, or the policy in his place, may decide about an order: approve, reject, merge, ask, release. Pure.

Each is given the order as it was read and tells the change; None where the order is no longer one that it can happen to.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from work_orders.episodes import Episode
from work_orders.order_items import MOST_MERGED, NEVER, OPEN, WorkOrder, ended, text_of
from work_orders.order_notes import with_note
from work_orders.order_opening import STRANDED_AFTER_S
from work_orders.order_table import Change, audited

_STAMPS = ("decided_at",)


def approved(
    order: WorkOrder, now_s: float, by: str, reason: str, band: str | None, audit: str
) -> Change | None:
    """awaiting_approval -> creating."""
    if order.status != "awaiting_approval":
        return None
    rises = {"band": band} if band else {}
    values = {**_decided(by, reason), "last_tried_at": text_of(now_s + STRANDED_AFTER_S), **rises}
    return Change("approved", by, {"reason": reason, **rises, **audited(audit)}, values, _STAMPS, "creating")


def rejected(
    order: WorkOrder, now_s: float, by: str, reason: str, closed: Sequence[Episode], gone: Collection[str],
    expires_at: int, audit: str,
) -> Change | None:  # fmt: skip
    """awaiting_approval, or creating and held back, -> rejected."""
    if not (order.status == "awaiting_approval" or order.is_held) or not are_all(order, closed, gone):
        return None
    values = {
        **_decided(by, reason),
        **ended(now_s, expires_at),
        **order.kept_risk,
        "hold_until": 0,
        "lease_until": 0,
    }
    # Who has begun to place it meanwhile has another lease.
    lease = order.lease_until if order.is_held else None
    told = {"reason": reason, **order.kept_risk, **audited(audit)}
    return Change("rejected", by, told, values, _STAMPS, "rejected", lease=lease)


def merged(
    order: WorkOrder, into: WorkOrder, now_s: float, by: str, reason: str, audit: str
) -> tuple[Change, Change] | None:  # fmt: skip
    """awaiting_approval -> merged, and what becomes of `into`, which gets a note for the ERP."""
    if order.status != "awaiting_approval" or into.status not in OPEN or order.reference == into.reference:
        return None
    taken_in = [*into.merged, order.reference, *order.merged]
    note = {
        "key": f"merged/{order.reference}", "by": by, "at": text_of(now_s),
        "text": f"Also for {order.asset_id}, {order.failure_mode} ({order.reference}): {reason}",
    }  # fmt: skip
    noted = with_note(into, note)
    if len(taken_in) > MOST_MERGED or noted is None:
        return None
    told = {"reason": reason, **audited(audit)}
    # No day of deletion: `into` can't end without it, and gives it one then (orders.py, _let_go).
    ends = {
        **_decided(by, reason), "shadow": "pending", "last_tried_at": text_of(now_s),
        "merged_into": into.reference,
    }  # fmt: skip
    grows = {**noted, "merged": taken_in, **_height(order, into)}
    return (
        Change("merged", by, {**told, "into": into.reference}, ends, _STAMPS, "merged"),
        Change("absorbed", by, {"merged": order.reference, "with": list(order.merged), **told}, grows),
    )


def asked(order: WorkOrder, why: str) -> Change | None:
    """creating -> awaiting_approval, of an order that a hold kept back."""
    if not order.is_held:
        return None
    values = {"hold_until": 0, "lease_until": 0, "last_tried_at": NEVER}
    return Change(
        "asked", "policy", {"reason": why}, values, (), "awaiting_approval", lease=order.lease_until
    )


def released(order: WorkOrder, now_s: float, by: str, why: str, audit: str) -> Change | None:
    """Ends a hold: the order may be placed at once."""
    if not order.is_held:
        return None
    values: dict[str, Any] = {"hold_until": 0, "lease_until": 0, "last_tried_at": text_of(now_s)}
    stamps: tuple[str, ...] = ()
    if by != "policy":
        values |= _decided(by, why)
        stamps = _STAMPS
    return Change("released", by, {"reason": why, **audited(audit)}, values, stamps, lease=order.lease_until)


def are_all(order: WorkOrder, episodes: Sequence[Episode], gone: Collection[str]) -> bool:
    """Whether these are the order's own episode and those of every order merged into it, closed.

    `gone`: merged orders that are not there any more; the next alarm frees their episodes (observing.py).
    """
    expected = {order.reference, *order.merged} - set(gone)
    return {episode.reference for episode in episodes} == expected and not any(e.is_open for e in episodes)


def _decided(by: str, reason: str) -> dict[str, Any]:
    return {"decided_by": by, "reason": reason}


def _height(order: WorkOrder, into: WorkOrder) -> Mapping[str, Any]:
    """The highest risk of the two, which are one case from now on."""
    mine, its = order.item.get("highest_risk"), into.item.get("highest_risk")
    return {} if mine is None or its is None else {"highest_risk": max(mine, its)}
