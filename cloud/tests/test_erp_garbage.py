# SPDX-License-Identifier: Apache-2.0
"""Whatever JSON an ERP answers, an adapter returns or says what is wrong; anything else would be a poisoned order."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from erp_products import PRODUCTS, SecretsManager, credentials, environment
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from erp.choose import erp_of
from erp.port import ErpError, ErpOrder, ErpStatus

# Names that the products' answers have, so that what is drawn gets past the first look.
NAMES = st.sampled_from(
    ["d", "results", "error", "message", "value", "innererror", "errordetails", "member", "Error", "oslc:Error",
     "content", "work_orders", "id", "status", "stage_id", "title", "MaintenanceNotification", "NotifProcessingPhase",
     "NotificationCompletionDate", "CompletionTime", "MaintNotifExtReferenceNumber", "wonum", "siteid", "href", "worklog",
     "lwreference", "x_linewatch_reference", "external_reference", "notes", "key", "body", "completedBy", "feedback",
     "archived", "user_id", "close_date", "done"]
)  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 5), st.floats(allow_nan=False), st.text(max_size=6),
    st.sampled_from(["lw-1", "LW-1", "x [lw-1]", "COMPLETED", "COMPLETE", "4", "COMP", "/Date(1)/", "/Date(99999999999999999)/",
                     "PT99H99M99S", "[linewatch k]"]),
)  # fmt: skip
ANSWERS = st.recursive(
    VALUES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=5)),
    max_leaves=12,
)


class Garbage(BaseHTTPRequestHandler):
    """Answers what it was told, to everything; the token endpoint works."""

    protocol_version = "HTTP/1.1"
    status = 200
    answer: Any = None

    def _any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = {"access_token": "t" * 20, "token_type": "Bearer", "expires_in": 3600}
        is_token = self.path == "/oauth/token"
        body = json.dumps(token if is_token else self.answer).encode()
        self.send_response(200 if is_token else self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-CSRF-Token", "csrf-token")
        self.send_header("Set-Cookie", "session=1")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = _any  # noqa: N815 - the base class's names

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture(scope="module", params=PRODUCTS)
def answering(request: pytest.FixtureRequest) -> Iterator[tuple[Any, type[Garbage]]]:
    handler = type("Handler", (Garbage,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    secrets = SecretsManager(**credentials(request.param, "some-secret"))
    yield erp_of(environment(request.param, f"http://127.0.0.1:{server.server_port}", 20), secrets), handler
    server.shutdown()
    server.server_close()
    thread.join(10)


@given(answer=ANSWERS, status=st.sampled_from([200, 200, 200, 201, 400, 403, 409, 422, 500]))
@example(answer=[{"x_linewatch_reference": "lw-1"}], status=200)
@example(answer={"member": [{"lwreference": "lw-1"}]}, status=200)
@example(answer={"content": [{"title": "x [lw-1]"}]}, status=200)
@example(answer={"work_orders": [{"external_reference": "lw-1"}]}, status=200)
@example(answer={"d": {"results": [{"MaintNotifExtReferenceNumber": "LW-1"}]}}, status=200)
@example(
    answer={
        "d": {
            "NotifProcessingPhase": "4",
            "NotificationCompletionDate": "/Date(99999999999999999)/",
            "results": [],
        }
    },
    status=200,
)
@example(answer={"error": {"innererror": {"errordetails": {"a": 1}}}}, status=400)
@example(answer={"oslc:Error": "no"}, status=400)
@example(answer={"notes": True}, status=200)
@example(answer={"member": [{"href": "https://x/y/z", "wonum": "1001", "worklog": True}]}, status=200)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_answer_is_an_order_or_a_named_error(
    answering: tuple[Any, type[Garbage]], answer: Any, status: int
) -> None:
    erp, handler = answering
    handler.status, handler.answer = status, answer
    erp_id = "BEDFORD/1001" if type(erp).__name__ == "MaximoErp" else "1"
    order = {"external_reference": "lw-1", "asset_id": "A", "title": "Fan", "priority": "low"}

    for call, kind in (
        (lambda: erp.find_by_reference("lw-1"), ErpOrder | None),
        (lambda: erp.create(order), ErpOrder),
        (lambda: erp.status(erp_id), ErpStatus),
        (lambda: erp.add_note(erp_id, "k", "text"), None),
    ):
        try:
            got = call()
        except ErpError:
            continue
        assert kind is None or isinstance(got, kind)
        if isinstance(got, ErpOrder):
            assert got.id.strip("/"), "an order without an id can never be read again"
