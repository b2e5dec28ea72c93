# SPDX-License-Identifier: Apache-2.0
"""What becomes of an order at the ERP: lease, tries, the order there; and the device's shadows of it.

A lease keeps callers of the ERP apart; it must be longer than a Lambda may run. It is no record: it leaves nothing
behind. What a try led to is written only by who holds the lease; that the ERP HAS the order is written by whoever saw it.
"""

from typing import Any

from erp.port import ErpOrder
from work_orders.order_items import FOR_EVER, NEVER, Calls, WorkOrder, text_of
from work_orders.order_table import Change, OrderTable, audited

LOOK_AGAIN_S = 3_600.0
"""After an order was created the sweep looks once more whether the ERP has it twice: a request that nobody answered may
have been carried out later than `settle_s`."""

DAY_S = 86_400.0


class OrderTries(OrderTable):
    """The ERP's side of an order."""

    def lease(self, reference: str, seconds: float) -> WorkOrder | None:
        """Takes the right to call the ERP for an order that is creating or parked; None when it can't be had."""
        now = self._clock()
        return self._set(
            reference,
            "#status IN (:creating, :parked) AND lease_until < :now",
            {":creating": "creating", ":parked": "parked", ":now": int(now)},
            lease_until=int(now + seconds),
            # Whoever holds it may die: then the sweep finds the order, whatever became of its message.
            last_tried_at=text_of(now + seconds),
            tried_at=text_of(now),
        )

    def created(self, order: WorkOrder, erp_order: ErpOrder, calls: Calls = ()) -> WorkOrder | None:
        """creating or parked -> created, with the ERP's id; None when another recorded it already."""

        def decide(now: WorkOrder) -> Change | None:
            detail = {
                "erp_id": erp_order.id, "erp_status": erp_order.status, "record_digest": order.head,
                "attempts": now.attempts, **_repeated(now), "calls": list(calls),
            }  # fmt: skip
            values = {
                "erp_id": erp_order.id,
                "erp_status": erp_order.status,
                "record_digest": order.head,
                "lease_until": 0,
                "shadow": "pending",
                "last_tried_at": text_of(self._clock() + (0 if now.pending_notes else LOOK_AGAIN_S)),
                "look_again_at": int(self._clock() + LOOK_AGAIN_S),
                "failure": "",
                "failures": 0,
            }
            if now.status in ("creating", "parked"):
                return Change("created", "erp", detail, values, ("in_erp_at",), "created")
            if now.erp_id == erp_order.id or erp_order.id in now.item.get("doubles", ()):
                return None
            # It ended, or another made one, while the ERP was at it: the sweep looks what is there.
            again = {"last_tried_at": self.now_text(), "look_again_at": int(self._clock())}
            late = {} if now.erp_id else {"erp_id": erp_order.id, "erp_status": erp_order.status}
            # The one that gives the order its id is recorded however many entries there are.
            return Change("answered", "erp", detail, again | late, repeats=bool(now.erp_id))

        placed = self._change(order.reference, decide)
        return placed if placed is not None and placed.status == "created" else None

    def failed(
        self, order: WorkOrder, why: str, status: str, wait_s: float, *,
        due_s: float | None = None, is_refused: bool = False, calls: Calls = (),
    ) -> WorkOrder | None:  # fmt: skip
        """Notes a try without an order; the order stays `creating` or is parked, and rests for `wait_s` seconds.

        `due_s`: seconds until the sweep takes it; None: only a person does. What failed in the same way before is
        counted and no entry of its own.
        """
        now_s = self._clock()
        values = {
            "attempts": order.attempts + 1,
            "lease_until": int(now_s + wait_s) if wait_s else 0,
            "last_tried_at": NEVER if due_s is None else text_of(now_s + max(due_s, wait_s)),
            "is_refused": is_refused,
            "failure": why,
        }
        before = order.item
        if before.get("failure") == why and order.status == status and order.is_refused == is_refused:
            return self._set(
                order.reference,
                "#status = :was AND lease_until = :lease",
                {":was": status, ":lease": int(order.lease_until)},
                failures=int(before.get("failures", 0)) + 1,
                **values,
            )
        what = "parked" if status == "parked" and order.status != "parked" else "tried"
        detail = {"why": why, "attempt": order.attempts + 1, **_repeated(order), "calls": list(calls)}

        def decide(now: WorkOrder) -> Change | None:
            if now.status != order.status or now.lease_until != order.lease_until:
                return None
            return Change(
                what, "erp", detail, {**values, "failures": 1}, status=status, repeats=what == "tried",
                lease=order.lease_until,
            )  # fmt: skip

        return self._change(order.reference, decide)

    def rest(self, order: WorkOrder, pause_s: float) -> None:
        """Gives the lease back without counting a try, for a sweep that could not look the order up.

        Its pause puts it behind the others that are due: it may be this one order that the ERP can't answer for.
        """
        self._set(
            order.reference, "lease_until = :lease", {":lease": int(order.lease_until)},
            lease_until=0, last_tried_at=text_of(self._clock() + pause_s),
        )  # fmt: skip

    def replay(self, reference: str, by: str, why: str, *, audit: str = "") -> WorkOrder | None:
        """A person has a parked order tried again, a refused one too: the next sweep takes it. None when it is not parked."""

        def decide(order: WorkOrder) -> Change | None:
            if order.status != "parked":
                return None
            values = {"attempts": 0, "is_refused": False, "last_tried_at": self.now_text()}
            return Change("replayed", by, {"reason": why, **audited(audit)}, values, repeats=True)

        return self._change(reference, decide)

    # -- the end

    def give_records_their_end(self, order: WorkOrder) -> None:
        """Every record of an ended order goes on the day on which the order goes; a merged one has none as yet."""
        if order.is_in_another and "expires_at" not in order.item:
            return
        expires_at = int(order.item.get("expires_at") or self._clock() + self._order_days * DAY_S)
        if "expires_at" not in order.item:  # it ended in a release before 0.3
            self._set(order.reference, "attribute_exists(kind)", expires_at=expires_at)
        self._records.give_end(order.reference, expires_at)

    def keep_in_another(self, order: WorkOrder) -> None:
        """A merged order that a release before 0.3 gave its day of deletion stays while its case goes on in another.

        The sweep keeps its records.
        """
        if order.is_in_another and 0 < int(order.item.get("expires_at", 0)) < FOR_EVER:
            self._set(
                order.reference, "attribute_exists(kind) AND attribute_not_exists(into_ended_at)",
                expires_at=FOR_EVER, last_tried_at=self.now_text(),
            )  # fmt: skip

    def nothing_due(self, order: WorkOrder) -> None:
        """The sweep has nothing more to do for the order as it was read."""
        head, given = (
            ("head = :head", {":head": order.head}) if order.head else ("attribute_not_exists(head)", {})
        )
        self._set(order.reference, f"{head}{_as_let_go(order)}", given, last_tried_at=NEVER)

    # -- device shadows

    def shadow_written(self, order: WorkOrder, shadow: str = "written") -> None:
        """The device's shadows show the order as it was read; when it has moved on since, they are to be written again.

        So they are when it was left out meanwhile, by another order of the device.
        """
        given: dict[str, Any] = {":shown": order.status, ":was": order.shadow}
        condition = "#status = :shown AND shadow = :was AND "
        if "left_out_by" in order.item:
            condition, given[":by"] = condition + "left_out_by = :by", order.item["left_out_by"]
        else:
            condition += "attribute_not_exists(left_out_by)"
        # "pending" looks the same before and after the order that it was merged into has ended.
        condition += _as_let_go(order)
        if self._set(order.reference, condition, given, shadow=shadow) is None:
            self._set(order.reference, "attribute_exists(kind)", shadow="pending")

    def shadow_left_out(self, reference: str, by: str) -> None:
        """There is no room for the order in a shadow of its device any more. `by`: which shadow, and what version."""
        self._set(reference, "attribute_exists(kind)", shadow="left_out", left_out_by=by)


def _as_let_go(order: WorkOrder) -> str:
    """Condition that the order which this one was merged into has ended, or has not, as it was read: no record tells of it."""
    if order.status != "merged":
        return ""
    return f" AND attribute_{'exists' if 'into_ended_at' in order.item else 'not_exists'}(into_ended_at)"


def _repeated(order: WorkOrder) -> dict[str, Any]:
    """How often the failure before this one came, where it came more than once."""
    failures = int(order.item.get("failures", 0))
    return {"repeated": {"why": order.item["failure"], "times": failures}} if failures > 1 else {}
