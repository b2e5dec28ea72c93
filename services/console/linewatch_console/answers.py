# SPDX-License-Identifier: Apache-2.0
"""What every handler needs: the console, who asks, the body, and how an error is told."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from linewatch_console.access import Access
from linewatch_console.audit import Audit
from linewatch_console.cloud_api import CloudAway, CloudRefused, CloudUnclear
from linewatch_console.deciding import Deciding
from linewatch_console.edge import Edge
from linewatch_console.hub import Hub
from linewatch_console.oidc import Oidc
from linewatch_console.orders import Orders
from linewatch_console.people import Person
from linewatch_console.remote_evidence import RemoteEvidence
from linewatch_console.reports import Reports
from linewatch_console.settings import Settings
from linewatch_console.sign_in import SignIn

LARGEST_BODY_BYTES = 8 * 1024
BODY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Console:
    """What the addresses stand on."""

    settings: Settings
    access: Access
    sign_in_by: SignIn
    oidc: Oidc | None
    hub: Hub
    edge: Edge
    orders: Orders
    deciding: Deciding
    reports: Reports
    audit: Audit
    remote_evidence: RemoteEvidence

    @property
    def sign_in(self) -> str:
        """How people sign in here: none, password, users or oidc."""
        return self.sign_in_by.kind

    def snapshot(self) -> dict[str, Any]:
        """Everything that a page shows."""
        return self.edge.snapshot() | {"orders": self.orders.snapshot(), "now": time.time()}

    def address_of(self, request: Request) -> str:
        """Where the request came from; a proxy's word counts only where CONSOLE_TRUSTED_PROXIES names it."""
        return request.client.host if request.client else ""


def console_of(request: Request) -> Console:
    """The console that this request came to."""
    console: Console = request.app.state.console
    return console


def person_of(request: Request) -> Person:
    """Who asks; only for addresses that have a role."""
    person = console_of(request).access.person(request)
    assert person is not None, "an address with a role let nobody in"
    return person


async def body_of(request: Request, most: int = LARGEST_BODY_BYTES) -> bytes:
    """The body; empty when it is longer than `most` bytes, or slower than BODY_TIMEOUT_S: no page's is."""
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    return b""
    except TimeoutError:
        return b""
    return body


def told(error: CloudAway | CloudRefused) -> Response:
    """What the cloud's no, or its silence, means to a page."""
    if isinstance(error, CloudRefused):
        status = error.status if error.status in {400, 403, 404, 409} else 502
        extra = {"order": error.order} if error.order is not None else {}
        return problem(status, str(error), **extra)
    if isinstance(error, CloudUnclear):
        message = f"{error}: it is not known whether this was taken; look again before you repeat it"
        return problem(503, message, outcome="not_known")
    return problem(503, f"work orders: {error}", outcome="not_sent")


def problem(status: int, message: str, **more: Any) -> Response:
    """An error as every address tells it."""
    return JSONResponse({"error": message, **more}, status)
