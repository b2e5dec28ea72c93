# SPDX-License-Identifier: Apache-2.0
"""How an order begins: its item, and the first entry of its chain. Pure."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from linewatch.records import Entry, following
from work_orders.episodes import Episode
from work_orders.order_items import NEVER, document_digest, text_of

STRANDED_AFTER_S = 960.0
"""The queue's own tries end within 15 minutes; an order that is still `creating` after this has lost its message."""


def begun(
    opened: Episode, status: str, band: str, document: Mapping[str, Any], now_s: float, hold_until: float, why: str
) -> tuple[dict[str, Any], Entry]:  # fmt: skip
    """The order of the episode, which is open by now. `now_s`, `hold_until`: seconds since 1970, 0 for no hold."""
    at, text = text_of(now_s), json.dumps(document, separators=(",", ":"), allow_nan=False)
    detail = {
        "text": f"band {band}, {status}", "status": status, "band": band, "why": why, "hold_until": hold_until,
        "asset_id": opened.asset_id, "failure_mode": opened.failure_mode, "episode": opened.number,
        "document_digest": document_digest(text),
    }  # fmt: skip
    entry = following(None, opened.reference, at, "opened", "policy", detail)
    due = hold_until or now_s + STRANDED_AFTER_S
    item = {
        "reference": opened.reference,
        "kind": "work_order",
        "status": status,
        "created_at": at,
        "updated_at": at,
        "asset_id": opened.asset_id,
        "failure_mode": opened.failure_mode,
        "episode": opened.number,
        "band": band,
        "document": text,
        "attempts": 0,
        "hold_until": int(hold_until),
        "lease_until": int(hold_until),
        "last_tried_at": text_of(due) if status == "creating" else NEVER,
        "shadow": "pending",
        "highest_risk": Decimal(str(document.get("risk", 0.0))),
        "head": entry.digest,
        "records": 1,
    }
    return item, entry
