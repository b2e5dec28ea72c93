# SPDX-License-Identifier: Apache-2.0
"""HTTP to one container registry: TLS or not, signing in, trying again, and refusals as messages with a remedy."""

import base64
import ipaddress
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import parse_dict_header
from urllib3.util import Retry

from linewatch_fleet.errors import CommandFailed

TIMEOUT_S: Final = (10, 120)
ATTEMPTS: Final = 6
LONGEST_WAIT_S: Final = 60.0
BUSY: Final = (429, 500, 502, 503, 504)

Credentials = Callable[[], tuple[str, str] | None]
"""User and password for the registry, asked for when it wants them, and again when they ran out."""


class RegistryRefused(CommandFailed):
    """The registry answered and said no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Header(AuthBase):
    """Given with every request, or else requests would put in what ~/.netrc has for the host."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value:
            request.headers["Authorization"] = self._value
        return request


class Connection:
    """Loopback is spoken to without TLS, as Docker does; everything else with it."""

    def __init__(self, host: str, credentials: Credentials) -> None:
        self.host = host
        self.base = f"{'http' if _is_loopback(host) else 'https'}://{host}"
        self._credentials = credentials
        self._authorizations: dict[tuple[str, bool], str] = {}
        self._session = requests.Session()
        self._session.trust_env = not _is_loopback(host)  # no proxy leads to this machine
        self._session.headers["Accept-Encoding"] = "identity"  # a digest is of the bytes as they are stored
        # urllib3 waits longer from try to try, and as long as Retry-After says. A PATCH is never repeated by itself.
        retry = Retry(total=ATTEMPTS, connect=2, backoff_factor=0.5, backoff_max=LONGEST_WAIT_S, backoff_jitter=0.5, status_forcelist=BUSY,
                      allowed_methods={"GET", "HEAD", "PUT", "POST"}, raise_on_status=False,
                      retry_after_max=int(LONGEST_WAIT_S))  # fmt: skip
        for prefix in ("http://", "https://"):
            self._session.mount(prefix, HTTPAdapter(max_retries=retry))

    def ask(self, method: str, path: str, expected: tuple[int, ...], **arguments: Any) -> requests.Response:
        """One request, signed in where the registry wants it. Raises RegistryRefused for any other answer.

        A broken PATCH raises requests' exception, anything else that can't be reached CommandFailed.
        """
        address = urljoin(self.base, path)
        try:
            response = self._send(method, address, arguments)
            if response.status_code == 401 and self._sign_in(response, method, address):
                if method == "PATCH":
                    raise RegistryRefused(f"{self.host}: the sign-in ran out", 401)
                response.close()
                response = self._send(method, address, arguments)
        except requests.RequestException as error:
            if method == "PATCH":
                raise
            raise CommandFailed(f"registry {self.host} could not be asked: {error}") from error
        if response.status_code not in expected:
            raise RegistryRefused(_told(self.host, method, address, response), response.status_code)
        return response

    def _send(self, method: str, address: str, arguments: dict[str, Any]) -> requests.Response:
        # An upload's place may be at another host, which our password is none of the business of.
        own = urlsplit(address).netloc == urlsplit(self.base).netloc
        value = self._authorizations.get(_scope(method, address)) if own else None
        return self._session.request(method, address, auth=_Header(value), timeout=TIMEOUT_S, **arguments)

    def _sign_in(self, response: requests.Response, method: str, address: str) -> bool:
        """Follows the registry's challenge; False when there is none that can be followed, or no credentials for it."""
        kind, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        given = self._credentials()
        if kind.lower() == "basic" and given:
            value = "Basic " + base64.b64encode(":".join(given).encode()).decode()
        elif kind.lower() == "bearer":
            value = self._bearer(parse_dict_header(rest), given)  # type: ignore[no-untyped-call]
        else:
            return False
        self._authorizations[_scope(method, address)] = value
        return True

    def _bearer(self, challenge: dict[str, str | None], given: tuple[str, str] | None) -> str:
        realm = challenge.get("realm") or ""
        if not realm.startswith("https://") and not self.base.startswith("http://"):
            raise CommandFailed(f"registry {self.host} sends the password to {realm!r}, which is not https")
        parameters = {key: value for key in ("service", "scope") if (value := challenge.get(key))}
        auth = HTTPBasicAuth(*given) if given else _Header(None)
        response = self._session.get(realm, params=parameters, auth=auth, timeout=TIMEOUT_S)
        if response.status_code != 200:
            raise RegistryRefused(_told(self.host, "GET", realm, response), response.status_code)
        answer = response.json()
        return f"Bearer {answer.get('token') or answer.get('access_token')}"


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _scope(method: str, address: str) -> tuple[str, bool]:
    repository = urlsplit(address).path.removeprefix("/v2/")
    for end in ("/manifests/", "/blobs/", "/referrers/"):
        repository = repository.partition(end)[0]
    return repository, method not in {"GET", "HEAD"}


def _told(host: str, method: str, address: str, response: requests.Response) -> str:
    """What the registry said, in a line, with the remedy where there is one."""
    try:
        errors = response.json().get("errors") or [{}]
        said = f"{errors[0].get('code', '')}: {errors[0].get('message', '')}".strip(": ")
    except (ValueError, AttributeError, requests.RequestException):
        said = response.reason or ""
    remedy = {
        401: f"; sign in with `docker login {host}`, or see docs/promoting.md for the permissions in AWS",
        403: "; docs/promoting.md lists the permissions",
    }.get(response.status_code, "")
    return f"registry {host} refused {method} {urlsplit(address).path}: {response.status_code} {said}{remedy}"
