# SPDX-License-Identifier: Apache-2.0
"""The asset registry in DynamoDB (table `assets`, key station_key): read by every event, written by people.

An item is written only over the revision that was read, so that of an import and a closed order at the same moment neither
undoes the other. What an import changed goes into the chain `assets` of the records in the same transaction; what a closed
order adds names the order, whose own chain tells it.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import ClientError

from assets.asset import (
    LARGEST,
    LONGEST_TEXT,
    MAX_HISTORY,
    SEPARATORS,
    Asset,
    Maintenance,
    from_item,
    size_of,
    to_item,
)

MAX_STATIONS_OF_ASSET = 100
"""What one transaction can write."""

MAX_CONFLICTS = 10


class AssetUnusableError(ValueError):
    """A row of the registry can't be used; it names the station, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Row:
    """One item: the asset, or why it is none."""

    station_key: str
    asset: Asset | None
    fault: str
    # 0 for an item that 0.2.0 or a hand wrote.
    revision: int
    # RFC 3339; empty where nobody knows.
    imported_at: str

    def as_read(self) -> dict[str, Any]:
        """The condition under which this row may be written over or deleted."""
        if not self.revision:
            return {"ConditionExpression": "attribute_exists(station_key) AND attribute_not_exists(revision)"}
        return {
            "ConditionExpression": "revision = :read",
            "ExpressionAttributeValues": {":read": self.revision},
        }


class Registry:
    """The table `assets`. `dynamodb`: the client of boto3's resource, which takes Python's types."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self.dynamodb = dynamodb
        self.table = table

    def get(self, station_key: str) -> Asset | None:
        """The asset of a station, None where the registry has none.

        Raises:
            AssetUnusableError: it has one, and it can't be used.
        """
        item = self.dynamodb.get_item(TableName=self.table, Key={"station_key": station_key}).get("Item")
        row = _row(item) if item else None
        if row is not None and row.asset is None:
            why = f"the registry's row of {station_key} can't be used: {row.fault}; mend it with `linewatch assets import`"
            raise AssetUnusableError(why)
        return row.asset if row else None

    def rows(self) -> dict[str, Row]:
        """Every row by station_key, consistent."""
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
        return {item["station_key"]: _row(item) for page in pages for item in page["Items"]}

    def all(self) -> list[Asset]:
        """Every asset that can be used, by station_key."""
        return [row.asset for _, row in sorted(self.rows().items()) if row.asset]

    def remember_maintenance(self, asset_id: str, entry: Maintenance) -> int:
        """Adds what a technician did to every station of the asset, once; the oldest entry goes where there are too many.

        An entry with the order of one that is there replaces it: a finding may be corrected. Returns how many rows changed.

        Raises:
            RuntimeError: others kept writing the same rows.
        """
        entry = replace(
            entry, what=_told(entry.what) or "maintained", order=_told(entry.order), by=_told(entry.by)
        )
        return self._change(asset_id, lambda asset: with_maintenance(asset, entry))

    def forget_maintenance(self, asset_id: str, order: str) -> int:
        """Takes out what was said of this order, at every station of the asset: nothing was wrong after all.

        `last_maintenance` stays: somebody was there on that day. Returns how many rows changed.

        Raises:
            RuntimeError: others kept writing the same rows.
        """
        return self._change(asset_id, lambda asset: without_maintenance(asset, order))

    def _change(self, asset_id: str, change: Callable[[Asset], Asset]) -> int:
        for _ in range(MAX_CONFLICTS):
            found = [row for row in self.rows().values() if row.asset and row.asset.asset_id == asset_id]
            changed = [
                (row, change(row.asset))
                for row in found[:MAX_STATIONS_OF_ASSET]
                if row.asset and change(row.asset) != row.asset
            ]
            if not changed:
                return 0
            try:
                self.dynamodb.transact_write_items(
                    TransactItems=[self.put(asset, row) for row, asset in changed]
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "TransactionCanceledException":
                    raise
                time.sleep(random.uniform(0, 0.1))  # noqa: S311 - jitter, no secret
            else:
                return len(changed)
        raise RuntimeError(f"asset {asset_id}: {MAX_CONFLICTS} conflicts")

    def put(self, asset: Asset, row: Row | None, imported_at: str = "") -> dict[str, Any]:
        """The transaction's item that writes the asset over the row that was read, None where there was none."""
        item = to_item(asset) | {"revision": (row.revision if row else 0) + 1}
        if since := (row.imported_at if row else imported_at):
            item["imported_at"] = since
        over = row.as_read() if row else {"ConditionExpression": "attribute_not_exists(station_key)"}
        return {"Put": {"TableName": self.table, "Item": item, **over}}

    def delete(self, row: Row) -> dict[str, Any]:
        """The transaction's item that removes the row that was read."""
        return {"Delete": {"TableName": self.table, "Key": {"station_key": row.station_key}, **row.as_read()}}


def with_maintenance(asset: Asset, entry: Maintenance) -> Asset:
    """The asset with this entry in its history. Pure."""
    others = [one for one in asset.maintenance_history if not entry.order or one.order != entry.order]
    history = sorted([*others, *([] if entry in others else [entry])], key=lambda one: one.date)
    last = max(asset.last_maintenance, entry.date)
    grown = replace(asset, maintenance_history=tuple(history[-MAX_HISTORY:]), last_maintenance=last)
    while size_of(grown) > LARGEST and grown.maintenance_history:
        grown = replace(grown, maintenance_history=grown.maintenance_history[1:])
    return grown


def without_maintenance(asset: Asset, order: str) -> Asset:
    """The asset without the entry of this order. Pure."""
    left = tuple(one for one in asset.maintenance_history if one.order != order)
    return replace(asset, maintenance_history=left)


def _told(text: str) -> str:
    """A person's words as the registry and its CSV keep them."""
    shown = "".join(one if one.isprintable() and one not in SEPARATORS else " " for one in text)
    return " ".join(shown.split())[:LONGEST_TEXT].strip()


def _row(item: Mapping[str, Any]) -> Row:
    asset, fault = None, ""
    try:
        asset = from_item(item)
    except ValueError as error:
        fault = str(error)
    revision, since = item.get("revision", 0), item.get("imported_at", "")
    return Row(item["station_key"], asset, fault, int(revision), str(since))


def stations_of(assets: Sequence[Asset]) -> dict[str, list[Asset]]:
    """The rows of each asset, by its id."""
    found: dict[str, list[Asset]] = {}
    for asset in assets:
        found.setdefault(asset.asset_id, []).append(asset)
    return found
