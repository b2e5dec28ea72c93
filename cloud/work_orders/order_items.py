# SPDX-License-Identifier: Apache-2.0
"""A work order as it is stored (DynamoDB `work_orders`), and as the code sees it. Pure.

What happened to an order lies beside it, in its chain of records (`records`, chain = the reference); `head` is the
digest of the chain's last entry, and every change of the order is made under the condition that it still is.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from linewatch.records import Entry

STATUSES = ("awaiting_approval", "creating", "created", "parked", "rejected", "merged", "closed")
OPEN = ("awaiting_approval", "creating", "created", "parked")
ENDED = ("rejected", "merged", "closed")

MOST_RECORDS = 1_000
"""Entries of one chain for what can repeat itself (tries, notes). Then an entry `full` says so and further ones are only
counted (`unrecorded`); the steps that an order takes once, and its MOST_ESCALATIONS, are recorded all the same. Corrections
end there: one without its entry would look like a forged one."""

MOST_MERGED, MOST_ESCALATIONS = 20, 20
MOST_NOTES, NOTE_CHARACTERS = 60, 1_000
"""Of one order, delivered or not, for the ERP."""

Calls = Sequence[Mapping[str, Any]]
"""What was said to the ERP, as erp/transcript.py tells it."""

NEVER = "9999-12-31T23:59:59.999Z"
"""`last_tried_at` of an order that the sweep has nothing to do for."""

FOR_EVER = 253_402_300_799
"""`expires_at` of what had a day of deletion and is not to go before a later event, which gives it another one."""


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """One stored work order."""

    reference: str
    status: str
    asset_id: str
    failure_mode: str
    band: str
    # The facts it was opened with; see document.py. Never changes.
    document: Mapping[str, Any]
    # Tries that the ERP did not answer with an order.
    attempts: int
    # Seconds since 1970 until which nobody else may call the ERP for it; the next try is due after it.
    lease_until: float
    # "pending" until the device's shadows show the order as it is now; "left_out" while there is no room for it there.
    shadow: str
    # Every stored attribute.
    item: Mapping[str, Any]
    # Digest of the last of its records, and how many there are; "" and 0 in orders of releases before 0.3.
    head: str = ""
    records: int = 0
    # Seconds since 1970; 0 where nothing holds it back.
    hold_until: float = 0.0
    # Each {at, band, priority, risk, why, event_id, severity?, time_to_failure?}, oldest first.
    escalations: tuple[Mapping[str, Any], ...] = ()
    # The order that this one was merged into; "" for none.
    merged_into: str = ""
    # References of the orders that were merged into this one.
    merged: tuple[str, ...] = ()
    # Each {key, text, by, at}: what the ERP's order is still to be told.
    pending_notes: tuple[Mapping[str, Any], ...] = ()
    # "urgent", "high", "medium" or "low", after the last escalation.
    priority: str = ""
    # RFC 3339; when the approval expires; "" where it does not.
    expires_approval_at: str = ""
    # The ERP said no to it; only a person has it tried again.
    is_refused: bool = False

    @property
    def is_full(self) -> bool:
        """Whether its chain takes nothing that repeats itself any more, and no correction."""
        return self.records >= MOST_RECORDS

    @property
    def episode(self) -> int:
        """Number of the episode that it was opened for."""
        return int(self.item["episode"])

    @property
    def erp_id(self) -> str:
        """How the ERP names it; "" where it does not have it yet."""
        return str(self.item.get("erp_id") or "")

    @property
    def is_held(self) -> bool:
        """Whether it waits for the end of a hold, or for the first who comes after it: nothing of it is in the ERP."""
        return self.status == "creating" and 0 < self.hold_until == self.lease_until

    @property
    def risk(self) -> float:
        """0..1, after the last escalation."""
        return float(self.escalations[-1]["risk"] if self.escalations else self.document.get("risk", 0.0))

    @property
    def highest_risk(self) -> float | None:
        """0..1, the highest that its case reached; None of an order that was opened before this was kept (0.3)."""
        kept = self.item.get("highest_risk")
        return None if kept is None else max(float(kept), self.risk)

    @property
    def kept_risk(self) -> Mapping[str, Any]:
        """`highest_risk` as it is stored; what an order ends with is in its records, since accuracy counts by it."""
        kept = self.item.get("highest_risk")
        return {} if kept is None else {"highest_risk": kept}

    @property
    def recommended_action(self) -> str:
        """What to do, for the risk that it has now."""
        return str(self.item.get("recommended_action") or self.document.get("recommended_action") or "")

    @property
    def severity(self) -> float | None:
        """0..1, of the last part that changed the order."""
        found: float | None = self._last("severity")
        return found

    @property
    def time_to_failure(self) -> Mapping[str, Any] | None:
        """As that part's model stated it; None where it did not."""
        found: Mapping[str, Any] | None = self._last("time_to_failure")
        return found

    def _last(self, name: str) -> Any:
        """Of the last escalation whose event was there, else as the order was opened."""
        steps = [step[name] for step in self.escalations if name in step]
        return steps[-1] if steps else self.document.get(name)

    @property
    def holds_evidence(self) -> bool:
        """Whether devices keep the evidence that it names: it has not ended, or the order it was merged into has not."""
        return self.status in OPEN or self.is_in_another

    @property
    def is_in_another(self) -> bool:
        """Whether its case goes on in the order that it was merged into: it stays, as that one needs it to end."""
        return self.status == "merged" and not self.item.get("into_ended_at")

    @property
    def due_at(self) -> str:
        """RFC 3339: from when on the sweep has something to do for it; NEVER."""
        return str(self.item["last_tried_at"])


def from_item(item: Mapping[str, Any]) -> WorkOrder:
    """The order that is stored; one of a release before 0.3 has neither head nor what came with it."""
    document = _told(item["document"])
    return WorkOrder(
        reference=item["reference"],
        status=item["status"],
        asset_id=item["asset_id"],
        failure_mode=item["failure_mode"],
        band=item["band"],
        document=document,
        attempts=int(item["attempts"]),
        lease_until=float(item["lease_until"]),
        shadow=item.get("shadow", "none"),
        item=item,
        head=item.get("head", ""),
        records=int(item.get("records", 0)),
        hold_until=float(item.get("hold_until", 0)),
        escalations=tuple(_told(item.get("escalations", "[]"))),
        merged_into=item.get("merged_into", ""),
        merged=tuple(item.get("merged", ())),
        pending_notes=tuple(json.loads(item.get("pending_notes", "[]"))),
        priority=item.get("priority") or document.get("priority", ""),
        expires_approval_at=item.get("expires_approval_at", ""),
        is_refused=bool(item.get("is_refused", False)),
    )


def _told(text: str) -> Any:
    """What was stored; null for the `Infinity` that earlier releases wrote, which no other reader of JSON takes."""
    return json.loads(text, parse_constant=lambda _: None)


def is_new_height(risk: float, kept: Decimal, thresholds: Iterable[float]) -> bool:
    """Whether a threshold in hundredths, or one of these, tells the risk from the lower one that is kept. Pure.

    So at most 200 rises of one order are written, and whatever threshold of two decimals is asked for later, the kept
    one is above it, or at it, where the risk was.
    """
    reached, hundred = Decimal(str(risk)), Decimal(100)
    if reached <= kept:
        return False
    steps = (
        (kept * hundred).to_integral_value(ROUND_FLOOR),
        (reached * hundred).to_integral_value(ROUND_FLOOR),
    )
    if steps[0] != steps[1] or kept * hundred == steps[0]:
        return True
    return any(kept <= Decimal(str(one)) <= reached for one in thresholds)


def document_digest(text: str) -> str:
    """Of the stored document's bytes; the entry `opened` holds it, so that `verify` sees a changed document too."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


_SAYS = ("text", "reason", "why", "erp_id", "key")
"""The first of an entry's details that is there says what happened, in a line; of a note that was told its key."""


def history_of(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The chain as the console shows it: {at, what, by, detail}, oldest first; 0.2.0's history in its place."""
    shown: list[dict[str, Any]] = []
    for entry in entries:
        detail = json.loads(entry.detail)
        if entry.what == "before_records":
            shown += detail["history"]
            continue
        text = next((detail[name] for name in _SAYS if detail.get(name)), "")
        shown.append({"at": entry.at, "what": entry.what, "by": entry.by, "detail": text})
    return shown


def ended(now_s: float, expires_at: int) -> dict[str, Any]:
    """Attributes of an order that ends: the device hears of it, and the sweep gives its records their day of deletion."""
    return {"shadow": "pending", "last_tried_at": text_of(now_s), "expires_at": expires_at}


def text_of(moment: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC with milliseconds; sorts as text."""
    moment_at = datetime.fromtimestamp(moment, UTC)
    return moment_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
