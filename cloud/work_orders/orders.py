# SPDX-License-Identifier: Apache-2.0
"""Work orders and the only ways they may change (DynamoDB `work_orders`, `records`).

                    open                     place (lease, ERP)
   (nothing) ──────────────▶ creating ───────────────────────▶ created ──▶ closed
        │                     ▲    │ 3 failed tries               ▲          ▲
        │ open                ▼    ▼                              │          │
        └─▶ awaiting_approval ┘  parked ──── place by the sweep ──┘──────────┘
                 │ approve, or the stronger band was crossed; ask, when a hold ends in a pilot
                 ├─▶ rejected (from creating, too, while it is held back)
                 └─▶ merged (into an order that has not ended; its episode ends with that one)

Each arrow is one transaction (order_table.py): of two who try, one gets None or False and does nothing. Opening and
closing change the episodes in it, closing writes the outcome in it. What an arrow changes, and when it may be gone, is
told by pure functions: order_opening, order_deciding, order_escalating, order_closing. order_tries.py and order_notes.py
have the ERP's side.

What a person decides keeps `audit`, the digest of the console's own entry of it, so that the two logs prove each other.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from work_orders.episodes import Episode
from work_orders.order_closing import Found, closed, corrected
from work_orders.order_deciding import approved, asked, merged, rejected, released
from work_orders.order_escalating import Rise, escalated
from work_orders.order_index import OrderIndex
from work_orders.order_items import ENDED, OPEN, STATUSES, WorkOrder, from_item, is_new_height
from work_orders.order_marks import OrderMarks
from work_orders.order_notes import OrderNotes
from work_orders.order_opening import STRANDED_AFTER_S, begun
from work_orders.order_table import MAX_ROUNDS, Write
from work_orders.order_tries import DAY_S, OrderTries

__all__ = ["ENDED", "OPEN", "STATUSES", "STRANDED_AFTER_S", "WorkOrder", "WorkOrders"]


class WorkOrders(OrderIndex, OrderTries, OrderNotes, OrderMarks):
    """Every way in which an order may change."""

    def open(
        self, episode: Episode, status: str, band: str, document: Mapping[str, Any],
        *, hold_until: float = 0.0, why: str = "",
    ) -> WorkOrder | None:  # fmt: skip
        """Opens the episode and reserves its order in one transaction; None when another was faster.

        `hold_until`: seconds since 1970; the order is not placed before it.
        """
        now_s = self._clock()
        opened = episode.opened(now_s)
        item, entry = begun(opened, status, band, document, now_s, hold_until, why)
        reserve = {
            "TableName": self._table,
            "Item": item,
            "ConditionExpression": "attribute_not_exists(#reference)",
            "ExpressionAttributeNames": {"#reference": "reference"},
        }
        writes: list[Write] = [
            {"Put": self._episodes.write(opened)}, {"Put": reserve}, {"Put": self._records.put(entry)},
        ]  # fmt: skip
        return from_item(item) if self._transact(*writes) is None else None

    def confirm(
        self, reference: str, by: str, reason: str, band: str | None = None, *, audit: str = ""
    ) -> WorkOrder | None:
        """awaiting_approval -> creating; None when it is not awaiting approval (any more)."""
        return self._change(reference, lambda now: approved(now, self._clock(), by, reason, band, audit))

    def reject(
        self, order: WorkOrder, episodes: Episode | Sequence[Episode], by: str, reason: str, *, audit: str = ""
    ) -> bool:  # fmt: skip
        """awaiting_approval, or creating and held back, -> rejected, and closes its episode and those of the orders merged into it.

        False when another was faster, or when `episodes` are not those.
        """
        ends = _listed(episodes)
        gone = self._gone(order, ends)
        done = self._change(
            order.reference,
            lambda now: rejected(now, self._clock(), by, reason, ends, gone, self._expires_at(), audit),
            *self._closing(ends), *self._let_go(order, ends),
        )  # fmt: skip
        return done is not None

    def merge(self, order: WorkOrder, into: WorkOrder, by: str, reason: str, *, audit: str = "") -> bool:
        """awaiting_approval -> merged; the episode stays open until `into` ends, which gets a note for the ERP.

        False when another was faster, when `into` has ended, and when MOST_MERGED were merged into it before.
        """
        for _ in range(MAX_ROUNDS):
            now, target = self.get(order.reference), self.get(into.reference)
            if now is None or target is None:
                return False
            changes = merged(now, target, self._clock(), by, reason, audit)
            if changes is None:
                return False
            ends, grows = changes
            # Each under the condition on its own head: what happens to either meanwhile comes before this or after it.
            if self._transact(*self._writes(now, ends)[1], *self._writes(target, grows)[1]) is None:
                return True
            self._pause(random.uniform(0, 0.05))  # noqa: S311 - jitter, no secret
        return False

    def close(
        self, order: WorkOrder, episodes: Episode | Sequence[Episode], by: str, finding: str, note: str,
        *, found_failure: str = "", source: str = "console", outcome: Mapping[str, Any] | None = None, audit: str = "",
    ) -> bool:  # fmt: skip
        """created or parked -> closed, and closes its episode and those of the orders merged into it.

        `outcome`: the ready item of OUTCOMES_TABLE, made of `order`; its `closed_at` is then the order's.
        False when another was faster, when the ERP is being called, when `episodes` are not those, and when the order that
        the outcome tells of has changed meanwhile.
        """
        ends, found = _listed(episodes), Found(by, finding, note, found_failure, source)
        gone, closed_at = self._gone(order, ends), str((outcome or {}).get("closed_at") or self.now_text())
        seen = order if outcome is not None else None
        done = self._change(
            order.reference,
            lambda now: closed(now, seen, self._clock(), found, closed_at, ends, gone, self._expires_at(), audit),
            *self._closing(ends), *self._let_go(order, ends), *self._outcome(outcome),
        )  # fmt: skip
        return done is not None

    def correct(
        self, order: WorkOrder, by: str, finding: str, note: str,
        *, found_failure: str = "", source: str = "console", outcome: Mapping[str, Any] | None = None, audit: str = "",
    ) -> bool:  # fmt: skip
        """A closed order's finding, later; False when it is not closed, or its chain is full.

        False, too, when the finding is no longer the one that `order` has: what was not seen can't be corrected, and a
        poll may not write over what a person said a moment ago.
        """
        found = Found(by, finding, note, found_failure, source)
        at = str((outcome or {}).get("corrected_at") or self.now_text())
        done = self._change(
            order.reference,
            lambda now: corrected(now, order, self._clock(), found, at, audit),
            *self._outcome(outcome),
        )
        return done is not None

    def escalate(self, order: WorkOrder, rise: Rise) -> WorkOrder | None:
        """The case got worse; None when nothing rises, when the order has ended, and after MOST_ESCALATIONS."""
        return self._change(order.reference, lambda now: escalated(now, self._clock(), rise))

    def reached(self, order: WorkOrder, risk: float, thresholds: Iterable[float]) -> WorkOrder:
        """Keeps the highest risk of the order's case: whether or not anything else follows from it, accuracy asks for it.

        No record of its own; one write for each hundredth, or threshold, that was not reached before.
        """
        kept = order.item.get("highest_risk")
        if kept is None or order.status not in OPEN or not is_new_height(risk, kept, thresholds):
            return order
        height = Decimal(str(risk))
        # What an order ended with is in its records.
        risen = self._set(
            order.reference,
            "highest_risk < :height AND #status IN (:s0, :s1, :s2, :s3)",
            {":height": height, **{f":s{place}": status for place, status in enumerate(OPEN)}},
            highest_risk=height,
        )
        return risen or order

    def ask(self, order: WorkOrder, why: str) -> WorkOrder | None:
        """creating -> awaiting_approval, of an order that a hold kept back; None when nothing holds it back (any more)."""
        return self._change(order.reference, lambda now: asked(now, why))

    def release(self, order: WorkOrder, by: str, why: str, *, audit: str = "") -> WorkOrder | None:
        """Ends a hold: the order may be placed at once; None when nothing holds it back (any more)."""
        return self._change(order.reference, lambda now: released(now, self._clock(), by, why, audit))

    def _expires_at(self) -> int:
        """Of an order that ends now, seconds since 1970."""
        return int(self._clock() + self._order_days * DAY_S)

    def _closing(self, episodes: Sequence[Episode]) -> list[Write]:
        return [{"Put": self._episodes.write(episode)} for episode in episodes]

    def _let_go(self, order: WorkOrder, episodes: Sequence[Episode]) -> list[Write]:
        """The orders that were merged into this one end with it: their devices let their evidence go, and they go some day.

        The sweep gives their records that day.
        """
        at, expires_at = self.now_text(), self._expires_at()
        return [
            {
                "Update": {
                    "TableName": self._table,
                    "Key": {"reference": episode.reference},
                    "UpdateExpression": (
                        "SET into_ended_at = :at, shadow = :pending, last_tried_at = :at, expires_at = :expires"
                    ),
                    # One that the table has forgotten meanwhile is not to come back.
                    "ConditionExpression": "attribute_exists(kind)",
                    "ExpressionAttributeValues": {":at": at, ":pending": "pending", ":expires": expires_at},
                }
            }
            for episode in episodes
            if episode.reference != order.reference
        ]

    def _gone(self, order: WorkOrder, episodes: Sequence[Episode]) -> set[str]:
        """Merged orders without an episode among these that the table has no more: one is never put again."""
        missing = {*order.merged} - {episode.reference for episode in episodes}
        return missing - {one.reference for one in self.get_many(sorted(missing))} if missing else missing

    def _outcome(self, outcome: Mapping[str, Any] | None) -> list[Write]:
        if outcome is None:
            return []
        item = {"expires_at": self._expires_at(), **outcome}
        return [{"Put": {"TableName": self._outcomes_table, "Item": item}}]


def _listed(episodes: Episode | Sequence[Episode]) -> list[Episode]:
    return [episodes] if isinstance(episodes, Episode) else list(episodes)
