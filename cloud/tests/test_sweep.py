# SPDX-License-Identifier: Apache-2.0
"""What one run of the sweep gets to while one order, the ERP or the devices' endpoint gives no answer, or time is short.

The product in virtual time, as the schedules have it (tests/faults/schedule_world.py); the silent endpoint is a socket.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import time as time_of_day
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import boto3
import pytest
from botocore.stub import Stubber
from faults.schedule_erp import ErpServer
from faults.schedule_world import Station, World, world_of

import api.deciding
import api.handler
import erp.deadline
import watch.handler
import work_orders.handler
import work_orders.sweep
from work_orders.announcing import Announcer
from work_orders.aws import ANNOUNCE, SHADOW
from work_orders.budget import AFTER_ERP_S, ORDER_S
from work_orders.order_items import WorkOrder
from work_orders.quiet_hours import DAYS, QuietHours
from work_orders.shadow import DeviceShadow
from work_orders.sweep import BATCH, MOST_SILENT, sweep


@pytest.fixture
def world() -> Iterator[World]:
    with world_of(1, faults=False) as made:
        yield made


def station(world: World) -> Station:
    number = len(world.stations)
    made = Station(f"ASSET-{number}", f"line-{number}")
    world.stations.append(made)
    return made


def crossed(world: World, at: Station) -> None:
    for _ in range(5):
        world.bad_part(at, 0.95, times=1)


def order_of(world: World, at: Station) -> WorkOrder:
    items = world.dynamodb.scan(TableName="WorkOrdersTable")["Items"]
    (reference,) = [item["reference"] for item in items if item["asset_id"] == at.asset_id]
    order = world.desk().orders.get(reference)
    assert order is not None
    return order


def parked(world: World, at: Station) -> WorkOrder:
    world.erp.away.append((world.hub.now, world.hub.now + 3000))
    crossed(world, at)
    world.hub.run_until(world.hub.now + 3001)
    order = order_of(world, at)
    assert order.status == "parked"
    return order


def corrupt(monkeypatch: pytest.MonkeyPatch, *references: str) -> None:
    """The ERP can't look these up, and all others."""
    real = ErpServer._find

    def find(self: ErpServer, reference: str) -> tuple[int, bytes]:
        return (500, b'{"error": "row 17"}') if reference in references else real(self, reference)

    monkeypatch.setattr(ErpServer, "_find", find)


def test_an_order_that_the_erp_can_not_look_up_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, held, noted = station(world), station(world), station(world)
    crossed(world, noted)
    world.hub.run_until(world.hub.now + 100)
    corrupt(monkeypatch, parked(world, bad).reference)
    until = time_of_day(6, 0)
    quiet = QuietHours(frozenset(DAYS), time_of_day(0, 0), until, ZoneInfo("UTC"), 0.97)
    world.data = replace(world.data, quiet_hours=(quiet,))
    crossed(world, held)
    world.hub.run_until(world.hub.now + 100)
    assert order_of(world, held).hold_until
    assert world.desk().orders.add_note(order_of(world, noted), "n", "a note", "mei")
    world.hub.run_until(max(order_of(world, held).hold_until, order_of(world, bad).hold_until) + 3700)

    sweep(world.desk())

    assert order_of(world, held).status == "created"
    assert [note["key"] for order in world.erp.orders for note in order["notes"]] == ["n"]
    assert order_of(world, bad).status == "parked"
    monkeypatch.undo()


def test_orders_that_can_not_be_looked_up_go_behind_those_that_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [station(world) for _ in range(MOST_SILENT + 1)]
    corrupt(monkeypatch, *(parked(world, at).reference for at in bad))
    good = [station(world) for _ in range(2)]
    for at in good:
        parked(world, at)
    # Both kinds wait, and the bad ones waited longest.
    world.hub.run_until(world.hub.now + 7200)

    runs = 0
    while any(order_of(world, at).status != "created" for at in good):
        sweep(world.desk())
        runs += 1
        assert runs <= MOST_SILENT + 1, "the ones that the ERP can't look up hold up the others"

    assert {order_of(world, at).status for at in bad} == {"parked"}


def test_an_erp_that_is_away_is_asked_for_two_orders_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in [station(world) for _ in range(6)]:
        parked(world, at)
    world.hub.run_until(world.hub.now + 7200)
    world.erp.away.append((world.hub.now, world.hub.now + 100))
    asked: list[str] = []
    real = ErpServer.answer

    def answer(self: ErpServer, method: str, target: str, *rest: Any) -> tuple[int, bytes]:
        asked.append(target)
        return real(self, method, target, *rest)

    monkeypatch.setattr(ErpServer, "answer", answer)

    seen = sweep(world.desk())

    assert len(asked) == MOST_SILENT
    assert seen["failed"] == seen["parked"] == 0


@pytest.fixture(autouse=True)
def credentials() -> Iterator[None]:
    # A patch of its own: a test's `monkeypatch` has to be undone before its world, which patches the same places.
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", "x")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "x")
        yield


@contextmanager
def silent_endpoint() -> Iterator[tuple[str, list[socket.socket]]]:
    """Takes every connection and says nothing; its address and the connections."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
        finally:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join(60)
            for one in taken:
                one.close()


def test_a_silent_device_endpoint_is_asked_once_and_the_orders_are_placed_first(world: World) -> None:
    stations = [station(world) for _ in range(6)]
    for at in stations:
        parked(world, at)
    world.hub.run_until(world.hub.now + 7200)
    with silent_endpoint() as (url, taken):
        iot = boto3.client("iot-data", region_name="eu-central-1", config=SHADOW, endpoint_url=url)
        begin = time.monotonic()
        sweep(replace(world.desk(), shadow=DeviceShadow(iot)))
        took_s = time.monotonic() - begin

    assert {order_of(world, at).status for at in stations} == {"created"}
    assert {order_of(world, at).shadow for at in stations} == {"pending"}
    assert len(taken) == 1
    # One time-out of SHADOW; with SHORT a single order took 40 s.
    assert took_s < 30
    # It answers again: what was left is shown.
    sweep(world.desk())
    assert {order_of(world, at).shadow for at in stations} == {"written"}


def test_a_silent_device_endpoint_is_asked_again_after_its_pause(world: World) -> None:
    first = station(world)
    crossed(world, first)
    with silent_endpoint() as (url, taken):
        now = [0.0]
        shadow = DeviceShadow(
            boto3.client("iot-data", region_name="eu-central-1", config=SHADOW, endpoint_url=url),
            clock=lambda: now[0],
        )
        world.hub.run_until(world.hub.now + 100)
        order, orders = order_of(world, first), world.desk().orders
        shadow.show(order, orders)
        shadow.show(order, orders)
        assert (len(taken), shadow.is_silent) == (1, True)
        now[0] = 31.0
        assert not shadow.is_silent
        shadow.show(order, orders)

        assert len(taken) == 2


def test_a_sweep_begins_no_order_that_it_has_no_time_for(world: World) -> None:
    stations = [station(world) for _ in range(4)]
    for at in stations:
        parked(world, at)
    world.hub.run_until(world.hub.now + 7200)
    left = iter([ORDER_S + 2, ORDER_S + 1, *[ORDER_S - 1] * (2 * BATCH)])

    sweep(world.desk(), lambda: next(left))

    assert sorted(order_of(world, at).status for at in stations) == ["created"] * 2 + ["parked"] * 2
    # Nobody holds the others: the next run takes them.
    sweep(world.desk())
    assert {order_of(world, at).status for at in stations} == {"created"}


def test_a_message_that_there_is_no_time_for_goes_back_to_the_queue_unharmed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(work_orders.handler, "settle", lambda order, _desk: begun.append(order.reference))
    at = station(world)
    crossed(world, at)
    hidden: list[tuple[str, int]] = []
    world.hub.run_until(world.hub.now + 100)
    order = order_of(world, at)

    def hide(ReceiptHandle: str, VisibilityTimeout: int, **_: Any) -> None:  # noqa: N803
        hidden.append((ReceiptHandle, VisibilityTimeout))

    queue = SimpleNamespace(change_message_visibility=hide)
    monkeypatch.setattr(work_orders.handler, "_sqs", lambda: queue)
    records = [
        {"messageId": f"m{number}", "receiptHandle": f"r{number}", "eventSource": "aws:sqs",
         "body": json.dumps({"place": order.reference})}
        for number in range(3)
    ]  # fmt: skip
    left = iter([60.0, 30.0, 5.0])
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: next(left) * 1000)

    answer = work_orders.handler.handler({"Records": records}, context)

    assert begun == [order.reference] * 2
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m2"}]}
    assert [handle for handle, _ in hidden] == ["r2"]
    assert 1 <= hidden[0][1] <= 10


def test_an_escalation_that_sns_did_not_take_is_announced_by_the_sweep_once(world: World) -> None:
    topic = "arn:aws:sns:eu-central-1:111111111111:announcements"
    nowhere = boto3.client(
        "sns", endpoint_url="http://127.0.0.1:9", region_name="eu-central-1", config=ANNOUNCE
    )
    at = station(world)
    for _ in range(5):
        world.bad_part(at, 0.65, times=1)
    world.hub.run_until(world.hub.now + 100)
    assert api.deciding.approve(order_of(world, at), "mei", "", world.desk()).status == "created"
    world.changed["announcer"] = Announcer(nowhere, topic)
    for _ in range(5):
        world.bad_part(at, 0.97, times=1)
    world.hub.run_until(world.hub.now + 100)
    order = order_of(world, at)
    assert (order.status, len(order.escalations)) == ("created", 1)
    sweep(world.desk())
    assert order_of(world, at).due_at <= world.desk().orders.now_text(), "SNS is away still"

    sns = boto3.client("sns", region_name="eu-central-1")
    stub = Stubber(sns)
    subscription = {"SubscriptionArn": f"{topic}:1", "TopicArn": topic, "Protocol": "email"}
    stub.add_response("list_subscriptions_by_topic", {"Subscriptions": [subscription]})
    stub.add_response("publish", {"MessageId": "1"})
    world.changed["announcer"] = Announcer(sns, topic)
    with stub:
        for _ in range(3):
            sweep(world.desk())

    stub.assert_no_pending_responses()
    assert int(order_of(world, at).item["escalations_announced"]) == 1
    assert order_of(world, at).due_at > world.desk().orders.now_text()


@pytest.mark.parametrize("function", ["api", "sweep", "watch", "work_orders"])
def test_every_function_leaves_the_erp_the_time_that_it_has_itself_and_no_more(
    function: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []

    def look(*_: Any) -> Any:
        left.append(erp.deadline.left_of(1_000))
        return {"failed": 0} if function != "api" else (200, {})

    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 29_000)
    event: dict[str, Any] = {}
    if function == "work_orders":
        at = station(world)
        crossed(world, at)
        world.hub.run_until(world.hub.now + 100)
        monkeypatch.setattr(work_orders.handler, "settle", look)
        body = json.dumps({"place": order_of(world, at).reference})
        event = {
            "Records": [{"messageId": "m", "receiptHandle": "r", "eventSource": "aws:sqs", "body": body}]
        }
    called, name = {
        "api": (api.handler, "respond"), "sweep": (work_orders.sweep, "sweep"), "watch": (watch.handler, "run"),
        "work_orders": (work_orders.handler, "settle"),
    }[function]  # fmt: skip
    monkeypatch.setattr(called, name, look)
    for module in (work_orders.sweep, watch.handler):
        monkeypatch.setattr(module, "desk", world.desk)

    called.handler(event, context)

    assert 0 < left[0] <= 29 - AFTER_ERP_S
    assert erp.deadline.left_of(1_000) == 1_000, "outside of it a call has its own time"
