# SPDX-License-Identifier: Apache-2.0
"""What a technician's finding changes about an order: it closes, or it is corrected. Pure.

The ERP ends its own order itself; a note there tells it what a person said here.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from work_orders.episodes import Episode
from work_orders.order_deciding import are_all
from work_orders.order_items import WorkOrder, ended, text_of
from work_orders.order_notes import with_finding
from work_orders.order_table import Change, audited

_SAID = ("finding", "found_failure", "finding_source", "corrected_at")


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, by whom, and who told us."""

    by: str
    finding: str
    note: str
    # Failure that the technician named.
    found_failure: str = ""
    # "console" or "erp_poll".
    source: str = "console"

    @property
    def values(self) -> dict[str, str]:
        """As the order keeps it."""
        return {"finding": self.finding, "note": self.note, "found_failure": self.found_failure}

    def detail(self, audit: str) -> Mapping[str, Any]:
        """As the order's records tell it."""
        text = f"{self.finding}: {self.note}" if self.note else self.finding
        return {"text": text, **self.values, "source": self.source, **audited(audit)}


def closed(
    order: WorkOrder, seen: WorkOrder | None, now_s: float, found: Found, closed_at: str, episodes: Sequence[Episode],
    gone: Collection[str], expires_at: int, audit: str,
) -> Change | None:  # fmt: skip
    """created or parked -> closed, unless the ERP is being called for it. `closed_at`: RFC 3339.

    `seen`: the order that the outcome tells of; None where there is none. It has to be the order that ends.
    """
    if order.status not in ("created", "parked") or not are_all(order, episodes, gone):
        return None
    if order.lease_until >= int(now_s):
        return None
    if seen is not None and (order.head, order.kept_risk) != (seen.head, seen.kept_risk):
        return None
    values = {
        **with_finding(order, found.values, found.by, text_of(now_s), found.source),
        **found.values, **ended(now_s, expires_at), **order.kept_risk, "finding_source": found.source,
        "closed_at": closed_at, "closed_by": found.by,
    }  # fmt: skip
    detail = {**found.detail(audit), **order.kept_risk, "closed_at": closed_at}
    return Change("closed", found.by, detail, values, status="closed", is_unleased=True)


def corrected(
    order: WorkOrder, seen: WorkOrder, now_s: float, found: Found, corrected_at: str, audit: str
) -> Change | None:
    """A closed order's finding, later. None, too, when its finding is no longer the one that was seen, or its chain is full."""
    if order.status != "closed" or order.is_full:
        return None
    if any(order.item.get(name) != seen.item.get(name) for name in _SAID):
        return None
    values = {
        **with_finding(order, found.values, found.by, text_of(now_s), found.source),
        **found.values, "finding_source": found.source,
        "corrected_at": corrected_at, "corrected_by": found.by,
        # The sweep looks again: the asset's maintenance history follows the finding (maintenance.py).
        "last_tried_at": min(order.due_at, text_of(now_s)),
    }  # fmt: skip
    return Change("corrected", found.by, {**found.detail(audit), "corrected_at": corrected_at}, values)
