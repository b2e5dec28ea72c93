# SPDX-License-Identifier: Apache-2.0
"""What the ERP's order is still to be told, and whether the ERP has it twice.

One caller at a time has the right to speak (`notes_lease_until`); telling.py speaks.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from erp.port import ErpOrder
from work_orders.order_items import MOST_NOTES, NEVER, NOTE_CHARACTERS, Calls, WorkOrder, text_of
from work_orders.order_table import Change, OrderTable


class OrderNotes(OrderTable):
    """Notes for the ERP's order, once per key, and the second look after its creation."""

    def add_note(self, order: WorkOrder, key: str, text: str, by: str) -> bool:
        """Has the ERP's order told something, once per key; False when it was already, or there is no room."""
        note = {"key": key, "text": text, "by": by, "at": self.now_text()}

        def decide(now: WorkOrder) -> Change | None:
            noted = with_note(now, note)
            if noted is None or now.status in ("rejected", "merged"):
                return None
            return Change(
                "note", by, {"key": key, "text": note["text"][:NOTE_CHARACTERS]}, noted, repeats=True
            )

        return self._change(order.reference, decide) is not None

    def lease_notes(self, reference: str, seconds: float) -> WorkOrder | None:
        """Takes the right to tell the ERP what is pending, and to look again whether it has the order twice."""
        now = self._clock()
        return self._set(
            reference,
            "attribute_exists(erp_id) AND (attribute_not_exists(notes_lease_until) OR notes_lease_until < :now)",
            {":now": int(now)},
            notes_lease_until=int(now + seconds),
            last_tried_at=text_of(now + seconds),
        )

    def note_told(self, order: WorkOrder, key: str, calls: Calls = (), refused: str = "") -> WorkOrder | None:
        """The note is in the ERP, or the ERP does not want it; None when another was faster."""

        def decide(now: WorkOrder) -> Change | None:
            left = [note for note in now.pending_notes if note["key"] != key]
            if len(left) == len(now.pending_notes):
                return None
            values = {"pending_notes": json.dumps(left), "notes_told": [*now.item.get("notes_told", ()), key]}
            what = "note_refused" if refused else "note_told"
            return Change(
                what, "erp", {"key": key, "why": refused, "calls": list(calls)}, values, repeats=True
            )

        return self._change(order.reference, decide)

    def is_to_be_looked_at(self, order: WorkOrder) -> bool:
        """Whether the second look after its creation is due."""
        return 0 < int(order.item.get("look_again_at", 0)) <= self._clock()

    def looked(self, order: WorkOrder, surplus: Sequence[str], calls: Calls = ()) -> WorkOrder | None:
        """The second look is done. Orders that the ERP has besides ours are recorded, and each is told so in a note."""

        def decide(now: WorkOrder) -> Change | None:
            doubles = list(now.item.get("doubles", ()))
            new = [one for one in surplus if one not in doubles]
            if not new:
                return None
            text = f"Duplicate of {now.erp_id} (Linewatch {now.reference}); please cancel this order."
            notes = [
                {
                    "key": f"duplicate/{one}",
                    "text": text,
                    "by": "linewatch",
                    "at": self.now_text(),
                    "erp_id": one,
                }
                for one in new
            ]
            values = {
                "doubles": [*doubles, *new],
                "pending_notes": json.dumps([*now.pending_notes, *notes]),
                "look_again_at": 0,
            }
            detail = {"erp_id": now.erp_id, "doubles": new, "calls": list(calls)}
            return Change("doubled", "linewatch", detail, values, repeats=True)

        if surplus and (changed := self._change(order.reference, decide)) is not None:
            return changed
        return self._set(order.reference, "attribute_exists(erp_id)", look_again_at=0)

    def take_over(self, order: WorkOrder, erp_order: ErpOrder, calls: Calls = ()) -> WorkOrder | None:
        """The ERP's order with this reference is another than the one that was recorded: it is ours from here on."""

        def decide(now: WorkOrder) -> Change | None:
            if now.erp_id != order.erp_id:
                return None
            values = {"erp_id": erp_order.id, "erp_status": erp_order.status, "shadow": "pending"}
            detail = {
                "erp_id": erp_order.id, "erp_status": erp_order.status, "was": now.erp_id, "calls": list(calls),
            }  # fmt: skip
            # By the second look only, which comes once per try that made one: recorded by a full chain too.
            return Change("taken_over", "erp", detail, values)

        return self._change(order.reference, decide)

    def rest_notes(self, order: WorkOrder, *, due_s: float | None, wait_s: float = 0) -> None:
        """Gives that right back; `due_s`: seconds until the sweep has something to do again, None: nothing is left."""
        now_s = self._clock()
        look_at = int(order.item.get("look_again_at", 0))
        if due_s is not None:
            due = text_of(now_s + max(due_s, wait_s))
        else:
            due = text_of(look_at) if look_at else NEVER
        given = {
            ":lease": int(order.item["notes_lease_until"]),
            **({":head": order.head} if order.head else {}),
        }
        until = int(now_s + wait_s) if wait_s else 0
        # What happened meanwhile, such as a note that nobody delivered, or the end, must not wait for ever.
        seen = "head = :head" if order.head else "attribute_not_exists(head)"
        if self._set(
            order.reference, f"notes_lease_until = :lease AND {seen}", given,
            notes_lease_until=until, last_tried_at=due,
        ) is None:  # fmt: skip
            self._set(
                order.reference, "notes_lease_until = :lease", {":lease": given[":lease"]},
                notes_lease_until=until, last_tried_at=self.now_text(),
            )  # fmt: skip


def with_note(order: WorkOrder, note: Mapping[str, Any]) -> dict[str, Any] | None:
    """The attributes of an order with one more pending note; None when its key is known or there is no room. Pure."""
    told = order.item.get("notes_told", ())
    known = {*told, *(pending["key"] for pending in order.pending_notes)}
    if note["key"] in known or len(known) >= MOST_NOTES:
        return None
    values: dict[str, Any] = {
        "pending_notes": json.dumps([*order.pending_notes, {**note, "text": note["text"][:NOTE_CHARACTERS]}])
    }
    if order.erp_id:
        values["last_tried_at"] = note["at"]
    return values


def with_finding(order: WorkOrder, found: Mapping[str, str], by: str, at: str, source: str) -> dict[str, Any]:
    """The attributes by which the ERP's order hears what a person said here; none where it said so itself. Pure.

    An order that the ERP made unknown to us is told by look_after_end.
    """
    if source != "console" or not order.erp_id:
        return {}
    is_first = order.status != "closed"
    what = found["finding"] + (f" ({found['found_failure']})" if found["found_failure"] else "")
    text = f"{'Closed' if is_first else 'Corrected'} in Linewatch by {by}: finding {what}"
    # First what has to be done here: the rest may be cut.
    text += ". Linewatch does not end this order; end it here." if is_first else "."
    text += f" Note: {found['note']}" if found["note"] else ""
    # One key per correction: no two stand at the same place of the chain.
    key = "closed" if is_first else f"corrected/{order.records}"
    return with_note(order, {"key": key, "text": text, "by": by, "at": at}) or {}
