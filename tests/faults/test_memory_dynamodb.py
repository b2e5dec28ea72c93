# SPDX-License-Identifier: Apache-2.0
"""The DynamoDB of the schedules answers as the stand-in's does: one suite, thousands of calls, against both.

The expressions are the product's own: conditions, transactions with their reasons, updates, indexes with their order,
limit and continuation.

Guards: tests/faults/memory_dynamodb.py.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from faults import schedule_aws
from faults.memory_dynamodb import MemoryDynamoDb
from faults.schedule_aws import DynamoDb

Engine = MemoryDynamoDb | DynamoDb
STATUSES = ("creating", "parked", "created")


def engines() -> tuple[Engine, Engine]:
    schedule_aws.emptied()
    made: tuple[Engine, Engine] = (MemoryDynamoDb(), DynamoDb(lambda _: None))
    for engine in made:
        for name, arguments in schedule_aws.tables().items():
            engine.create_table(TableName=name, **arguments)
    return made


def outcome(call: Callable[[], Any]) -> Any:
    try:
        answer = call()
    except ClientError as error:
        reasons = [reason["Code"] for reason in error.response.get("CancellationReasons", [])]  # type: ignore[typeddict-item]
        return error.response["Error"]["Code"], reasons
    if not isinstance(answer, dict):
        return answer
    kept = ("Item", "Items", "Attributes", "Count", "LastEvaluatedKey", "Responses")
    return {name: answer[name] for name in kept if name in answer}


def put(reference: str, chance: random.Random, condition: bool) -> dict[str, Any]:
    item: dict[str, Any] = {
        "reference": reference, "kind": "work_order", "status": chance.choice(STATUSES), "shadow": "pending",
        "created_at": f"2026-11-{chance.randrange(10, 30)}", "last_tried_at": f"2026-11-{chance.randrange(10, 30)}",
        "lease_until": chance.randrange(10), "attempts": 0, "doubles": ["a"], "is_refused": False,
    }  # fmt: skip
    if chance.random() < 0.5:
        item["head"] = f"h{chance.randrange(3)}"
    request: dict[str, Any] = {"TableName": "WorkOrdersTable", "Item": item}
    if condition:
        request |= {
            "ConditionExpression": "attribute_not_exists(#reference)",
            "ExpressionAttributeNames": {"#reference": "reference"},
        }
    return request


CONDITIONS = (
    ("#status = :was AND #head = :head", {":was": "parked", ":head": "h1"}),
    ("#status = :was AND attribute_not_exists(#head)", {":was": "created"}),
    ("#status IN (:creating, :parked) AND lease_until < :now", {":creating": "creating", ":parked": "parked", ":now": 5}),
    ("attribute_exists(erp_id) AND (attribute_not_exists(notes) OR notes < :now)", {":now": 5}),
    ("notes = :lease AND (seen = :seen OR attribute_not_exists(seen))", {":lease": 3, ":seen": "[]"}),
    ("attribute_exists(head) OR attribute_exists(kind)", {}),
    ("lease_until >= :now", {":now": 4}),
)  # fmt: skip


def update(reference: str, chance: random.Random) -> dict[str, Any]:
    condition, values = chance.choice(CONDITIONS)
    sets = chance.sample(
        [("notes", chance.randrange(6)), ("erp_id", "WO-1"), ("seen", "[]"), ("status", chance.choice(STATUSES)),
         ("head", f"h{chance.randrange(3)}"), ("doubles", ["a", "b"]), ("last_tried_at", f"2026-12-{chance.randrange(10, 30)}")],
        2,
    )  # fmt: skip
    names = {f"#{name}": name for name, _ in sets}
    names |= {word: word[1:] for word in ("#status", "#head") if word in condition}
    return {
        "TableName": "WorkOrdersTable", "Key": {"reference": reference}, "ConditionExpression": condition,
        "UpdateExpression": "SET " + ", ".join(f"#{name} = :{name}_" for name, _ in sets),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values | {f":{name}_": value for name, value in sets},
    }  # fmt: skip


def query(chance: random.Random) -> dict[str, Any]:
    index, key, value, sorted_by = chance.choice(
        (
            ("by_status", "status", chance.choice(STATUSES), "created_at"),
            ("by_tried", "status", chance.choice(STATUSES), "last_tried_at"),
            ("by_created", "kind", "work_order", "created_at"),
            ("by_shadow", "shadow", "pending", "created_at"),
        )
    )
    request: dict[str, Any] = {
        "TableName": "WorkOrdersTable", "IndexName": index, "KeyConditionExpression": "#key = :value",
        "ExpressionAttributeNames": {"#key": key}, "ExpressionAttributeValues": {":value": value},
        "ScanIndexForward": chance.random() < 0.5,
    }  # fmt: skip
    if chance.random() < 0.5:
        request["KeyConditionExpression"] += " AND #sorted <= :until"
        request["ExpressionAttributeNames"]["#sorted"] = sorted_by
        request["ExpressionAttributeValues"][":until"] = f"2026-{chance.choice((11, 12))}-20"
    return request


def asked(chance: random.Random, engine: Engine) -> Callable[[], Any]:
    """One call; the same for both engines when their `chance` is the same."""
    reference = f"lw-{chance.randrange(8)}"
    kind = chance.randrange(7)
    if kind == 0:
        request = put(reference, chance, condition=chance.random() < 0.7)
        return lambda: engine.put_item(**request)
    if kind == 1:
        request = update(reference, chance) | {"ReturnValues": "ALL_NEW"}
        return lambda: engine.update_item(**request)
    if kind == 2:
        other = f"lw-{chance.randrange(8, 12)}"
        writes = [{"Update": update(reference, chance)}, {"Put": put(other, chance, condition=True)}]
        return lambda: engine.transact_write_items(TransactItems=writes)
    if kind == 3:
        return lambda: engine.get_item(TableName="WorkOrdersTable", Key={"reference": reference})
    if kind == 4:
        keys = [{"reference": f"lw-{number}"} for number in chance.sample(range(12), 4)]
        found = {"WorkOrdersTable": {"Keys": keys, "ConsistentRead": True}}
        return lambda: sorted(
            (item["reference"], item["status"])
            for item in engine.batch_get_item(RequestItems=found)["Responses"]["WorkOrdersTable"]
        )
    request = query(chance)
    if kind == 5:
        # Of orders that share a moment the engines may differ in the order, DynamoDB promises none.
        return lambda: sorted(item["reference"] for item in engine.query(**request)["Items"])
    counter = {
        "TableName": "CountersTable", "Key": {"name": reference}, "UpdateExpression": "ADD too_late :one",
        "ExpressionAttributeValues": {":one": 1}, "ReturnValues": "ALL_NEW",
    }  # fmt: skip
    return lambda: engine.update_item(**counter)


@pytest.mark.parametrize("seed", range(20))
def test_both_engines_answer_the_same_to_the_same_calls(seed: int) -> None:
    memory, standin = engines()
    ours, theirs = random.Random(seed), random.Random(seed)
    seen = set()
    for number in range(200):
        one, other = outcome(asked(ours, memory)), outcome(asked(theirs, standin))
        assert one == other, f"call {number}"
        seen.add(one[0] if isinstance(one, tuple) else "answer")
    assert seen == {"answer", "ConditionalCheckFailedException", "TransactionCanceledException"}


def test_an_index_is_ordered_limited_and_goes_on_where_it_ended_on_both() -> None:
    found = []
    for engine in engines():
        for number in range(9):
            item = put(f"lw-{number}", random.Random(1), condition=False)["Item"]
            engine.put_item(
                TableName="WorkOrdersTable",
                Item=item | {"status": "parked", "created_at": f"2026-11-{(number * 7) % 9 + 10}"},
            )
        request = {
            "TableName": "WorkOrdersTable", "IndexName": "by_status", "KeyConditionExpression": "#key = :value",
            "ExpressionAttributeNames": {"#key": "status"}, "ExpressionAttributeValues": {":value": "parked"},
            "ScanIndexForward": False, "Limit": 4,
        }  # fmt: skip
        pages, start = [], {}
        for _ in range(4):
            answer = engine.query(**request, **start)
            pages.append([item["reference"] for item in answer["Items"]])
            if not answer.get("LastEvaluatedKey"):
                break
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        condition = {
            "KeyConditionExpression": "#key = :value AND created_at BETWEEN :first AND :last",
            "ExpressionAttributeValues": {":value": "parked", ":first": "2026-11-12", ":last": "2026-11-15"},
        }
        answer = engine.query(**{**request, **condition, "Limit": 9})
        between = [item["reference"] for item in answer["Items"]]
        found.append((pages, between))

    assert found[0] == found[1]
    assert sum(len(page) for page in found[0][0]) == 9
    assert len(found[0][1]) == 4


@pytest.mark.parametrize("wrong", [{"risk": 0.5}, {"nested": {"risk": 0.5}}])
def test_a_float_is_an_error_on_both(wrong: dict[str, Any]) -> None:
    for engine in engines():
        with pytest.raises(TypeError, match="Float types are not supported"):
            engine.put_item(TableName="CountersTable", Item={"name": "x", **wrong})
