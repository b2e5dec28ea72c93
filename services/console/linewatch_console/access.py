# SPDX-License-Identifier: Apache-2.0
"""Who may look and who may decide.

On loopback whoever sits at the machine may; anywhere else the page asks for a password. A decision needs three things
that another site's page can't have: our own origin, a session cookie that browsers keep to themselves, and that
session's token. Sessions live in memory: a restart of the console ends them.
"""

import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

COOKIE = "linewatch_session"
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 256
WRONG_PASSWORDS_PER_MINUTE = 10
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Session:
    """One browser. `token` goes into each request that changes something."""

    key: str
    token: str
    ends_at: float


class Access:
    """Sessions and the password. `password` empty: none is asked. `clock` gives monotonic seconds."""

    def __init__(self, password: str, clock: Callable[[], float]) -> None:
        self._password = password
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._wrong: deque[float] = deque(maxlen=WRONG_PASSWORDS_PER_MINUTE)

    @property
    def asks_password(self) -> bool:
        """Whether a page needs to sign in."""
        return bool(self._password)

    def session(self, request: Request) -> Session | None:
        """The request's session, if it has one that has not ended."""
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        if session is not None and session.ends_at < self._clock():
            del self._sessions[session.key]
            return None
        return session

    def may_look(self, request: Request) -> bool:
        """Whether this request may see the line."""
        return not self.asks_password or self.session(request) is not None

    def open_session(self, response: Response) -> Session:
        """A new session, its cookie on `response`; the oldest one makes room."""
        session = Session(secrets.token_urlsafe(32), secrets.token_urlsafe(32), self._clock() + SESSION_S)
        self._sessions[session.key] = session
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        self.set_cookie(response, session)
        return session

    def set_cookie(self, response: Response, session: Session) -> None:
        """Gives the browser its cookie."""
        response.set_cookie(COOKIE, session.key, max_age=int(SESSION_S), httponly=True, samesite="strict")

    def close_session(self, request: Request) -> None:
        """Signs out."""
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)

    def is_locked(self) -> bool:
        """Whether there were too many wrong passwords in the last minute."""
        recent = [at for at in self._wrong if at > self._clock() - 60]
        return len(recent) >= WRONG_PASSWORDS_PER_MINUTE

    def is_password(self, offered: str) -> bool:
        """Compares in constant time and remembers a wrong one."""
        if hmac.compare_digest(offered.encode(), self._password.encode()):
            return True
        self._wrong.append(self._clock())
        return False

    def why_not_decide(self, request: Request) -> str:
        """Why this request may change nothing; empty when it may."""
        session = self.session(request)
        if not is_same_origin(request):
            return "the request does not come from this page"
        if session is None:
            return "your session has ended: reload the page"
        if not hmac.compare_digest(request.headers.get("x-csrf-token", "").encode(), session.token.encode()):
            return "the request lacks this session's token: reload the page"
        return ""


def is_same_origin(request: Request) -> bool:
    """Whether the browser says that the request comes from a page of this very address."""
    origin = urlsplit(request.headers.get("origin", ""))
    return origin.scheme in {"http", "https"} and origin.netloc == request.headers.get("host", "")


def is_loopback_name(host_header: str) -> bool:
    """Whether a Host header names this machine. Another name that leads here is a trick (DNS rebinding)."""
    return urlsplit(f"//{host_header}").hostname in LOOPBACK_NAMES
