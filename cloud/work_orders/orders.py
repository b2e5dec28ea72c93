# SPDX-License-Identifier: Apache-2.0
"""Work orders and the only ways they may change (DynamoDB `work_orders`).

                    open                     place (lease, ERP)
   (nothing) ──────────────▶ creating ───────────────────────▶ created ──▶ closed
        │                     ▲    │ 3 failed tries               ▲          ▲
        │ open                │    ▼                              │          │
        └─▶ awaiting_approval ┘  parked ──── place by the sweep ──┘──────────┘
                 │ approve, or the stronger band was crossed
                 └─▶ rejected

Each arrow is one conditional write: of two who try, one gets None and does nothing. Opening and closing change the
episode in the same transaction. A lease keeps callers of the ERP apart; it must be longer than a Lambda may run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from work_orders.episodes import Episode, Episodes
from work_orders.erp import ErpOrder

# Of an order's history, far under DynamoDB's 400 KB for an item; its first entries stay.
HISTORY_LIMIT, HISTORY_FIRST = 100, 10
STATUSES = ("awaiting_approval", "creating", "created", "rejected", "parked", "closed")


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """One stored work order."""

    reference: str
    status: str
    asset_id: str
    failure_mode: str
    band: str
    # The facts it was opened with; see document.py. Never changes.
    document: Mapping[str, Any]
    # Tries that the ERP did not answer with an order.
    attempts: int
    # Seconds since 1970 until which nobody else may call the ERP for it; the next try is due after it.
    lease_until: float
    # "pending" until the device's shadows show the order as it is now; "none" in orders of releases before 0.3.
    shadow: str
    # Every stored attribute.
    item: Mapping[str, Any]


class WorkOrders:
    """The table `work_orders`."""

    def __init__(self, dynamodb: Any, table: str, episodes: Episodes) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._episodes = episodes

    def get(self, reference: str) -> WorkOrder | None:
        """The order, consistent."""
        answer = self._dynamodb.get_item(
            TableName=self._table, Key={"reference": reference}, ConsistentRead=True
        )
        return _from_item(answer["Item"]) if "Item" in answer else None

    def open(self, episode: Episode, status: str, band: str, document: Mapping[str, Any]) -> WorkOrder | None:
        """Opens the episode and reserves its order in one transaction; None when another was faster."""
        opened = episode.opened()
        at = now_text()
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
            "document": json.dumps(document, separators=(",", ":")),
            "attempts": 0,
            "lease_until": 0,
            "last_tried_at": at,
            "shadow": "pending",
            "history": [_entry(at, "opened", "policy", f"band {band}, {status}")],
        }
        reserve = {
            "TableName": self._table,
            "Item": item,
            "ConditionExpression": "attribute_not_exists(#reference)",
            "ExpressionAttributeNames": {"#reference": "reference"},
        }
        if not self._transact({"Put": self._episodes.write(opened)}, {"Put": reserve}):
            return None
        return _from_item(item)

    def confirm(self, reference: str, by: str, reason: str, band: str | None = None) -> WorkOrder | None:
        """awaiting_approval -> creating; None when it is not awaiting approval (any more)."""
        values: dict[str, Any] = {"decided_at": now_text(), "decided_by": by, "reason": reason}
        if band is not None:
            values["band"] = band
        return self._move(
            reference, "awaiting_approval", "creating", _entry(now_text(), "approved", by, reason), values
        )

    def reject(self, order: WorkOrder, episode: Episode, by: str, reason: str) -> bool:
        """awaiting_approval -> rejected, and closes the episode; False when another was faster."""
        values = {"decided_at": now_text(), "decided_by": by, "reason": reason, "shadow": "pending"}
        update = self._update(
            order.reference,
            "awaiting_approval",
            "rejected",
            _entry(now_text(), "rejected", by, reason),
            values,
        )
        return self._transact({"Update": update}, {"Put": self._episodes.write(episode)})

    def close(self, order: WorkOrder, episode: Episode, by: str, finding: str, note: str) -> bool:
        """created or parked -> closed, and closes the episode; False when another was faster or the ERP is being called."""
        values = {
            "closed_at": now_text(), "closed_by": by, "finding": finding, "note": note, "shadow": "pending",
        }  # fmt: skip
        detail = f"{finding}: {note}" if note else finding
        update = self._update(
            order.reference, order.status, "closed", _entry(now_text(), "closed", by, detail), values
        )
        update["ConditionExpression"] += " AND lease_until < :now"
        update["ExpressionAttributeValues"][":now"] = int(_now())
        return self._transact({"Update": update}, {"Put": self._episodes.write(episode)})

    def lease(self, reference: str, seconds: float) -> WorkOrder | None:
        """Takes the right to call the ERP for an order that is creating or parked; None when it can't be had."""
        return self._change(
            TableName=self._table,
            Key={"reference": reference},
            UpdateExpression="SET lease_until = :until, last_tried_at = :at",
            ConditionExpression="#status IN (:creating, :parked) AND lease_until < :now",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={
                ":until": int(_now() + seconds),
                ":at": now_text(),
                ":now": int(_now()),
                ":creating": "creating",
                ":parked": "parked",
            },
        )

    def created(self, order: WorkOrder, erp_order: ErpOrder) -> WorkOrder | None:
        """creating or parked -> created, with the ERP's id; None when it has moved on."""
        values = {
            "erp_id": erp_order.id,
            "erp_status": erp_order.status,
            "lease_until": 0,
            "shadow": "pending",
        }
        entry = _entry(now_text(), "created", "erp", erp_order.id)
        return self._move(order.reference, order.status, "created", entry, values)

    def failed(self, order: WorkOrder, why: str, status: str, wait_s: float) -> WorkOrder | None:
        """Notes a try without an order; the order stays `creating` or is parked, and rests for `wait_s` seconds."""
        what = "parked" if status == "parked" and order.status != "parked" else "try failed"
        values = {
            "attempts": order.attempts + 1,
            "lease_until": int(_now() + wait_s) if wait_s else 0,
            # Written whole: the lease keeps everybody else away.
            "history": noted(order.item["history"], _entry(now_text(), what, "erp", why)),
        }
        return self._move(order.reference, order.status, status, None, values)

    def rest(self, order: WorkOrder) -> None:
        """Gives the lease back without counting a try, for a sweep that finds the ERP still away."""
        self._set(order.reference, "lease_until", 0)

    def shadow_written(self, order: WorkOrder) -> None:
        """The device's shadows show the order as it was read; when it has moved on since, they are to be written again."""
        written = self._change(
            TableName=self._table,
            Key={"reference": order.reference},
            UpdateExpression="SET shadow = :written",
            ConditionExpression="#status = :shown",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":written": "written", ":shown": order.status},
        )
        if written is None:
            self._set(order.reference, "shadow", "pending")

    def references(self, status: str | None, limit: int) -> list[str]:
        """References, newest first, from an index that may lag by a moment."""
        if status is None:
            return self._indexed("by_created", "kind", "work_order", limit)
        return self._indexed("by_status", "status", status, limit)

    def oldest_tried(self, status: str, limit: int) -> list[str]:
        """References, those first that were tried longest ago, from an index that may lag by a moment."""
        return self._indexed("by_tried", "status", status, limit, newest_first=False)

    def without_shadow(self, limit: int) -> list[str]:
        """References whose device shadow is behind, from an index that may lag by a moment."""
        return self._indexed("by_shadow", "shadow", "pending", limit)

    def _indexed(
        self, index: str, key: str, value: str, limit: int, *, newest_first: bool = True
    ) -> list[str]:
        answer = self._dynamodb.query(
            TableName=self._table,
            IndexName=index,
            KeyConditionExpression="#key = :value",
            ExpressionAttributeNames={"#key": key},
            ExpressionAttributeValues={":value": value},
            ScanIndexForward=not newest_first,
            Limit=limit,
        )
        return [str(item["reference"]) for item in answer["Items"]]

    def count(self, status: str) -> int:
        """Orders in this status, from an index that may lag by a moment."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            IndexName="by_status",
            KeyConditionExpression="#key = :value",
            ExpressionAttributeNames={"#key": "status"},
            ExpressionAttributeValues={":value": status},
            Select="COUNT",
        )
        return sum(int(page["Count"]) for page in pages)

    def _move(
        self, reference: str, old: str, new: str, entry: Mapping[str, str] | None, values: Mapping[str, Any]
    ) -> WorkOrder | None:
        return self._change(**self._update(reference, old, new, entry, values))

    def _update(
        self, reference: str, old: str, new: str, entry: Mapping[str, str] | None, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        sets = ["#status = :new", "updated_at = :at"]
        sets += ["history = list_append(history, :entry)"] if entry else []
        return {
            "TableName": self._table,
            "Key": {"reference": reference},
            "UpdateExpression": "SET " + ", ".join(sets + [f"#{name} = :{name}" for name in values]),
            "ConditionExpression": "#status = :old",
            "ExpressionAttributeNames": {"#status": "status", **{f"#{name}": name for name in values}},
            "ExpressionAttributeValues": {
                ":old": old,
                ":new": new,
                ":at": now_text(),
                **({":entry": [dict(entry)]} if entry else {}),
                **{f":{name}": value for name, value in values.items()},
            },
        }

    def _change(self, **update: Any) -> WorkOrder | None:
        try:
            answer = self._dynamodb.update_item(**update, ReturnValues="ALL_NEW")
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return None
            raise
        return _from_item(answer["Attributes"])

    def _set(self, reference: str, name: str, value: object) -> None:
        self._dynamodb.update_item(
            TableName=self._table,
            Key={"reference": reference},
            UpdateExpression="SET #name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": value},
        )

    def _transact(self, *writes: Mapping[str, Any]) -> bool:
        try:
            self._dynamodb.transact_write_items(TransactItems=list(writes))
        except ClientError as error:
            # Either condition failed, or another transaction holds one of the items.
            if error.response["Error"]["Code"] == "TransactionCanceledException" and _is_lost_race(error):
                return False
            raise
        return True


def _is_lost_race(error: ClientError) -> bool:
    reasons: Sequence[Mapping[str, Any]] = error.response.get("CancellationReasons", [])  # type: ignore[assignment]
    codes = {reason.get("Code") for reason in reasons} - {"None", None}
    return codes <= {"ConditionalCheckFailed", "TransactionConflict"}


def _now() -> float:
    return datetime.now(UTC).timestamp()


def now_text() -> str:
    """RFC 3339 in UTC with milliseconds; sorts as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def noted(history: Sequence[Mapping[str, Any]], entry: Mapping[str, str]) -> list[dict[str, Any]]:
    """The history with one more entry, at most HISTORY_LIMIT; a repetition of the last one is counted there. Pure."""
    grown = [dict(one) for one in history]
    if grown and all(grown[-1][name] == entry[name] for name in ("what", "by", "detail")):
        grown[-1] |= {"count": int(grown[-1].get("count", 1)) + 1, "last_at": entry["at"]}
        return grown
    grown.append(dict(entry))
    if len(grown) > HISTORY_LIMIT:
        del grown[HISTORY_FIRST : HISTORY_FIRST + len(grown) - HISTORY_LIMIT]
    return grown


def _entry(at: str, what: str, by: str, detail: str) -> dict[str, str]:
    return {"at": at, "what": what, "by": by, "detail": detail}


def _from_item(item: Mapping[str, Any]) -> WorkOrder:
    return WorkOrder(
        reference=item["reference"],
        status=item["status"],
        asset_id=item["asset_id"],
        failure_mode=item["failure_mode"],
        band=item["band"],
        document=json.loads(item["document"]),
        attempts=int(item["attempts"]),
        lease_until=float(item["lease_until"]),
        shadow=item["shadow"],
        item=item,
    )
