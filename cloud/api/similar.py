# SPDX-License-Identifier: Apache-2.0
"""Earlier orders that a supervisor would remember: the same asset first, then the same failure mode elsewhere.

Nothing is searched: an asset's orders follow from its episodes, and other assets are those of the registry.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from api.listing import key_of, of_asset
from api.summaries import registry
from work_orders.batches import get_all
from work_orders.episodes import reference as reference_of
from work_orders.observing import Desk
from work_orders.orders import WorkOrder

MOST = 5
# Assets asked about: ten BatchGetItems, one after the other. A registry with more shows those of the first names.
MOST_ASSETS = 1_000
# Orders of other assets that are read, those opened last: one BatchGetItem.
MOST_ELSEWHERE = 100
# Of an asset's own orders at most so many are read.
MOST_OF_ASSET = 20


def similar(order: WorkOrder, desk: Desk) -> list[dict[str, Any]]:
    """At most MOST; of the same asset, then of others, each newest first."""
    own = [one for one in of_asset(desk, order.asset_id, MOST_OF_ASSET) if key_of(one) < key_of(order)]
    own.sort(key=lambda one: (one.failure_mode == order.failure_mode, key_of(one)), reverse=True)
    found = [
        _shown(
            one,
            "the same failure of this asset"
            if one.failure_mode == order.failure_mode
            else "another failure of this asset",
        )
        for one in own[:MOST]
    ]
    if len(found) < MOST:
        earlier = [one for one in _elsewhere(order, desk) if key_of(one) < key_of(order)]
        others = sorted(earlier, key=key_of, reverse=True)
        found += [_shown(one, f"the same failure of {one.asset_id}") for one in others[: MOST - len(found)]]
    return found


def _elsewhere(order: WorkOrder, desk: Desk) -> list[WorkOrder]:
    """The latest order with this failure mode of each other asset."""
    assets = {str(item["asset_id"]) for item in registry(desk) if item.get("asset_id")} - {order.asset_id}
    keys = [{"asset_id": asset, "failure_mode": order.failure_mode} for asset in sorted(assets)[:MOST_ASSETS]]
    if not keys:
        return []
    episodes = get_all(desk.dynamodb, os.environ["EPISODES_TABLE"], keys)
    # By whole seconds: what was opened in the order's own may be earlier.
    until = datetime.fromisoformat(str(order.item["created_at"])).timestamp()
    earlier = (item for item in episodes if int(item["episode"]) and _opened_at(item) <= until)
    opened = sorted(earlier, key=_opened_at, reverse=True)
    return desk.orders.get_many(
        [
            reference_of(item["asset_id"], item["failure_mode"], int(item["episode"]))
            for item in opened[:MOST_ELSEWHERE]
        ]
    )


def _opened_at(episode: Mapping[str, Any]) -> float:
    """When the last order of the episode was opened, seconds since 1970; 0 before release 0.3."""
    return float(max(episode.get("opened_at", ()), default=0))


def _shown(order: WorkOrder, why: str) -> dict[str, Any]:
    item = order.item
    return {
        "reference": order.reference,
        "asset_id": order.asset_id,
        "status": order.status,
        "failure_mode": order.failure_mode,
        "created_at": item.get("created_at"),
        "risk": order.risk,
        "finding": item.get("finding"),
        "note": item.get("note"),
        "reason": item.get("reason"),
        "erp_id": item.get("erp_id"),
        "why": why,
    }
