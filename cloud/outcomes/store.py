# SPDX-License-Identifier: Apache-2.0
"""The table `outcomes`, and beside it what accuracy needs of `work_orders`: who waits, and who was rejected."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from botocore.exceptions import ClientError

from outcomes.outcome import Outcome, from_item, of_order
from work_orders.order_items import OPEN, WorkOrder
from work_orders.order_items import from_item as order_from_item

MAX_OUTCOMES = 20_000
"""Read for one report, newest months first; what is left out is counted and told. About a dozen pages of the table."""

LONGEST_WAIT = timedelta(days=366)
"""Of an approval, as a policy may set its expiry. One that never expires and was rejected after more is not counted."""

_KEYS_A_CALL = 100


class Outcomes:
    """What technicians found."""

    def __init__(self, dynamodb: Any, table: str, orders_table: str) -> None:
        """`dynamodb`: the client of a boto3 resource, which takes and gives Python's own values."""
        self._dynamodb = dynamodb
        self._table = table
        self._orders_table = orders_table

    def add(self, item: Mapping[str, Any]) -> bool:
        """Stores an item that belongs to no order; False when it was there already."""
        try:
            self._dynamodb.put_item(
                TableName=self._table,
                Item=dict(item),
                ConditionExpression="attribute_not_exists(id)",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def since(self, first_day: date, last_day: date) -> tuple[list[Outcome], int]:
        """Orders and escapes of the window, and how many more there are than MAX_OUTCOMES."""
        found: list[Outcome] = []
        left_out = 0
        for month in reversed(_months(first_day, last_day)):
            if len(found) >= MAX_OUTCOMES:
                left_out += self._count(month)
                continue
            of_month = [from_item(item) for item in self._items(month)]
            found += [
                one for one in of_month if first_day.isoformat() <= one.closed_at[:10] <= last_day.isoformat()
            ]
        return found[:MAX_OUTCOMES], left_out + max(0, len(found) - MAX_OUTCOMES)

    def rejected_since(self, first_day: date) -> tuple[list[Outcome], int]:
        """Work orders that were rejected in the window, or whose approval expired in it, whenever they were opened.

        And how many more than MAX_OUTCOMES there may be: of so many those that were opened last are read.
        """
        asked: dict[str, Any] = {
            "TableName": self._orders_table,
            "IndexName": "by_status",
            "KeyConditionExpression": "#status = :status AND created_at >= :first",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": {
                ":status": "rejected",
                ":first": (first_day - LONGEST_WAIT).isoformat(),
            },
        }
        query = self._dynamodb.get_paginator("query")
        pages = query.paginate(
            **asked, ScanIndexForward=False, PaginationConfig={"MaxItems": MAX_OUTCOMES + 1}
        )
        references = [str(item["reference"]) for page in pages for item in page["Items"]]
        left_out = 0
        if len(references) > MAX_OUTCOMES:
            references = references[:MAX_OUTCOMES]
            every = sum(int(page["Count"]) for page in query.paginate(**asked, Select="COUNT"))
            left_out = every - MAX_OUTCOMES
        rejected = [
            of_order(order, "unstated", str(order.item.get("decided_at", order.item["updated_at"])))
            for order in self._orders(references)
            if order.status == "rejected"
        ]
        return [one for one in rejected if one.closed_at[:10] >= first_day.isoformat()], left_out

    def open_orders(self) -> dict[str, int]:
        """How many orders have not ended, by status; from an index that may lag by a moment."""
        return {status: self._count_orders(status) for status in OPEN}

    def _items(self, month: str) -> Iterator[Mapping[str, Any]]:
        pages = self._dynamodb.get_paginator("query").paginate(
            **self._of(month), ScanIndexForward=False, PaginationConfig={"MaxItems": MAX_OUTCOMES + 1}
        )
        return (item for page in pages for item in page["Items"])

    def _count(self, month: str) -> int:
        pages = self._dynamodb.get_paginator("query").paginate(**self._of(month), Select="COUNT")
        return sum(int(page["Count"]) for page in pages)

    def _of(self, month: str) -> dict[str, Any]:
        return {
            "TableName": self._table,
            "KeyConditionExpression": "#month = :month",
            "ExpressionAttributeNames": {"#month": "month"},
            "ExpressionAttributeValues": {":month": month},
        }

    def _count_orders(self, status: str) -> int:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._orders_table,
            IndexName="by_status",
            KeyConditionExpression="#status = :status",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":status": status},
            Select="COUNT",
        )
        return sum(int(page["Count"]) for page in pages)

    def _orders(self, references: Sequence[str]) -> Iterator[WorkOrder]:
        for start in range(0, len(references), _KEYS_A_CALL):
            keys = [{"reference": one} for one in references[start : start + _KEYS_A_CALL]]
            asked: Mapping[str, Any] = {self._orders_table: {"Keys": keys}}
            while asked:
                answer = self._dynamodb.batch_get_item(RequestItems=asked)
                yield from map(order_from_item, answer["Responses"].get(self._orders_table, []))
                asked = answer.get("UnprocessedKeys") or {}


def _months(first_day: date, last_day: date) -> list[str]:
    """2026-10, 2026-11, … oldest first."""
    count = (last_day.year - first_day.year) * 12 + last_day.month - first_day.month
    numbers = (first_day.month - 1 + n for n in range(count + 1))
    return [f"{first_day.year + number // 12}-{number % 12 + 1:02}" for number in numbers]
