# SPDX-License-Identifier: Apache-2.0
"""SAP S/4HANA, maintenance notifications over OData 2 (API_MAINTNOTIFICATION).

Lengths, upper-case conversion and which fields may be set at creation are those of the service's published metadata
(api.sap.com, OP_API_MAINTNOTIFICATION; read as CDS import of the EDMX). CSRF tokens belong to a session's cookie and end
with it: 403 with `x-csrf-token: Required` (SAP Gateway documentation). RequestID and RepeatabilityCreation make a POST
repeatable (SAP Gateway, "Settings for Idempotent Services"). Error bodies are OData 2's with SAP's `innererror`.
Not from documentation: that a PATCH of the editable long text adds to the text, as the app does.
"""

import base64
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from linewatch_plant.erp_simulators.creating import creating, finding, noting
from linewatch_plant.erp_simulators.rest import token
from linewatch_plant.erp_simulators.sap_metadata import STRINGS, UPPER, fault_of
from linewatch_plant.erp_simulators.state import Product, State, state_of, unavailable

SERVICE = "/sap/opu/odata/sap/API_MAINTNOTIFICATION"
PHASES = {"open": "1", "in_progress": "3", "completed": "4", "cancelled": "5"}
STATUSES = {"1": "OSNO", "3": "NOPR", "4": "NOCO", "5": "DLFL"}
EXTERNAL_ID = re.compile(r"MaintNotifExtReferenceNumber eq '((?:[^']|'')*)'\Z")

# Message /IWBEP/CM_COS 005.
OUTDATED = "NetWeaver #Idempotent Service Framework#: RequestID is outdated"
# Session cookie -> CSRF token.
_sessions: dict[str, str] = {}


def _error(status: int, what: str) -> Response:
    details = [{"code": "IM/001", "message": what, "propertyref": "", "severity": "error", "target": ""}]
    inner = {"transactionid": secrets.token_hex(16).upper(), "errordetails": details}
    message = {"lang": "en", "value": what}
    return JSONResponse({"error": {"code": "IM/001", "message": message, "innererror": inner}}, status)


def _refused(request: Request, erp: State) -> Response | None:
    if erp.faults.strikes("down"):
        return erp.spoilt("down", unavailable())
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        user, _, password = base64.b64decode(value).decode().partition(":")
        is_good = user == erp.client_id and erp.is_secret(password)
    else:
        is_good = erp.is_token(value)
    # Each call goes to one client of the system; this user is in client 100.
    if not is_good or request.query_params.get("sap-client", "100") != "100":
        erp.calls["unauthorized"] += 1
        page = "<html><head><title>Logon failed</title></head><body><h1>401 Unauthorized</h1></body></html>"
        return Response(page, 401, {"WWW-Authenticate": 'Basic realm="SAP NetWeaver"'}, "text/html")
    return None


def _csrf_refused(request: Request, erp: State) -> Response | None:
    session = request.cookies.get("SAP_SESSIONID_S4H_100", "")
    shown = request.headers.get("x-csrf-token", "")
    # Revoking ends every session, too.
    if not shown or _sessions.get(session) != shown or f"csrf {shown}" not in erp.tokens:
        erp.calls["csrf_required"] += 1
        return Response("CSRF token validation failed", 403, {"x-csrf-token": "Required"}, "text/plain")
    return None


async def _service(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    answer = JSONResponse({"d": {"EntitySets": ["MaintenanceNotification", "MaintenanceNotificationItem"]}})
    if request.headers.get("x-csrf-token", "").lower() == "fetch":
        session, csrf = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
        _sessions[session] = csrf
        erp.tokens[f"csrf {csrf}"] = float("inf")
        answer.headers["x-csrf-token"] = csrf
        answer.set_cookie("SAP_SESSIONID_S4H_100", session, path="/", httponly=True)
        answer.set_cookie("sap-usercontext", "sap-client=100", path="/")
        erp.calls["csrf"] += 1
    return answer


def _entity(order: Mapping[str, Any]) -> dict[str, Any]:
    number = order["MaintenanceNotification"]
    uri = f"{SERVICE}/MaintenanceNotification('{number}')"
    hidden = {"id", "items", "request_id"}
    return {
        "__metadata": {"id": uri, "uri": uri, "type": "API_MAINTNOTIFICATION.MaintenanceNotificationType"},
        **{name: value for name, value in order.items() if name not in hidden},
        "to_Item": {"__deferred": {"uri": f"{uri}/to_Item"}},
    }


async def _create(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp) or _csrf_refused(request, erp):
        return refused
    request_id = request.headers.get("requestid", "")
    if request_id and request.headers.get("repeatabilitycreation"):
        if not re.fullmatch(r"[0-9A-Fa-f]{32}", request_id):
            return _error(400, "RequestID is no GUID of 32 characters")
        if erp.faults.strikes("request_outdated"):
            return erp.spoilt("request_outdated", _error(400, OUTDATED))
        if known := erp.order("request_id", request_id):
            erp.calls["replayed"] += 1
            return JSONResponse({"d": _entity(known)}, 201, {"RepeatabilityResult": "accepted"})
    body = await request.json()
    if why := fault_of(body):
        erp.calls["invalid"] += 1
        return _error(400, why)

    def make() -> dict[str, Any]:
        number = f"{10000000 + len(erp.orders) + 1:012d}"
        kept = {name: value.upper() if name in UPPER else value for name, value in body.items()}
        now = datetime.now(UTC)
        return erp.add(
            {
                **kept,
                "id": number,
                "MaintenanceNotification": number,
                "NotifProcessingPhase": "1",
                "ConcatenatedActiveSystStsName": STATUSES["1"],
                "MaintNotificationLongText": kept.get("MaintNotifLongTextForEdit", ""),
                "MaintNotifLongTextForEdit": "",
                "CreationDate": _date(now),
                "NotificationCompletionDate": None,
                "CompletionTime": "PT00H00M00S",
                "items": [],
                **({"request_id": request_id} if request_id else {}),
            }
        )

    def answer(order: dict[str, Any]) -> Response:
        location = f"{SERVICE}/MaintenanceNotification('{order['MaintenanceNotification']}')"
        return JSONResponse({"d": _entity(order)}, 201, {"location": location})

    return await creating(erp, make, answer, _error, refuse_status=400)


async def _find(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    wanted = request.query_params.get("$filter", "")
    match = EXTERNAL_ID.match(wanted)
    if wanted and not match:
        return _error(400, "Invalid parametertype used at function")
    reference = match[1].replace("''", "'") if match else None

    def search() -> Response:
        found = [o for o in erp.orders if reference in (None, o.get("MaintNotifExtReferenceNumber"))]
        top = int(request.query_params.get("$top", "100"))
        if request.query_params.get("$orderby") == "MaintenanceNotification desc":
            found.reverse()
        return JSONResponse({"d": {"results": [_entity(order) for order in found[:top]]}})

    return await finding(erp, search, _error)


def _one_of(request: Request, erp: State) -> dict[str, Any] | None:
    return erp.order("MaintenanceNotification", request.path_params["number"])


async def _one(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    order = _one_of(request, erp)
    if order is None:
        return _error(404, f"Notification {request.path_params['number']} does not exist")
    if request.method == "GET":
        return JSONResponse({"d": _entity(erp.answered_for(order) or order)})
    if refused := _csrf_refused(request, erp):
        return refused
    body = await request.json()
    body = body.get("d", body)
    text = str(body.get("MaintNotifLongTextForEdit", ""))
    if len(text) > STRINGS["MaintNotifLongTextForEdit"]:
        return _error(400, "Property 'MaintNotifLongTextForEdit' has invalid value; max length is 1333")

    def add() -> Response:
        before = "" if erp.faults.long_text_replaces else order["MaintNotificationLongText"]
        order["MaintNotificationLongText"] = f"{before}\n{text}".strip()
        return Response(status_code=204)

    return await noting(erp, add, _error)


async def _items(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp):
        return refused
    order = _one_of(request, erp)
    return JSONResponse({"d": {"results": order["items"]}}) if order else _error(404, "does not exist")


async def _complete(request: Request) -> Response:
    erp = state_of(request)
    if refused := _refused(request, erp) or _csrf_refused(request, erp):
        return refused
    number = request.query_params.get("MaintenanceNotification", "").strip("'")
    order = erp.order("MaintenanceNotification", number)
    if order is None:
        return _error(404, f"Notification {number} does not exist")
    _technician(order, {"state": "completed"})
    return JSONResponse({"d": _entity(order)})


def _date(at: datetime) -> str:
    return f"/Date({int(at.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)})/"


def _shown(order: dict[str, Any]) -> Mapping[str, Any]:
    return {
        "id": order["MaintenanceNotification"],
        "external_reference": order.get("MaintNotifExtReferenceNumber", "").lower(),
        "status": order["ConcatenatedActiveSystStsName"],
        "title": order["NotificationText"],
        "equipment_id": order.get("TechnicalObject", ""),
        "asset_id": order.get("TechnicalObject", ""),
        "priority": order.get("MaintPriority", ""),
        "notes": [order["MaintNotificationLongText"]],
    }


def _technician(order: dict[str, Any], entered: Mapping[str, str]) -> None:
    order["NotifProcessingPhase"] = PHASES[entered["state"]]
    order["ConcatenatedActiveSystStsName"] = STATUSES[order["NotifProcessingPhase"]]
    if finding_code := entered.get("finding"):
        order["MaintNotificationCode"] = finding_code
    if found := entered.get("found_failure"):
        order["items"] = [{"MaintenanceNotificationItem": "0001", "MaintNotificationDamageCode": "D001",
                           "MaintNotifDamageCodeName": found}]  # fmt: skip
    if note := entered.get("note"):
        order["MaintNotificationLongText"] = f"{order['MaintNotificationLongText']}\n{note}".strip()
    if by := entered.get("by"):
        order["PersonResponsible"] = by.upper()
    if at := entered.get("at"):
        moment = datetime.fromisoformat(at).astimezone(UTC)
        order["NotificationCompletionDate"] = _date(moment)
        order["CompletionTime"] = moment.strftime("PT%HH%MM%SS")


NOTIFICATION = SERVICE + "/MaintenanceNotification"
PRODUCT = Product(
    "sap",
    [
        Route("/oauth/token", token, methods=["POST"]),
        Route(SERVICE + "/", _service, methods=["GET", "HEAD"]),
        Route(SERVICE + "/CompleteMaintNotification", _complete, methods=["POST"]),
        Route(NOTIFICATION, _create, methods=["POST"]),
        Route(NOTIFICATION, _find, methods=["GET"]),
        Route(NOTIFICATION + "('{number}')", _one, methods=["GET", "PATCH"]),
        Route(NOTIFICATION + "('{number}')/to_Item", _items, methods=["GET"]),
    ],
    _shown,
    _technician,
)
