# SPDX-License-Identifier: Apache-2.0
"""The JSON addresses: who one is, work orders and what is decided on them, reports. Handlers translate."""

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from linewatch_console import putting
from linewatch_console.answers import body_of, console_of, person_of, problem, told
from linewatch_console.audit import AuditError
from linewatch_console.cloud_api import CloudAway, CloudRefused
from linewatch_console.decisions import VERBS, Escape, NotADecision, asked

_REFERENCE = re.compile(r"[A-Za-z0-9_-]{1,80}")
_VALUE = re.compile(r"[A-Za-z0-9_.:@+/= -]{1,600}")
_ERRORS = (CloudAway, CloudRefused)


async def me(request: Request) -> Response:
    """Who asks, with the token for what this person changes."""
    console = console_of(request)
    person = person_of(request)
    answer = JSONResponse({})
    session = console.access.session(request)
    if session is None:  # on loopback, where nobody signs in
        session = console.access.begin(request, answer, person, "none")
    content = {"name": person.name, "role": person.role, "csrf": session.token, "sign_in": console.sign_in}
    answer.body = answer.render(content)
    answer.headers["content-length"] = str(len(answer.body))
    return answer


async def work_orders(request: Request) -> Response:
    """Orders by status, limit and asset_id; `next` of an answer asks for the page after it."""
    try:
        query = _query(request, "status", "limit", "asset_id", "next")
        return JSONResponse(await console_of(request).orders.listed(query))
    except _ERRORS as error:
        return told(error)


async def work_order(request: Request) -> Response:
    """One work order with its history."""
    reference = request.path_params["reference"]
    if not _REFERENCE.fullmatch(reference):
        return problem(404, "there is no such work order")
    try:
        return JSONResponse(await console_of(request).orders.order(reference))
    except _ERRORS as error:
        return told(error)


async def why(request: Request) -> Response:
    """Everything that led to an order."""
    reference = request.path_params["reference"]
    if not _REFERENCE.fullmatch(reference):
        return problem(404, "there is no such work order")
    try:
        return JSONResponse(await console_of(request).reports.why(reference))
    except _ERRORS as error:
        return told(error)


async def verify(request: Request) -> Response:
    """Whether the records of an order hold together, reckoned here."""
    reference = request.path_params["reference"]
    if not _REFERENCE.fullmatch(reference):
        return problem(404, "there is no such work order")
    try:
        return JSONResponse(await console_of(request).reports.verify(reference))
    except _ERRORS as error:
        return told(error)


async def decide(request: Request) -> Response:
    """Approves, rejects, merges or closes a work order."""
    reference, verb = request.path_params["reference"], request.path_params["verb"]
    if verb not in VERBS or not _REFERENCE.fullmatch(reference):
        return problem(404, "there is no such decision")
    return await _decided(request, verb, reference)


async def escape(request: Request) -> Response:
    """Reports a failure that no work order told of."""
    return await _decided(request, "escape", "")


async def accuracy(request: Request) -> Response:
    """How often the technicians found what the orders said."""
    return await _report(request, "/accuracy", "months", "by", "per")


async def pilot_exit(request: Request) -> Response:
    """Whether orders may be created without asking."""
    return await _report(request, "/pilot-exit", "risk", "confidence", "by", "since", "months")


async def policy(request: Request) -> Response:
    """The policy that holds, and who put which version when."""
    try:
        return JSONResponse(await putting.shown(console_of(request).orders))
    except _ERRORS as error:
        return told(error)


async def put_policy(request: Request) -> Response:
    """Makes another document the policy that holds."""
    console = console_of(request)
    try:
        document, base = putting.read(await body_of(request, putting.LARGEST_BODY_BYTES))
        answer = await putting.put(
            console.orders, console.deciding, person_of(request), console.address_of(request), document, base
        )
        return JSONResponse(answer)
    except putting.NotAPolicy as error:
        return problem(400, str(error))
    except AuditError as error:
        return problem(503, str(error), outcome="not_sent")
    except _ERRORS as error:
        return told(error)


async def assets(request: Request) -> Response:
    """The asset registry."""
    return await _report(request, "/assets")


async def audit(request: Request) -> Response:
    """What was done through this console, newest first, and whether the log holds together."""
    limit = request.query_params.get("limit", "100")
    if not re.fullmatch(r"[0-9]{1,4}", limit):
        return problem(400, "limit must be a number from 1 to 1000")
    try:
        return JSONResponse(await console_of(request).audit.shown(min(1000, max(1, int(limit)))))
    except AuditError as error:
        return problem(503, str(error))


async def _decided(request: Request, verb: str, reference: str) -> Response:
    console = console_of(request)
    try:
        content = json.loads(await body_of(request) or "null")
        body = asked(VERBS.get(verb, Escape), content)
    except NotADecision as error:
        return problem(400, str(error))
    except (ValueError, RecursionError):
        return problem(400, "the body must be JSON")
    try:
        answer = await console.deciding.decide(
            person_of(request), console.address_of(request), verb, reference, body
        )
        return JSONResponse(answer)
    except AuditError as error:
        return problem(503, str(error), outcome="not_sent")
    except _ERRORS as error:
        return told(error)


async def _report(request: Request, path: str, *names: str) -> Response:
    try:
        return JSONResponse(await console_of(request).orders.api.document(path, _query(request, *names)))
    except _ERRORS as error:
        return told(error)


def _query(request: Request, *names: str) -> Mapping[str, Any]:
    """Of the request's query what goes on to the cloud. Raises CloudRefused."""
    query = {name: request.query_params[name] for name in names if request.query_params.get(name)}
    for name, value in query.items():
        if not _VALUE.fullmatch(value):
            raise CloudRefused(400, f"{name}: letters, digits and _ . : @ + / = - only, at most 600")
    return query
