# SPDX-License-Identifier: Apache-2.0
"""What people send with a decision, read field by field; deciding.py carries it out."""

import os
from typing import Any

from api import deciding
from api.errors import BadRequestError, ConflictError, named
from api.orders import LONGEST_REFERENCE, detailed, order_of
from api.request import MAX_NAME, Body, Request, person
from api.summaries import registry
from outcomes import closing, escapes
from outcomes.wiring import outcomes
from work_orders.observing import Desk
from work_orders.orders import WorkOrder


def approve(request: Request, desk: Desk) -> tuple[int, Any]:
    """{"reason"?}"""
    body = request.body(("by", "reason"))
    order, by = order_of(request, desk), _by(request, body)
    return _decided(
        deciding.approve(order, by, body.text("reason", is_needed=False), desk, request.audit), desk
    )


def reject(request: Request, desk: Desk) -> tuple[int, Any]:
    """{"reason"}"""
    body = request.body(("by", "reason"))
    order, by = order_of(request, desk), _by(request, body)
    return _decided(deciding.reject(order, by, body.text("reason"), desk, request.audit), desk)


def merge(request: Request, desk: Desk) -> tuple[int, Any]:
    """{"into", "reason"}"""
    body = request.body(("by", "into", "reason"))
    order, by = order_of(request, desk), _by(request, body)
    reason, into = body.text("reason"), desk.orders.get(body.text("into", most=LONGEST_REFERENCE))
    if into is None:
        raise BadRequestError("into", "no such work order")
    return _decided(deciding.merge(order, into, by, reason, desk, request.audit), desk)


def close(request: Request, desk: Desk) -> tuple[int, Any]:
    """{"finding", "note"?, "found_failure"?}; of a closed order it is a correction."""
    body = request.body(("by", "finding", "note", "found_failure"))
    order, by = order_of(request, desk), _by(request, body)
    finding = body.choice("finding", closing.FINDINGS)
    note = body.text("note", is_needed=False)
    found_failure = body.text("found_failure", is_needed=False, most=MAX_NAME)
    return _decided(deciding.close(order, by, finding, note, found_failure, desk, request.audit), desk)


def replay(request: Request, desk: Desk) -> tuple[int, Any]:
    """{"reason"?}"""
    body = request.body(("by", "reason"))
    order, by = order_of(request, desk), _by(request, body)
    return _decided(
        deciding.replay(order, by, body.text("reason", is_needed=False), desk, request.audit), desk
    )


def escape(request: Request, desk: Desk) -> tuple[int, Any]:
    """{"asset_id", "failure_mode", "found_at", "note"?}: a fault that no order pointed at."""
    body = request.body(("by", *escapes.FIELDS))
    reported = {name: value for name, value in request.content().items() if name != "by"}
    asset = next((one for one in registry(desk) if one.get("asset_id") == reported.get("asset_id")), None)
    try:
        told = escapes.record(
            desk,
            outcomes(),
            reported,
            by=_by(request, body),
            order_days=float(os.environ["ORDER_DAYS"]),
            asset=asset,
        )
    except escapes.OrderPointsAtItError as error:
        raise ConflictError(str(error), desk.orders.get(error.reference)) from error
    except ValueError as error:
        raise named(error) from error
    return 201, told


def _by(request: Request, body: Body) -> str:
    """Who decides: whom the console names, else the body's `by` (consoles of releases before 0.3)."""
    return request.user or person("by", body.text("by", most=MAX_NAME))


def _decided(order: WorkOrder, desk: Desk) -> tuple[int, Any]:
    return 200, detailed(order, desk)
