# SPDX-License-Identifier: Apache-2.0
"""DynamoDB as far as the product uses it, in memory and fast: thousands of schedules in minutes.

test_memory_dynamodb.py holds it against the stand-in's engine, call by call, and test_work_order_schedules.py plays a
share of its schedules on that engine as well. What it does not know it refuses.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from botocore.exceptions import ClientError
from faults.schedule_aws import Pages, left_out, met_another

Item = dict[str, Any]
Scope = tuple[Mapping[str, Any], Mapping[str, str], Mapping[str, Any]]
"""An item, the names and the values that an expression may speak of."""
Test = Callable[[Scope], bool]

_TOKEN = re.compile(r"\s*(<=|>=|<>|[(),=<>+]|[#:]?[A-Za-z0-9_]+)")
_MISSING = object()


class MemoryDynamoDb:
    """What the product calls of boto3's client, with Python values as the resource's client takes them."""

    def __init__(
        self, step: Callable[[str], None] = lambda _: None, spoils: Callable[[str], bool] = lambda _: False
    ) -> None:
        """`spoils`: as of schedule_aws.DynamoDb."""
        self._step = step
        self._spoils = spoils
        self._tables: dict[str, _Table] = {}

    def create_table(self, TableName: str, **arguments: Any) -> None:  # noqa: N803
        self._tables[TableName] = _Table(arguments)

    def get_item(self, TableName: str, Key: Item, **_: Any) -> Any:  # noqa: N803
        self._step("before GetItem")
        found = self._tables[TableName].items.get(self._tables[TableName].key(Key))
        self._step("after GetItem")
        return {} if found is None else {"Item": dict(found)}

    def put_item(self, **request: Any) -> Any:
        return self._written("PutItem", "Put", request)

    def update_item(self, **request: Any) -> Any:
        return self._written("UpdateItem", "Update", request)

    def transact_write_items(self, TransactItems: Sequence[Mapping[str, Any]]) -> Any:  # noqa: N803
        self._step("before TransactWriteItems")
        if self._spoils("TransactWriteItems"):
            raise met_another(len(TransactItems))
        writes = [(kind, request) for item in TransactItems for kind, request in item.items()]
        targets = [(request["TableName"], self._key(kind, request)) for kind, request in writes]
        if len(set(targets)) != len(targets):
            raise _error("ValidationException", "TransactWriteItems", "one item twice")
        codes = [
            "None" if self._holds(kind, request) else "ConditionalCheckFailed" for kind, request in writes
        ]
        if set(codes) != {"None"}:
            raise _error("TransactionCanceledException", "TransactWriteItems", "", codes)
        for kind, request in writes:
            self._write(kind, request)
        self._step("after TransactWriteItems")
        return {}

    def query(self, **request: Any) -> Any:
        self._step("before Query")
        table = self._tables[request["TableName"]]
        hash_key, range_key = table.indexes[request.get("IndexName", "")]
        names, values = (
            request.get("ExpressionAttributeNames", {}),
            _stored(request["ExpressionAttributeValues"]),
        )
        test = _condition(request["KeyConditionExpression"])
        found = [
            item for item in table.items.values()
            if hash_key in item and (not range_key or range_key in item) and test((item, names, values))
        ]  # fmt: skip
        own = table.indexes[""]
        order = [name for name in (range_key, *own) if name]
        found.sort(key=lambda item: [item[name] for name in order])
        if not request.get("ScanIndexForward", True):
            found.reverse()
        if start := request.get("ExclusiveStartKey"):
            place = next(n for n, item in enumerate(found) if table.key(item) == table.key(start))
            found = found[place + 1 :]
        answer = _page(found, request.get("Limit"), sorted({hash_key, range_key, *own} - {""}))
        if "IndexName" in request and request["IndexName"] in table.keys_only:
            kept = {hash_key, range_key, *own}
            answer["Items"] = [{k: v for k, v in item.items() if k in kept} for item in answer["Items"]]
        if request.get("Select") == "COUNT":
            del answer["Items"]
        self._step("after Query")
        return answer

    def scan(self, TableName: str, **_: Any) -> Any:  # noqa: N803
        self._step("before Scan")
        items = [dict(item) for item in self._tables[TableName].items.values()]
        self._step("after Scan")
        return {"Items": items, "Count": len(items)}

    def batch_get_item(self, RequestItems: Mapping[str, Any]) -> Any:  # noqa: N803
        self._step("before BatchGetItem")
        left = left_out(RequestItems) if self._spoils("BatchGetItem") else {}
        answer = {
            name: [
                dict(table.items[table.key(key)])
                for table in [self._tables[name]]
                for key in (asked["Keys"][:1] if name in left else asked["Keys"])
                if table.key(key) in table.items
            ]
            for name, asked in RequestItems.items()
        }
        self._step("after BatchGetItem")
        return {"Responses": answer, "UnprocessedKeys": left}

    def get_paginator(self, name: str) -> Pages:
        return Pages(getattr(self, name))

    def _written(self, action: str, kind: str, request: Mapping[str, Any]) -> Any:
        self._step(f"before {action}")
        if not self._holds(kind, request):
            raise _error("ConditionalCheckFailedException", action, "The conditional request failed")
        item = self._write(kind, request)
        self._step(f"after {action}")
        return {"Attributes": dict(item)} if request.get("ReturnValues") == "ALL_NEW" else {}

    def _key(self, kind: str, request: Mapping[str, Any]) -> tuple[Any, ...]:
        return self._tables[request["TableName"]].key(request["Item" if kind == "Put" else "Key"])

    def _holds(self, kind: str, request: Mapping[str, Any]) -> bool:
        condition = request.get("ConditionExpression")
        if condition is None:
            return True
        item = self._tables[request["TableName"]].items.get(self._key(kind, request), {})
        values = _stored(request.get("ExpressionAttributeValues", {}))
        return _condition(condition)((item, request.get("ExpressionAttributeNames", {}), values))

    def _write(self, kind: str, request: Mapping[str, Any]) -> Item:
        table, key = self._tables[request["TableName"]], self._key(kind, request)
        if kind == "Put":
            table.items[key] = _stored(request["Item"])
            return table.items[key]
        item = dict(table.items.get(key) or _stored(request["Key"]))
        scope = (
            dict(item),
            request.get("ExpressionAttributeNames", {}),
            _stored(request["ExpressionAttributeValues"]),
        )
        for change in _update(request["UpdateExpression"]):
            change(scope, item)
        table.items[key] = item
        return item


class _Table:
    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.items: dict[tuple[Any, ...], Item] = {}
        self.indexes = {"": _keys(arguments["KeySchema"])}
        self.keys_only: set[str] = set()
        for index in arguments.get("GlobalSecondaryIndexes", ()):
            self.indexes[index["IndexName"]] = _keys(index["KeySchema"])
            if index["Projection"]["ProjectionType"] == "KEYS_ONLY":
                self.keys_only.add(index["IndexName"])

    def key(self, item: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(item[name] for name in self.indexes[""] if name)


def _keys(schema: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    names = {part["KeyType"]: part["AttributeName"] for part in schema}
    return names["HASH"], names.get("RANGE", "")


def _page(found: list[Item], limit: int | None, keys: Sequence[str]) -> dict[str, Any]:
    shown = [dict(item) for item in found[:limit]]
    answer: dict[str, Any] = {"Items": shown, "Count": len(shown)}
    if limit is not None and len(shown) == limit:
        answer["LastEvaluatedKey"] = {name: shown[-1][name] for name in keys}
    return answer


def _stored(value: Any) -> Any:
    """As boto3 would give it back; a float is an error there too."""
    if isinstance(value, (str, bool, Decimal)) or value is None:
        return value
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, Mapping):
        return {name: _stored(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stored(inner) for inner in value]
    raise TypeError(f"Float types are not supported: {value!r}")


def _error(code: str, action: str, message: str, codes: Sequence[str] = ()) -> ClientError:
    response: dict[str, Any] = {"Error": {"Code": code, "Message": message}}
    if codes:
        response["CancellationReasons"] = [{"Code": code} for code in codes]
    return ClientError(response, action)


# -- expressions


def _tokens(text: str) -> list[str]:
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise NotImplementedError(text)
    return tokens


@cache
def _condition(text: str) -> Test:
    reader = _Reader(_tokens(text))
    made = reader.either()
    reader.end()
    return made


class _Reader:
    """Reads a condition: OR of ANDs of comparisons, functions and brackets."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens

    def either(self) -> Test:
        parts = [self.both()]
        while self._take("OR"):
            parts.append(self.both())
        return (lambda scope: any(part(scope) for part in parts)) if len(parts) > 1 else parts[0]

    def both(self) -> Test:
        parts = [self.one()]
        while self._take("AND"):
            parts.append(self.one())
        return (lambda scope: all(part(scope) for part in parts)) if len(parts) > 1 else parts[0]

    def one(self) -> Test:
        if self._take("("):
            inner = self.either()
            self._need(")")
            return inner
        word = self._next()
        if word in ("attribute_exists", "attribute_not_exists"):
            self._need("(")
            operand, is_wanted = _operand(self._next()), word == "attribute_exists"
            self._need(")")
            return lambda scope: (operand(scope) is not _MISSING) == is_wanted
        left = _operand(word)
        sign = self._next()
        if sign == "IN":
            self._need("(")
            others = [_operand(self._next())]
            while self._take(","):
                others.append(_operand(self._next()))
            self._need(")")
            return lambda scope: any(left(scope) == other(scope) for other in others)
        if sign == "BETWEEN":
            low = _operand(self._next())
            self._need("AND")
            high = _operand(self._next())
            return lambda scope: (
                _compared(_SIGNS[">="], left(scope), low(scope))
                and _compared(_SIGNS["<="], left(scope), high(scope))
            )
        compare = _SIGNS[sign]
        right = _operand(self._next())
        return lambda scope: _compared(compare, left(scope), right(scope))

    def end(self) -> None:
        if self._tokens:
            raise NotImplementedError(f"not read: {self._tokens}")

    def _next(self) -> str:
        return self._tokens.pop(0)

    def _take(self, word: str) -> bool:
        if self._tokens and self._tokens[0] == word:
            self._tokens.pop(0)
            return True
        return False

    def _need(self, word: str) -> None:
        if not self._take(word):
            raise NotImplementedError(f"{word} expected before {self._tokens}")


_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _compared(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    if left is _MISSING or right is _MISSING or type(left) is not type(right):
        return False
    return compare(left, right)


def _operand(word: str) -> Callable[[Scope], Any]:
    if word.startswith(":"):
        return lambda scope: scope[2][word]
    if word.startswith("#"):
        return lambda scope: scope[0].get(scope[1][word], _MISSING)
    return lambda scope: scope[0].get(word, _MISSING)


@cache
def _update(text: str) -> tuple[Callable[[Scope, Item], None], ...]:
    tokens = _tokens(text)
    changes: list[Callable[[Scope, Item], None]] = []
    action = ""
    while tokens:
        if tokens[0] in ("SET", "ADD"):
            action = tokens.pop(0)
        name = tokens.pop(0)
        if action == "SET":
            if tokens.pop(0) != "=":
                raise NotImplementedError(text)
        elif action != "ADD":
            raise NotImplementedError(text)
        changes.append(_changing(action, name, _operand(tokens.pop(0))))
        if tokens and tokens[0] == ",":
            tokens.pop(0)
        elif tokens and tokens[0] not in ("SET", "ADD"):
            raise NotImplementedError(text)
    return tuple(changes)


def _changing(action: str, name: str, operand: Callable[[Scope], Any]) -> Callable[[Scope, Item], None]:
    def change(scope: Scope, item: Item) -> None:
        attribute = scope[1][name] if name.startswith("#") else name
        value = operand(scope)
        item[attribute] = item.get(attribute, Decimal(0)) + value if action == "ADD" else value

    return change
