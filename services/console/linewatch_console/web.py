# SPDX-License-Identifier: Apache-2.0
"""Every address of the console. Handlers translate; what they show is decided elsewhere."""

import asyncio
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from linewatch_console.access import Access, is_same_origin
from linewatch_console.cloud_api import CloudAway, CloudRefused
from linewatch_console.edge import Edge
from linewatch_console.event_stream import EventStream
from linewatch_console.evidence import read_evidence
from linewatch_console.guard import Guard
from linewatch_console.hub import Hub, TooManyClients
from linewatch_console.orders import Orders
from linewatch_console.settings import Settings

LARGEST_BODY_BYTES = 8 * 1024
LONGEST_REASON = 500

_REFERENCE = re.compile(r"[A-Za-z0-9_-]{1,80}")
_STATIC = Path(__file__).parent / "static"
_templates = Environment(
    loader=PackageLoader("linewatch_console"), autoescape=True, undefined=StrictUndefined
)


@dataclass(frozen=True, slots=True)
class Console:
    """What the addresses stand on."""

    settings: Settings
    access: Access
    hub: Hub
    edge: Edge
    orders: Orders

    def snapshot(self) -> dict[str, Any]:
        """Everything that a page shows."""
        return self.edge.snapshot() | {"orders": self.orders.snapshot(), "now": time.time()}


def create_app(console: Console) -> Starlette:
    """The application."""
    console.hub.snapshot = console.snapshot
    app = Starlette(
        routes=[
            Route("/", page),
            Route("/login", login, methods=["GET", "POST"]),
            Route("/logout", logout, methods=["POST"]),
            Route("/api/stream", stream),
            Route("/api/work-orders/{reference}", work_order),
            Route("/api/work-orders/{reference}/{decision}", decide, methods=["POST"]),
            Route("/evidence/{path:path}", evidence),
            Route("/healthz", healthz),
            Route("/metrics", metrics),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(Guard, access=console.access)],
    )
    app.state.console = console
    return app


async def page(request: Request) -> Response:
    """The page itself; what it shows comes by the stream."""
    console = _console(request)
    session = console.access.session(request)
    answer = HTMLResponse(headers={"Cache-Control": "no-store"})
    if session is None:
        session = console.access.open_session(answer)
    settings = console.settings
    answer.body = (
        _templates.get_template("console.html")
        .render(
            token=session.token, site=settings.site, device=settings.device, operator=settings.operator_name,
            stale_after_s=settings.stale_after_s, signs_in=console.access.asks_password,
        )
        .encode()
    )  # fmt: skip
    answer.headers["content-length"] = str(len(answer.body))
    return answer


async def login(request: Request) -> Response:
    """Asks for the password; a right one opens a session."""
    access = _console(request).access
    if not access.asks_password:
        return RedirectResponse("/", status_code=303)
    if request.method == "GET":
        return _login_page("")
    if not is_same_origin(request):
        return _login_page("The form came from another page.", 403)
    if access.is_locked():
        return _login_page("Too many wrong passwords. Wait a minute.", 429)
    offered = parse_qs((await _body(request)).decode("utf-8", "replace")).get("password", [""])[0]
    if not access.is_password(offered):
        return _login_page("That is not the password.", 401)
    answer = RedirectResponse("/", status_code=303)
    access.open_session(answer)
    return answer


async def logout(request: Request) -> Response:
    """Ends the session."""
    access = _console(request).access
    if not is_same_origin(request):
        return _problem(403, "the request does not come from this page")
    access.close_session(request)
    return RedirectResponse("/login", status_code=303)


async def stream(request: Request) -> Response:
    """Server-sent events; a page that comes back sends Last-Event-ID."""
    hub = _console(request).hub
    try:
        client = hub.attach(request.headers.get("last-event-id", ""))
    except TooManyClients:
        return _problem(503, "too many pages are open (CONSOLE_MAX_CLIENTS)")
    return EventStream(hub, client)


async def work_order(request: Request) -> Response:
    """One work order with its history."""
    reference = request.path_params["reference"]
    if not _REFERENCE.fullmatch(reference):
        return _problem(404, "there is no such work order")
    try:
        return JSONResponse(await _console(request).orders.order(reference))
    except (CloudAway, CloudRefused) as error:
        return _told(error)


async def decide(request: Request) -> Response:
    """Approves or rejects a work order."""
    console = _console(request)
    reference, decision = request.path_params["reference"], request.path_params["decision"]
    if decision not in {"approve", "reject"} or not _REFERENCE.fullmatch(reference):
        return _problem(404, "there is no such decision")
    if why := console.access.why_not_decide(request):
        return _problem(403, why)
    try:
        content = json.loads(await _body(request))
        reason = content["reason"].strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return _problem(400, "the body must be JSON with a text `reason`")
    if len(reason) > LONGEST_REASON or (decision == "reject" and not reason):
        return _problem(400, f"a reason is needed to reject, at most {LONGEST_REASON} characters")
    try:
        return JSONResponse(await console.orders.decide(reference, decision, reason))
    except (CloudAway, CloudRefused) as error:
        return _told(error)


async def evidence(request: Request) -> Response:
    """A picture, heat map or window below the evidence directory."""
    root = _console(request).settings.evidence_dir
    found = await asyncio.to_thread(read_evidence, root, request.path_params["path"])
    if found is None:
        return _problem(404, "there is no such evidence on this device")
    headers = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


async def healthz(request: Request) -> Response:
    """200 while the process serves. A network that is away is no reason to restart it, so it is told, not judged."""
    console = _console(request)
    return JSONResponse(
        {
            "state": "serving",
            "broker": "connected" if console.edge.link()["connected"] else "not connected",
            "cloud_api": console.orders.snapshot()["link"]["state"],
        }
    )


async def metrics(_request: Request) -> Response:
    """Prometheus metrics of this process."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


def _login_page(problem: str, status: int = 200) -> Response:
    body = _templates.get_template("login.html").render(problem=problem)
    return HTMLResponse(body, status, headers={"Cache-Control": "no-store"})


async def _body(request: Request) -> bytes:
    """The body, cut at LARGEST_BODY_BYTES: nothing that we ask for is longer."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY_BYTES:
            return b""
    return body


def _told(error: CloudAway | CloudRefused) -> Response:
    if isinstance(error, CloudRefused):
        return _problem(error.status if error.status in {404, 409} else 502, str(error))
    return _problem(503, f"work orders: {error}")


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)
