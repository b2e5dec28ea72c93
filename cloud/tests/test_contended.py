# SPDX-License-Identifier: Apache-2.0
"""AWS answers that are neither yes nor no: a transaction met another one, a batch left items out. Nothing is lost to them.

The product in virtual time between the queue and the ERP, as the schedules have it (tests/faults/schedule_world.py).
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError
from faults.schedule_checks import broken
from faults.schedule_world import Station, World, world_of

import api.handler
from api.similar import similar
from work_orders import aws
from work_orders.batches import MOST_ROUNDS, BatchLeftOutError
from work_orders.order_table import MOST_MEETINGS, ContendedError
from work_orders.orders import WorkOrder


@pytest.fixture
def world() -> Iterator[World]:
    with world_of(1, faults=False) as made:
        made.stations.append(Station("ASSET-0", "line-0"))
        yield made


def crossed(world: World) -> None:
    """The last part crosses the band; then the machine stands still, and no other event comes."""
    for _ in range(4):
        world.bad_part(world.stations[0], 0.95, times=1)
    rest(world)


def rest(world: World) -> None:
    for _ in range(3):
        world.hub.run_until(world.hub.now + 2000)
        world.sweep_later(world.hub.now)
    world.hub.run_until(world.hub.now + 2000)


def orders(world: World) -> list[WorkOrder]:
    items = world.dynamodb.scan(TableName="WorkOrdersTable")["Items"]
    return world.desk().orders.get_many([item["reference"] for item in items])


def meets(world: World, times: int) -> Callable[[], int]:
    """The next transactions meet another one each; gives how many are still to."""
    real, left = world.dynamodb.transact_write_items, [times]

    def transact(TransactItems: list[Mapping[str, Any]]) -> Any:  # noqa: N803
        if left[0]:
            left[0] -= 1
            reasons = [{"Code": "TransactionConflict"}, *[{"Code": "None"}] * (len(TransactItems) - 1)]
            error = {
                "Error": {"Code": "TransactionCanceledException", "Message": ""},
                "CancellationReasons": reasons,
            }
            raise ClientError(error, "TransactWriteItems")  # type: ignore[arg-type]
        return real(TransactItems=TransactItems)

    world.dynamodb.transact_write_items = transact  # type: ignore[method-assign]
    return lambda: left[0]


@pytest.mark.parametrize("times", [1, 2, MOST_MEETINGS + 1])
def test_an_opening_that_met_another_transaction_is_no_lost_alarm(world: World, times: int) -> None:
    left = meets(world, times)

    crossed(world)

    assert left() == 0
    assert [order.status for order in orders(world)] == ["created"]
    assert broken(world) == []


def test_an_opening_that_others_keep_holding_up_comes_back_by_the_queue(world: World) -> None:
    for _ in range(3):
        world.bad_part(world.stations[0], 0.95, times=1)
    world.hub.run_until(world.hub.now + 100)
    desk, left = world.desk(), meets(world, 10**6)
    episode = desk.episodes.get("ASSET-0", "hpc-degradation")

    with pytest.raises(ContendedError):
        desk.orders.open(episode, "creating", "automatic", {})

    assert left() == 10**6 - MOST_MEETINGS
    assert orders(world) == []


def test_a_decision_that_others_keep_holding_up_is_not_told_as_somebody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def routed(_request: Any) -> Any:
        raise ContendedError("held")

    monkeypatch.setattr(api.handler, "_is_open", lambda _request: True)
    monkeypatch.setattr(api.handler, "_answer", routed)
    monkeypatch.setattr(api.handler, "read", lambda *_: None)

    assert api.handler.respond({}) == (503, {"error": "held; try again"})


def test_a_decision_that_met_another_transaction_is_made_all_the_same(world: World) -> None:
    crossed(world)
    desk, order = world.desk(), orders(world)[0]
    closed = desk.episodes.get("ASSET-0", "hpc-degradation").closed({})
    left = meets(world, 3)

    assert desk.orders.close(order, closed, "mei", "confirmed", "")

    assert left() == 0
    assert orders(world)[0].status == "closed"


def leaves_out(world: World, table: str, answers: int) -> None:
    """So many answers of BatchGetItem hold only the first of the items that were asked for, and name the rest."""
    real, left = world.dynamodb.batch_get_item, [answers]

    def batch(RequestItems: Mapping[str, Any]) -> Any:  # noqa: N803
        if table in RequestItems and left[0]:
            left[0] -= 1
            asked = RequestItems[table]
            answer = real(RequestItems={table: {**asked, "Keys": asked["Keys"][:1]}})
            rest = {table: {**asked, "Keys": asked["Keys"][1:]}} if asked["Keys"][1:] else {}
            return {**answer, "UnprocessedKeys": rest}
        return real(RequestItems=RequestItems)

    world.dynamodb.batch_get_item = batch  # type: ignore[method-assign]


def test_events_that_a_batch_left_out_are_asked_for_again(world: World) -> None:
    leaves_out(world, "EventsTable", 10**6)

    crossed(world)

    (order,) = orders(world)
    assert order.status == "created"
    # All of them: the order tells the digest of every event that counted.
    assert set(order.document["event_digests"]) == {event["id"] for event in world.stations[0].sent}
    assert broken(world) == []


def test_an_opening_whose_events_can_not_be_read_comes_back_by_the_queue(world: World) -> None:
    real, answers = world.dynamodb.batch_get_item, [0]

    def batch(RequestItems: Mapping[str, Any]) -> Any:  # noqa: N803
        if "EventsTable" in RequestItems and answers[0] < MOST_ROUNDS:
            answers[0] += 1
            return {"Responses": {}, "UnprocessedKeys": RequestItems}
        return real(RequestItems=RequestItems)

    world.dynamodb.batch_get_item = batch  # type: ignore[method-assign]

    crossed(world)

    assert answers[0] == MOST_ROUNDS
    assert any(BatchLeftOutError.__name__ in line for line in world.hub.log)
    assert [order.status for order in orders(world)] == ["created"]
    assert broken(world) == []


def test_a_crossed_band_without_any_event_left_is_told_by_the_dead_letters(world: World) -> None:
    real = world.dynamodb.batch_get_item

    def batch(RequestItems: Mapping[str, Any]) -> Any:  # noqa: N803
        if "EventsTable" in RequestItems:
            return {"Responses": {"EventsTable": []}, "UnprocessedKeys": {}}
        return real(RequestItems=RequestItems)

    world.dynamodb.batch_get_item = batch  # type: ignore[method-assign]

    crossed(world)
    for _ in range(3):
        rest(world)

    assert orders(world) == []
    assert len(world.dead) == 1


def test_similar_orders_that_a_batch_left_out_are_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        world.stations.append(Station(f"ASSET-{number}", f"line-{number}"))
    for station in world.stations:
        for _ in range(4):
            world.bad_part(station, 0.95, times=1)
    rest(world)
    own, *others = sorted(orders(world), key=lambda order: order.asset_id)
    rows = [{"asset_id": station.asset_id} for station in world.stations]
    monkeypatch.setattr("api.similar.registry", lambda _desk: rows)
    monkeypatch.setenv("EPISODES_TABLE", "EpisodesTable")
    leaves_out(world, "EpisodesTable", 10**6)

    shown = similar(own, world.desk())

    assert {one["reference"] for one in shown} == {order.reference for order in others}


def test_similar_orders_of_a_plant_with_a_thousand_assets(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The neighbour has the last name of all: it was beyond the first hundred, and never shown."""
    world.stations.append(Station("Z-LAST", "line-1"))
    for station in reversed(world.stations):
        for _ in range(4):
            world.bad_part(station, 0.95, times=1)
        rest(world)
    own = next(order for order in orders(world) if order.asset_id == "ASSET-0")
    # Machines that failed after it: a hundred and more, of which none is earlier.
    for number in range(120):
        later = {"asset_id": f"M-{number}", "failure_mode": own.failure_mode, "episode": 1}
        later |= {"opened_at": [int(world.hub.now) + 1_000 + number], "version": 1}
        world.dynamodb.put_item(TableName="EpisodesTable", Item=later)
    rows = [{"asset_id": f"M-{number}"} for number in range(998)]
    monkeypatch.setattr(
        "api.similar.registry", lambda _desk: [*rows, *({"asset_id": one.asset_id} for one in world.stations)]
    )
    monkeypatch.setenv("EPISODES_TABLE", "EpisodesTable")

    shown = similar(own, world.desk())

    assert [one["why"] for one in shown] == ["the same failure of Z-LAST"]


@contextmanager
def dynamodb_that_is_held(times: int) -> Iterator[tuple[Any, list[str]]]:
    """DynamoDB's client, whose endpoint says so often that a transaction holds the item; and what it was asked."""
    asked: list[str] = []

    class Held(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.headers["X-Amz-Target"].rpartition(".")[2])
            held = len(asked) <= times
            name = "com.amazonaws.dynamodb.v20120810#TransactionConflictException"
            body = json.dumps({"__type": name, "message": "ongoing"} if held else {}).encode()
            self.send_response(400 if held else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Held) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {
                "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{server.server_port}",
                "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-central-1",
            }.items():  # fmt: skip
                patch.setenv(name, value)
            yield aws.dynamodb(), asked
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize("action", ["put_item", "update_item"])
def test_a_single_write_that_meets_a_transaction_is_tried_again_in_its_place(action: str) -> None:
    what = {
        "put_item": {"Item": {"name": "x"}},
        "update_item": {"Key": {"name": "x"}, "UpdateExpression": "SET a = :a", "ExpressionAttributeValues": {":a": 1}},
    }[action]  # fmt: skip
    with dynamodb_that_is_held(aws.MOST_CONFLICTS - 1) as (client, asked):
        getattr(client, action)(TableName="CountersTable", **what)

    assert len(asked) == aws.MOST_CONFLICTS


def test_an_item_that_stays_held_is_told_after_a_bounded_number_of_tries() -> None:
    with (
        dynamodb_that_is_held(1_000) as (client, asked),
        pytest.raises(ClientError, match="TransactionConflictException"),
    ):
        client.put_item(TableName="CountersTable", Item={"name": "x"})

    assert len(asked) == aws.MOST_CONFLICTS
