# SPDX-License-Identifier: Apache-2.0
"""Every route of the API, who may take it, and what answers. docs/approving.md tells people what each is for.

A route answers with a status and what becomes JSON. Errors are raised and become answers in handler.py: BadRequestError
400, ForbiddenError 403, NotFoundError 404, ConflictError 409 with the order as it is now.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api import decisions, evidence, orders, policies, reporting, summaries, webhook
from api.errors import ForbiddenError, NotFoundError
from api.request import ROLES, Request, Role
from work_orders.observing import Desk

Answer = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path. `{name}` stands for one part of the path, `{name+}` for all that are left."""

    method: str
    path: str
    # The least role; None: open to whoever can sign what it sends.
    role: Role | None
    answer: Callable[[Request, Desk], Answer]


ROUTES = (
    Route("GET", "summary", "viewer", summaries.summary),
    Route("GET", "work-orders", "viewer", orders.page),
    Route("GET", "work-orders/{reference}", "viewer", orders.detail),
    Route("GET", "work-orders/{reference}/why", "viewer", orders.explained),
    Route("POST", "work-orders/{reference}/approve", "approver", decisions.approve),
    Route("POST", "work-orders/{reference}/reject", "approver", decisions.reject),
    Route("POST", "work-orders/{reference}/merge", "approver", decisions.merge),
    Route("POST", "work-orders/{reference}/close", "approver", decisions.close),
    Route("POST", "work-orders/{reference}/replay", "approver", decisions.replay),
    Route("POST", "escapes", "approver", decisions.escape),
    Route("GET", "accuracy", "viewer", reporting.accuracy),
    Route("GET", "pilot-exit", "viewer", reporting.pilot_exit),
    Route("GET", "events/{event_id}", "viewer", summaries.event),
    Route("GET", "evidence", "viewer", evidence.address),
    Route("GET", "records/{chain+}", "viewer", orders.chain),
    Route("GET", "assets", "viewer", summaries.assets),
    Route("GET", "policy", "viewer", policies.current),
    Route("PUT", "policy", "admin", policies.put),
    Route("POST", "erp/events", None, webhook.hint),
)


def route_of(request: Request) -> tuple[Route, Request]:
    """The route and the request at its place. Raises NotFoundError."""
    for route in ROUTES:
        place = _place(route.path.split("/"), request.path)
        if place is not None and route.method == request.method:
            return route, request.at(place)
    raise NotFoundError("no such resource")


def admit(route: Route, request: Request) -> None:
    """Raises ForbiddenError where the role is not enough."""
    if route.role is not None and ROLES.index(request.role) < ROLES.index(route.role):
        raise ForbiddenError(f"{request.role} may not do this; {route.role} may")


def _place(pattern: Sequence[str], path: Sequence[str]) -> Mapping[str, str] | None:
    place: dict[str, str] = {}
    for position, part in enumerate(pattern):
        if part.endswith("+}"):
            rest = "/".join(path[position:])
            return {**place, part[1:-2]: rest} if rest else None
        if position >= len(path):
            return None
        if part.startswith("{"):
            place[part[1:-1]] = path[position]
        elif part != path[position]:
            return None
    return place if len(path) == len(pattern) else None
