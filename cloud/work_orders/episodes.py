# SPDX-License-Identifier: Apache-2.0
"""Episodes: how often an asset has failed in one way (DynamoDB `episodes`).

One item per (asset, failure mode) with a counter. It is opened together with the order's reservation, in one
transaction, and closed by a person: the technician's outcome or the supervisor's rejection. While it is open every
further alarm is suppressed. What people decided stays behind as one latch per station.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from work_orders.policy import Latch, Position

MOST_OPENINGS = 50
"""Openings that an episode remembers the time of; a policy's rate limit can't ask for more."""


@dataclass(frozen=True, slots=True)
class Episode:
    """The n-th time that an asset fails, or may be failing, in one way."""

    asset_id: str
    failure_mode: str
    version: int = 0
    # 1, 2, 3 …; 0 before the first.
    number: int = 0
    is_open: bool = False
    latches: Mapping[str, Latch] = field(default_factory=dict)
    # Seconds since 1970 of the last openings, oldest first; what the policy's rate limit counts.
    opened_at: tuple[float, ...] = ()

    @property
    def reference(self) -> str:
        """The work order's reference: the same for ever for this asset, failure mode and episode."""
        return reference(self.asset_id, self.failure_mode, self.number)

    def opened(self, at: float) -> "Episode":
        """The next episode, open since `at`, seconds since 1970."""
        openings = (*self.opened_at, at)[-MOST_OPENINGS:]
        return replace(self, number=self.number + 1, is_open=True, opened_at=openings)

    def closed(self, latches: Mapping[str, Latch]) -> "Episode":
        """This episode, closed, with what people decided for each station."""
        return replace(self, is_open=False, latches={**self.latches, **latches})

    def latch(self, station: str) -> Latch:
        """What people last decided about this station's alarms."""
        return self.latches.get(station, Latch())


def reference(asset_id: str, failure_mode: str, number: int) -> str:
    """Is "lw-" and 16 hex digits: 64 bits, enough for every order that a plant will ever have."""
    # JSON keeps ("a", "b-c") and ("a-b", "c") apart.
    key = json.dumps([asset_id, failure_mode, number], separators=(",", ":"))
    return "lw-" + hashlib.sha256(key.encode()).hexdigest()[:16]


class Episodes:
    """The table `episodes`."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def of_asset(self, asset_id: str) -> dict[str, Episode]:
        """By failure mode; consistent."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="asset_id = :asset",
            ExpressionAttributeValues={":asset": asset_id},
            ConsistentRead=True,
        )
        return {item["failure_mode"]: _from_item(item) for page in pages for item in page["Items"]}

    def get(self, asset_id: str, failure_mode: str) -> Episode:
        """Consistent; episode 0 when there was none yet."""
        answer = self._dynamodb.get_item(
            TableName=self._table,
            Key={"asset_id": asset_id, "failure_mode": failure_mode},
            ConsistentRead=True,
        )
        return _from_item(answer["Item"]) if "Item" in answer else Episode(asset_id, failure_mode)

    def write(self, episode: Episode) -> dict[str, Any]:
        """The `Put` of a transaction that stores the episode over the version that was read."""
        return {
            "TableName": self._table,
            "Item": _to_item(episode),
            "ConditionExpression": "attribute_not_exists(asset_id) OR version = :read",
            "ExpressionAttributeValues": {":read": episode.version},
        }

    def store(self, episode: Episode) -> None:
        """Stores the episode over the version that was read; ConditionalCheckFailedException when it has moved on."""
        self._dynamodb.put_item(**self.write(episode))


def _to_item(episode: Episode) -> dict[str, Any]:
    latches = {
        station: [latch.floor.epoch, latch.floor.sequence, latch.closed_at, latch.band]
        for station, latch in episode.latches.items()
    }
    return {
        "asset_id": episode.asset_id,
        "failure_mode": episode.failure_mode,
        "version": episode.version + 1,
        "episode": episode.number,
        "is_open": episode.is_open,
        "reference": episode.reference,
        "latches": json.dumps(latches),
        "opened_at": [int(at) for at in episode.opened_at],
    }


def _from_item(item: Mapping[str, Any]) -> Episode:
    latches = {
        station: Latch(Position(epoch, sequence), closed_at, band)
        for station, (epoch, sequence, closed_at, band) in json.loads(item["latches"]).items()
    }
    return Episode(
        item["asset_id"],
        item["failure_mode"],
        int(item["version"]),
        int(item["episode"]),
        item["is_open"],
        latches,
        # Not there in releases before 0.3.
        tuple(float(at) for at in item.get("opened_at", ())),
    )
