# SPDX-License-Identifier: Apache-2.0
"""One product's simulator as an ASGI application, with the same admin endpoints for all (no token, loopback only).

GET  /                         the list for people
GET  /admin/faults   PUT       what goes wrong next, see faults.py; {"revoke_tokens": 1} forgets every token
GET  /admin/calls              calls counted by what became of them
GET  /admin/orders             every order, whatever faults are set; "record" is the order as the product keeps it
PUT  /admin/orders/{id}        what a technician enters: {"state", "finding", "found_failure", "note", "by", "at"}
PUT  /admin/secret             {"client_secret": …}: from now on only this one is taken
"""

import html
import json
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from linewatch_plant.erp_simulators.faults import Faults
from linewatch_plant.erp_simulators.state import Product, State

PRODUCTS = ("rest", "sap", "odoo", "maximo", "atlas")


def application(
    client_id: str,
    client_secret: str,
    token_life_s: float = 3600.0,
    state_file: Path | None = None,
    product: str = "rest",
) -> Starlette:
    """The simulator of this product."""
    simulated: Product = import_module(f"linewatch_plant.erp_simulators.{product}").PRODUCT
    app = Starlette(
        routes=[
            *simulated.routes,
            Route("/admin/faults", _faults, methods=["GET", "PUT"]),
            Route("/admin/calls", _calls, methods=["GET"]),
            Route("/admin/orders", _orders, methods=["GET"]),
            Route("/admin/orders/{id:path}", _technician, methods=["PUT"]),
            Route("/admin/secret", _secret, methods=["PUT"]),
            Route("/", _page, methods=["GET"]),
        ]
    )
    erp = State(client_id, client_secret, token_life_s, file=state_file)
    if state_file and state_file.exists():
        erp.orders = json.loads(state_file.read_text())
    app.state.erp = erp
    app.state.product = simulated
    return app


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
    return JSONResponse({**erp.calls, "connections": len(erp.connections)})


async def _orders(request: Request) -> Response:
    erp: State = request.app.state.erp
    product: Product = request.app.state.product
    return JSONResponse({"work_orders": [{**product.shown(order), "record": order} for order in erp.orders]})


async def _technician(request: Request) -> Response:
    erp: State = request.app.state.erp
    product: Product = request.app.state.product
    wanted = request.path_params["id"]
    order = next((order for order in erp.orders if product.shown(order)["id"] == wanted), None)
    if order is None:
        return JSONResponse({"error": "no such order"}, 404)
    product.technician(order, await request.json())
    erp.keep()
    return JSONResponse(dict(product.shown(order)))


async def _secret(request: Request) -> Response:
    erp: State = request.app.state.erp
    erp.client_secret = (await request.json())["client_secret"]
    return JSONResponse({})


async def _page(request: Request) -> Response:
    erp: State = request.app.state.erp
    product: Product = request.app.state.product
    names = ("id", "status", "equipment_id", "title", "priority", "recommended_action", "external_reference",
             "created_at")  # fmt: skip
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(shown.get(name, '')))}</td>" for name in names) + "</tr>"
        for shown in map(product.shown, reversed(erp.orders))
    )
    style = "body{font:15px system-ui;margin:2rem}td,th{padding:.4rem .8rem;text-align:left;border-bottom:1px solid #ccc}"
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5><title>ERP simulator</title>"
        f"<style>{style}</style><h1>ERP simulator: {len(erp.orders)} work orders</h1><table><tr>{head}</tr>{rows}</table>"
    )
