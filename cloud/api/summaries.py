# SPDX-License-Identifier: Apache-2.0
"""What the console shows at a glance: counts, one event, the asset registry."""

import os
from typing import Any

from api import views
from api.errors import NotFoundError
from api.request import MAX_NAME, Request, checked
from work_orders.observing import Desk

STATUSES = ("created", "closed", "awaiting_approval", "rejected", "merged", "creating", "parked")


def summary(_request: Request, desk: Desk) -> tuple[int, Any]:
    """Counts of everything, the mode and the bands."""
    counts = {status: desk.orders.count(status) for status in STATUSES}
    counters = _scan(desk.dynamodb, os.environ["COUNTERS_TABLE"])
    crossed = sum(
        int(n)
        for item in _scan(desk.dynamodb, os.environ["POLICY_STATE_TABLE"])
        for n in item["crossed"].values()
    )
    return 200, {
        "enriched": sum(int(item.get("inspections", 0)) for item in counters),
        # Deliveries of parts too old for the policy to count.
        "too_late": sum(int(item.get("too_late", 0)) for item in counters),
        "work_orders": {
            **counts,
            # In the ERP; a closed order stays counted.
            "created": counts["created"] + counts["closed"],
            "suppressed": max(0, crossed - sum(counts.values())),
        },
        "pilot": desk.pilot,
        # The risk from which each band is crossed.
        "bands": {band.name: band.on for band in desk.data.rules["machine"].bands},
    }


def event(request: Request, desk: Desk) -> tuple[int, Any]:
    """One event with its asset."""
    event_id = checked("event_id", request.place["event_id"], most=MAX_NAME)
    found = desk.dynamodb.get_item(TableName=os.environ["EVENTS_TABLE"], Key={"event_id": event_id})
    if "Item" not in found:
        raise NotFoundError("no such event")
    item = found["Item"]
    return 200, views.event(item, asset_of(f"{item['site']}/{item['line']}/{item['station']}", desk))


def assets(_request: Request, desk: Desk) -> tuple[int, Any]:
    """The asset registry, one entry per station."""
    return 200, {"assets": sorted(registry(desk), key=lambda item: str(item["station_key"]))}


def registry(desk: Desk) -> list[dict[str, Any]]:
    """Every entry of the asset registry."""
    return _scan(desk.dynamodb, os.environ["ASSETS_TABLE"])


def asset_of(station_key: str, desk: Desk) -> dict[str, Any] | None:
    """The registry's entry for "site/line/station"."""
    answer = desk.dynamodb.get_item(TableName=os.environ["ASSETS_TABLE"], Key={"station_key": station_key})
    item: dict[str, Any] | None = answer.get("Item")
    return item


def _scan(dynamodb: Any, table: str) -> list[dict[str, Any]]:
    """Every item of a table that is small by design: counters, stations, assets."""
    return [
        item for page in dynamodb.get_paginator("scan").paginate(TableName=table) for item in page["Items"]
    ]
