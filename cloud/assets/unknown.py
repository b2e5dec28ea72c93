# SPDX-License-Identifier: Apache-2.0
"""Stations that send parts and stand in no row of the registry: one item of the table `counters`, at most MOST of them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

ITEM = {"name": "unknown_stations"}

MOST = 200
"""Stations listed. Whoever sends under more names is no plant; they are counted by the metric UnknownAssets only."""

AGAIN_S = 60.0
"""A worker tells of one station once in this time: `last` is a minute late at most, and the item no bottleneck."""

_told: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class UnknownStation:
    """A station without an asset. Times are RFC 3339, of the first and about the last of its events."""

    station_key: str
    first: str
    last: str


def note(dynamodb: Any, table: str, station_key: str, at: str) -> None:
    """Lists the station; does nothing where the list is full."""
    now = time.monotonic()
    if now - _told.get(station_key, -AGAIN_S) < AGAIN_S:
        return
    if len(_told) >= MOST:
        _told.clear()
    _told[station_key] = now
    key = {"#key": station_key}
    begin = {"first": at, "last": at}
    # The three that can be: it stands there; it does not; there is no list yet.
    _update(dynamodb, table, "SET stations.#key.#last = :at", "attribute_exists(stations.#key)",
            {**key, "#last": "last"}, {":at": at}) or _update(
        dynamodb, table, "SET stations.#key = :begin",
        "attribute_exists(stations) AND attribute_not_exists(stations.#key) AND size(stations) < :most",
        key, {":begin": begin, ":most": MOST}) or _update(
        dynamodb, table, "SET stations = :all", "attribute_not_exists(stations)",
        {}, {":all": {station_key: begin}})  # fmt: skip


def listed(dynamodb: Any, table: str) -> list[UnknownStation]:
    """Those listed, by station_key."""
    item = dynamodb.get_item(TableName=table, Key=ITEM, ConsistentRead=True).get("Item", {})
    stations = item.get("stations", {})
    return [UnknownStation(key, one["first"], one["last"]) for key, one in sorted(stations.items())]


def forget(dynamodb: Any, table: str, station_keys: Iterable[str]) -> None:
    """Takes stations off the list: they have an asset now."""
    for station_key in station_keys:
        _update(
            dynamodb,
            table,
            "REMOVE stations.#key",
            "attribute_exists(stations.#key)",
            {"#key": station_key},
            {},
        )


def _update(
    dynamodb: Any, table: str, expression: str, condition: str, names: dict[str, str], values: dict[str, Any]
) -> bool:
    """Whether the condition held and the item was changed."""
    given = {"ExpressionAttributeNames": names, "ExpressionAttributeValues": values}
    try:
        dynamodb.update_item(
            TableName=table, Key=ITEM, UpdateExpression=expression, ConditionExpression=condition,
            **{name: value for name, value in given.items() if value},
        )  # fmt: skip
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        return False
    return True
