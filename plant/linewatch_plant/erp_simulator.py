# SPDX-License-Identifier: Apache-2.0
"""An ERP's work orders over REST with OAuth 2, as a real one: it does NOT dedupe, so that doubles are visible.

    POST /oauth/token                        client credentials (HTTP basic) -> token
    POST /work-orders                        {"external_reference", ...} -> 201 {"id", "status", ...}
    GET  /work-orders[?external_reference=]  {"work_orders": [...]}, oldest first
    GET  /                                   the list for people
    GET  /admin/faults   PUT /admin/faults   what goes wrong next, see Faults; no token, loopback only
    GET  /admin/calls                        calls counted by what became of them
    GET  /admin/orders                       every order, whatever faults are set

State lives in memory, and in a file where one is named (`--state`), so that a restarted ERP knows its orders.
"""

import argparse
import asyncio
import base64
import hmac
import html
import json
import os
import random
import secrets
import signal
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

# How long a caller that is never answered is kept waiting, seconds; every sane time-out is shorter.
HANG_S = 120.0
# Of a simulator on loopback; a secret that everybody may know.
DEFAULT_CLIENT_ID, DEFAULT_SECRET = "linewatch", "erp-simulator-secret"

_chance = random.Random(20261121)


@dataclass(slots=True)
class Faults:
    """Each counts down with the calls it spoils; -1 = until it is set to 0."""

    # Every call, the token endpoint too, answers 503.
    down: int = 0
    # POST answers 500 and creates nothing.
    error_500: int = 0
    # POST creates the order and answers 500.
    error_500_after_create: int = 0
    # POST answers 500 and creates the order `late_ms` after it, as behind a proxy that gave up.
    error_500_create_late: int = 0
    # A setting, no count.
    late_ms: int = 1000
    # POST creates the order and never answers.
    hang_after_create: int = 0
    # POST answers 429 and creates nothing.
    too_many: int = 0
    # GET /work-orders answers 500.
    find_500: int = 0
    # POST answers 422: the ERP does not want this order.
    refuse: int = 0
    # Settings, no counts: of a hundred calls, how many are spoilt so; the same ones each time.
    error_500_percent: int = 0
    error_500_after_create_percent: int = 0
    hang_after_create_percent: int = 0
    find_500_percent: int = 0

    def strikes(self, name: str) -> bool:
        """Whether the fault spoils this call; counts it down."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left != 0 or _chance.uniform(0, 100) < getattr(self, f"{name}_percent", 0)


@dataclass(slots=True)
class State:
    """Everything that the simulator knows."""

    client_id: str
    client_secret: str
    token_life_s: float
    orders: list[dict[str, Any]] = field(default_factory=list)
    # Token -> monotonic second at which it ends.
    tokens: dict[str, float] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    calls: Counter[str] = field(default_factory=Counter)
    # Holds the orders over a restart; None: they end with the process.
    file: Path | None = None

    def add(self, order: dict[str, Any]) -> None:
        """Takes an order, on disk before it is answered."""
        self.orders.append(order)
        if self.file:
            fresh = self.file.with_suffix(".new")
            fresh.write_text(json.dumps(self.orders))
            fresh.replace(self.file)


def application(
    client_id: str, client_secret: str, token_life_s: float = 3600.0, state_file: Path | None = None
) -> Starlette:
    """The simulator as an ASGI application."""
    app = Starlette(
        routes=[
            Route("/oauth/token", _token, methods=["POST"]),
            Route("/work-orders", _create, methods=["POST"]),
            Route("/work-orders", _find, methods=["GET"]),
            Route("/admin/faults", _faults, methods=["GET", "PUT"]),
            Route("/admin/calls", _calls, methods=["GET"]),
            Route("/admin/orders", _orders, methods=["GET"]),
            Route("/", _page, methods=["GET"]),
        ]
    )
    erp = State(client_id, client_secret, token_life_s, file=state_file)
    if state_file and state_file.exists():
        erp.orders = json.loads(state_file.read_text())
    app.state.erp = erp
    return app


async def _token(request: Request) -> Response:
    erp: State = request.app.state.erp
    if erp.faults.strikes("down"):
        return _spoilt(erp, "down", 503)
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    expected = base64.b64encode(f"{erp.client_id}:{erp.client_secret}".encode())
    body = (await request.body()).decode()
    if scheme.lower() != "basic" or not hmac.compare_digest(value.encode(), expected):
        return JSONResponse({"error": "invalid_client"}, 401)
    if "grant_type=client_credentials" not in body.split("&"):
        return JSONResponse({"error": "unsupported_grant_type"}, 400)
    token = secrets.token_urlsafe(24)
    erp.tokens[token] = time.monotonic() + erp.token_life_s
    erp.calls["token"] += 1
    return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": erp.token_life_s})


async def _create(request: Request) -> Response:
    erp: State = request.app.state.erp
    if refused := _refused(request, erp):
        return refused
    for fault, status in (("error_500", 500), ("too_many", 429), ("refuse", 422)):
        if erp.faults.strikes(fault):
            return _spoilt(erp, fault, status)
    body = await request.json()
    if erp.faults.strikes("error_500_create_late"):
        late = BackgroundTask(_create_late, erp, body, erp.faults.late_ms / 1000)
        return _spoilt(erp, "error_500_create_late", 500, late)
    order = _order(erp, body)
    if erp.faults.strikes("error_500_after_create"):
        return _spoilt(erp, "error_500_after_create", 500)
    if erp.faults.strikes("hang_after_create"):
        erp.calls["hang_after_create"] += 1
        await asyncio.sleep(HANG_S)
    erp.calls["created"] += 1
    return JSONResponse(order, 201)


def _order(erp: State, body: dict[str, Any]) -> dict[str, Any]:
    number = len(erp.orders) + 1
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    order = {**body, "id": f"WO-{number}", "status": "OPEN", "created_at": created_at}
    erp.add(order)
    return order


async def _create_late(erp: State, body: dict[str, Any], late_s: float) -> None:
    await asyncio.sleep(late_s)
    _order(erp, body)
    erp.calls["created_late"] += 1


async def _find(request: Request) -> Response:
    erp: State = request.app.state.erp
    if refused := _refused(request, erp):
        return refused
    if erp.faults.strikes("find_500"):
        return _spoilt(erp, "find_500", 500)
    erp.calls["found"] += 1
    reference = request.query_params.get("external_reference")
    return JSONResponse(
        {"work_orders": [o for o in erp.orders if reference in (None, o.get("external_reference"))]}
    )


def _refused(request: Request, erp: State) -> Response | None:
    if erp.faults.strikes("down"):
        return _spoilt(erp, "down", 503)
    _, _, token = request.headers.get("authorization", "").partition(" ")
    if erp.tokens.get(token, float("-inf")) < time.monotonic():
        erp.calls["unauthorized"] += 1
        return JSONResponse({"error": "invalid_token"}, 401)
    return None


def _spoilt(erp: State, fault: str, status: int, afterwards: BackgroundTask | None = None) -> Response:
    erp.calls[fault] += 1
    return JSONResponse({"error": fault}, status, background=afterwards)


async def _faults(request: Request) -> Response:
    """PUT {"error_500": 3, "revoke_tokens": true} sets the faults that it names and leaves the others."""
    erp: State = request.app.state.erp
    if request.method == "PUT":
        wanted = await request.json()
        if wanted.pop("revoke_tokens", False):
            erp.tokens.clear()
        known = {entry.name for entry in fields(Faults)}
        if unknown := set(wanted) - known:
            return JSONResponse({"error": f"unknown: {sorted(unknown)}; known: {sorted(known)}"}, 400)
        for name, count in wanted.items():
            setattr(erp.faults, name, int(count))
    return JSONResponse(asdict(erp.faults))


async def _calls(request: Request) -> Response:
    erp: State = request.app.state.erp
    return JSONResponse(erp.calls)


async def _orders(request: Request) -> Response:
    erp: State = request.app.state.erp
    return JSONResponse({"work_orders": erp.orders})


async def _page(request: Request) -> Response:
    erp: State = request.app.state.erp
    names = (
        "id",
        "status",
        "equipment_id",
        "title",
        "priority",
        "recommended_action",
        "external_reference",
        "created_at",
    )
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(order.get(name, '')))}</td>" for name in names) + "</tr>"
        for order in reversed(erp.orders)
    )
    style = "body{font:15px system-ui;margin:2rem}td,th{padding:.4rem .8rem;text-align:left;border-bottom:1px solid #ccc}"
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5><title>ERP simulator</title>"
        f"<style>{style}</style><h1>ERP simulator: {len(erp.orders)} work orders</h1><table><tr>{head}</tr>{rows}</table>"
    )


class ErpClient:
    """What the plant and its tests ask the simulator for: orders, faults, counts of calls."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s

    def orders(self) -> list[dict[str, Any]]:
        """Every order, oldest first, whatever faults are set. Raises requests.RequestException."""
        answer = requests.get(f"{self.url}/admin/orders", timeout=self._timeout_s)
        answer.raise_for_status()
        orders: list[dict[str, Any]] = answer.json()["work_orders"]
        return orders

    def set_faults(self, **faults: int) -> None:
        """Sets the named faults, see Faults; `revoke_tokens=1` forgets every token."""
        requests.put(f"{self.url}/admin/faults", json=faults, timeout=self._timeout_s).raise_for_status()

    def calls(self) -> dict[str, int]:
        """Calls by what became of them: "created", "found", "token", "unauthorized", or the fault's name.

        "created_late": orders that came after a 500.
        """
        answer = requests.get(f"{self.url}/admin/calls", timeout=self._timeout_s)
        answer.raise_for_status()
        calls: dict[str, int] = answer.json()
        return calls

    def is_up(self) -> bool:
        """Whether it listens."""
        try:
            self.calls()
        except requests.RequestException:
            return False
        return True


def main() -> None:
    """Serves on loopback until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="ERP simulator: work orders over REST with OAuth 2")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8600)
    parser.add_argument("--client-id", default=os.environ.get("ERP_CLIENT_ID", DEFAULT_CLIENT_ID))
    parser.add_argument("--token-life-s", type=float, default=3600.0)
    parser.add_argument("--state", type=Path, help="file that keeps the orders over a restart")
    arguments = parser.parse_args()
    # The secret comes by environment, not by argument: arguments are seen by every user of the machine.
    secret = os.environ.get("ERP_CLIENT_SECRET", DEFAULT_SECRET)
    app = application(arguments.client_id, secret, arguments.token_life_s, arguments.state)
    # uvicorn sends itself the signal again once it has stopped: that is to end in order, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
        lifespan="off",
    )


if __name__ == "__main__":
    main()
