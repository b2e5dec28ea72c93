# SPDX-License-Identifier: Apache-2.0
"""OAuth 2 client credentials (RFC 6749, 4.4): one token for all callers of this process, kept in memory only.

oauthlib writes the request and reads the answer; it opens no connection itself, so that the bounds of http.py hold
here as well. docs/decisions/0034 says why this library.
"""

import base64
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote_plus, urlsplit

from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error

from erp.http import Http
from erp.port import ErpAwayError, ErpUnavailableError
from erp.secret import STAGES, Secret, field
from erp.transcript import Hidden

# Seconds before its end at which a new token is fetched: clocks and networks are late.
TOKEN_MARGIN_S = 60.0
# RFC 6749 lets a server leave out how long a token lives. Ten minutes are shorter than any product's.
UNSTATED_LIFE_S = 600.0
# A year; what claims more, or is no number, is none.
LONGEST_LIFE_S = 31_536_000.0

ClientAuth = Literal["basic", "basic_plain", "body"]
"""`basic` as the standard has it; `basic_plain`, for servers that forget the encoding; `body`: both in the form."""


class Tokens:
    """The access token: fetched by one caller at a time, early enough, again after a 401.

    token_url: where tokens are fetched. `scope` and `audience` are sent where they are not empty. `client_auth`: how the
    client shows who it is, see ClientAuth.
    """

    def __init__(
        self,
        token_url: str,
        secret: Secret,
        timeout_s: float,
        hidden: Hidden,
        *,
        scope: str = "",
        audience: str = "",
        client_auth: ClientAuth = "basic",
        ca_pem: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(token_url)
        self._http = Http(f"{parts.scheme}://{parts.netloc}", timeout_s, hidden, ca_pem)
        self._path = parts.path or "/"
        self._secret = secret
        self._hidden = hidden
        self._extra = {name: value for name, value in (("scope", scope), ("audience", audience)) if value}
        self._client_auth = client_auth
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._refresh_at = float("-inf")
        self._ends_at = float("-inf")

    def get(self) -> str:
        """A token. Raises ErpAwayError where there is none to be had."""
        with self._lock:
            now = self._clock()
            if now >= self._refresh_at:
                try:
                    self._fetch()
                except ErpAwayError:
                    # Early enough that a short outage of the token endpoint stops no order.
                    if now >= self._ends_at:
                        raise
            return self._token

    def forget(self, token: str) -> None:
        """Drops the token after a 401, unless another caller has already fetched a newer one."""
        with self._lock:
            if self._token == token:
                self._refresh_at = self._ends_at = float("-inf")

    def _fetch(self) -> None:
        refused = ""
        for stage in STAGES:
            credentials = self._secret.read(stage)
            if credentials is None:
                continue
            refused = self._fetched(credentials)
            if not refused:
                return
        raise ErpAwayError(f"token endpoint refuses the client: {refused}; look at the ERP's secret")

    def _fetched(self, credentials: Mapping[str, str]) -> str:
        """Fetches a token; returns why the server refuses these credentials, empty when it does not."""
        client = BackendApplicationClient(field(credentials, "client_id"))
        secret = field(credentials, "client_secret")
        headers: dict[str, str] = {}
        extra: dict[str, Any] = dict(self._extra)
        if self._client_auth == "body":
            extra["client_secret"] = secret
        else:
            # RFC 6749, 2.3.1: both are form-encoded before they are joined.
            written = quote_plus if self._client_auth == "basic" else str
            pair = f"{written(client.client_id)}:{written(secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
            self._hidden.add(headers["Authorization"].removeprefix("Basic "))
        body = client.prepare_request_body(include_client_id=self._client_auth == "body", **extra)
        asked_at = self._clock()
        try:
            answer = self._http.send(
                "POST", self._path, form=body, headers=headers, is_safe=True, holds_secret=True
            )
        except ErpUnavailableError as error:
            raise ErpAwayError(f"token endpoint: {error}") from error
        if answer.status in {400, 401} and _error_of(answer.body) in {"invalid_client", ""}:
            return f"{answer.status} {_error_of(answer.body)}".rstrip()
        if answer.status != 200:
            raise ErpAwayError(f"token endpoint answered {answer.status} {_error_of(answer.body)}".rstrip())
        try:
            token = client.parse_request_body_response(answer.body.decode())
            life_s = float(token.get("expires_in") or UNSTATED_LIFE_S)
            self._token = str(token["access_token"])
            if not 0 < life_s < LONGEST_LIFE_S:
                raise ValueError
        except (OAuth2Error, ValueError, KeyError, TypeError, AttributeError):
            # Not "from error": it may show the token.
            raise ErpAwayError("token endpoint: answer without access_token or expires_in") from None
        self._hidden.add(self._token)
        self._ends_at = asked_at + life_s
        # A token of two minutes is used for one.
        self._refresh_at = self._ends_at - min(TOKEN_MARGIN_S, life_s / 2)
        return ""


def _error_of(body: bytes) -> str:
    """The error code of RFC 6749, 5.2, of a known few: whatever else stands there is not repeated."""
    known = ("invalid_client", "invalid_request", "invalid_grant", "invalid_scope", "unauthorized_client",
             "unsupported_grant_type")  # fmt: skip
    return next((code for code in known if f'"{code}"'.encode() in body), "")
