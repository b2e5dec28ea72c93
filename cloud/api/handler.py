# SPDX-License-Identifier: Apache-2.0
"""Lambda `api`: the console's view of the cloud, and where people decide. HTTP API, bearer token.

200 done; 400 what is missing or wrong; 401 no or a wrong token; 404 no such order or event; 409 the order is not in
the state that the request needs, or another person was faster.
"""

import hmac
import json
import os
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger

from api import views
from api.deciding import ConflictError, approve, close, reject
from work_orders.aws import SHORT
from work_orders.wiring import desk

log = Logger(serialize_stacktrace=False)

# A rotated token is good after this long, seconds.
TOKEN_CACHE_S = 60.0
MAX_BODY = 16_384
MAX_TEXT = 1_000

_token: tuple[float, str] = (float("-inf"), "")


class BadRequestError(Exception):
    """The request lacks something; the message says what."""


@cache
def _secrets() -> Any:
    return boto3.client("secretsmanager", config=SHORT)


def _is_authorized(header: str) -> bool:
    global _token  # noqa: PLW0603 - the process's cache of one value
    read_at, token = _token
    if time.monotonic() - read_at > TOKEN_CACHE_S:
        token = json.loads(_secrets().get_secret_value(SecretId=os.environ["API_SECRET_ID"])["SecretString"])[
            "token"
        ]
        _token = (time.monotonic(), token)
    scheme, _, given = header.partition(" ")
    return scheme.lower() == "bearer" and bool(token) and hmac.compare_digest(given.encode(), token.encode())


def _route(
    method: str, path: list[str], query: Mapping[str, str], body: Mapping[str, str]
) -> tuple[int, Any]:
    match (method, path):
        case ("GET", ["summary"]):
            return 200, _summary()
        case ("GET", ["work-orders"]):
            return 200, {"work_orders": _list(query)}
        case ("GET", ["work-orders", reference]):
            order = desk().orders.get(reference)
            return (
                (200, views.work_order(order, with_history=True))
                if order
                else (404, _error("no such work order"))
            )
        case ("POST", ["work-orders", reference, ("approve" | "reject" | "close") as verb]):
            return _decide(verb, reference, body)
        case ("GET", ["events", event_id]):
            return _event(event_id)
    return 404, _error("no such resource")


def _decide(verb: str, reference: str, body: Mapping[str, str]) -> tuple[int, Any]:
    order = desk().orders.get(reference)
    if order is None:
        return 404, _error("no such work order")
    try:
        if verb == "approve":
            decided = approve(order, _text(body, "by"), body.get("reason", ""), desk())
        elif verb == "reject":
            decided = reject(order, _text(body, "by"), _text(body, "reason"), desk())
        else:
            decided = close(order, _text(body, "by"), _text(body, "finding"), body.get("note", ""), desk())
    except ConflictError as error:
        return 409, _error(str(error))
    log.info(
        "decided", extra={"reference": reference, "verb": verb, "by": body["by"], "status": decided.status}
    )
    return 200, views.work_order(decided, with_history=True)


def _summary() -> dict[str, Any]:
    orders = desk().orders
    counts = {
        status: orders.count(status)
        for status in ("created", "closed", "awaiting_approval", "rejected", "creating", "parked")
    }
    dynamodb = desk().dynamodb
    counters = _scan(dynamodb, os.environ["COUNTERS_TABLE"])
    crossed = sum(
        int(n) for i in _scan(dynamodb, os.environ["POLICY_STATE_TABLE"]) for n in i["crossed"].values()
    )
    return {
        "enriched": sum(int(item.get("inspections", 0)) for item in counters),
        # Deliveries of parts too old for the policy to count.
        "too_late": sum(int(item.get("too_late", 0)) for item in counters),
        "work_orders": {
            # In the ERP; a closed order stays counted.
            "created": counts["created"] + counts["closed"],
            "suppressed": max(0, crossed - sum(counts.values())),
            **{
                name: counts[name]
                for name in ("awaiting_approval", "rejected", "creating", "parked", "closed")
            },
        },
        "pilot": desk().pilot,
        # The risk from which each band is crossed.
        "bands": {band.name: band.on for band in desk().data.rules["machine"].bands},
    }


def _list(query: Mapping[str, str]) -> list[dict[str, Any]]:
    try:
        limit = min(200, max(1, int(query.get("limit", "50"))))
    except ValueError as error:
        raise BadRequestError("limit is no number") from error
    status = query.get("status") or None
    orders = [desk().orders.get(reference) for reference in desk().orders.references(status, limit)]
    return [views.work_order(o) for o in orders if o is not None and status in (None, o.status)]


def _event(event_id: str) -> tuple[int, Any]:
    dynamodb = desk().dynamodb
    found = dynamodb.get_item(TableName=os.environ["EVENTS_TABLE"], Key={"event_id": event_id})
    if "Item" not in found:
        return 404, _error("no such event")
    item = found["Item"]
    key = {"station_key": f"{item['site']}/{item['line']}/{item['station']}"}
    asset = dynamodb.get_item(TableName=os.environ["ASSETS_TABLE"], Key=key).get("Item")
    return 200, views.event(item, asset)


def _scan(dynamodb: Any, table: str) -> list[dict[str, Any]]:
    """Every item of a table that is small by design: counters, and one item per station."""
    return [
        item for page in dynamodb.get_paginator("scan").paginate(TableName=table) for item in page["Items"]
    ]


def _text(body: Mapping[str, str], name: str) -> str:
    if not body.get(name, "").strip():
        raise BadRequestError(f"{name} is missing")
    return body[name].strip()


def _body(event: Mapping[str, Any]) -> dict[str, str]:
    raw = event.get("body") or "{}"
    if event.get("isBase64Encoded") or len(raw) > MAX_BODY:
        raise BadRequestError(f"body is no JSON text of at most {MAX_BODY} characters")
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise BadRequestError("body is no JSON") from error
    if not isinstance(body, dict) or not all(
        isinstance(v, str) and len(v) <= MAX_TEXT for v in body.values()
    ):
        raise BadRequestError(f"body is no object of texts of at most {MAX_TEXT} characters")
    return body


def _error(why: str) -> dict[str, str]:
    return {"error": why}


def _answer(status: int, body: Any) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", "cache-control": "no-store"},
        # DynamoDB gives numbers as Decimal.
        "body": json.dumps(body, default=float),
    }


def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """HTTP API entry point, payload format 2.0."""
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    if not _is_authorized(headers.get("authorization", "")):
        return {**_answer(401, _error("bearer token missing or wrong"))}
    request = event["requestContext"]["http"]
    path = [part for part in request["path"].split("/") if part]
    try:
        body = _body(event) if request["method"] == "POST" else {}
        return _answer(*_route(request["method"], path, event.get("queryStringParameters") or {}, body))
    except BadRequestError as error:
        return _answer(400, _error(str(error)))
