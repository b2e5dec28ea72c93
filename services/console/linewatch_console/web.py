# SPDX-License-Identifier: Apache-2.0
"""Every address of the console, with the least role that may use it, on one screen."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from linewatch_console import api, pages, pages_oidc
from linewatch_console.addresses import Address
from linewatch_console.answers import Console, person_of
from linewatch_console.guard import Guard
from linewatch_console.people import Role

_STATIC = Path(__file__).parent / "static"

ADDRESSES = (
    Address("/healthz", pages.healthz, None),
    Address("/login", pages.login_page, None),
    Address("/login", pages.login, None, "POST"),
    Address("/oidc/start", pages_oidc.start, None),
    Address("/oidc/callback", pages_oidc.callback, None),
    Address("/metrics", pages.metrics, "viewer"),
    Address("/api/stream", pages.stream, "viewer"),
    Address("/api/me", api.me, "viewer"),
    Address("/api/work-orders", api.work_orders, "viewer"),
    Address("/api/work-orders/{reference}", api.work_order, "viewer"),
    Address("/api/work-orders/{reference}/why", api.why, "viewer"),
    Address("/api/verify/{reference}", api.verify, "viewer"),
    Address("/api/accuracy", api.accuracy, "viewer"),
    Address("/api/pilot-exit", api.pilot_exit, "viewer"),
    Address("/api/policy", api.policy, "viewer"),
    Address("/api/assets", api.assets, "viewer"),
    Address("/evidence/{path:path}", pages.evidence, "viewer"),
    Address("/logout", pages.logout, "viewer", "POST", is_page=True),
    Address("/api/work-orders/{reference}/{verb}", api.decide, "approver", "POST"),
    Address("/api/escapes", api.escape, "approver", "POST"),
    Address("/api/policy", api.put_policy, "admin", "POST"),
    Address("/api/audit", api.audit, "admin"),
    Address("/", pages.page, "viewer", is_page=True),
)
"""Nothing else answers but /static, which is open: the page's own scripts and styles."""


def create_app(console: Console) -> Starlette:
    """The application."""
    console.hub.snapshot = console.snapshot

    async def refused(request: Request, role: Role) -> None:
        detail = {"address": request.url.path[:200], "needs": role, "from": console.address_of(request)}
        await console.audit.noise("refused", person_of(request).name, detail)

    routes = [address.route(console.access, refused) for address in ADDRESSES]
    app = Starlette(
        routes=[*routes, Mount("/static", StaticFiles(directory=_STATIC))],
        middleware=[Middleware(Guard, access=console.access)],
    )
    # Its redirects would lead to whatever name the request's Host header has.
    app.router.redirect_slashes = False
    app.state.console = console
    return app
