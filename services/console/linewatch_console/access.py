# SPDX-License-Identifier: Apache-2.0
"""Who may look and who may decide: a request's session, and what another site's page can't have.

On loopback without any way to sign in whoever sits at the machine may; else a session is needed. A change needs three
things: our own origin, a session cookie that browsers keep to themselves, and that session's token.
"""

import hmac
from typing import Literal
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from linewatch_console.people import Person
from linewatch_console.sessions import Session, Sessions

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class Access:
    """Sessions by cookie.

    `local`: who everybody is where nobody signs in; None where people sign in. `origin`: the page's address as people
    reach it, such as https://console.plant.example; empty: whatever name the request came to.
    """

    def __init__(self, sessions: Sessions, local: Person | None, origin: str = "") -> None:
        self.sessions = sessions
        self.local = local
        self.origin = origin
        self._is_secure = origin.startswith("https://")
        self.cookie = self.cookie_name("linewatch_session")

    @property
    def signs_in(self) -> bool:
        """Whether a page needs to sign in."""
        return self.local is None

    def session(self, request: Request) -> Session | None:
        """The request's session, if it has one that has not ended."""
        return self.sessions.of(request.cookies.get(self.cookie, ""))

    def person(self, request: Request) -> Person | None:
        """Who asks; None: has to sign in first."""
        session = self.session(request)
        return session.person if session else self.local

    def begin(
        self,
        request: Request,
        answer: Response,
        person: Person,
        how: str,
        stamp: str = "",
        leave_url: str = "",
    ) -> Session:
        """A new session with its cookie on `answer`. What the browser had before ends: nobody can plant a session."""
        before = self.session(request)
        if before is not None:
            self.sessions.end(before)
        session = self.sessions.open(person, how, stamp, leave_url)
        self.set_cookie(answer, self.cookie, session.key, self.sessions.longest_s)
        return session

    def end(self, session: Session, answer: Response) -> None:
        """Signs out."""
        self.sessions.end(session)
        self.delete_cookie(answer, self.cookie)

    def cookie_name(self, name: str) -> str:
        """What a cookie is called here. Another host of the same domain can set no __Host- cookie: none can be planted."""
        return f"__Host-{name}" if self._is_secure else name

    def set_cookie(
        self, answer: Response, name: str, value: str, lasts_s: float, *, is_lax: bool = False
    ) -> None:
        """A cookie that scripts can't read, `name` as cookie_name gives it.

        Lax: also sent when another site leads here, as an identity provider does.
        """
        answer.set_cookie(
            name,
            value,
            max_age=int(lasts_s),
            httponly=True,
            secure=self._is_secure,
            samesite="lax" if is_lax else "strict",
        )

    def delete_cookie(self, answer: Response, name: str, *, is_lax: bool = False) -> None:
        """Takes one back that set_cookie gave. A browser lets none but a Secure one touch a __Host- cookie."""
        same_site: Literal["lax", "strict"] = "lax" if is_lax else "strict"
        answer.delete_cookie(name, secure=self._is_secure, httponly=True, samesite=same_site)

    def why_not_change(self, request: Request, token: str = "") -> str:
        """Why this request may change nothing; empty when it may. `token`: from a form, else from the header."""
        session = self.session(request)
        if not self.is_own_origin(request):
            return "the request does not come from this page"
        if session is None:
            return "your session has ended: reload the page"
        offered = token or request.headers.get("x-csrf-token", "")
        if not hmac.compare_digest(offered.encode(), session.token.encode()):
            return "the request lacks this session's token: reload the page"
        return ""

    def is_own_origin(self, request: Request) -> bool:
        """Whether the browser says that the request comes from a page of this very address."""
        given = request.headers.get("origin", "")
        if self.origin:
            return given == self.origin
        origin = urlsplit(given)
        return origin.scheme in {"http", "https"} and origin.netloc == request.headers.get("host", "")

    def is_own_name(self, request: Request) -> bool:
        """Whether the Host header names us. Another name that leads here is a trick (DNS rebinding)."""
        host = request.headers.get("host", "")
        if self.origin:
            return host.lower() == urlsplit(self.origin).netloc.lower()
        return self.signs_in or is_loopback_name(host)


def is_loopback_name(host_header: str) -> bool:
    """Whether a Host header names this machine."""
    try:
        return urlsplit(f"//{host_header}").hostname in LOOPBACK_NAMES
    except ValueError:
        return False
