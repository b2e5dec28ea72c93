# SPDX-License-Identifier: Apache-2.0
"""The addresses that a person types: the page, signing in and out, evidence. Handlers translate."""

import asyncio
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from linewatch_console.answers import Console, body_of, console_of, problem, told
from linewatch_console.cloud_api import CloudAway, CloudRefused
from linewatch_console.event_stream import EventStream
from linewatch_console.evidence import EvidenceFile, read_evidence
from linewatch_console.hub import TooManyClients
from linewatch_console.remote_evidence import NotThatFile
from linewatch_console.sign_in import Known, NotSignedIn, WrongPassword

BROWSER_MARK = "linewatch_browser"
BROWSER_MARK_S = 90 * 24 * 3600.0
_templates = Environment(
    loader=PackageLoader("linewatch_console"), autoescape=True, undefined=StrictUndefined
)


async def page(request: Request) -> Response:
    """The page itself; what it shows comes by the stream."""
    console = console_of(request)
    access, settings = console.access, console.settings
    answer = HTMLResponse()
    session = access.session(request)
    if session is None:
        assert access.local is not None, "a page was shown to nobody"
        session = access.begin(request, answer, access.local, "none")
    answer.body = (
        _templates.get_template("console.html")
        .render(
            token=session.token, site=settings.site, device=settings.device, operator=session.person.name,
            role=session.person.role, stale_after_s=settings.stale_after_s, signs_in=access.signs_in,
        )
        .encode()
    )  # fmt: skip
    answer.headers["content-length"] = str(len(answer.body))
    return answer


async def login_page(request: Request) -> Response:
    """Asks for name and password."""
    console = console_of(request)
    if not console.access.signs_in or console.access.session(request):
        return RedirectResponse("/", status_code=303)
    return login_form(console, "")


async def login(request: Request) -> Response:
    """Opens a session for whoever has the password."""
    console = console_of(request)
    access, sign_in = console.access, console.sign_in_by
    if not access.is_own_origin(request):
        return login_form(console, "The form came from another page.", 403)
    form = parse_qs((await body_of(request)).decode("utf-8", "replace"))
    name, offered = (form.get(field, [""])[0] for field in ("name", "password"))
    if not sign_in.asks_password:
        return login_form(console, "There are no passwords here.", 403)
    address, marked = console.address_of(request), access.cookie_name(BROWSER_MARK)
    try:
        known = await sign_in.by_password(name, offered, address, request.cookies.get(marked, ""))
    except NotSignedIn as error:
        # Who mistakes the field for the other must not find the password in the log: only names that are known are told.
        told_name = name if sign_in.users is not None and sign_in.users.get(name) else ""
        detail = {
            "from": address,
            "why": "wrong" if isinstance(error, WrongPassword) else type(error).__name__,
        }
        await console.audit.noise("sign_in_failed", told_name, detail)
        return login_form(console, str(error), error.status, name)
    answer = RedirectResponse("/", status_code=303)
    await signed_in(console, request, answer, known, "users" if sign_in.users is not None else "password")
    access.set_cookie(
        answer,
        marked,
        sign_in.throttle.mark(known.person.name if sign_in.users is not None else ""),
        BROWSER_MARK_S,
    )
    return answer


async def signed_in(
    console: Console, request: Request, answer: Response, known: Known, how: str, leave_url: str = "", subject: str = ""
) -> None:  # fmt: skip
    """Opens the session and writes it down. `subject`: what an identity provider calls this person."""
    console.access.begin(request, answer, known.person, how, known.stamp, leave_url)
    detail = {"from": console.address_of(request), "how": how, "role": known.person.role}
    await console.audit.note(
        "signed_in", known.person.name, detail | ({"subject": subject} if subject else {})
    )


async def logout(request: Request) -> Response:
    """Ends the session. Offers to end the identity provider's, too."""
    console = console_of(request)
    form = parse_qs((await body_of(request)).decode("utf-8", "replace"))
    if why := console.access.why_not_change(request, form.get("csrf", [""])[0]):
        return problem(403, why)
    session = console.access.session(request)
    assert session is not None, "why_not_change lets no request without a session pass"
    answer: Response = RedirectResponse("/login", status_code=303)
    if session.leave_url:
        answer = message(
            "You are signed out of this console.", session.leave_url, "Sign out of the identity provider too"
        )
    console.access.end(session, answer)
    await console.audit.note("signed_out", session.person.name, {"from": console.address_of(request)})
    return answer


async def stream(request: Request) -> Response:
    """Server-sent events; a page that comes back sends Last-Event-ID. Ends with the session."""
    console = console_of(request)
    session = console.access.session(request)
    try:
        client = console.hub.attach(request.headers.get("last-event-id", ""))
    except TooManyClients:
        return problem(503, "too many pages are open (CONSOLE_MAX_CLIENTS)")

    def used() -> None:
        # A wall screen is looked at, not touched: a viewer's open page counts as use until the session is old.
        if session is not None and session.person.role == "viewer":
            console.access.sessions.use(session)

    return EventStream(console.hub, client, session.ended if session else asyncio.Event(), used)


async def evidence(request: Request) -> Response:
    """A picture, heat map or window: below the evidence directory, else from the cloud where an order names it."""
    console = console_of(request)
    path = request.path_params["path"]
    found = await asyncio.to_thread(read_evidence, console.settings.evidence_dir, path)
    try:
        found = found or await console.remote_evidence.get(path)
    except NotThatFile as error:
        return problem(502, str(error))
    except (CloudAway, CloudRefused) as error:
        return told(error)
    if found is None:
        return problem(404, "there is no such evidence on this device, and no work order names it")
    return _file(request, found)


async def healthz(request: Request) -> Response:
    """200 while the process serves. A network that is away is no reason to restart it, so it is told, not judged."""
    console = console_of(request)
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


def login_form(console: Console, wrong: str, status: int = 200, name: str = "") -> Response:
    """The page that asks who one is."""
    sign_in = console.sign_in_by
    content = _templates.get_template("login.html").render(
        problem=wrong, name=name[:80], asks_name=sign_in.users is not None,
        asks_password=sign_in.asks_password, has_oidc=sign_in.kind == "oidc",
    )  # fmt: skip
    return HTMLResponse(content, status)


def message(text: str, address: str, label: str, *, go: bool = False) -> HTMLResponse:
    """A page with one link; `go`: the browser follows it by itself."""
    content = _templates.get_template("message.html").render(text=text, address=address, label=label, go=go)
    return HTMLResponse(content)


def _file(request: Request, found: EvidenceFile) -> Response:
    headers: dict[str, Any] = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
