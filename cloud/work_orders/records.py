# SPDX-License-Identifier: Apache-2.0
"""Hash-chained records in DynamoDB (table `records`): what happened to an order, a policy, the asset registry.

Of two who write the same number one wins: an entry is put only where none is. An order's entry goes into the same
transaction as the change that it tells of (orders.py), so neither is there without the other.
"""

import random
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from linewatch.records import Entry, following

# Rounds that a writer may lose; chains other than an order's are written by people.
MAX_CONFLICTS = 20


class RecordsConflictError(Exception):
    """Too many writers on one chain."""


class Records:
    """The table `records`: one item per entry, key (chain, number)."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def of(self, chain: str) -> list[Entry]:
        """Every entry, oldest first, consistent."""
        pages = self._dynamodb.get_paginator("query").paginate(**self._query(chain))
        return [from_item(item) for page in pages for item in page["Items"]]

    def last(self, chain: str) -> Entry | None:
        """The newest entry, consistent; None for a chain that has not begun."""
        answer = self._dynamodb.query(**self._query(chain), ScanIndexForward=False, Limit=1)
        return from_item(answer["Items"][0]) if answer["Items"] else None

    def put(self, entry: Entry) -> dict[str, Any]:
        """The `Put` of a transaction that adds the entry where there is none."""
        return {
            "TableName": self._table,
            "Item": to_item(entry),
            "ConditionExpression": "attribute_not_exists(#chain)",
            "ExpressionAttributeNames": {"#chain": "chain"},
        }

    def append(self, chain: str, at: str, what: str, by: str, detail: Mapping[str, Any]) -> Entry:
        """Adds an entry by itself, for chains that belong to no order. Raises RecordsConflictError."""
        for _ in range(MAX_CONFLICTS):
            entry = following(self.last(chain), chain, at, what, by, detail)
            try:
                self._dynamodb.put_item(**self.put(entry))
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
                time.sleep(random.uniform(0, 0.05))  # noqa: S311 - jitter, no secret
            else:
                return entry
        raise RecordsConflictError(f"{chain}: {MAX_CONFLICTS} conflicts")

    def give_end(self, chain: str, expires_at: int) -> None:
        """Every entry of the chain is deleted at that time, seconds since 1970. It is no part of what is hashed."""
        for entry in self.of(chain):
            self._dynamodb.update_item(
                TableName=self._table,
                Key={"chain": chain, "number": entry.number},
                UpdateExpression="SET expires_at = :at",
                ConditionExpression="attribute_exists(#chain)",
                ExpressionAttributeNames={"#chain": "chain"},
                ExpressionAttributeValues={":at": expires_at},
            )

    def _query(self, chain: str) -> dict[str, Any]:
        return {
            "TableName": self._table,
            "KeyConditionExpression": "#chain = :chain",
            "ExpressionAttributeNames": {"#chain": "chain"},
            "ExpressionAttributeValues": {":chain": chain},
            "ConsistentRead": True,
        }


def to_item(entry: Entry) -> dict[str, Any]:
    """The entry as DynamoDB stores it."""
    return {
        "chain": entry.chain,
        "number": entry.number,
        "at": entry.at,
        "what": entry.what,
        "by": entry.by,
        "detail": entry.detail,
        "previous": entry.previous,
        "digest": entry.digest,
    }


def from_item(item: Mapping[str, Any]) -> Entry:
    """The entry that `to_item` stored."""
    return Entry(
        item["chain"], int(item["number"]), item["at"], item["what"], item["by"], item["detail"],
        item["previous"], item["digest"],
    )  # fmt: skip
