# SPDX-License-Identifier: Apache-2.0
"""The stand-in's DynamoDB and device shadows inside this process, without HTTP, and with the template's own tables.

It is ministack's engine that answers: conditions, transactions, indexes and reserved words are its business, none of
ours. What is left out is botocore's way to it; test_work_order_schedules.py plays some schedules over that way as well
and compares.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError
from cfnlint.decode import cfn_yaml
from ministack.services import dynamodb, iot

TEMPLATE = Path(__file__).parents[2] / "cloud" / "template.yaml"

_TO, _FROM = TypeSerializer(), TypeDeserializer()
_VALUES = ("Item", "Key", "ExpressionAttributeValues", "ExclusiveStartKey")


@cache
def tables() -> dict[str, dict[str, Any]]:
    """Arguments of CreateTable by the resource's name in the template."""
    resources = cfn_yaml.load(str(TEMPLATE))["Resources"]
    made = {}
    for name, resource in resources.items():
        if resource["Type"] == "AWS::DynamoDB::Table":
            properties = resource["Properties"]
            wanted = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
            made[name] = json.loads(json.dumps({key: properties[key] for key in wanted if key in properties}))
    return made


class DynamoDb:
    """What the product calls of boto3's client, with Python values as the resource's client takes them."""

    def __init__(self, step: Callable[[str], None], spoils: Callable[[str], bool] = lambda _: False) -> None:
        """`spoils`: whether AWS gives this action, now, the answer that is neither yes nor no."""
        self._step = step
        self._spoils = spoils

    def create_table(self, **request: Any) -> Any:
        return _call("CreateTable", request)

    def get_item(self, **request: Any) -> Any:
        answer = self._asked("GetItem", _to(request))
        return {**answer, **({"Item": _item(answer["Item"])} if "Item" in answer else {})}

    def put_item(self, **request: Any) -> Any:
        return self._asked("PutItem", _to(request))

    def update_item(self, **request: Any) -> Any:
        answer = self._asked("UpdateItem", _to(request))
        return {**answer, **({"Attributes": _item(answer["Attributes"])} if "Attributes" in answer else {})}

    def query(self, **request: Any) -> Any:
        return _listed(self._asked("Query", _to(request)))

    def scan(self, **request: Any) -> Any:
        return _listed(self._asked("Scan", _to(request)))

    def batch_get_item(self, RequestItems: Mapping[str, Any]) -> Any:  # noqa: N803
        asked = {
            table: {**keys, "Keys": [_map(key) for key in keys["Keys"]]}
            for table, keys in RequestItems.items()
        }
        self._step("before BatchGetItem")
        left = left_out(RequestItems) if self._spoils("BatchGetItem") else {}
        for table, keys in left.items():
            asked[table] = {**keys, "Keys": [_map(key) for key in RequestItems[table]["Keys"][:1]]}
        answer = _call("BatchGetItem", {"RequestItems": asked})
        self._step("after BatchGetItem")
        return {
            "Responses": {
                table: [_item(item) for item in items] for table, items in answer["Responses"].items()
            },
            "UnprocessedKeys": left,
        }

    def transact_write_items(self, TransactItems: list[Mapping[str, Any]]) -> Any:  # noqa: N803
        items = [{kind: _to(write) for kind, write in item.items()} for item in TransactItems]
        self._step("before TransactWriteItems")
        if self._spoils("TransactWriteItems"):
            raise met_another(len(items))
        answer = _call("TransactWriteItems", {"TransactItems": items})
        self._step("after TransactWriteItems")
        return answer

    def get_paginator(self, name: str) -> "Pages":
        return Pages(getattr(self, name))

    def _asked(self, action: str, request: dict[str, Any]) -> Any:
        self._step(f"before {action}")
        answer = _call(action, request)
        self._step(f"after {action}")
        return answer


def left_out(asked: Mapping[str, Any]) -> dict[str, Any]:
    """UnprocessedKeys of a BatchGetItem that answers only the first of each table's."""
    return {
        table: {**keys, "Keys": list(keys["Keys"][1:])} for table, keys in asked.items() if keys["Keys"][1:]
    }


def met_another(writes: int) -> ClientError:
    """What a transaction gets that met another one upon its first item; nothing is written."""
    reasons = [{"Code": "TransactionConflict"}, *[{"Code": "None"}] * (writes - 1)]
    return _error("TransactionCanceledException", "TransactWriteItems", {"CancellationReasons": reasons})


class Pages:
    """A paginator."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def paginate(self, **request: Any) -> Iterator[Any]:
        while True:
            page = self._call(**request)
            yield page
            if not page.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


class IotData:
    """The device shadows."""

    def __init__(self, step: Callable[[str], None]) -> None:
        self._step = step

    def get_thing_shadow(self, thingName: str, shadowName: str) -> Any:  # noqa: N803
        self._step("before GetThingShadow")
        status, document = iot.get_thing_shadow(thingName, shadowName)
        if status == 404:
            raise _error("ResourceNotFoundException", "GetThingShadow")
        self._step("after GetThingShadow")
        return {"payload": _Body(json.dumps(document).encode())}

    def update_thing_shadow(self, thingName: str, shadowName: str, payload: str) -> None:  # noqa: N803
        self._step("before UpdateThingShadow")
        status, _ = iot.update_thing_shadow(thingName, shadowName, json.loads(payload))
        if status == 409:
            raise _error("ConflictException", "UpdateThingShadow")
        assert status == 200, payload
        self._step("after UpdateThingShadow")


class _Body:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self) -> bytes:
        return self._body


def emptied() -> None:
    """Forgets every table and every shadow of this process."""
    dynamodb.reset()
    iot._shadows.clear()


def shadow_of(thing: str) -> dict[str, Any]:
    """What is desired in the named shadow, as {asset: {failure mode: entry}}."""
    status, document = iot.get_thing_shadow(thing, "work-orders")
    return document["state"].get("desired", {}) if status == 200 else {}


def _call(action: str, request: Mapping[str, Any]) -> Any:
    headers = {"x-amz-target": f"DynamoDB_20120810.{action}"}
    coroutine = dynamodb.handle_request("POST", "/", headers, json.dumps(request).encode(), {})
    try:
        coroutine.send(None)
    except StopIteration as done:
        status, _, body = done.value
    else:
        raise AssertionError(f"{action} waits for something")
    answer = json.loads(body) if body else {}
    if status >= 400:
        raise _error(answer["__type"].rpartition("#")[2], action, answer)
    return answer


def _error(code: str, action: str, answer: Mapping[str, Any] | None = None) -> ClientError:
    answer = answer or {}
    response: dict[str, Any] = {
        "Error": {"Code": code, "Message": answer.get("message") or answer.get("Message", "")}
    }
    if "CancellationReasons" in answer:
        response["CancellationReasons"] = answer["CancellationReasons"]
    return ClientError(response, action)


def _to(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _map(value) if name in _VALUES else value for name, value in request.items()}


def _map(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _TO.serialize(value) for name, value in values.items()}


def _item(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _FROM.deserialize(value) for name, value in values.items()}


def _listed(answer: dict[str, Any]) -> dict[str, Any]:
    if "Items" in answer:
        answer["Items"] = [_item(item) for item in answer["Items"]]
    if answer.get("LastEvaluatedKey"):
        answer["LastEvaluatedKey"] = _item(answer["LastEvaluatedKey"])
    return answer
