# SPDX-License-Identifier: Apache-2.0
"""Odoo 19, `maintenance.request` over the JSON-2 API.

From Odoo's documentation (developer/reference/external_api) and addons/maintenance, addons/mail: `POST
/json/2/<model>/<method>` with the method's parameters by name, `Authorization: bearer`, `X-Odoo-Database`; 200 with the
bare result (ids for records), errors 401, 403, 404, 422, 500 as {"name", "message", "arguments", "context", "debug"}.
The reference, the finding and what was found are custom fields, as a plant adds them. A plain text in message_post is
escaped into HTML.
"""

import html
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from linewatch_plant.erp_simulators.creating import creating, finding, noting
from linewatch_plant.erp_simulators.state import Product, State, state_of, unavailable

DATABASE = "plant"
# The stages that the maintenance app brings, with their `done`.
STAGES = {1: ("New Request", False), 2: ("In Progress", False), 3: ("Repaired", True), 4: ("Scrap", True)}
STAGE_OF = {"open": 1, "in_progress": 2, "completed": 3, "cancelled": 4}
FIELDS = {
    "name": str, "description": str, "request_date": str, "equipment_id": int, "maintenance_type": str,
    "priority": str, "schedule_date": str, "maintenance_team_id": int, "stage_id": int, "company_id": int,
    "user_id": int, "archive": bool, "x_linewatch_reference": str,
}  # fmt: skip
READABLE = {
    *FIELDS,
    "id",
    "close_date",
    "x_linewatch_finding",
    "x_linewatch_found",
    "create_date",
    "write_date",
}
TECHNICIANS = {7: "Ida"}


class _OdooError(Exception):
    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status, self.name = status, name


def _error(status: int, what: str, name: str = "odoo.exceptions.ValidationError") -> Response:
    body = {
        "name": name,
        "message": what,
        "arguments": [what],
        "context": {},
        "debug": "Traceback (most recent call last):\n",
    }
    return JSONResponse(body, status)


def _refused(request: Request, erp: State) -> Response | None:
    if erp.faults.strikes("down"):
        return erp.spoilt("down", unavailable())
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not erp.is_secret(key):
        erp.calls["unauthorized"] += 1
        return _error(401, "Invalid apikey", "werkzeug.exceptions.Unauthorized")
    if request.headers.get("x-odoo-database", DATABASE) != DATABASE:
        return _error(404, "No database is selected", "werkzeug.exceptions.NotFound")
    return None


def _holds(record: Mapping[str, Any], domain: Any) -> bool:
    """A domain of plain conditions, all of which must hold."""
    if not isinstance(domain, list) or not all(isinstance(term, list) and len(term) == 3 for term in domain):
        raise _OdooError(422, "builtins.ValueError", f"Invalid domain: {domain}")
    for name, operator, value in domain:
        known = record.get(name, False)
        if operator == "=" and known != value:
            return False
        if operator == "ilike" and str(value).lower() not in str(known).lower():
            return False
        if operator not in {"=", "ilike"}:
            raise _OdooError(422, "builtins.ValueError", f"Invalid operator {operator!r}")
    return True


def _read(record: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    for name in names:
        if name not in READABLE | {"body", "done"}:
            raise _OdooError(422, "builtins.ValueError", f"Invalid field {name!r} on 'maintenance.request'")
    row = {"id": record["id"], **{name: record.get(name, False) for name in names}}
    if "stage_id" in names:
        row["stage_id"] = [record["stage_id"], STAGES[record["stage_id"]][0]]
    if row.get("user_id"):
        row["user_id"] = [row["user_id"], TECHNICIANS.get(row["user_id"], "?")]
    return row


def _checked(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name not in FIELDS:
            raise _OdooError(422, "builtins.ValueError", f"Invalid field {name!r} in 'maintenance.request'")
        if not isinstance(value, FIELDS[name]):
            raise _OdooError(422, "odoo.exceptions.ValidationError", f"Wrong value for {name}: {value!r}")
    if not values.get("name"):
        raise _OdooError(
            422, "odoo.exceptions.ValidationError", "Missing required value for the field 'Subjects' (name)"
        )
    if values.get("priority", "0") not in {"0", "1", "2", "3"}:
        raise _OdooError(
            422,
            "builtins.ValueError",
            f"Wrong value for maintenance.request.priority: {values['priority']!r}",
        )


async def _request_create(erp: State, body: Mapping[str, Any]) -> Response:
    vals = body.get("vals_list")
    if vals is None:
        raise _OdooError(
            422, "werkzeug.exceptions.UnprocessableEntity", "missing a required argument: 'vals_list'"
        )
    values = vals[0] if isinstance(vals, list) else vals
    _checked(values)

    def make() -> dict[str, Any]:
        number = len(erp.orders) + 1
        order = {"stage_id": 1, "archive": False, "maintenance_type": "corrective", **values, "id": number,
                 "create_date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"), "messages": []}  # fmt: skip
        return erp.add(order)

    def answer(order: dict[str, Any]) -> Response:
        return JSONResponse([order["id"]] if isinstance(vals, list) else order["id"])

    return await creating(erp, make, answer, _error)


async def _request_search(erp: State, body: Mapping[str, Any]) -> Response:
    domain, names = body.get("domain", []), list(body.get("fields", sorted(READABLE)))
    rows = [_read(order, names) for order in erp.orders if _holds(order, domain)]
    # The model's own order is the newest first.
    rows.sort(key=lambda row: int(row["id"]), reverse=body.get("order") != "id asc")
    return await finding(erp, lambda: JSONResponse(rows[: body.get("limit") or 80]), _error)


def _records(erp: State, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [order for order in erp.orders if order["id"] in body.get("ids", [])]
    if len(found) != len(body.get("ids", [])):
        raise _OdooError(404, "odoo.exceptions.MissingError", "Record does not exist or has been deleted.")
    return found


async def _request_read(erp: State, body: Mapping[str, Any]) -> Response:
    answered = [erp.answered_for(order) or order for order in _records(erp, body)]
    return JSONResponse([_read(order, list(body.get("fields", []))) for order in answered])


async def _request_message_post(erp: State, body: Mapping[str, Any]) -> Response:
    (order,) = _records(erp, body)

    def add() -> Response:
        text = f"<p>{html.escape(str(body.get('body', '')))}</p>"
        order["messages"].append({"id": len(order["messages"]) + 1, "body": text})
        return JSONResponse([order["messages"][-1]["id"]])

    return await noting(erp, add, _error)


async def _request_write(erp: State, body: Mapping[str, Any]) -> Response:
    vals = body.get("vals", {})
    if unknown := set(vals) - set(FIELDS):
        raise _OdooError(
            422, "builtins.ValueError", f"Invalid field {sorted(unknown)[0]!r} in 'maintenance.request'"
        )
    for order in _records(erp, body):
        order.update(vals)
    return JSONResponse(True)


async def _message_search(erp: State, body: Mapping[str, Any]) -> Response:
    messages = [
        {**message, "model": "maintenance.request", "res_id": order["id"]}
        for order in erp.orders
        for message in order["messages"]
    ]
    rows = [
        _read(message, list(body.get("fields", [])))
        for message in messages
        if _holds(message, body["domain"])
    ]
    return JSONResponse(rows[: body.get("limit") or 80])


async def _stage_read(_erp: State, body: Mapping[str, Any]) -> Response:
    return JSONResponse([{"id": at, "name": STAGES[at][0], "done": STAGES[at][1]} for at in body["ids"]])


async def _equipment_search(erp: State, body: Mapping[str, Any]) -> Response:
    """Every serial number is known but those that begin with UNKNOWN."""
    (condition,) = body["domain"]
    name, _, value = condition
    if name not in {"serial_no", "name", "x_asset_id"}:
        raise _OdooError(422, "builtins.ValueError", f"Invalid field {name!r} on 'maintenance.equipment'")
    # No fields named: all that this model has here.
    names = body.get("fields") or [name]
    known = [] if str(value).startswith("UNKNOWN") else [{"id": 1000 + len(str(value)), name: value}]
    if erp.faults.strikes("assets_of_others"):
        erp.calls["assets_of_others"] += 1
        known = [{"id": 1, name: "PRESS-1"}, *known]
    rows = [{one: record[one] for one in ("id", *names)} for record in known]
    return JSONResponse(rows[: body.get("limit") or 80])


METHODS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("maintenance.request", "create"): _request_create,
    ("maintenance.request", "search_read"): _request_search,
    ("maintenance.request", "read"): _request_read,
    ("maintenance.request", "write"): _request_write,
    ("maintenance.request", "message_post"): _request_message_post,
    ("mail.message", "search_read"): _message_search,
    ("maintenance.stage", "read"): _stage_read,
    ("maintenance.equipment", "search_read"): _equipment_search,
}


async def _call(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    model, method = request.path_params["model"], request.path_params["method"]
    if (model, method) not in METHODS:
        what = (
            f"the model {model!r} does not exist"
            if model not in {m for m, _ in METHODS}
            else f"{method} is not public"
        )
        return _error(404, what, "werkzeug.exceptions.NotFound")
    try:
        answer: Response = await METHODS[model, method](erp, await request.json())
    except _OdooError as error:
        erp.calls["invalid"] += 1
        return _error(error.status, str(error), error.name)
    return answer


def _shown(order: dict[str, Any]) -> Mapping[str, Any]:
    return {
        "id": str(order["id"]),
        "external_reference": order.get("x_linewatch_reference", ""),
        "status": STAGES[order["stage_id"]][0],
        "title": order["name"],
        "equipment_id": order.get("equipment_id", ""),
        "priority": order.get("priority", ""),
        "notes": [html.unescape(message["body"]) for message in order["messages"]],
    }


def _technician(order: dict[str, Any], entered: Mapping[str, str]) -> None:
    order["stage_id"] = STAGE_OF[entered["state"]]
    order["archive"] = entered["state"] == "cancelled"
    names = {"finding": "x_linewatch_finding", "found_failure": "x_linewatch_found"}
    order.update({theirs: entered[ours] for ours, theirs in names.items() if ours in entered})
    if "by" in entered:
        order["user_id"] = next(number for number, name in TECHNICIANS.items() if name == entered["by"])
    if "at" in entered:
        order["close_date"] = entered["at"][:10]
    if "note" in entered:
        order["messages"].append(
            {"id": len(order["messages"]) + 1, "body": f"<p>{html.escape(entered['note'])}</p>"}
        )


PRODUCT = Product("odoo", [Route("/json/2/{model}/{method}", _call, methods=["POST"])], _shown, _technician)
