# SPDX-License-Identifier: Apache-2.0
"""A merged order stays until the one that took it in ends, and an open episode without an order holds back no alarm.

The whole flow, in virtual time (tests/faults).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from faults.schedule_checks import broken
from faults.schedule_world import Station, World
from virtual_flow import MACHINE, flow_with, now_of, order_of, says

from api import deciding
from erp.port import ErpStatus
from outcomes import polling
from watch.approvals import expire
from work_orders.order_items import FOR_EVER, WorkOrder, text_of
from work_orders.sweep import sweep

OTHER = Station("ASSET-1", "line-0")
DAYS = 3650 * 86_400
MODE = "hpc-degradation"


@pytest.fixture
def world() -> Iterator[World]:
    with flow_with(MACHINE, OTHER) as made:
        yield made


def days_of_records(world: World, reference: str) -> set[Any]:
    items = world.dynamodb.scan(TableName=world.tables["RecordsTable"])["Items"]
    return {item.get("expires_at") for item in items if item["chain"] == reference}


def put(world: World, order: WorkOrder, **values: Any) -> None:
    world.dynamodb.update_item(
        TableName=world.tables["WorkOrdersTable"],
        Key={"reference": order.reference},
        UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values),
        ExpressionAttributeNames={f"#{name}": name for name in values},
        ExpressionAttributeValues={f":{name}": value for name, value in values.items()},
    )


def forgotten(world: World, order: WorkOrder) -> None:
    """As DynamoDB's time to live does it, of an order that a release before 0.3 merged."""
    table = world.tables["WorkOrdersTable"]
    for key, item in list(world.dynamodb._tables[table].items.items()):  # type: ignore[union-attr]
        if item["reference"] == order.reference:
            del world.dynamodb._tables[table].items[key]  # type: ignore[union-attr]


@pytest.fixture
def waiting(world: World) -> WorkOrder:
    """OTHER's order, which waits for a person and took in MACHINE's."""
    says(world, *[0.65] * 5)
    says(world, *[0.65] * 5, of=OTHER)
    order, into = order_of(world), order_of(world, "ASSET-1")
    assert world.desk().orders.merge(order, into, "mei", "one cause")
    return now_of(world, into.reference)


@pytest.fixture
def into(world: World, waiting: WorkOrder) -> WorkOrder:
    """The same, in the ERP."""
    deciding.approve(waiting, "mei", "heard it", world.desk())
    return now_of(world, waiting.reference)


class Done:
    """An ERP whose technician is done."""

    def status(self, _erp_id: str) -> ErpStatus:
        return ErpStatus("completed", "COMPLETED", "confirmed")


def close(world: World, order: WorkOrder) -> None:
    deciding.close(order, "mei", "confirmed", "", "", world.desk())


def poll(world: World, order: WorkOrder) -> None:
    assert polling.poll_one(order.reference, replace(world.desk(), erp=Done())) == "ended"


def test_a_merged_order_gets_its_day_when_the_other_ends_and_its_records_the_same(
    world: World, into: WorkOrder
) -> None:
    merged = order_of(world)
    for _ in range(2):
        sweep(world.desk())
        world.hub.run_until(world.hub.now + 400)
    assert "expires_at" not in order_of(world).item
    assert days_of_records(world, merged.reference) == {None}

    close(world, into)
    sweep(world.desk())

    day = int(now_of(world, into.reference).item["expires_at"])
    assert abs(day - world.hub.now - DAYS) < 1000
    assert int(order_of(world).item["expires_at"]) == day
    assert days_of_records(world, merged.reference) == {day}
    says(world, 0.1)
    world.hub.run_until(world.hub.now + 2000)
    sweep(world.desk())
    assert broken(world) == []


def test_a_sweep_that_read_the_merged_order_before_its_end_takes_nothing_from_what_is_due(
    world: World, into: WorkOrder
) -> None:
    stale = order_of(world)
    close(world, into)

    world.desk().orders.nothing_due(stale)

    assert world.desk().orders.due("merged", 10) == [stale.reference]


ENDS: list[Callable[[World, WorkOrder], None]] = [close, poll]


@pytest.mark.parametrize("end", ENDS)
def test_an_order_ends_though_one_that_was_merged_into_it_is_gone(
    world: World, into: WorkOrder, end: Callable[[World, WorkOrder], None]
) -> None:
    forgotten(world, order_of(world))

    end(world, into)

    assert now_of(world, into.reference).status == "closed"
    assert not world.desk().episodes.get("ASSET-1", MODE).is_open


def test_an_order_is_rejected_though_one_that_was_merged_into_it_is_gone(
    world: World, waiting: WorkOrder
) -> None:
    forgotten(world, order_of(world))

    deciding.reject(waiting, "mei", "a sensor", world.desk())

    assert now_of(world, waiting.reference).status == "rejected"


def test_an_approval_expires_though_an_order_that_was_merged_into_it_is_gone(
    world: World, waiting: WorkOrder
) -> None:
    forgotten(world, order_of(world))
    at = text_of(world.hub.now - 10)
    world.desk().orders.mark(waiting.reference, announced_at=at, expires_approval_at=at, on_expiry="reject")

    assert expire(now_of(world, waiting.reference), world.desk())

    assert now_of(world, waiting.reference).status == "rejected"


@pytest.mark.parametrize("ended", [False, True], ids=["the other is open", "the other has ended"])
def test_alarms_of_an_asset_whose_merged_order_is_gone_open_its_next_order_once(
    world: World, into: WorkOrder, ended: bool, caplog: pytest.LogCaptureFixture
) -> None:
    gone = order_of(world)
    forgotten(world, gone)
    if ended:
        close(world, into)

    world.hub.run_until(world.hub.now + 3600)
    says(world, *[0.97] * 8)

    order = order_of(world)
    assert (order.episode, order.status, world.dead) == (2, "created", [])
    in_erp = [one["external_reference"] for one in world.erp.orders]
    assert in_erp == [into.reference, order.reference]
    assert caplog.text.count("order_of_open_episode_gone") == 1


def test_parts_that_the_gone_order_was_opened_for_open_no_other(world: World, into: WorkOrder) -> None:
    forgotten(world, order_of(world))

    world.hub.run_until(world.hub.now + 3600)
    says(world, *[0.97] * 3)

    assert [one["external_reference"] for one in world.erp.orders] == [into.reference]
    says(world, 0.97)
    assert order_of(world).episode == 2


def test_a_merged_order_of_an_older_release_stays_once_its_asset_speaks(
    world: World, into: WorkOrder
) -> None:
    merged = order_of(world)
    old_day = int(world.hub.now + 30 * 86_400)
    put(world, merged, expires_at=old_day)
    world.desk().records.give_end(merged.reference, old_day)

    says(world, *[0.75] * 2)
    sweep(world.desk())

    assert int(order_of(world).item["expires_at"]) == FOR_EVER
    assert days_of_records(world, merged.reference) == {FOR_EVER}
    close(world, into)
    sweep(world.desk())
    assert days_of_records(world, merged.reference) == {int(now_of(world, into.reference).item["expires_at"])}


def test_an_end_counts_what_every_station_saw_however_many_answers_that_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynamoDB answers with 1 MB at most: eight stations that remember a thousand parts each."""
    for number in range(1, 5):
        station = Station("ASSET-0", f"line-{number}")
        world.stations.append(station)
        says(world, 0.65, 0.65, of=station)
    real = world.dynamodb.query
    monkeypatch.setattr(
        world.dynamodb,
        "query",
        lambda **request: real(**({"Limit": 1} if "State" in request["TableName"] else {}), **request),
    )
    states = world.desk().states.of_asset("ASSET-0")
    assert len(states) == 4
    says(world, *[0.95] * 5)

    close(world, order_of(world))

    latches = world.desk().episodes.get("ASSET-0", MODE).latches
    assert len(latches) == 5
    assert {state.station for state in states} < latches.keys()
