# SPDX-License-Identifier: Apache-2.0
"""IBM Maximo Manage, work orders of an object structure over the REST/JSON API (`/maximo/api/os/mxapiwo`).

From IBM's "Maximo NextGen REST API" guide and published examples: header `apikey`; `lean=1` for names without
namespaces; `oslc.where`, `oslc.select`, `oslc.orderBy`, `oslc.pageSize`; {"member": […], "responseInfo": {…}}; a POST
answers 201 with `location` and, where the header `properties` asks for it, the resource; an update is a POST with
`x-method-override: PATCH`, children are added with `patchtype: MERGE`; errors are {"Error": {"reasonCode": "BMXAA…E",
"message", "statusCode", "extendedError"}}. LWREFERENCE, LWFINDING and LWFOUND are attributes that a plant adds. Not from
documentation: the lengths, which are those of a default database as it is known in the field.
"""

import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from linewatch_plant.erp_simulators.creating import creating, finding, noting
from linewatch_plant.erp_simulators.state import Product, State, state_of, unavailable

PATH = "/maximo/api/os/mxapiwo"
LENGTHS = {
    "description": 100, "description_longdescription": 32000, "assetnum": 25, "siteid": 8, "orgid": 8, "location": 25,
    "worktype": 5, "reportedby": 30, "failurecode": 8, "problemcode": 8, "externalrefid": 10, "lwreference": 20,
    "reportdate": 30,
}  # fmt: skip
NUMBERS = ("wopriority",)
STATUS_OF = {"open": "WAPPR", "in_progress": "INPRG", "completed": "COMP", "cancelled": "CAN"}
WHERE = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def _error(status: int, what: str, code: str = "BMXAA4195E") -> Response:
    more = {"moreInfo": {"href": f"https://maximo.example.com/maximo/api/error/messages/{code}"}}
    said = what if what.startswith("BMXAA") else f"{code} - {what}"
    return JSONResponse(
        {"Error": {"extendedError": more, "reasonCode": code, "message": said, "statusCode": str(status)}},
        status,
    )


def _refused(request: Request, erp: State) -> Response | None:
    if erp.faults.strikes("down"):
        return erp.spoilt("down", unavailable())
    if not erp.is_secret(request.headers.get("apikey", "")):
        erp.calls["unauthorized"] += 1
        return _error(401, "The API key is not valid.", "BMXAA0021E")
    return None


def _fault(body: Mapping[str, Any]) -> tuple[str, str] | None:
    for name, value in body.items():
        if why := _wrong(name, value):
            return why
    for name in ("siteid", "description"):
        if not body.get(name):
            return "BMXAA4195E", f"A value is required for the {name.upper()} field on the WORKORDER object."
    if str(body.get("assetnum", "")).startswith("UNKNOWN"):
        return "BMXAA2661E", f"{body['assetnum']} is not a valid asset."
    return None


def _wrong(name: str, value: Any) -> tuple[str, str] | None:
    if name in NUMBERS:
        is_good = isinstance(value, int) and 0 <= value <= 999
        return None if is_good else ("BMXAA4087E", f"The value {value} of {name} is not valid.")
    if name not in LENGTHS:
        return "BMXAA8727E", f"The attribute {name} is not part of the object structure MXAPIWO."
    if not isinstance(value, str):
        return "BMXAA4087E", f"The value of {name} is not valid."
    if len(value) > LENGTHS[name]:
        return (
            "BMXAA4049E",
            f"The value specified {value[:20]}... exceeds the maximum field length of {LENGTHS[name]}.",
        )
    return None


def _member(order: Mapping[str, Any], names: str) -> dict[str, Any]:
    wanted = {name for name in re.sub(r"\w+\{[^}]*\}", "", names).split(",") if name}
    row = {"href": f"https://maximo.example.com{PATH}/{order['href']}", "_rowstamp": "12345"}
    row |= {name: value for name, value in order.items() if name in wanted or wanted == {"*"}}
    if "worklog" in names:
        row["worklog"] = order["worklog"]
    return row


async def _create(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    body = await request.json()
    if fault := _fault(body):
        erp.calls["invalid"] += 1
        return _error(400, fault[1], fault[0])

    def make() -> dict[str, Any]:
        order = {
            **body, "wonum": str(1000 + len(erp.orders) + 1), "href": "_" + secrets.token_urlsafe(12), "status": "WAPPR",
            "status_description": "Waiting on Approval", "worklog": [], "statusdate": _now(), "changeby": "LINEWATCH",
        }  # fmt: skip
        order["id"] = f"{order['siteid']}/{order['wonum']}"
        return erp.add(order)

    def answer(order: dict[str, Any]) -> Response:
        wanted = request.headers.get("properties", "")
        location = f"https://maximo.example.com{PATH}/{order['href']}"
        if not wanted:
            return Response(status_code=201, headers={"location": location})
        return JSONResponse(_member(order, wanted), 201, {"location": location})

    return await creating(erp, make, answer, _error, refuse_status=400)


async def _find(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    if request.query_params.get("lean") != "1":
        return _error(400, "This simulator speaks lean JSON only.", "BMXAA8729E")
    where = request.query_params.get("oslc.where", "")
    conditions = WHERE.findall(where)
    if " and ".join(f'{name}="{value}"' for name, value in conditions) != where:
        return _error(400, f"The where clause {where} is not valid.", "BMXAA8740E")
    for name, _ in conditions:
        if name not in LENGTHS and name not in {"wonum", "status"}:
            return _error(400, f"The attribute {name} is not valid.", "BMXAA8727E")

    def search() -> Response:
        found = [o for o in erp.orders if all(str(o.get(name, "")) == value for name, value in conditions)]
        if request.query_params.get("oslc.orderBy", "").startswith("-"):
            found.reverse()
        if [name for name, _ in conditions] == ["siteid", "wonum"]:
            found = [erp.answered_for(order) or order for order in found]
        size = int(request.query_params.get("oslc.pageSize", "100"))
        members = [_member(order, request.query_params.get("oslc.select", "")) for order in found[:size]]
        return JSONResponse(
            {"member": members, "responseInfo": {"href": str(request.url.path), "pagenum": 1}}
        )

    return await finding(erp, search, _error)


async def _update(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    order = erp.order("href", request.path_params["href"])
    if order is None:
        return _error(404, "The resource does not exist.", "BMXAA8744E")
    if request.headers.get("x-method-override") != "PATCH":
        return _error(405, "The method is not supported.", "BMXAA8743E")
    body = await request.json()
    if status := body.get("status"):
        order["status"] = status
        return Response(status_code=204)
    logs = body.get("worklog", [])
    if any(len(log.get("description", "")) > 100 for log in logs):
        return _error(400, "The value specified exceeds the maximum field length of 100.", "BMXAA4049E")

    def add() -> Response:
        if request.headers.get("patchtype") == "MERGE":
            order["worklog"].extend({**log, "createdate": _now(), "createby": "LINEWATCH"} for log in logs)
        elif "worklog" in body:
            order["worklog"] = list(logs)  # without MERGE the children are replaced
        return Response(status_code=204)

    return await noting(erp, add, _error)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _shown(order: dict[str, Any]) -> Mapping[str, Any]:
    return {
        "id": order["id"],
        "external_reference": order.get("lwreference", ""),
        "status": order["status"],
        "title": order["description"],
        "equipment_id": order.get("assetnum", ""),
        "asset_id": order.get("assetnum", ""),
        "priority": order.get("wopriority", ""),
        "notes": [log.get("description_longdescription", log["description"]) for log in order["worklog"]],
    }


def _technician(order: dict[str, Any], entered: Mapping[str, str]) -> None:
    order["status"] = STATUS_OF[entered["state"]]
    names = {"finding": "lwfinding", "found_failure": "lwfound", "by": "changeby", "at": "actfinish"}
    order.update({theirs: entered[ours] for ours, theirs in names.items() if ours in entered})
    if "note" in entered:
        order["worklog"].append({"description": entered["note"][:100], "createby": entered.get("by", "")})


PRODUCT = Product(
    "maximo",
    [
        Route(PATH, _create, methods=["POST"]),
        Route(PATH, _find, methods=["GET"]),
        Route(PATH + "/{href}", _update, methods=["POST"]),
    ],
    _shown,
    _technician,
)
