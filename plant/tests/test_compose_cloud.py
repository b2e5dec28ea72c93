# SPDX-License-Identifier: Apache-2.0
"""What the container in front of the stand-in cloud lets through to its API, and what it does not."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from linewatch_plant.compose_cloud import application
from linewatch_plant.standin_cloud import StandinCloud

SENT = {
    "Authorization": "Bearer the-token",
    "Content-Type": "application/json",
    "X-Linewatch-User": "J%C3%BCrg%20Keller",
    "X-Linewatch-Role": "approver",
    "X-Linewatch-Audit": "sha256:0011",
    "X-Linewatch-Signature": "t=1,v1=00",
}


@dataclass
class Api:
    """A real HTTP server in the API's place: what it was asked, and what it answers."""

    url: str = ""
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    answer: tuple[int, bytes] = (200, b"{}")


@contextmanager
def served() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            api.asked.append((self.command, self.path, headers, body))
            status, content = api.answer
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = take  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def api() -> Iterator[Api]:
    with served() as one:
        yield one


class Front:
    """The application as uvicorn would call it, without a port of its own."""

    def __init__(self, api: Api) -> None:
        self._app = application(cast("StandinCloud", SimpleNamespace(api_url=api.url)))

    def request(self, method: str, address: str, **request: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://standin-cloud:8080") as client:
                return await client.request(method, address, **request)

        return asyncio.run(asked())


@pytest.fixture
def front(api: Api) -> Front:
    return Front(api)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_who_decides_reaches_the_api_as_the_console_said_it(front: Front, api: Api, method: str) -> None:
    content = b"" if method == "GET" else b'{"reason": "seen"}'

    answer = front.request(
        method, "/api/work-orders/lw-1/approve?limit=2&limit=3", content=content, headers=SENT
    )

    assert answer.status_code == 200
    [(asked, path, headers, body)] = api.asked
    assert (asked, path, body) == (method, "/work-orders/lw-1/approve?limit=2&limit=3", content)
    assert {name.lower(): headers.get(name.lower()) for name in SENT} == {
        name.lower(): value for name, value in SENT.items()
    }


def test_nothing_else_of_the_request_passes(front: Front, api: Api) -> None:
    front.request(
        "GET",
        "/api/summary",
        headers={"Cookie": "linewatch_session=1", "X-Forwarded-For": "10.0.0.1", "X-Other": "1"},
    )

    [(_, _, headers, _)] = api.asked
    assert not {"cookie", "x-forwarded-for", "x-other", "authorization"} & set(headers)


def test_a_method_that_the_api_has_not_is_refused_before_it(front: Front, api: Api) -> None:
    assert front.request("DELETE", "/api/policy").status_code == 405
    assert api.asked == []


def test_a_refusal_of_the_api_comes_back_as_it_is(front: Front, api: Api) -> None:
    api.answer = (409, b'{"error": "it is created"}')

    answer = front.request("POST", "/api/work-orders/lw-1/approve", headers=SENT)

    assert (answer.status_code, answer.json()) == (409, {"error": "it is created"})
