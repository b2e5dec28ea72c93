# SPDX-License-Identifier: Apache-2.0
"""What is set on an order without a record: what was announced, and who is about to announce."""

from typing import Any

from work_orders.order_items import WorkOrder
from work_orders.order_table import OrderTable

_BY_ARROWS_ONLY = {
    "reference", "kind", "status", "head", "records", "document", "episode", "asset_id", "failure_mode", "created_at",
    "lease_until", "erp_id", "merged", "merged_into", "into_ended_at", "last_tried_at",
}  # fmt: skip


class OrderMarks(OrderTable):
    """Marks, and the right to announce."""

    def mark(self, reference: str, **values: Any) -> None:
        """Sets what is no record: announced_at, reminded_at, reminders, expires_approval_at and the like.

        Raises:
            ValueError: it names something that changes by an arrow only.
        """
        if own := values.keys() & _BY_ARROWS_ONLY:
            raise ValueError(f"not to be marked: {', '.join(sorted(own))}")
        self._set(reference, "attribute_exists(head) OR attribute_exists(kind)", **values)

    def claim_announcing(self, reference: str, seconds: float) -> WorkOrder | None:
        """Takes the right to announce what is due about the order; None while another has it. `mark` gives it back."""
        now = self._clock()
        return self._set(
            reference,
            "attribute_exists(kind) AND (attribute_not_exists(announcing_until) OR announcing_until < :now)",
            {":now": int(now)},
            announcing_until=int(now + seconds),
        )

    def announce_later(self, reference: str) -> None:
        """SNS took nothing: the sweep comes for an order that nothing else brings back.

        One that waits for an approval is looked at by the clock (watch/approvals.py), one that is not placed by the sweep.
        """
        now = self.now_text()
        self._set(
            reference,
            "#status = :created AND last_tried_at > :now",
            {":created": "created", ":now": now},
            last_tried_at=now,
        )
