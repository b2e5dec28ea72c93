# SPDX-License-Identifier: Apache-2.0
"""Which orders there are: from indexes that may lag by a moment, so that whoever changes one reads it first.

`by_tried` is the sweep's list: `last_tried_at` has been, since 0.3, the moment from which on the sweep has something to
do for the order (NEVER where it has not); orders of 0.2.0 hold the moment of their last try, and are looked at once.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from work_orders.batches import get_all
from work_orders.order_items import WorkOrder, from_item
from work_orders.order_table import OrderTable


class OrderIndex(OrderTable):
    """Lists and counts."""

    def references(self, status: str | None, limit: int, after: tuple[str, str] | None = None) -> list[str]:
        """References, newest first. `after`: (created_at, reference) of the last one seen."""
        index, key, value = (
            ("by_created", "kind", "work_order") if status is None else ("by_status", "status", status)
        )
        start = {key: value, "created_at": after[0], "reference": after[1]} if after else None
        return self._indexed(index, key, value, limit, newest_first=True, start=start)

    def opened_between(self, status: str, first: str, last: str, limit: int) -> list[str]:
        """References of orders made between two moments (RFC 3339), newest first."""
        answer = self._dynamodb.query(
            TableName=self._table,
            IndexName="by_status",
            KeyConditionExpression="#key = :value AND created_at BETWEEN :first AND :last",
            ExpressionAttributeNames={"#key": "status"},
            ExpressionAttributeValues={":value": status, ":first": first, ":last": last},
            ScanIndexForward=False,
            Limit=limit,
        )
        return [str(item["reference"]) for item in answer["Items"]]

    def due(self, status: str, limit: int) -> list[str]:
        """References of orders that the sweep has something to do for, those that wait longest first."""
        return self._indexed("by_tried", "status", status, limit, until=("last_tried_at", self.now_text()))

    def without_shadow(self, limit: int, shadow: str = "pending") -> list[str]:
        """References whose device shadow is behind, or for which there was no room in it ("left_out"); newest first."""
        return self._indexed("by_shadow", "shadow", shadow, limit, newest_first=True)

    def get_many(self, references: Sequence[str]) -> list[WorkOrder]:
        """The orders that are there, in the order asked for, consistent. Raises BatchLeftOutError."""
        wanted = list(dict.fromkeys(references))
        items = get_all(
            self._dynamodb, self._table, [{"reference": reference} for reference in wanted], pause=self._pause
        )
        found = {item["reference"]: from_item(item) for item in items}
        return [found[reference] for reference in wanted if reference in found]

    def outcome_of(self, order: WorkOrder) -> dict[str, Any] | None:
        """What accuracy counts of a closed order, consistent; empty: nothing is there.

        None: it is not closed, or it is forgotten by now and the order not yet, or there is no table to ask.
        """
        is_kept = self._clock() < float(order.item.get("expires_at", math.inf))
        if order.status != "closed" or not self._outcomes_table or not is_kept:
            return None
        closed_at = str(order.item.get("closed_at", ""))
        answer = self._dynamodb.query(
            TableName=self._outcomes_table,
            KeyConditionExpression="#month = :month AND id = :id",
            ExpressionAttributeNames={"#month": "month"},
            ExpressionAttributeValues={":month": closed_at[:7], ":id": f"{closed_at}#{order.reference}"},
            ConsistentRead=True,
        )
        return dict(answer["Items"][0]) if answer["Items"] else {}

    def count(self, status: str) -> int:
        """Orders in this status."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            IndexName="by_status",
            KeyConditionExpression="#key = :value",
            ExpressionAttributeNames={"#key": "status"},
            ExpressionAttributeValues={":value": status},
            Select="COUNT",
        )
        return sum(int(page["Count"]) for page in pages)

    def _indexed(
        self,
        index: str,
        key: str,
        value: str,
        limit: int,
        *,
        newest_first: bool = False,
        until: tuple[str, str] | None = None,
        start: Mapping[str, str] | None = None,
    ) -> list[str]:
        names, values, condition = {"#key": key}, {":value": value}, "#key = :value"
        if until is not None:
            names["#sorted"], values[":until"] = until
            condition += " AND #sorted <= :until"
        answer = self._dynamodb.query(
            TableName=self._table,
            IndexName=index,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ScanIndexForward=not newest_first,
            Limit=limit,
            **({"ExclusiveStartKey": dict(start)} if start else {}),
        )
        return [str(item["reference"]) for item in answer["Items"]]
