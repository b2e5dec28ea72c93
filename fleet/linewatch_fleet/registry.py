# SPDX-License-Identifier: Apache-2.0
"""A client of a container registry: the part of the OCI distribution specification that a copy needs.

A layer goes up as ONE streamed PATCH into an upload of its own, as Docker itself does it, and an upload that broke is
begun anew: ECR does not do uploads in several chunks as specified (docs/decisions/0013-own-registry-client.md).
"""

import base64
import hashlib
import ipaddress
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import parse_dict_header
from urllib3.util import Retry

from linewatch_fleet.errors import CommandFailed
from linewatch_fleet.oci import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, Descriptor, Manifest

TIMEOUT_S: Final = (10, 120)
ATTEMPTS: Final = 6
LONGEST_WAIT_S: Final = 60.0
BUSY: Final = (429, 500, 502, 503, 504)
WORTH_ANOTHER_UPLOAD: Final = (*BUSY, 400, 401, 404, 416)
"""Besides what passes: bytes damaged on their way, the sign-in ran out, the upload is gone or elsewhere than we think."""
WRITES: Final = 4
"""Tries for a manifest. docker-registry on a file system shows a file that somebody else is just writing half, and
refuses the same bytes then."""
PIECE_BYTES: Final = 256 * 1024
PAGES: Final = 100
MANIFEST_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Registries take manifests of 4 MiB; more is an attack on our memory."""

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


@dataclass(slots=True)
class _Body:
    """A body of known length that is read once, piece by piece."""

    pieces: Iterator[bytes]
    size: int

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    def __len__(self) -> int:
        return self.size


class Registry:
    """One registry. Loopback is spoken to without TLS, as Docker does; everything else with it."""

    def __init__(self, host: str, credentials: Credentials) -> None:
        self.host = host
        self._base = f"{'http' if _is_loopback(host) else 'https'}://{host}"
        self._credentials = credentials
        self._mounts = True
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

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """The manifest of a digest or tag; None when it is not there. Its bytes are checked against a digest."""
        accepted = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
        path = f"/v2/{repository}/manifests/{reference}"
        for attempt in range(1, WRITES + 1):
            with self._ask("GET", path, (200, 404), headers={"Accept": accepted}, stream=True) as response:
                if response.status_code == 404:
                    return None
                found = Manifest(
                    _bounded(response), response.headers.get("Content-Type", "").partition(";")[0]
                )
            if found.digest == reference or not reference.startswith("sha256:"):
                return found
            _wait(attempt)
        raise CommandFailed(f"{self.host}/{repository}: gave other bytes for {reference}: {found.digest}")

    def tag(self, repository: str, tag: str) -> str | None:
        """The digest that a tag points to; None when there is no such tag (or no such repository)."""
        found = self.manifest(repository, tag)
        return found.digest if found else None

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Stores a manifest by its digest or under a tag; what it points to must be there.

        Where it is there after a refusal, somebody else put the same, and that is as good.
        """
        path = f"/v2/{repository}/manifests/{reference}"
        headers = {"Content-Type": manifest.media_type}
        for attempt in range(1, WRITES + 1):
            try:
                self._ask("PUT", path, (200, 201, 202), data=manifest.content, headers=headers).close()
            except RegistryRefused as error:
                found = None if error.status in {401, 403} else self.manifest(repository, reference)
                if found and found.content == manifest.content:
                    return
                if attempt == WRITES or error.status not in {400, 404, 409}:
                    raise
                _wait(attempt)
            else:
                return

    def referrers(self, repository: str, digest: str) -> Manifest | None:
        """The index of what refers to a digest, all pages; None where the registry doesn't keep one (or the digest)."""
        path, pages = f"/v2/{repository}/referrers/{digest}", []
        while path:
            with self._ask("GET", path, (200, 400, 404, 405, 501), stream=True) as response:
                if response.status_code != 200:
                    return None
                pages.append(Manifest(_bounded(response), OCI_INDEX))
                path = (
                    urljoin(path, response.links.get("next", {}).get("url", ""))
                    if "next" in response.links
                    else ""
                )
            if len(pages) > PAGES:
                raise CommandFailed(f"{self.host}/{repository}: the referrers of {digest} have no end")
        if len(pages) == 1:
            return pages[0]
        listed = [one for page in pages for one in page.document.get("manifests", [])]
        return Manifest(json.dumps({**pages[0].document, "manifests": listed}).encode(), OCI_INDEX)

    def blob_size(self, repository: str, digest: str) -> int | None:
        """Bytes of a blob; None when it is not there."""
        with self._ask("HEAD", f"/v2/{repository}/blobs/{digest}", (200, 404)) as response:
            return int(response.headers.get("Content-Length", -1)) if response.status_code == 200 else None

    @contextmanager
    def blob(self, repository: str, digest: str) -> Iterator[Iterator[bytes]]:
        """A blob's bytes in pieces. Raises requests' exceptions while it is read."""
        with self._ask("GET", f"/v2/{repository}/blobs/{digest}", (200,), stream=True) as response:
            yield response.iter_content(PIECE_BYTES)

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Lets `repository` have a blob that `source` of the same registry has; False where that is not done.

        A registry that began an upload instead is not asked again: ECR mounts only where the account turned that on.
        """
        if not self._mounts:
            return False
        parameters = {"mount": digest, "from": source}
        path = f"/v2/{repository}/blobs/uploads/"
        with self._ask("POST", path, (201, 202), params=parameters) as response:
            self._mounts = response.status_code == 201
        return self._mounts

    def upload(self, repository: str, blob: Descriptor, read: Callable[[], Any]) -> None:
        """Sends a blob. `read` gives a context manager with its bytes in pieces, anew for each try."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with read() as pieces:
                    return self._upload_once(repository, blob, pieces)
            except (requests.RequestException, RegistryRefused) as error:
                if isinstance(error, RegistryRefused) and (
                    attempt == ATTEMPTS or error.status not in WORTH_ANOTHER_UPLOAD
                ):
                    raise
                if attempt == ATTEMPTS:
                    raise CommandFailed(
                        f"{self.host}/{repository}: {blob.digest} could not be sent after {attempt} tries: {error}; "
                        "run the command again, what is there is not sent again"
                    ) from error
                _wait(attempt)
        return None

    def _upload_once(self, repository: str, blob: Descriptor, pieces: Iterator[bytes]) -> None:
        path = f"/v2/{repository}/blobs/uploads/"
        with self._ask("POST", path, (202,)) as begun:
            place = urljoin(begun.url, begun.headers["Location"])
        headers = {"Content-Type": "application/octet-stream"}
        # 201 is ECR's answer.
        with self._ask(
            "PATCH", place, (201, 202, 204), data=_Body(pieces, blob.size), headers=headers
        ) as sent:
            place = urljoin(sent.url, sent.headers.get("Location", place))
        self._ask("PUT", place, (200, 201, 204), params={"digest": blob.digest}).close()

    def _ask(self, method: str, path: str, expected: tuple[int, ...], **arguments: Any) -> requests.Response:
        """One request, signed in where the registry wants it. Raises RegistryRefused for any other answer.

        A broken PATCH raises requests' exception, anything else that can't be reached CommandFailed.
        """
        address = urljoin(self._base, path)
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
        own = urlsplit(address).netloc == urlsplit(self._base).netloc
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
        if not realm.startswith("https://") and not self._base.startswith("http://"):
            raise CommandFailed(f"registry {self.host} sends the password to {realm!r}, which is not https")
        parameters = {key: value for key in ("service", "scope") if (value := challenge.get(key))}
        auth = HTTPBasicAuth(*given) if given else _Header(None)
        response = self._session.get(realm, params=parameters, auth=auth, timeout=TIMEOUT_S)
        if response.status_code != 200:
            raise RegistryRefused(_told(self.host, "GET", realm, response), response.status_code)
        answer = response.json()
        return f"Bearer {answer.get('token') or answer.get('access_token')}"


def hashed(pieces: Iterator[bytes], blob: Descriptor, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The pieces, checked on their way: raises CommandFailed at the end when they are not what the digest says."""
    found, size = hashlib.sha256(), 0
    for piece in pieces:
        found.update(piece)
        size += len(piece)
        if size > blob.size:
            break
        yield piece
        advance(len(piece))
    if size != blob.size or f"sha256:{found.hexdigest()}" != blob.digest:
        raise CommandFailed(
            f"{blob.digest}: the source gave other bytes ({size} of {blob.size}); the image there is damaged, build it again"
        )


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _wait(attempt: int) -> None:
    time.sleep(min(LONGEST_WAIT_S, 0.25 * 2**attempt) * random.uniform(0.5, 1))  # noqa: S311 - no secret


def _scope(method: str, address: str) -> tuple[str, bool]:
    repository = urlsplit(address).path.removeprefix("/v2/")
    for end in ("/manifests/", "/blobs/", "/referrers/"):
        repository = repository.partition(end)[0]
    return repository, method not in {"GET", "HEAD"}


def _bounded(response: requests.Response) -> bytes:
    content = bytearray()
    for piece in response.iter_content(PIECE_BYTES):
        content += piece
        if len(content) > MANIFEST_LIMIT_BYTES:
            raise CommandFailed(f"{response.url}: is larger than any manifest ({MANIFEST_LIMIT_BYTES} bytes)")
    return bytes(content)


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
