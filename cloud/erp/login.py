# SPDX-License-Identifier: Apache-2.0
"""How a call shows who it comes from: a bearer token, an API key, a user with a password."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from erp.http import Answer, Http
from erp.oauth import Tokens
from erp.secret import STAGES, Secret
from erp.transcript import Hidden


class Login(Protocol):
    """Headers that a call bears."""

    # How often a call is made before a 401 is believed.
    tries: int

    def headers(self) -> Mapping[str, str]:
        """Raises ErpAwayError where there are none to be had."""

    def refused(self, headers: Mapping[str, str]) -> bool:
        """After a 401 to these headers: whether another call with `headers()` is worth it."""


class BearerLogin:
    """OAuth 2."""

    # One refresh.
    tries = 2

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def headers(self) -> Mapping[str, str]:
        """With a token that is good for the next minute."""
        return {"Authorization": f"Bearer {self._tokens.get()}"}

    def refused(self, headers: Mapping[str, str]) -> bool:
        """The token is dropped, unless another caller has a newer one."""
        self._tokens.forget(headers["Authorization"].removeprefix("Bearer "))
        return True


class SecretLogin:
    """A key or a password that stands in the secret as it is. `write` makes the headers from the secret's value."""

    # With the value as it was read once, with what is current now, with what was current before.
    tries = 3

    def __init__(
        self, secret: Secret, write: Callable[[Mapping[str, str]], Mapping[str, str]], hidden: Hidden
    ) -> None:
        self._secret = secret
        self._write = write
        self._hidden = hidden
        self._lock = threading.Lock()
        self._headers: Mapping[str, str] | None = None

    def headers(self) -> Mapping[str, str]:
        """As they were good last."""
        with self._lock:
            if self._headers is None:
                self._use("AWSCURRENT")
            assert self._headers is not None  # AWSCURRENT is there, or reading it raised
            return self._headers

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Reads the secret again: what is current, and where that was just refused, what was before."""
        with self._lock:
            if self._headers != headers:
                return True  # another caller was faster
            return any(self._use(stage) and self._headers != headers for stage in STAGES)

    def _use(self, stage: str) -> bool:
        value = self._secret.read(stage)
        if value is None:
            return False
        self._headers = self._write(value)
        for header in self._headers.values():
            self._hidden.add(header.partition(" ")[2] or header)
        return True


class Caller:
    """An API with a login: sends, and where the credentials are refused once more with fresh ones.

    `refusals`: the statuses by which the product refuses credentials. None of them creates anything.
    """

    def __init__(self, http: Http, login: Login, refusals: frozenset[int] = frozenset({401})) -> None:
        self._http = http
        self._login = login
        self._refusals = refusals

    def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **call: Any
    ) -> Answer:
        """The answer of any status; for the arguments and errors see Http.send."""
        made = 0
        while True:
            shown = self._login.headers()
            answer = self._http.send(method, path, headers={**(headers or {}), **shown}, **call)
            made += 1
            if (
                answer.status not in self._refusals
                or made >= self._login.tries
                or not self._login.refused(shown)
            ):
                return answer
