# SPDX-License-Identifier: Apache-2.0
"""The two addresses of signing in with an identity provider: the way there and the way back."""

import logging

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from linewatch_console.answers import console_of, problem
from linewatch_console.oidc import FLOW_LASTS_S
from linewatch_console.oidc_provider import ProviderAway, TokenRefused
from linewatch_console.pages import login_form, message, signed_in
from linewatch_console.sign_in import Known, sign_ins

log = logging.getLogger(__name__)

FLOW = "linewatch_oidc"


async def start(request: Request) -> Response:
    """Leads to the provider."""
    console = console_of(request)
    if console.oidc is None:
        return problem(404, "no identity provider is set (CONSOLE_OIDC_ISSUER)")
    try:
        address, browser = await console.oidc.begin()
    except ProviderAway as error:
        log.warning("oidc_away", extra={"reason": str(error)})
        return login_form(console, f"Signing in with your organisation does not work now: {error}.", 503)
    answer = RedirectResponse(address, status_code=303)
    access = console.access
    access.set_cookie(answer, access.cookie_name(FLOW), browser, FLOW_LASTS_S, is_lax=True)
    return answer


async def callback(request: Request) -> Response:
    """Where the provider leads back to."""
    console = console_of(request)
    if console.oidc is None:
        return problem(404, "no identity provider is set (CONSOLE_OIDC_ISSUER)")
    flow = console.access.cookie_name(FLOW)
    try:
        known = await console.oidc.end(dict(request.query_params), request.cookies.get(flow, ""))
    except ProviderAway as error:
        log.warning("oidc_away", extra={"reason": str(error)})
        return login_form(console, f"Signing in with your organisation does not work now: {error}.", 503)
    except TokenRefused as error:
        sign_ins.labels("refused").inc()
        log.warning("oidc_refused", extra={"reason": str(error)})
        why = {"from": console.address_of(request), "why": str(error), "how": "oidc"}
        await console.audit.noise("sign_in_failed", "", why)
        return login_form(console, f"You are not signed in: {error}.", 403)
    # A page of our own, not a redirect: after one from another site a browser would not send the Strict cookie.
    answer: HTMLResponse = message("You are signed in.", "/", "Go on", go=True)
    sign_ins.labels("right").inc()
    await signed_in(console, request, answer, Known(known.person, ""), "oidc", known.leave_url, known.subject)
    console.access.delete_cookie(answer, flow, is_lax=True)
    return answer
