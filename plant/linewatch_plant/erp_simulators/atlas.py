# SPDX-License-Identifier: Apache-2.0
"""Atlas CMMS (Grashjs/cmms), work orders.

From its source: WorkOrderController (POST /work-orders answers 200 with the order; POST /work-orders/search takes
{filterFields, pageNum, pageSize, sortField, direction} and answers a page with `content`), CommentController, Comment
search by work order, newest first and mixed with system entries, ApiKeyAuthFilter (an unknown X-API-Key leaves the call
anonymous, so it ends as 403, never 401), WorkOrderBase (title needed and a varchar(255), description 10,000),
GlobalExceptionHandlerController ({"success": false, "message"}; an error of the database is a 500), RateLimitFilter (429).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from linewatch_plant.erp_simulators.creating import creating, finding, noting
from linewatch_plant.erp_simulators.state import Product, State, state_of, unavailable

FIELDS = {"title", "description", "priority", "asset", "location", "team", "dueDate", "estimatedDuration", "category",
          "customFields", "primaryUser"}  # fmt: skip
PRIORITIES = ("NONE", "LOW", "MEDIUM", "HIGH")
STATUS_OF = {"open": "OPEN", "in_progress": "IN_PROGRESS", "completed": "COMPLETE", "cancelled": "OPEN"}
# Columns of the table: longer texts are an error of the database.
LENGTHS = {"title": 255, "description": 10000}


def _error(status: int, what: str) -> Response:
    return JSONResponse({"success": False, "message": what}, status)


def _refused(request: Request, erp: State) -> Response | None:
    if erp.faults.strikes("down"):
        return erp.spoilt("down", unavailable())
    if not erp.is_secret(request.headers.get("x-api-key", "")):
        erp.calls["unauthorized"] += 1
        return _error(403, "Access is denied")
    return None


def _public(order: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in order.items() if name != "comments"}


async def _create(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    body = await request.json()
    if unknown := set(body) - FIELDS:
        return _error(500, f"JSON parse error: Unrecognized field {sorted(unknown)[0]!r}")
    if body.get("title") is None:
        erp.calls["invalid"] += 1
        return _error(400, "must not be null")
    if body.get("priority", "NONE") not in PRIORITIES:
        return _error(500, "JSON parse error: Cannot deserialize value of type `Priority`")
    for name, length in LENGTHS.items():
        if len(body.get(name) or "") > length:
            erp.calls["invalid"] += 1
            return _error(
                500, f"could not execute statement: value too long for type character varying({length})"
            )

    def make() -> dict[str, Any]:
        number = len(erp.orders) + 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        order = {
            "priority": "NONE", **body, "id": number, "customId": f"WO{number:06d}", "status": "OPEN", "archived": False,
            "createdAt": now, "feedback": None, "completedBy": None, "completedOn": None, "comments": [],
        }  # fmt: skip
        return erp.add(order)

    return await creating(erp, make, lambda order: JSONResponse(_public(order)), _error, refuse_status=406)


async def _search(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    body = await request.json()

    def search() -> Response:
        found = [
            order for order in erp.orders if all(_holds(order, term) for term in body.get("filterFields", []))
        ]
        if body.get("direction", "ASC") == "DESC":
            found.reverse()
        size, page = body.get("pageSize", 10), body.get("pageNum", 0)
        content = [_public(order) for order in found[page * size : (page + 1) * size]]
        last = (page + 1) * size >= len(found)
        return JSONResponse({"content": content, "totalElements": len(found), "number": page, "last": last})

    return await finding(erp, search, _error)


def _holds(order: Mapping[str, Any], term: Mapping[str, Any]) -> bool:
    known = str(order.get(term["field"], ""))
    if term["operation"] == "eq":
        return known == str(term["value"])
    # `cn` is an SQL LIKE between two %, lower case, and what the caller wrote is not escaped.
    pattern = re.escape(str(term["value"]).lower()).replace("%", ".*").replace("_", ".")
    return re.search(pattern, known.lower(), re.DOTALL) is not None


async def _one(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    order = erp.answered_for(erp.order("id", request.path_params["id"]))
    return JSONResponse(_public(order)) if order else _error(404, "Not found")


async def _change_status(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    order = erp.order("id", request.path_params["id"])
    if order is None:
        return _error(404, "Not found")
    order["status"] = (await request.json())["status"]
    return JSONResponse(_public(order))


async def _comments(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    order = erp.order("id", request.path_params["id"])
    if order is None:
        return _error(404, "Not found")
    system = {"id": 99999, "content": "Work order created", "system": True, "createdAt": order["createdAt"]}
    return JSONResponse([*reversed(order["comments"]), system])


async def _comment(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    body = await request.json()
    order = erp.order("id", (body.get("workOrder") or {}).get("id"))
    if order is None or not body.get("content"):
        return _error(400, "must not be null")

    def add() -> Response:
        comment = {"id": len(order["comments"]) + 1, "content": body["content"], "system": False,
                   "createdAt": datetime.now(UTC).isoformat(timespec="milliseconds")}  # fmt: skip
        order["comments"].append(comment)
        return JSONResponse(comment)

    return await noting(erp, add, _error)


async def _assets(request: Request) -> Response:
    """Every asset is known by its serial number but those that begin with UNKNOWN."""
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    (term,) = (await request.json())["filterFields"]
    value = str(term["value"])
    known: list[dict[str, Any]] = []
    if not value.startswith("UNKNOWN"):
        known = [{"id": 500 + len(value), term["field"]: value}]
    if erp.faults.strikes("assets_of_others"):
        erp.calls["assets_of_others"] += 1
        known = [{"id": 1, term["field"]: "PRESS-1"}, *known]
    return JSONResponse({"content": known, "totalElements": len(known), "number": 0, "last": True})


def _shown(order: dict[str, Any]) -> Mapping[str, Any]:
    bracket = re.search(r"\[([^\[\]]*)\]\Z", order["title"])
    return {
        "id": str(order["id"]),
        "external_reference": bracket[1] if bracket else "",
        "status": order["status"],
        "title": order["title"],
        "equipment_id": (order.get("asset") or {}).get("id", ""),
        "priority": order["priority"],
        "created_at": order["createdAt"],
        "notes": [comment["content"] for comment in order["comments"]],
    }


def _technician(order: dict[str, Any], entered: Mapping[str, str]) -> None:
    order["status"] = STATUS_OF[entered["state"]]
    order["archived"] = entered["state"] == "cancelled"
    # One free text is all that a technician is asked for; the plant agrees on its first words.
    told = [entered[name] for name in ("finding", "found_failure") if name in entered]
    order["feedback"] = "; ".join(
        [" ".join(told[:1]), *told[1:], *([entered["note"]] if "note" in entered else [])]
    )
    if "by" in entered:
        order["completedBy"] = {"id": 3, "firstName": entered["by"], "lastName": ""}
    if "at" in entered:
        order["completedOn"] = entered["at"]


PRODUCT = Product(
    "atlas",
    [
        Route("/work-orders", _create, methods=["POST"]),
        Route("/work-orders/search", _search, methods=["POST"]),
        Route("/work-orders/{id:int}", _one, methods=["GET"]),
        Route("/work-orders/{id:int}/change-status", _change_status, methods=["PATCH"]),
        Route("/comments/search/{id:int}", _comments, methods=["POST"]),
        Route("/comments", _comment, methods=["POST"]),
        Route("/assets/search", _assets, methods=["POST"]),
    ],
    _shown,
    _technician,
)
