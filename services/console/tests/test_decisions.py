# SPDX-License-Identifier: Apache-2.0
"""What people decide, on its way to the cloud and back, and the reports that come from there."""

import asyncio
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import until
from console_process import DEADLINE_S, PASSWORDS, CloudServer, Console, Start, free_port, wait_for
from console_stand_in import TOKEN, work_order

from linewatch.records import Entry
from linewatch_console.cloud_api import CloudApi
from linewatch_console.hub import Hub
from linewatch_console.orders import Orders
from linewatch_console.people import Person


@pytest.fixture
def approver(signing: Console) -> Console:
    signing.sign_in("approver", PASSWORDS["approver"])
    return signing


@pytest.mark.anyio
async def test_look_that_was_begun_before_a_decision_does_not_take_it_back(
    cloud: CloudServer, tmp_path: Path
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    (tmp_path / "token").write_text(TOKEN)
    hub, api = Hub(1), CloudApi(f"http://127.0.0.1:{cloud.port}", tmp_path / "token")
    orders = Orders(api, hub, 0.05)
    looking = asyncio.create_task(orders.run(), name="orders")
    await until(lambda: orders.snapshot()["orders"], "the first look")
    page = hub.attach("")
    read, cloud.stand_in.holds_list = cloud.stand_in.lists, True
    await until(lambda: cloud.stand_in.lists > read, "the next one is under way")

    path = "/work-orders/lw-1/approve"
    orders.changed(await orders.send("approve", path, {}, Person("anna", "approver"), "sha256:00"))
    read, cloud.stand_in.holds_list = cloud.stand_in.lists, False
    await until(lambda: cloud.stand_in.lists > read + 1, "looks that began after it")
    looking.cancel()
    await asyncio.wait([looking])
    await orders.close()

    told = [page.queue.get_nowait() or b"" for _ in range(page.queue.qsize())]
    contents = [json.loads(one.partition(b"\ndata: ")[2]) for one in told]
    assert {one["orders"][0]["status"] for one in contents} == {"created"}


@pytest.mark.anyio
async def test_answer_that_comes_behind_a_newer_look_is_looked_at_again(
    cloud: CloudServer, tmp_path: Path
) -> None:
    """It is shown once the audit log has it, and a disk may take longer than the cloud takes to go on."""
    cloud.stand_in.add(work_order("lw-1"))
    (tmp_path / "token").write_text(TOKEN)
    api = CloudApi(f"http://127.0.0.1:{cloud.port}", tmp_path / "token")
    orders = Orders(api, Hub(1), 3600.0)
    looking = asyncio.create_task(orders.run(), name="orders")

    def status() -> str:
        return "".join(one["status"] for one in orders.snapshot()["orders"])

    await until(status, "the first look")
    cloud.stand_in.holds_list = True
    path = "/work-orders/lw-1/approve"
    answer = await orders.send("approve", path, {}, Person("anna", "approver"), "sha256:00")
    cloud.stand_in.orders["lw-1"] |= {"status": "closed"}
    cloud.stand_in.holds_list = False
    await until(lambda: status() in {"created", "closed"}, "the look that follows a decision")
    read = cloud.stand_in.lists

    orders.changed(answer)

    await until(
        lambda: cloud.stand_in.lists > read and status() == "closed", "the one that follows its answer"
    )
    looking.cancel()
    await asyncio.wait([looking])
    await orders.close()


def test_merge_close_and_escape_reach_the_cloud_as_they_were_given(
    approver: Console, cloud: CloudServer
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    cloud.stand_in.add(work_order("lw-2"))
    cloud.stand_in.add(work_order("lw-3", status="created", erp_id="ERP-1"))
    escape = {
        "asset_id": "STR-01",
        "failure_mode": "cell-crack",
        "found_at": "2026-11-20T10:00:00Z",
        "note": "by eye",
    }
    finding = {"finding": "other_fault", "note": " belt torn ", "found_failure": "belt"}

    merged = approver.post("/api/work-orders/lw-1/merge", {"into": "lw-2", "reason": "same shift"})
    closed = approver.post("/api/work-orders/lw-3/close", finding)
    corrected = approver.post("/api/work-orders/lw-3/close", {"finding": "confirmed"})
    reported = approver.post("/api/escapes", escape)

    assert (merged.status_code, merged.json()["status"], merged.json()["merged_into"]) == (
        200,
        "merged",
        "lw-2",
    )
    assert (closed.json()["status"], closed.json()["finding"], closed.json()["note"]) == (
        "closed",
        "other_fault",
        "belt torn",
    )
    assert corrected.json()["finding"] == "confirmed"
    assert reported.json()["reference"].startswith("escape-")
    assert cloud.stand_in.escapes == [escape | {"by": "approver"}]
    assert cloud.stand_in.orders["lw-2"]["merged"] == ["lw-1"]


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("work-orders/lw-1/reject", {}, "reason: a reason"), ("work-orders/lw-1/reject", {"reason": 5}, "reason: a reason"),
        ("work-orders/lw-1/reject", {"reason": "x", "role": "admin"}, "role: there is no such field"),
        ("work-orders/lw-1/reject", {"reason": "x", "by": "somebody"}, "by: there is no such field"),
        ("work-orders/lw-1/merge", {"into": "../x", "reason": "x"}, "into: the reference"),
        ("work-orders/lw-1/merge", {"into": "lw-2"}, "reason: a reason"),
        ("work-orders/lw-1/close", {"finding": "maybe"}, "finding: it must be confirmed"),
        ("work-orders/lw-1/close", {"finding": "confirmed", "note": "x" * 1001}, "note: "),
        ("escapes", {"asset_id": "A", "failure_mode": "", "found_at": "2026"}, "failure_mode: "),
        ("escapes", [], "JSON object"), ("work-orders/lw-1/approve", {"reason": "x" * 9000}, "JSON"),
    ],
)  # fmt: skip
def test_wrong_field_is_named_and_nothing_is_sent(
    approver: Console, cloud: CloudServer, path: str, body: Any, why: str
) -> None:
    cloud.stand_in.add(work_order("lw-1"))

    answer = approver.post(f"/api/{path}", body)

    assert answer.status_code == 400
    assert why in answer.json()["error"]
    assert (cloud.stand_in.decided, cloud.stand_in.escapes) == ([], [])


@pytest.mark.parametrize("verb", ["delete", "approve%2F..", "why", ""])
def test_what_is_no_decision_is_not_sent(approver: Console, cloud: CloudServer, verb: str) -> None:
    cloud.stand_in.add(work_order("lw-1"))

    assert approver.post(f"/api/work-orders/lw-1/{verb}", {}).status_code in {404, 405}
    assert cloud.stand_in.decided == []


def test_of_two_who_decide_one_wins_and_the_other_sees_the_order(
    approver: Console, cloud: CloudServer
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    answers: list[tuple[int, dict[str, Any]]] = []

    def decide(verb: str) -> None:
        answer = approver.post(f"/api/work-orders/lw-1/{verb}", {"reason": "so it is"})
        answers.append((answer.status_code, answer.json()))

    both = [threading.Thread(target=decide, args=(verb,)) for verb in ("approve", "reject")]
    for one in both:
        one.start()
    for one in both:
        one.join(2 * DEADLINE_S)

    assert sorted(status for status, _ in answers) == [200, 409]
    refused = next(content for status, content in answers if status == 409)
    assert refused["order"]["status"] in {"created", "rejected"}
    assert len(cloud.stand_in.decided) == 1


class Silent:
    """A server that takes a request and does with it as it is told."""

    def __init__(self, act: Callable[[socket.socket], None]) -> None:
        self.requests: list[bytes] = []
        self._act = act
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._take, args=(connection,), daemon=True).start()

    def _take(self, connection: socket.socket) -> None:
        with connection:
            body = json.dumps({"error": "not now"}).encode()
            not_now = b"HTTP/1.1 503 x\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
                len(body),
                body,
            )
            # The console may hang up before it has read all, as with an answer without end.
            with contextlib.suppress(OSError):
                head = connection.recv(65536)
                if head.startswith(b"POST"):
                    self.requests.append(head)
                    self._act(connection)
                else:
                    connection.sendall(not_now)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends an accept that waits; close alone leaves it
        self._listener.close()


def answered(content: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(content)


UNCLEAR = {
    "connection closed": answered(b""),
    "half an answer": answered(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"),
    "no HTTP": answered(b"\x00\x01garbage\r\n\r\n"),
    "no JSON": answered(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK"),
    "HTTP 500": answered(b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n"),
    "HTTP 504": answered(b"HTTP/1.1 504 x\r\ncontent-length: 0\r\n\r\n"),
    "an answer without end": answered(
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 9_000_000
    ),
}


@pytest.fixture(params=sorted(UNCLEAR))
def unclear(request: pytest.FixtureRequest) -> Iterator[Silent]:
    server = Silent(UNCLEAR[request.param])
    yield server
    server.close()


def test_decision_whose_answer_did_not_come_is_told_as_not_known_and_sent_once(
    start: Start, unclear: Silent, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    console = start(
        CONSOLE_CLOUD_API_URL=f"http://127.0.0.1:{unclear.port}",
        CONSOLE_CLOUD_API_TOKEN_FILE=str(tmp_path / "token"),
    )

    answer = console.post("/api/work-orders/lw-1/approve", {})

    assert answer.status_code == 503
    assert answer.json()["outcome"] == "not_known"
    assert "it is not known whether this was taken; look again" in answer.json()["error"]
    wait_for("the list was asked again", lambda: "5xx" in console.http.get("/metrics").text)
    assert len(unclear.requests) == 1, "never by itself"


def test_decision_that_never_left_is_told_as_not_sent(start: Start, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    console = start(
        CONSOLE_CLOUD_API_URL=f"http://127.0.0.1:{free_port()}",
        CONSOLE_CLOUD_API_TOKEN_FILE=str(tmp_path / "token"),
    )

    answer = console.post("/api/work-orders/lw-1/approve", {})

    assert (answer.status_code, answer.json()["outcome"]) == (503, "not_sent")


def test_orders_are_asked_by_status_and_asset(approver: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    cloud.stand_in.add(work_order("lw-2", status="closed", asset_id="STR-02"))

    def references(query: str) -> list[str]:
        orders = approver.http.get(f"/api/work-orders{query}").json()["work_orders"]
        return [one["reference"] for one in orders]

    assert sorted(references("")) == ["lw-1", "lw-2"]
    assert references("?status=closed") == ["lw-2"]
    assert references("?asset_id=STR-01") == ["lw-1"]
    assert approver.http.get("/api/work-orders?status=%0d%0aX").status_code == 400


def test_what_a_newer_cloud_says_of_an_order_passes(approver: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(
        work_order(
            "lw-1", moon="full", priority=1, approval={"expires_at": "2026-11-22T00:00:00Z", "tide": 3}
        )
    )

    order = approver.http.get("/api/work-orders/lw-1").json()

    assert (order["moon"], order["priority"], order["approval"]["tide"]) == ("full", 1, 3)


def test_reports_pass_as_the_cloud_gives_them(approver: Console, cloud: CloudServer) -> None:
    cloud.stand_in.reports = {
        "accuracy": {"total": {"orders": 3}}, "pilot-exit": {"risk": 0.1}, "assets": {"assets": []},
    }  # fmt: skip

    for name, content in cloud.stand_in.reports.items():
        assert approver.http.get(f"/api/{name}").json() == content
    cloud.stand_in.reports = {}
    assert approver.http.get("/api/accuracy").status_code == 404
    cloud.stand_in.fails_with = 500
    assert approver.http.get("/api/accuracy").status_code == 503


def test_records_of_many_pages_are_reckoned_whole(approver: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    for number in range(23):
        cloud.stand_in.record("lw-1", "tried", "erp", {"number": number})

    told = approver.http.get("/api/verify/lw-1").json()

    assert (told["verified"], told["entries"]) == (True, 24)


def test_records_of_an_order_are_reckoned_here_too(approver: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    approver.post("/api/work-orders/lw-1/approve", {"reason": "gesehen, Grüße"})
    assert approver.http.get("/api/verify/lw-1").json()["verified"]

    chain = cloud.stand_in.chains["lw-1"]
    changed = Entry(**{**{name: getattr(chain[1], name) for name in Entry.__slots__}, "by": "somebody else"})
    cloud.stand_in.chains["lw-1"] = [chain[0], changed]
    told = approver.http.get("/api/verify/lw-1").json()
    assert (told["verified"], told["fault"]["number"]) == (False, 1)

    cloud.stand_in.chains["lw-1"] = [chain[0]]
    told = approver.http.get("/api/verify/lw-1").json()
    assert (told["verified"], "the end is missing" in told["fault"]["why"]) == (False, True)


def evidence_of(content: bytes, path: str = "line-1/20261121/part.jpg") -> dict[str, str]:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return {"kind": "frame", "path": path, "media_type": "image/jpeg", "digest": digest}


def shown(console: Console, path: str) -> Any:
    """The picture of an order, which the console has to have looked at first."""
    wait_for("the order", lambda: console.http.get("/api/work-orders").json()["work_orders"])
    return console.http.get(f"/evidence/{path}")


def test_evidence_that_is_not_here_comes_from_the_cloud(approver: Console, cloud: CloudServer) -> None:
    one = evidence_of(b"a picture")
    cloud.stand_in.files[one["path"]] = b"a picture"
    cloud.stand_in.add(work_order("lw-1", evidence=[one]))

    answer = shown(approver, one["path"])

    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (
        200,
        b"a picture",
        "image/jpeg",
    )
    cloud.stand_in.files.clear()
    assert approver.http.get(f"/evidence/{one['path']}").content == b"a picture", (
        "kept: what has a digest never changes"
    )
    again = approver.http.get(f"/evidence/{one['path']}", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_evidence_that_is_not_what_the_order_was_made_from_is_not_shown(
    approver: Console, cloud: CloudServer
) -> None:
    one = evidence_of(b"a picture of a crack", "line-1/20261121/changed.jpg")
    cloud.stand_in.files[one["path"]] = b"another picture"
    cloud.stand_in.add(work_order("lw-1", evidence=[one]))

    answer = shown(approver, one["path"])

    assert answer.status_code == 502
    assert "its digest differs" in answer.json()["error"]


def test_only_what_an_order_names_is_asked_of_the_cloud(approver: Console, cloud: CloudServer) -> None:
    cloud.stand_in.files["line-1/20261121/private.jpg"] = b"somebody"
    cloud.stand_in.add(work_order("lw-1"))

    assert shown(approver, "line-1/20261121/private.jpg").status_code == 404
    for path in (
        "../token",
        "..%2ftoken",
        "line-1/../../token",
        "%2e%2e/token",
        "line-1/.hidden.jpg",
        "x.jpg%00.png",
    ):
        assert approver.http.get(f"/evidence/{path}").status_code == 404


def test_why_names_its_pictures_on_this_console(approver: Console, cloud: CloudServer) -> None:
    one = evidence_of(b"part", "line-1/20261121/of-a-part.jpg")
    cloud.stand_in.files[one["path"]] = b"part"
    cloud.stand_in.add(work_order("lw-1"))
    cloud.stand_in.parts["lw-1"] = [
        {"event_id": "1", "evidence": [one, {"kind": "frame", "path": "../x", "digest": ""}]}
    ]

    told = approver.http.get("/api/work-orders/lw-1/why").json()

    first, second = told["parts"][0]["evidence"]
    assert (first["url"], second["url"]) == (f"/evidence/{one['path']}", "")
    assert approver.http.get(first["url"]).content == b"part"
