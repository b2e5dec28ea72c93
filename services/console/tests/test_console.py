# SPDX-License-Identifier: Apache-2.0
"""The console's promises, seen from a browser's side of a real process."""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from console_process import (
    Broker,
    CloudServer,
    Console,
    Start,
    ask,
    hears,
    inspection,
    stranger,
    wait_for,
)
from console_stand_in import work_order
from nucleus_ipc import NucleusIpc

from linewatch_console.cloud_shapes import OrderList

Publish = Callable[[str, bytes | dict[str, Any]], None]
TOPIC = "linewatch/v1/plant-1/line-1/station-1/inspection"
STATIC = Path(__file__).parents[1] / "linewatch_console" / "static"


def has_part(part_id: str) -> Callable[[str, dict[str, Any]], bool]:
    def found(kind: str, content: dict[str, Any]) -> bool:
        tiles = content["tiles"] if kind == "snapshot" else [content] if kind == "tile" else []
        return any(tile["last"] and tile["last"]["part_id"] == part_id for tile in tiles)

    return found


def has_order(reference: str, status: str) -> Callable[[str, dict[str, Any]], bool]:
    def found(kind: str, content: dict[str, Any]) -> bool:
        orders = (
            content["orders"]["orders"]
            if kind == "snapshot"
            else content["orders"]
            if kind == "orders"
            else []
        )
        return any(order["reference"] == reference and order["status"] == status for order in orders)

    return found


def link_is(state: str, detail: str = "") -> Callable[[str, dict[str, Any]], bool]:
    def found(kind: str, content: dict[str, Any]) -> bool:
        panel = content["orders"] if kind == "snapshot" else content
        return (
            kind in {"snapshot", "orders"}
            and panel["link"]["state"] == state
            and detail in panel["link"]["detail"]
        )

    return found


def test_part_travels_from_the_broker_to_the_page(console: Console, publish: Publish) -> None:
    publish(TOPIC, inspection(1, "EL7_3.jpg", result="NG", label="crack", score=0.93))

    tile = console.messages(has_part("EL7_3.jpg"))[-1][2]

    tile = tile["tiles"][0] if "tiles" in tile else tile
    assert (tile["key"], tile["last"]["result"], tile["last"]["label"]) == ("line-1/station-1", "NG", "crack")
    assert tile["counts"]["NG"] >= 1


def test_page_that_comes_back_misses_nothing(console: Console, publish: Publish) -> None:
    publish(TOPIC, inspection(1, "first"))
    seen = console.messages(has_part("first"))[-1][0]
    publish(TOPIC, inspection(2, "second"))
    publish(TOPIC, inspection(3, "third"))

    messages = console.messages(has_part("third"), last_event_id=seen)

    assert "snapshot" not in [kind for _, kind, _ in messages]
    new = [point["part_id"] for _, kind, content in messages if kind == "tile" for point in content["new"]]
    assert new == ["second", "third"]


def test_statuses_reach_the_page(console: Console, publish: Publish) -> None:
    stream = {
        "name": "predictions-line-1",
        "events": 3,
        "bytes": 900,
        "max_bytes": 10485760,
        "oldest_age_s": 4.5,
    }
    uplink = {"connected": False, "since": "2026-11-21T04:01:00Z", "detail": "timed out"}
    publish(
        "linewatch/v1/plant-1/device/forwarder/status",
        {"state": "offline-uplink", "uplink": uplink, "streams": [stream]},
    )
    publish(
        "linewatch/v1/plant-1/line-1/station-1/status",
        {"state": "running", "sent": 5, "spool": {"events": 1}},
    )

    heard: set[str] = set()

    def both(kind: str, content: dict[str, Any]) -> bool:
        whole = content if kind == "snapshot" else {}
        if (whole.get("forwarder") or (content if kind == "forwarder" else {})).get("streams"):
            heard.add("forwarder")
        if any(tile["status"] for tile in whole.get("tiles", [content] if kind == "tile" else [])):
            heard.add("capture")
        return len(heard) == 2

    # As a page does: one stream until both are there. To open one for each look took 0.6 s each on a busy machine.
    console.messages(both)
    snapshot = console.messages(lambda kind, _: kind == "snapshot")[-1][2]

    assert snapshot["forwarder"]["uplink"] == uplink | {
        "for_s": None, "certificate_days": None, "promise": "", "handed_over": 0,
    }  # fmt: skip
    assert snapshot["forwarder"]["streams"][0]["oldest_age_s"] == 4.5
    assert snapshot["forwarder"]["drain"] is None, "an older forwarder says less"
    assert snapshot["tiles"][0]["status"]["state"] == "running"


def test_rubbish_from_the_broker_is_counted_and_left(console: Console, publish: Publish) -> None:
    before = console.http.get("/metrics").text
    publish(TOPIC, b"\xff not json")
    publish(TOPIC, {"type": "InferenceCompleted", "id": "1", "data": {"verdict": "hostile"}})
    publish("linewatch/v1/plant-1/line-1/station-1/status", {"state": ["?"]})
    publish(TOPIC, inspection(1, "after"))

    console.messages(has_part("after"))

    after = console.http.get("/metrics").text
    assert refused(after, "inspection") - refused(before, "inspection") == 2
    assert refused(after, "status") - refused(before, "status") == 1


def refused(metrics: str, kind: str) -> float:
    found = re.search(rf'linewatch_console_messages_refused_total{{kind="{kind}"}} (\S+)', metrics)
    return float(found[1]) if found else 0.0


def test_hostile_part_id_stays_text(console: Console, publish: Publish) -> None:
    hostile = '</script><img src=x onerror="alert(1)">\n\nevent: orders\ndata: {}'
    publish(TOPIC, inspection(1, hostile))

    messages = console.messages(has_part(hostile))

    assert messages[-1][1] in {"tile", "snapshot"}  # it came whole, inside one message
    assert hostile not in console.http.get("/").text
    policy = console.http.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("script", sorted((STATIC / "js").rglob("*.js")), ids=lambda path: path.name)
def test_scripts_never_parse_text_as_markup(script: Path) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|createContextualFragment|setHTML|srcdoc"

    assert re.findall(forbidden, script.read_text()) == []


def test_page_needs_nothing_from_elsewhere(console: Console) -> None:
    page = console.http.get("/").text
    own = re.findall(r'(?:src|href)="(/[^"]*)"', page)
    texts = [page, *(path.read_text() for path in STATIC.rglob("*.*"))]

    assert all(console.http.get(address).status_code == 200 for address in own)
    outside = {found for text in texts for found in re.findall(r"https?://[^\s\"'`)]+", text)}
    assert outside <= {"http://www.w3.org/2000/svg"}
    assert "<style" not in page
    assert " style=" not in page


def test_approval_reaches_the_cloud_with_name_and_reason(console: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    console.messages(has_order("lw-1", "awaiting_approval"))

    answer = console.decide("lw-1", "approve", "seen on the line")

    assert (answer.status_code, answer.json()["status"]) == (200, "created")
    assert cloud.stand_in.decided == [("lw-1", "approve", "supervisor", "seen on the line")]
    console.messages(has_order("lw-1", "created"))
    history = console.http.get("/api/work-orders/lw-1").json()["history"]
    assert [entry["what"] for entry in history] == ["opened", "approve"]


def test_rejection_needs_a_reason(console: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1"))

    assert console.decide("lw-1", "reject", "  ").status_code == 400
    assert console.decide("lw-1", "reject", "x" * 501).status_code == 400
    assert console.decide("lw-1", "reject", "serviced today").status_code == 200
    assert cloud.stand_in.decided == [("lw-1", "reject", "supervisor", "serviced today")]


def test_second_decision_is_told_as_conflict(console: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1", status="created"))

    answer = console.decide("lw-1", "approve", "")

    assert (answer.status_code, answer.json()["error"]) == (409, "it is created")
    assert answer.json()["order"]["status"] == "created"
    assert console.decide("lw-2", "approve", "").status_code == 404


@pytest.mark.parametrize(("headers", "why"), [
    ({"Origin": "http://elsewhere.example"}, "this page"),
    ({"Origin": ""}, "this page"),
    ({"Origin": "null"}, "this page"),
    ({"X_CSRF_Token": "guess"}, "token"),
    ({"X_CSRF_Token": ""}, "token"),
    ({"Cookie": "linewatch_session=guess"}, "session has ended"),
])  # fmt: skip
def test_another_sites_page_can_decide_nothing(
    console: Console, cloud: CloudServer, headers: dict[str, str], why: str
) -> None:
    cloud.stand_in.add(work_order("lw-1"))

    answer = console.decide("lw-1", "approve", "", **headers)

    assert answer.status_code == 403
    assert why in answer.json()["error"]
    assert cloud.stand_in.decided == []


def test_session_cookie_stays_with_the_browser(console: Console) -> None:
    cookie = console.http.get("/").headers["set-cookie"]

    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()


def test_page_answers_to_its_own_names_only(console: Console) -> None:
    answers = {
        host: console.http.get("/", headers={"Host": host}).status_code
        for host in ("localhost:1", "127.0.0.1", "[::1]:8080", "rebound.example", "127.0.0.1.rebound.example")
    }

    assert list(answers.values()) == [200, 200, 200, 421, 421]


def test_cloud_that_goes_away_is_told_and_comes_back(console: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    console.messages(has_order("lw-1", "awaiting_approval"))

    cloud.stop()

    panel = console.messages(link_is("down", "nothing answers at its address"))[-1][2]
    panel = panel["orders"] if "tiles" in panel else panel
    assert panel["orders"][0]["reference"] == "lw-1"  # the last list stays
    answer = console.decide("lw-1", "approve", "")
    assert answer.status_code == 503
    assert cloud.stand_in.decided == []

    cloud.start()

    console.messages(link_is("up"))
    assert console.decide("lw-1", "approve", "").status_code == 200


@pytest.mark.parametrize(
    ("status", "detail"), [(401, "does not accept the token"), (500, "failed with HTTP 500")]
)
def test_cloud_that_refuses_is_told(console: Console, cloud: CloudServer, status: int, detail: str) -> None:
    cloud.stand_in.fails_with = status

    console.messages(link_is("down", detail))


def test_answer_that_is_no_work_order_is_told(console: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1", status="dancing"))

    console.messages(link_is("down", "work_orders.0.status"))


def test_one_odd_order_hides_no_other_and_is_told(console: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    cloud.stand_in.add(work_order("lw-2", status="dancing"))

    panel = console.messages(link_is("up", "orders that are not understood: 1, the first: lw-2: status"))[-1][
        2
    ]
    panel = panel["orders"] if "tiles" in panel else panel

    assert ([order["reference"] for order in panel["orders"]], panel["left_out"]) == (["lw-1"], 1)
    listed = console.http.get("/api/work-orders").json()
    assert ([order["reference"] for order in listed["work_orders"]], listed["left_out"]) == (["lw-1"], 1)


def test_a_number_that_json_lacks_costs_its_own_order_alone() -> None:
    endless = work_order("lw-2")
    endless["time_to_failure"] = {"p90": 1.0, "unit": "cycle", "hours": {"p90": math.inf}}
    answer = json.dumps({"work_orders": [work_order("lw-1"), endless, 7], "next": "here"})

    read = OrderList.model_validate_json(answer)

    assert [order.reference for order in read.work_orders] == ["lw-1"]
    assert (read.next, read.left_out) == ("here", 2)
    assert read.first_fault.startswith("lw-2: time_to_failure.hours.p90: ")


def test_console_starts_and_stays_without_broker_and_cloud(start: Start, broker: Broker) -> None:
    broker.stop()
    console = start(CONSOLE_MQTT_PORT=str(broker.port))

    assert console.http.get("/").status_code == 200
    health = console.http.get("/healthz")
    assert (health.status_code, health.json()) == (
        200,
        {"state": "serving", "broker": "not connected", "cloud_api": "off"},
    )

    broker.start()

    hears(console)


def test_one_page_too_many_is_refused(start: Start) -> None:
    console = start(CONSOLE_MAX_CLIENTS="1")
    address = f"{console.url}/api/stream"

    with stranger() as page, page.stream("GET", address) as first:
        assert first.status_code == 200
        assert ask(address).status_code == 503

    wait_for("the first page's place", lambda: open_status(address) == 200)


def open_status(address: str) -> int:
    with stranger() as page, page.stream("GET", address) as answer:
        return answer.status_code


def test_stop_ends_open_pages_at_once(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    console = start()
    with stranger() as page, page.stream("GET", f"{console.url}/api/stream") as answer:
        lines = answer.iter_lines()
        next(lines)

        console.process.terminate()

        assert console.process.wait(5) == 0
        assert list(lines) is not None  # the stream was ended, not cut
    told = "".join(capfd.readouterr())
    assert '"stopped"' in told
    assert "graceful shutdown exceeded" not in told, "the page was ended, and not given up after the grace"


def test_stop_is_next_to_no_work(start: Start) -> None:
    """Regression: the interpreter's own end took 0.3 s of a core, and so 6 to 10 s on a machine with 30 busy processes."""
    console = start()
    assert console.http.get("/").status_code == 200
    process = console.process
    worked = psutil.Process(process.pid).cpu_times()
    process.terminate()

    wait_for("the end", lambda: os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))

    _, status, used = os.wait4(process.pid, 0)  # the kernel's account of all that it worked
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    before_s = worked.user + worked.system
    assert used.ru_utime + used.ru_stime - before_s < 0.2 * before_s, "a fifth of what its start took"


def test_other_machines_sign_in_first(start: Start, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse battery\n")
    console = start(CONSOLE_HOST="127.0.0.1", CONSOLE_PASSWORD_FILE=str(tmp_path / "password"))
    (console.evidence_dir / "frame.jpg").write_bytes(b"x")

    closed = [
        console.http.get(path).status_code
        for path in ("/", "/api/stream", "/evidence/frame.jpg", "/metrics", "/api/work-orders/lw-1")
    ]
    assert closed == [303, 401, 401, 401, 401]
    assert console.http.get("/healthz").status_code == 200

    def sign_in(password: str, origin: str = console.url) -> int:
        return console.http.post(
            "/login", data={"password": password}, headers={"Origin": origin}
        ).status_code

    assert sign_in("wrong") == 401
    assert sign_in("correct horse battery", "http://elsewhere.example") == 403
    assert console.http.get("/evidence/frame.jpg").status_code == 401
    assert sign_in("correct horse battery") == 303
    assert console.http.get("/").status_code == 200
    assert console.http.get("/evidence/frame.jpg").status_code == 200

    token = console.token()
    assert console.http.post("/logout", headers={"Origin": console.url}).status_code == 403
    console.http.post("/logout", data={"csrf": token}, headers={"Origin": console.url})
    assert console.http.get("/evidence/frame.jpg").status_code == 401
    assert [sign_in("wrong") for _ in range(10)][-1] == 429
    assert sign_in("correct horse battery") == 429


def test_the_nucleus_hears_that_it_runs_once_the_page_is_served(start: Start, tmp_path: Path) -> None:
    with NucleusIpc(tmp_path / "ipc.socket", tokens={"console"}) as nucleus:
        console = start(**nucleus.environment("console"))

        nucleus.wait_for_state("console")

        assert console.http.get("/healthz").json()["broker"] == "not connected"
        assert nucleus.subscribers() == []
