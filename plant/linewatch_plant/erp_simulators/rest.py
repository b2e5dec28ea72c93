# SPDX-License-Identifier: Apache-2.0
"""A generic ERP: work orders over REST with OAuth 2 client credentials.

POST /oauth/token                        client credentials (HTTP basic) -> token
POST /work-orders                        {"external_reference", ...} -> 201 {"id", "status", ...}
GET  /work-orders[?external_reference=]  {"work_orders": [...]}, oldest first
GET  /work-orders/{id}                   one order
GET  /work-orders/{id}/notes             {"notes": [{"key", "text"}]}
POST /work-orders/{id}/notes             {"key", "text"} -> 201; 409 where the key is there
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from linewatch_plant.erp_simulators.creating import creating, finding, noting
from linewatch_plant.erp_simulators.state import Product, State, state_of, unavailable

STATUSES = {"open": "OPEN", "in_progress": "IN_PROGRESS", "completed": "COMPLETED", "cancelled": "CANCELLED"}


def _error(status: int, what: str) -> Response:
    return JSONResponse({"error": what}, status)


async def token(request: Request) -> Response:
    """RFC 6749, 4.4; a client that shows itself wrongly gets 401, a wrong grant 400."""
    erp = state_of(request)
    if erp.faults.strikes("down"):
        return erp.spoilt("down", unavailable())
    if erp.faults.strikes("token_503"):
        return erp.spoilt("token_503", unavailable())
    form = parse_qs((await request.body()).decode())
    if (client_id := form.get("client_id")) and (secret := form.get("client_secret")):
        shown = (client_id[0], secret[0])
    else:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        pair = base64.b64decode(value).decode() if scheme.lower() == "basic" else ":"
        name, _, password = pair.partition(":")
        shown = (unquote_plus(name), unquote_plus(password))
    if shown[0] != erp.client_id or not erp.is_secret(shown[1]):
        erp.calls["invalid_client"] += 1
        return JSONResponse({"error": "invalid_client"}, 401)
    if form.get("grant_type") != ["client_credentials"]:
        return JSONResponse({"error": "unsupported_grant_type"}, 400)
    life_s = erp.token_life_s
    return JSONResponse({"access_token": erp.new_token(), "token_type": "Bearer", "expires_in": life_s})


def bearer_refused(request: Request, erp: State) -> Response | None:
    """The answer to a call that may not be made."""
    if erp.faults.strikes("down"):
        return erp.spoilt("down", unavailable())
    _, _, shown = request.headers.get("authorization", "").partition(" ")
    if not erp.is_token(shown):
        erp.calls["unauthorized"] += 1
        return JSONResponse({"error": "invalid_token"}, 401)
    return None


async def _create(request: Request) -> Response:
    erp = state_of(request)
    if refused := bearer_refused(request, erp):
        return refused
    body = await request.json()
    key = request.headers.get("idempotency-key", "")
    if key and (known := erp.order("idempotency_key", key)):
        erp.calls["replayed"] += 1
        return JSONResponse(known, 201)

    def make() -> dict[str, Any]:
        created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        order = {**body, "id": f"WO-{len(erp.orders) + 1}", "status": "OPEN", "created_at": created_at}
        return erp.add({**order, "idempotency_key": key} if key else order)

    return await creating(erp, make, lambda order: JSONResponse(order, 201), _error)


async def _find(request: Request) -> Response:
    erp = state_of(request)
    if refused := bearer_refused(request, erp):
        return refused
    reference = request.query_params.get("external_reference")

    def search() -> Response:
        return JSONResponse(
            {"work_orders": [o for o in erp.orders if reference in (None, o.get("external_reference"))]}
        )

    return await finding(erp, search, _error)


async def _one(request: Request) -> Response:
    erp = state_of(request)
    if refused := bearer_refused(request, erp):
        return refused
    order = erp.answered_for(erp.order("id", request.path_params["id"]))
    return JSONResponse(order) if order else _error(404, "no such order")


async def _notes(request: Request) -> Response:
    erp = state_of(request)
    if refused := bearer_refused(request, erp):
        return refused
    order = erp.order("id", request.path_params["id"])
    if order is None:
        return _error(404, "no such order")
    notes = order.setdefault("notes", [])
    if request.method == "GET":
        return JSONResponse({"notes": notes})
    note = await request.json()
    if any(known["key"] == note["key"] for known in notes):
        return _error(409, "a note with this key is there")

    def add() -> Response:
        notes.append({"key": note["key"], "text": note["text"]})
        return JSONResponse(note, 201)

    return await noting(erp, add, _error)


def _shown(order: dict[str, Any]) -> Mapping[str, Any]:
    return {**order, "notes": [note["text"] for note in order.get("notes", [])]}


def _technician(order: dict[str, Any], entered: Mapping[str, str]) -> None:
    order["status"] = STATUSES[entered["state"]]
    names = {"finding": "finding", "found_failure": "found_failure", "note": "note", "by": "completed_by",
             "at": "completed_at"}  # fmt: skip
    order.update({theirs: entered[ours] for ours, theirs in names.items() if ours in entered})


PRODUCT = Product(
    "rest",
    [
        Route("/oauth/token", token, methods=["POST"]),
        Route("/work-orders", _create, methods=["POST"]),
        Route("/work-orders", _find, methods=["GET"]),
        Route("/work-orders/{id}", _one, methods=["GET"]),
        Route("/work-orders/{id}/notes", _notes, methods=["GET", "POST"]),
    ],
    _shown,
    _technician,
)
