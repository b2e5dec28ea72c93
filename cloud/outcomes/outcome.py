# SPDX-License-Identifier: Apache-2.0
"""One ended order as accuracy counts it, or one escape: the item of the table `outcomes`. Pure.

It holds what the shares are made of and no more: of people only who approved.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import Any, Literal

from erp.port import Finding
from work_orders.order_items import WorkOrder

Kind = Literal["order", "escape", "rejected"]
"""`escape`: a fault that no order pointed at. `rejected`: not in the table; a work order that nobody carried out."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One item. Texts are empty where nothing is known; times are RFC 3339 in UTC."""

    kind: Kind
    reference: str
    asset_id: str
    failure_mode: str
    # When the order ended, the escape was found, the order was rejected; names month and id, so it never changes.
    closed_at: str
    finding: Finding
    opened_at: str = ""
    criticality: str = ""
    site: str = ""
    line: str = ""
    station: str = ""
    model_name: str = ""
    model_version: str = ""
    model_digest: str = ""
    policy_version: str = ""
    band: str = ""
    # When the order was opened, 0..1; None where the order did not keep it.
    risk: float | None = None
    # The highest that its case reached while it was open: the highest threshold at which the policy would have created
    # the order by itself. None of orders that were opened before this was kept.
    highest_risk: float | None = None
    is_pilot: bool = False
    # "policy" where nobody was asked.
    approved_by: str = ""
    # Failure that the technician named.
    found_failure: str = ""
    # "console", "erp_poll", "api".
    source: str = ""
    # When the finding was last corrected; empty: never.
    corrected_at: str = ""

    @property
    def month(self) -> str:
        """The table's partition, such as 2026-11."""
        return self.closed_at[:7]

    @property
    def id(self) -> str:
        """The table's sort key; the same for a correction."""
        return f"{self.closed_at}#{self.reference}"

    @property
    def model(self) -> str:
        """Name and version."""
        return f"{self.model_name} {self.model_version}".strip()


def of_order(order: WorkOrder, finding: Finding, closed_at: str, **stated: str) -> Outcome:
    """The outcome of a work order. `stated`: found_failure, source, corrected_at."""
    document, item = order.document, order.item
    model = document.get("model") or {}
    facts: dict[str, Any] = {
        **{
            name: document.get(name) or ""
            for name in ("criticality", "site", "line", "station", "policy_version")
        },
        **{f"model_{name}": model.get(name) or "" for name in ("name", "version", "digest")},
        **stated,
    }
    return Outcome(
        kind="rejected" if order.status == "rejected" else "order",
        reference=order.reference,
        asset_id=order.asset_id,
        failure_mode=order.failure_mode,
        closed_at=closed_at,
        finding=finding,
        opened_at=item.get("created_at") or "",
        band=order.band,
        risk=document.get("risk"),
        highest_risk=order.highest_risk,
        is_pilot=bool(document.get("pilot")),
        # Nobody is named where the band was automatic from the beginning.
        approved_by=item.get("decided_by") or "policy",
        **facts,
    )


def escape(asset_id: str, failure_mode: str, found_at: str, source: str, **place: Any) -> Outcome:
    """A fault that no order pointed at. The same report twice is the same escape. `place`: site, line, criticality, …"""
    key = json.dumps([asset_id, failure_mode, found_at], separators=(",", ":"))
    reference = "escape-" + hashlib.sha256(key.encode()).hexdigest()[:16]
    return Outcome("escape", reference, asset_id, failure_mode, found_at, "confirmed", source=source, **place)


def to_item(outcome: Outcome) -> dict[str, Any]:
    """The item, but for the day on which DynamoDB forgets it: who writes it adds `expires_at`."""
    # DynamoDB takes Decimals for numbers.
    kept: dict[str, Any] = {
        name: Decimal(str(value)) if isinstance(value, float) else value
        for name, value in asdict(outcome).items()
        if value not in ("", None)
    }
    return {**kept, "month": outcome.month, "id": outcome.id}


def from_item(item: Mapping[str, Any]) -> Outcome:
    """The outcome that `to_item` wrote; what a newer release adds is passed over."""
    known: dict[str, Any] = {field.name: item[field.name] for field in fields(Outcome) if field.name in item}
    for name in ("risk", "highest_risk"):
        if name in known:
            known[name] = float(known[name])
    return Outcome(**known)
