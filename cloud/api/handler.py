# SPDX-License-Identifier: Apache-2.0
"""Lambda `api`: the console's view of the cloud, and where people decide. HTTP API, bearer token.

200 done; 400 a field that can't be used, named; 401 no or a wrong token; 403 the role may not; 404 nothing of that name;
409 not in the state that the request needs, or another person was faster: with the order as it is now.
"""

import hmac
import json
import os
import time
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger

from api import views
from api.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError, UnauthorizedError
from api.request import Request, identified, read
from api.routes import admit, route_of
from erp.deadline import within
from work_orders.aws import SHORT
from work_orders.budget import AFTER_ERP_S, left_of
from work_orders.metrics import tell_metrics
from work_orders.order_table import ContendedError
from work_orders.wiring import desk

log = Logger(serialize_stacktrace=False)

# A rotated token is good after this long, seconds.
TOKEN_CACHE_S = 60.0

_token: tuple[float, str] = (float("-inf"), "")


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


def _answer(request: Request) -> tuple[int, Any]:
    route, placed = route_of(request)
    if route.role is None:
        return route.answer(placed, desk())
    acting = identified(placed)
    admit(route, acting)
    status, body = route.answer(acting, desk())
    if request.method != "GET":
        told = {
            "route": route.path, **acting.place, "by": acting.user, "role": acting.role, "audit": acting.audit,
        }  # fmt: skip
        log.info("decided", extra=told)
    return status, body


def _is_open(request: Request) -> bool:
    """Whether the route checks by itself who sends; see webhook.py."""
    try:
        return route_of(request)[0].role is None
    except NotFoundError:
        return False


_STATUS: dict[type[Exception], int] = {UnauthorizedError: 401, ForbiddenError: 403, NotFoundError: 404}


def respond(event: dict[str, Any]) -> tuple[int, Any]:
    """Status and JSON for one request."""
    try:
        request = read(event, time.time())
        if not _is_open(request) and not _is_authorized(request.headers.get("authorization", "")):
            raise UnauthorizedError("bearer token missing or wrong")
        return _answer(request)
    except BadRequestError as error:
        return 400, {"error": str(error), "field": error.field}
    except (UnauthorizedError, ForbiddenError, NotFoundError) as error:
        return _STATUS[type(error)], {"error": str(error)}
    except ContendedError as error:
        return 503, {"error": f"{error}; try again"}
    except ConflictError as error:
        shown = {"order": views.work_order(error.order)} if error.order else {}
        return 409, {"error": str(error), **shown}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """HTTP API entry point, payload format 2.0.

    The ERP has the function's time but for what follows its answer: API Gateway hangs up after 30 s, the function ends after
    29. What it did not answer by then goes on by the queue, and the person is told that the order is being created.
    """
    try:
        with within(left_of(context)() - AFTER_ERP_S):
            status, body = respond(event)
    finally:
        # An approval may place an order.
        tell_metrics()
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", "cache-control": "no-store"},
        # DynamoDB gives numbers as Decimal.
        "body": json.dumps(body, default=float, allow_nan=False),
    }
