# SPDX-License-Identifier: Apache-2.0
"""Why an order exists, and whether its records hold together: the cloud's word, and our own reckoning beside it."""

import json
from typing import Any

from pydantic import ValidationError

from linewatch.records import GENESIS, Entry, first_fault
from linewatch_console.cloud_shapes import CloudEntry, OrderEvidence
from linewatch_console.evidence import is_evidence_path
from linewatch_console.orders import Orders

MOST_FILES = 500


class Reports:
    """Asks the cloud through `orders`. Every call raises CloudAway and CloudRefused."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    async def why(self, reference: str) -> dict[str, Any]:
        """The cloud's answer, its evidence with addresses on this console."""
        answer = await self._orders.api.document(f"/work-orders/{reference}/why")
        parts = answer.get("parts")
        files = 0
        for part in parts if isinstance(parts, list) else []:
            for one in (part.get("evidence") or []) if isinstance(part, dict) else []:
                files += 1
                if files <= MOST_FILES and isinstance(one, dict):
                    self._address(one)
        return answer

    async def verify(self, reference: str) -> dict[str, Any]:
        """Reckons the chain of an order anew from its entries, and compares its end with the order's head."""
        order = await self._orders.api.work_order(reference)
        entries = [_entry(reference, one) for one in await self._orders.api.records(reference)]
        fault = first_fault(entries, order.head)
        return {
            "reference": reference,
            "verified": fault is None,
            "fault": {"number": fault.number, "why": fault.why} if fault else None,
            "entries": len(entries),
            "head": entries[-1].digest if entries else GENESIS,
            "order_head": order.head,
        }

    def _address(self, one: dict[str, Any]) -> None:
        try:
            known = OrderEvidence.model_validate(one)
        except ValidationError:
            return
        self._orders.know(known)
        one["url"] = f"/evidence/{known.path}" if is_evidence_path(known.path) else ""


def _entry(chain: str, one: CloudEntry) -> Entry:
    # Written as linewatch.records writes it, where the API has parsed it already.
    detail = (
        one.detail
        if isinstance(one.detail, str)
        else json.dumps(one.detail, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    )
    return Entry(chain, one.number, one.at, one.what, one.by, detail, one.previous, one.digest)
