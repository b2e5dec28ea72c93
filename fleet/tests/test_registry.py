# SPDX-License-Identifier: Apache-2.0
"""The registry client against a real registry, directly and through a link that misbehaves on purpose."""

import base64
import contextlib
import hashlib
import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from linewatch_fleet import registry as registry_module
from linewatch_fleet.credentials import docker_credentials
from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.oci import OCI_INDEX, Descriptor, Manifest
from linewatch_fleet.registry import Registry, hashed
from linewatch_fleet.registry_connection import RegistryRefused

REPOSITORY = "linewatch/capture"


@dataclass
class Link:
    """A way to a registry on which chosen requests go wrong, each once, in this order."""

    upstream: str
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, part of the path, what happens): 503, 429 (both with Retry-After), cut-request, cut-answer, damage."""
    seen: list[str] = field(default_factory=list)
    host: str = ""

    def fault(self, method: str, path: str) -> str:
        for one in self.faults:
            if one[0] == method and one[1] in path:
                self.faults.remove(one)
                return one[2]
        return ""


@contextlib.contextmanager
def misbehaving(upstream: str, *faults: tuple[str, str, str]) -> Iterator[Link]:
    link = Link(upstream, list(faults))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            link.seen.append(f"{self.command} {self.path}")
            fault, size = link.fault(self.command, self.path), int(self.headers.get("Content-Length", 0))
            if fault == "cut-request":
                self.rfile.read(size // 2)
                self.close_connection = True
                self.connection.close()
                return
            body = self.rfile.read(size)
            if fault in {"503", "429"}:
                self.send_response(int(fault))
                self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "damage" and body:
                body = bytes([body[0] ^ 1]) + body[1:]
            answer = requests.request(
                self.command,
                f"http://{link.upstream}{self.path}",
                data=body,
                headers=dict(self.headers),
                timeout=30,
            )
            content = answer.content
            self.send_response(answer.status_code)
            for key, value in answer.headers.items():
                if key.lower() not in {"transfer-encoding", "connection"}:
                    self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if fault == "cut-answer" else content)
            if fault == "cut-answer":
                self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_any  # noqa: N815 - http.server's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    link.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield link
    finally:
        server.shutdown()
        server.server_close()


def blob_of(content: bytes) -> Descriptor:
    return Descriptor(
        "sha256:" + hashlib.sha256(content).hexdigest(), len(content), "application/octet-stream"
    )


def reader(content: bytes, blob: Descriptor) -> Callable[[], Any]:
    """Reads the content in pieces, as often as it is asked to."""
    pieces = [content[at : at + 65536] for at in range(0, len(content), 65536)]
    return lambda: contextlib.nullcontext(hashed(iter(pieces), blob, lambda _: None))


def own(host: str) -> Registry:
    return Registry(host, lambda: None)


CONTENT = bytes(range(256)) * 2000
BLOB = blob_of(CONTENT)


@pytest.mark.parametrize(
    "fault",
    [
        ("PATCH", "/blobs/uploads/", "cut-request"),
        ("PATCH", "/blobs/uploads/", "503"),
        ("PATCH", "/blobs/uploads/", "429"),
        ("PATCH", "/blobs/uploads/", "damage"),
        ("POST", "/blobs/uploads/", "503"),
        ("PUT", "/blobs/uploads/", "503"),
    ],
)
def test_an_upload_survives(registry: Callable[..., str], fault: tuple[str, str, str]) -> None:
    with misbehaving(registry(), fault) as link:
        own(link.host).upload(REPOSITORY, BLOB, reader(CONTENT, BLOB))

        assert not link.faults, "the fault happened"
        assert own(link.host).blob_size(REPOSITORY, BLOB.digest) == len(CONTENT)
        with own(link.host).blob(REPOSITORY, BLOB.digest) as pieces:
            assert b"".join(pieces) == CONTENT


def test_an_upload_that_broke_is_begun_anew_and_not_gone_on_with(registry: Callable[..., str]) -> None:
    with misbehaving(registry(), ("PATCH", "/blobs/uploads/", "cut-request")) as link:
        own(link.host).upload(REPOSITORY, BLOB, reader(CONTENT, BLOB))

        patched = [one for one in link.seen if one.startswith("PATCH")]
        assert len(patched) == 2
        assert patched[0] != patched[1], "ECR answers 416 to the first byte of an upload that has some"


@pytest.mark.parametrize("fault", ["503", "429"])
def test_retry_after_is_obeyed(registry: Callable[..., str], fault: str) -> None:
    with misbehaving(registry(), ("HEAD", "/blobs/", fault)) as link:
        begun = time.monotonic()
        assert own(link.host).blob_size(REPOSITORY, BLOB.digest) is None
        assert time.monotonic() - begun >= 1


def test_a_source_that_breaks_off_is_read_again(registry: Callable[..., str]) -> None:
    source, target = registry(), own(registry())
    own(source).upload(REPOSITORY, BLOB, reader(CONTENT, BLOB))
    with misbehaving(source, ("GET", "/blobs/", "cut-answer")) as link:
        broken = own(link.host)

        @contextlib.contextmanager
        def read() -> Iterator[Iterator[bytes]]:
            with broken.blob(REPOSITORY, BLOB.digest) as pieces:
                yield hashed(pieces, BLOB, lambda _: None)

        target.upload(REPOSITORY, BLOB, read)

        assert not link.faults
    assert target.blob_size(REPOSITORY, BLOB.digest) == len(CONTENT)


def test_a_manifest_that_breaks_off_is_read_again(registry: Callable[..., str]) -> None:
    host = registry()
    manifest = Manifest(
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode(), OCI_INDEX
    )
    own(host).put_manifest(REPOSITORY, manifest.digest, manifest)
    with misbehaving(host, ("GET", "/manifests/", "cut-answer")) as link:
        assert own(link.host).manifest(REPOSITORY, manifest.digest) == manifest
        assert not link.faults


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b"\1" + CONTENT[1:]])
def test_bytes_that_are_not_the_digests_never_arrive(registry: Callable[..., str], content: bytes) -> None:
    target = own(registry())

    with pytest.raises(CommandFailed):
        target.upload(REPOSITORY, BLOB, reader(content, BLOB))

    assert target.blob_size(REPOSITORY, BLOB.digest) is None


def test_a_large_layer_is_never_whole_in_memory(registry: Callable[..., str]) -> None:
    piece = bytes(1024 * 1024)
    digest = hashlib.sha256()
    for _ in range(96):
        digest.update(piece)
    blob = Descriptor(f"sha256:{digest.hexdigest()}", 96 * len(piece), "application/octet-stream")
    source, target = own(registry()), own(registry())
    source.upload(
        REPOSITORY,
        blob,
        lambda: contextlib.nullcontext(hashed((piece for _ in range(96)), blob, lambda _: None)),
    )

    @contextlib.contextmanager
    def read() -> Iterator[Iterator[bytes]]:
        with source.blob(REPOSITORY, blob.digest) as pieces:
            yield hashed(pieces, blob, lambda _: None)

    tracemalloc.start()
    target.upload(REPOSITORY, blob, read)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert target.blob_size(REPOSITORY, blob.digest) == blob.size
    assert most < 8 * 1024 * 1024


def test_a_manifest_of_another_digest_is_refused(
    registry: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = registry()
    manifest = Manifest(
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode(), OCI_INDEX
    )
    own(host).put_manifest(REPOSITORY, manifest.digest, manifest)
    monkeypatch.setattr(registry_module, "_wait", lambda attempt: None)

    class Liar(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            content = manifest.content + b" "
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        with pytest.raises(CommandFailed, match="gave other bytes"):
            own(f"127.0.0.1:{server.server_port}").manifest(REPOSITORY, manifest.digest)
    finally:
        server.shutdown()
        server.server_close()


def test_a_bearer_token_is_fetched_for_the_repository_with_the_password(registry: Callable[..., str]) -> None:
    """As Docker Hub, GitHub and Harbor do it: a challenge names who gives tokens."""
    upstream, asked = registry(), []

    class Guard(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization", "")
            if self.path.startswith("/token"):
                asked.append((self.path, authorization))
                return self.answer(200, b'{"token": "t0ken"}')
            if authorization != "Bearer t0ken":
                realm = f"http://{self.headers['Host']}/token"
                challenge = f'Bearer realm="{realm}",service="test",scope="repository:{REPOSITORY}:pull"'
                return self.answer(401, b"{}", WWW_Authenticate=challenge)
            found = requests.get(f"http://{upstream}{self.path}", timeout=60)
            return self.answer(found.status_code, found.content)

        do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        guarded = Registry(f"127.0.0.1:{server.server_port}", lambda: ("ci", "secret"))
        assert guarded.manifest(REPOSITORY, "none") is None
        assert guarded.manifest(REPOSITORY, "none") is None
    finally:
        server.shutdown()
        server.server_close()
    basic = "Basic " + base64.b64encode(b"ci:secret").decode()
    assert asked == [("/token?service=test&scope=repository%3Alinewatch%2Fcapture%3Apull", basic)], "once"


def test_referrers_are_read_to_the_last_page() -> None:
    listed = [{"mediaType": "m", "digest": "sha256:" + letter * 64, "size": 1} for letter in "abc"]

    class Pages(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            number = int(self.path.partition("?page=")[2] or 0)
            content = json.dumps(
                {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed[number]]}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if number < 2:
                self.send_header("Link", f'<{self.path.partition("?")[0]}?page={number + 1}>; rel="next"')
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        found = own(f"127.0.0.1:{server.server_port}").referrers(REPOSITORY, BLOB.digest)
    finally:
        server.shutdown()
        server.server_close()
    assert found
    assert [one.digest for one in found.children] == [one["digest"] for one in listed]


def test_loopback_is_spoken_to_without_a_proxy(
    registry: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = registry()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    assert own(host).manifest(REPOSITORY, "none") is None


def test_a_refusal_says_who_what_and_why(registry: Callable[..., str]) -> None:
    host = registry()
    manifest = Manifest(b'{"schemaVersion": 2, "mediaType": "x/y"}', "x/y")

    with pytest.raises(
        RegistryRefused, match=rf"registry {host} refused PUT /v2/{REPOSITORY}/manifests/1.0: 4\d\d"
    ):
        own(host).put_manifest(REPOSITORY, "1.0", manifest)


def test_dockers_credentials_from_file_and_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert docker_credentials("r.example") is None

    auth = base64.b64encode(b"user:pass:word").decode()
    helper = tmp_path / "docker-credential-own"
    helper.write_text(
        '#!/bin/sh\nread -r host\necho "{\\"Username\\": \\"from\\", \\"Secret\\": \\"$host\\"}"\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {"r.example": {"auth": auth}}, "credHelpers": {"h.example": "own"}})
    )

    assert docker_credentials("r.example") == ("user", "pass:word")
    assert docker_credentials("h.example") == ("from", "h.example")
    assert docker_credentials("other.example") is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match="docker login"):
        docker_credentials("r.example")


def test_only_loopback_is_spoken_to_without_tls() -> None:
    for host, scheme in (("127.0.0.1:5000", "http"), ("localhost:5000", "http"), ("127.0.0.1.example.com", "https"),
                         ("registry.example.com", "https"), ("10.0.0.1:5000", "https")):  # fmt: skip
        assert own(host).connection.base == f"{scheme}://{host}"
