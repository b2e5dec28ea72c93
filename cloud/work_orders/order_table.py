# SPDX-License-Identifier: Apache-2.0
"""How an order changes: in ONE transaction with the next entry of its chain, and with whatever belongs to the change.

The order is written under the condition that its status and its `head` are still what the change was decided upon; the
entry is put where there is none. So of two who try, one wins; there is no change without its record and no record
without its change. Whoever lost only because the chain grew reads the order again and decides again.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from linewatch.records import GENESIS, Entry, following
from work_orders.episodes import Episodes
from work_orders.order_items import MOST_RECORDS, WorkOrder, document_digest, from_item, text_of
from work_orders.records import Records, to_item

MAX_ROUNDS = 10
"""Rounds that a writer may lose to others who write records of the same order."""

MOST_MEETINGS = 20
"""Times that a writer may meet another transaction upon its items, about a second in all."""

Write = Mapping[str, Any]


class ContendedError(Exception):
    """Nothing is written, and nothing is known of who holds the items; come again."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of an order, decided upon the order as it was read."""

    # The entry: what happened, by whom, and what else there is to tell.
    what: str
    by: str
    detail: Mapping[str, Any]
    # Attributes that are set.
    values: Mapping[str, Any] = field(default_factory=dict)
    # Attributes that hold the moment of the change: the entry's own `at`, so that it vouches for them.
    stamps: Sequence[str] = ()
    # None: it stays as it is.
    status: str | None = None
    # May happen to one order any number of times, and nothing that `verify` compares follows from it; see MOST_RECORDS.
    repeats: bool = False
    # Only while nobody calls the ERP for the order.
    is_unleased: bool = False
    # Only while this is the order's lease.
    lease: float | None = None


Decide = Callable[[WorkOrder], Change | None]
"""None: the order is no longer one that this can happen to."""


class OrderTable:
    """The table `work_orders` with the table `records` beside it."""

    def __init__(
        self,
        dynamodb: Any,
        table: str,
        episodes: Episodes,
        records: Records,
        *,
        outcomes_table: str = "",
        order_days: float = 3650.0,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock`: seconds since 1970. `pause`: between two rounds of writers that meet, a few milliseconds."""
        self._dynamodb = dynamodb
        self._table = table
        self._episodes = episodes
        self._records = records
        self._outcomes_table = outcomes_table
        self._order_days = order_days
        self._clock = clock
        self._pause = pause

    def get(self, reference: str) -> WorkOrder | None:
        """The order, consistent."""
        answer = self._dynamodb.get_item(
            TableName=self._table, Key={"reference": reference}, ConsistentRead=True
        )
        return from_item(answer["Item"]) if "Item" in answer else None

    def now_text(self) -> str:
        """RFC 3339 in UTC with milliseconds."""
        return text_of(self._clock())

    def _change(self, reference: str, decide: Decide, *others: Write) -> WorkOrder | None:
        """The order as it is now; None when it is not there, can't be changed so, or one of `others` lost its race."""
        for _ in range(MAX_ROUNDS):
            order = self.get(reference)
            change = decide(order) if order is not None else None
            if order is None or change is None:
                return None
            changed, writes = self._writes(order, change)
            lost = self._transact(*writes, *others)
            if lost is None:
                return changed
            if any(place >= len(writes) for place in lost):
                return None
            self._pause(random.uniform(0, 0.05))  # noqa: S311 - jitter, no secret
        return None

    def _writes(self, order: WorkOrder, change: Change) -> tuple[WorkOrder, list[Write]]:
        """The order as it will be, and what makes it so: its update and the entries."""
        at = self.now_text()
        entries = self._entries(order, change, at)
        values: dict[str, Any] = {**change.values, **dict.fromkeys((*change.stamps, "updated_at"), at)}
        if change.status is not None:
            values["status"] = change.status
        if entries:
            values |= {"head": entries[-1].digest, "records": entries[-1].number + 1}
        if change.repeats and order.is_full:
            values["unrecorded"] = int(order.item.get("unrecorded", 0)) + 1
        changed = from_item({**order.item, **values})
        expires = {"expires_at": int(changed.item["expires_at"])} if "expires_at" in changed.item else {}
        puts = [{"Put": self._put_entry(entry, expires)} for entry in entries]
        return changed, [{"Update": self._update(order, change, values)}, *puts]

    def _entries(self, order: WorkOrder, change: Change, at: str) -> list[Entry]:
        if not order.head:
            before = {
                "status": order.status,
                "history": order.item.get("history", []),
                "document_digest": document_digest(order.item["document"]),
            }
            first = following(None, order.reference, at, "before_records", "linewatch", plain(before))
            return [
                first,
                following(first, order.reference, at, change.what, change.by, plain(change.detail)),
            ]
        last = Entry(order.reference, order.records - 1, "", "", "", "", GENESIS, order.head)
        if change.repeats and order.is_full and order.item.get("unrecorded"):
            return []
        if change.repeats and order.is_full:
            text = f"{MOST_RECORDS} records: what repeats itself is only counted from here on"
            return [following(last, order.reference, at, "full", "linewatch", {"text": text})]
        return [following(last, order.reference, at, change.what, change.by, plain(change.detail))]

    def _put_entry(self, entry: Entry, extra: Mapping[str, Any]) -> dict[str, Any]:
        put = self._records.put(entry)
        return {**put, "Item": {**to_item(entry), **extra}}

    def _update(self, order: WorkOrder, change: Change, values: Mapping[str, Any]) -> dict[str, Any]:
        conditions = ["#status = :was", "#head = :head" if order.head else "attribute_not_exists(#head)"]
        given: dict[str, Any] = {":was": order.status, **({":head": order.head} if order.head else {})}
        if change.is_unleased:
            conditions.append("lease_until < :now")
            given[":now"] = int(self._clock())
        if change.lease is not None:
            conditions.append("lease_until = :lease")
            given[":lease"] = int(change.lease)
        names = {"#status": "status", "#head": "head", **{f"#{name}": name for name in values}}
        return {
            "TableName": self._table,
            "Key": {"reference": order.reference},
            "UpdateExpression": "SET " + ", ".join(f"#{name} = :{name}_" for name in values),
            "ConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": given | {f":{name}_": value for name, value in values.items()},
        }

    def _transact(self, *writes: Write) -> list[int] | None:
        """None when all is written, else the places, at least one, of the writes whose condition failed.

        Another transaction that holds one of the items at this moment says nothing of how it ends: whoever meets it
        tries the same again, under the same conditions.

        Raises:
            ContendedError: others held the items MOST_MEETINGS times; nothing is written.
        """
        for _ in range(MOST_MEETINGS):
            try:
                self._dynamodb.transact_write_items(TransactItems=list(writes))
            except ClientError as error:
                codes = _reasons(error)
                if not codes or not codes <= {"None", "ConditionalCheckFailed", "TransactionConflict"}:
                    raise
                reasons = error.response["CancellationReasons"]  # type: ignore[typeddict-item]
                lost = [at for at, one in enumerate(reasons) if one.get("Code") == "ConditionalCheckFailed"]
                if lost:
                    return lost
                self._pause(random.uniform(0, 0.1))  # noqa: S311 - jitter, no secret
            else:
                return None
        raise ContendedError(f"other transactions held the items {MOST_MEETINGS} times; nothing is written")

    def _set(
        self, reference: str, condition: str, given: Mapping[str, Any] | None = None, **values: Any
    ) -> WorkOrder | None:
        """Sets attributes that no record tells of; None when the condition did not hold. `given`: what it names."""
        names = {f"#{name}": name for name in values}
        if "#status" in condition:
            names["#status"] = "status"
        try:
            answer = self._dynamodb.update_item(
                TableName=self._table,
                Key={"reference": reference},
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}_" for name in values),
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues={
                    **(given or {}),
                    **{f":{name}_": value for name, value in values.items()},
                },
                ReturnValues="ALL_NEW",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return None
            raise
        return from_item(answer["Attributes"])


def _reasons(error: ClientError) -> set[str]:
    """Why a transaction was cancelled; empty for any other error."""
    if error.response["Error"]["Code"] != "TransactionCanceledException":
        return set()
    reasons: Sequence[Mapping[str, Any]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
    return {reason.get("Code") or "None" for reason in reasons}


def audited(audit: str) -> dict[str, str]:
    """What a decision's entry says of the console's own one; nothing where that has none."""
    return {"audit": audit} if audit else {}


def plain(detail: Any) -> Any:
    """The detail with DynamoDB's numbers as JSON has them."""
    if isinstance(detail, Mapping):
        return {str(name): plain(value) for name, value in detail.items()}
    if isinstance(detail, (list, tuple)):
        return [plain(value) for value in detail]
    if detail is None or isinstance(detail, (str, bool, int, float)):
        return detail
    number = float(detail)
    return int(number) if number.is_integer() else number
