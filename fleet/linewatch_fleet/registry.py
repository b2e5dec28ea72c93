# SPDX-License-Identifier: Apache-2.0
"""A client of a container registry: the part of the OCI distribution specification that a copy needs.

A layer goes up as ONE streamed PATCH into an upload of its own, as Docker itself does it, and an upload that broke is
begun anew: ECR does not do uploads in several chunks as specified (docs/decisions/0013-own-registry-client.md).
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin

import requests

from linewatch_fleet.errors import CommandFailed
from linewatch_fleet.oci import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, Descriptor, Manifest
from linewatch_fleet.registry_connection import (
    ATTEMPTS,
    BUSY,
    LONGEST_WAIT_S,
    Connection,
    Credentials,
    RegistryRefused,
)

WORTH_ANOTHER_UPLOAD: Final = (*BUSY, 400, 401, 404, 416)
"""Besides what passes: bytes damaged on their way, the sign-in ran out, the upload is gone or elsewhere than we think."""
WRITES: Final = 4
"""Tries for a manifest. docker-registry on a file system shows a file that somebody else is just writing half, and
refuses the same bytes then."""
PIECE_BYTES: Final = 256 * 1024
PAGES: Final = 100
MANIFEST_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Registries take manifests of 4 MiB; more is an attack on our memory."""


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
    """One registry."""

    def __init__(self, host: str, credentials: Credentials) -> None:
        self.host = host
        self.connection = Connection(host, credentials)
        self._mounts = True

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """The manifest of a digest or tag; None when it is not there. Its bytes are checked against a digest."""
        accepted = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
        path = f"/v2/{repository}/manifests/{reference}"
        problem = ""
        for attempt in range(1, WRITES + 1):
            try:
                with self.connection.ask(
                    "GET", path, (200, 404), headers={"Accept": accepted}, stream=True
                ) as response:
                    if response.status_code == 404:
                        return None
                    found = Manifest(
                        _bounded(response), response.headers.get("Content-Type", "").partition(";")[0]
                    )
            except requests.RequestException as error:
                problem = f"broke off: {error}; run the command again"
            else:
                if found.digest == reference or not reference.startswith("sha256:"):
                    return found
                problem = f"gave other bytes for {reference}: {found.digest}"
            _wait(attempt)
        raise CommandFailed(f"{self.host}/{repository}: {problem}")

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
                self.connection.ask(
                    "PUT", path, (200, 201, 202), data=manifest.content, headers=headers
                ).close()
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
            with self.connection.ask("GET", path, (200, 400, 404, 405, 501), stream=True) as response:
                if response.status_code != 200:
                    return None
                try:
                    pages.append(Manifest(_bounded(response), OCI_INDEX))
                except requests.RequestException as error:
                    raise CommandFailed(
                        f"{self.host}{path}: broke off: {error}; run the command again"
                    ) from error
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
        with self.connection.ask("HEAD", f"/v2/{repository}/blobs/{digest}", (200, 404)) as response:
            return int(response.headers.get("Content-Length", -1)) if response.status_code == 200 else None

    @contextmanager
    def blob(self, repository: str, digest: str) -> Iterator[Iterator[bytes]]:
        """A blob's bytes in pieces. Raises requests' exceptions while it is read."""
        with self.connection.ask("GET", f"/v2/{repository}/blobs/{digest}", (200,), stream=True) as response:
            yield response.iter_content(PIECE_BYTES)

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Lets `repository` have a blob that `source` of the same registry has; False where that is not done.

        A registry that began an upload instead is not asked again: ECR mounts only where the account turned that on.
        """
        if not self._mounts:
            return False
        parameters = {"mount": digest, "from": source}
        path = f"/v2/{repository}/blobs/uploads/"
        with self.connection.ask("POST", path, (201, 202), params=parameters) as response:
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
        with self.connection.ask("POST", path, (202,)) as begun:
            place = urljoin(begun.url, begun.headers["Location"])
        headers = {"Content-Type": "application/octet-stream"}
        # 201 is ECR's answer.
        with self.connection.ask(
            "PATCH", place, (201, 202, 204), data=_Body(pieces, blob.size), headers=headers
        ) as sent:
            place = urljoin(sent.url, sent.headers.get("Location", place))
        self.connection.ask("PUT", place, (200, 201, 204), params={"digest": blob.digest}).close()


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
            f"{blob.digest}: other bytes were read than the digest says ({size} of {blob.size}); the image there is damaged"
        )


def _wait(attempt: int) -> None:
    time.sleep(min(LONGEST_WAIT_S, 0.25 * 2**attempt) * random.uniform(0.5, 1))  # noqa: S311 - no secret


def _bounded(response: requests.Response) -> bytes:
    content = bytearray()
    for piece in response.iter_content(PIECE_BYTES):
        content += piece
        if len(content) > MANIFEST_LIMIT_BYTES:
            raise CommandFailed(f"{response.url}: is larger than any manifest ({MANIFEST_LIMIT_BYTES} bytes)")
    return bytes(content)
