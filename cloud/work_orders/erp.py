# SPDX-License-Identifier: Apache-2.0
"""The ERP's work orders over HTTP with OAuth 2 client credentials.

An ERP does not dedupe by itself, so an answer that did not come is never taken for a "no": the caller looks the
reference up before it creates. The token is kept in memory only, until 60 s before it expires, on the monotonic clock.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import requests

# Seconds before its expiry at which a token is no longer used: clocks and networks are late.
TOKEN_MARGIN_S = 60.0


class ErpError(Exception):
    """The order is not known to be in the ERP."""


class ErpUnavailableError(ErpError):
    """No answer, 429 or 5xx. `may_have_created`: the request left and what became of it is not known."""

    def __init__(self, message: str, *, may_have_created: bool = False) -> None:
        super().__init__(message)
        self.may_have_created = may_have_created


class ErpAwayError(ErpUnavailableError):
    """It gives no token or can't look up: no order at all can be placed now."""


class ErpRefusedError(ErpError):
    """The ERP understood and said no; trying again at once changes nothing."""


@dataclass(frozen=True, slots=True)
class ErpOrder:
    """A work order as the ERP names it."""

    id: str
    status: str


class Erp(Protocol):
    """What a CMMS or ERP must be able to do."""

    def find_by_reference(self, reference: str) -> ErpOrder | None:
        """The order with this external reference. Raises ErpError when that can't be told."""

    def create(self, order: Mapping[str, Any]) -> ErpOrder:
        """Creates the order; `order["external_reference"]` is its reference. Raises ErpError."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of an OAuth 2 client."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        """Without the secret: a traceback or a log line may show this."""
        return f"Credentials(client_id={self.client_id!r})"


def credentials_from_secret(secrets_manager: Any, secret_id: str) -> Callable[[], Credentials]:
    """Reads the current version of the secret at each call, so that a rotated one is found after a 401."""

    def read() -> Credentials:
        value = json.loads(secrets_manager.get_secret_value(SecretId=secret_id)["SecretString"])
        return Credentials(value["client_id"], value["client_secret"])

    return read


class Tokens:
    """One access token for all callers of this process: cached, fetched by one at a time."""

    def __init__(
        self,
        token_url: str,
        credentials: Callable[[], Credentials],
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token_url = token_url
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = float("-inf")

    def get(self) -> str:
        """A token that is good for the next minute. Raises ErpError."""
        with self._lock:
            if self._clock() >= self._good_until:
                self._fetch()
            return self._token

    def forget(self, token: str) -> None:
        """Drops the token after a 401, unless another caller has already fetched a newer one."""
        with self._lock:
            if self._token == token:
                self._good_until = float("-inf")

    def _fetch(self) -> None:
        credentials = self._credentials()
        asked_at = self._clock()
        try:
            answer = requests.post(
                self._token_url,
                data={"grant_type": "client_credentials"},
                auth=(credentials.client_id, credentials.client_secret),
                timeout=self._timeout_s,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise ErpAwayError(f"token endpoint: {type(error).__name__}") from error
        if answer.status_code != requests.codes.ok:
            # A secret being rotated heals, and a wrong one must stay visible as parked orders, not as poison.
            raise ErpAwayError(f"token endpoint answered {answer.status_code}")
        try:
            body = answer.json()
            self._token = str(body["access_token"])
            self._good_until = asked_at + float(body["expires_in"]) - TOKEN_MARGIN_S
        except (ValueError, KeyError, TypeError) as error:
            raise ErpAwayError("token endpoint: answer without access_token or expires_in") from error


class HttpErp:
    """The REST API of the ERP simulator; another ERP is another class with the same two methods."""

    def __init__(self, base_url: str, tokens: Tokens, timeout_s: float) -> None:
        self._url = base_url.rstrip("/") + "/work-orders"
        self._tokens = tokens
        self._timeout_s = timeout_s

    def find_by_reference(self, reference: str) -> ErpOrder | None:
        """The oldest order with this external reference, or None."""
        found = self._call("GET", params={"external_reference": reference})
        orders = found["work_orders"]
        return _order(orders[0]) if orders else None

    def create(self, order: Mapping[str, Any]) -> ErpOrder:
        """Creates the order."""
        return _order(self._call("POST", json_body=order))

    def _call(
        self, method: str, params: Mapping[str, str] | None = None, json_body: Mapping[str, Any] | None = None
    ) -> Any:
        answer = self._send(method, params, json_body)
        if answer.status_code == requests.codes.too_many_requests:
            raise ErpUnavailableError(f"{method} answered {answer.status_code}")
        if answer.status_code >= 500:
            # A proxy that gave up answers 502 or 504 while the ERP behind it goes on.
            raise ErpUnavailableError(f"{method} answered {answer.status_code}", may_have_created=True)
        if answer.status_code not in (requests.codes.ok, requests.codes.created):
            raise ErpRefusedError(f"{method} answered {answer.status_code}: {answer.text[:200]}")
        try:
            return answer.json()
        except ValueError as error:
            raise ErpUnavailableError(f"{method}: answer is not JSON", may_have_created=True) from error

    def _send(
        self, method: str, params: Mapping[str, str] | None, json_body: Mapping[str, Any] | None
    ) -> requests.Response:
        for is_last in (False, True):
            token = self._tokens.get()
            try:
                answer = requests.request(
                    method,
                    self._url,
                    params=params,
                    json=json_body,
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=self._timeout_s,
                    allow_redirects=False,
                )
            except requests.ConnectTimeout as error:
                raise ErpUnavailableError(f"{method}: no connection") from error
            except requests.RequestException as error:
                raise ErpUnavailableError(
                    f"{method}: {type(error).__name__}", may_have_created=True
                ) from error
            if answer.status_code != requests.codes.unauthorized or is_last:
                break
            self._tokens.forget(token)
        if answer.status_code == requests.codes.unauthorized:
            raise ErpUnavailableError(f"{method} answered 401 to a fresh token")
        return answer


def _order(body: Mapping[str, Any]) -> ErpOrder:
    return ErpOrder(str(body["id"]), str(body.get("status", "")))
