# SPDX-License-Identifier: Apache-2.0
"""An address of the console and who may use it: said once, enforced here, walked by tests/test_roles.py."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from linewatch_console.access import Access
from linewatch_console.people import Role

Handler = Callable[[Request], Awaitable[Response]]
Refused = Callable[[Request, Role], Awaitable[None]]
"""Told of a request that a role does not allow."""


@dataclass(frozen=True, slots=True)
class Address:
    """`role`: the least that may use it; None: everybody, signed in or not. `is_page`: a person types it."""

    path: str
    handler: Handler
    role: Role | None
    method: str = "GET"
    is_page: bool = False

    def route(self, access: Access, refused: Refused) -> Route:
        """The route, with its handler behind the checks."""

        @functools.wraps(self.handler)
        async def checked(request: Request) -> Response:
            return await _refusal(self, access, refused, request) or await self.handler(request)

        return Route(self.path, checked, methods=[self.method])


async def _refusal(address: Address, access: Access, refused: Refused, request: Request) -> Response | None:
    if address.role is None:
        return None
    person = access.person(request)
    if person is None:
        return sign_in_first(address.is_page)
    # A form can't send a header; its handler checks the token in its body.
    if address.method == "POST" and not address.is_page and (why := access.why_not_change(request)):
        return JSONResponse({"error": why}, 403)
    if not person.may(address.role):
        await refused(request, address.role)
        return JSONResponse({"error": f"this needs the role {address.role}; yours is {person.role}"}, 403)
    session = access.session(request)
    if session is not None:
        access.sessions.use(session)
    return None


def sign_in_first(is_page: bool) -> Response:
    """Where to sign in, for a page; that it is needed, for a script."""
    if is_page:
        return RedirectResponse("/login", status_code=303)
    return JSONResponse({"error": "sign in first"}, 401)
