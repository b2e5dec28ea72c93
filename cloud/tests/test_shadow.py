# SPDX-License-Identifier: Apache-2.0
"""What the shadows say of an order, what falls out of a full one, and that nobody leaves an older state in it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import boto3
import pytest
from cloud_line import PATIENT, Line
from test_work_orders import enriched

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from work_orders.ending import after_rejecting, closed_episodes
from work_orders.observing import Desk, observe
from work_orders.order_items import WorkOrder, from_item
from work_orders.placing import place
from work_orders.shadow import DeviceShadow
from work_orders.shadow_content import (
    MOST_BYTES,
    MOST_EVENTS,
    MOST_ORDERS,
    Entry,
    difference,
    events_with_evidence,
    folded,
    held,
    in_erp,
)
from work_orders.sweep import sweep
from work_orders.wiring import desk_of


@pytest.fixture(scope="module")
def desk(environment: dict[str, str]) -> Desk:
    return desk_of({**environment, **PATIENT})


def swept(desk: Desk) -> None:
    """One run looks at so many orders of a kind, and other files of this account leave theirs behind: some runs."""
    for _ in range(5):
        sweep(desk)


def order(number: int, status: str = "created", events: int = 12, episode: int = 1, **more: str) -> WorkOrder:
    path = "line-1/20261121/0198c0de-0000-7000-8000-{:012x}.review{}"
    evidence = [
        {"path": path.format(number * 100 + event, ending)}
        for event in range(events)
        for ending in (".jpg", ".heatmap.png")
    ]
    return from_item(
        {
            "reference": f"lw-{number * 10 + episode:016x}", "status": status, "asset_id": f"ASSET-{number}",
            "failure_mode": "cell-crack", "band": "automatic", "attempts": 0, "lease_until": 0, "shadow": "pending",
            "document": json.dumps({"thing_name": "linewatch-a", "evidence": evidence}), "episode": episode,
            "created_at": f"2026-11-21T04:{number:02}:00.000Z", "erp_id": f"WO-{number}", "records": 2, **more,
        }
    )  # fmt: skip


def filled(numbers: range, shown: Callable[[WorkOrder], Entry | None] = held) -> Mapping[str, Any]:
    desired: Mapping[str, Any] = {}
    for number in numbers:
        desired = folded(desired, order(number), shown(order(number))).desired
    return desired


def size(desired: Mapping[str, Any]) -> int:
    return len(json.dumps({"desired": desired}, separators=(",", ":")))


def test_the_newest_events_are_named_once_each() -> None:
    ids = events_with_evidence(order(1).document)
    entry = held(order(1))

    assert len(ids) == 12
    assert entry is not None
    assert entry["event_ids"] == ids[-8:]


@pytest.mark.parametrize("status", ["awaiting_approval", "creating", "created", "parked"])
def test_every_order_that_has_not_ended_holds_its_evidence(status: str) -> None:
    assert held(order(1, status)) is not None


@pytest.mark.parametrize("status", ["rejected", "merged", "closed"])
def test_an_order_that_has_ended_leaves_nothing_behind(status: str) -> None:
    ended = order(1, status, **({"into_ended_at": "2026-11-21T05:00:00.000Z"} if status == "merged" else {}))

    assert (held(ended), in_erp(ended)) == (None, None)
    fold = folded(filled(range(1, 2)), ended, held(ended))
    assert fold.desired == {}
    assert difference(filled(range(1, 2)), fold.desired) == {"ASSET-1": None}


def test_eight_events_of_each_fit_for_a_dozen_orders_and_fewer_of_each_for_more() -> None:
    counts = {
        orders: {len(entry["cell-crack"]["event_ids"]) for entry in filled(range(orders)).values()}
        for orders in (1, 12, 20)
    }

    assert counts[1] == counts[12] == {MOST_EVENTS[0]}
    assert counts[20] == {MOST_EVENTS[0], MOST_EVENTS[1]}
    assert all(size(filled(range(orders))) <= MOST_BYTES for orders in range(1, 40))


@pytest.mark.parametrize("shown", [held, in_erp])
def test_the_oldest_orders_fall_out_whoever_comes_last(shown: Callable[[WorkOrder], Entry | None]) -> None:
    full = filled(range(MOST_ORDERS), shown)
    new, old = order(50), order(0)

    fold = folded(full, new, shown(new))
    late = folded(fold.desired, old, shown(old))

    assert fold.left_out == {old.reference} == late.left_out
    assert set(late.desired) == {f"ASSET-{number}" for number in (*range(1, MOST_ORDERS), 50)}
    assert difference(fold.desired, late.desired) == {}


def test_an_order_of_an_earlier_episode_takes_no_newer_one_away() -> None:
    newer, older = order(1, episode=2), order(1, "closed", episode=1)
    desired = folded({}, newer, in_erp(newer)).desired

    assert folded(desired, older, in_erp(older)).desired == desired


def test_an_entry_of_release_0_2_is_replaced() -> None:
    before = {
        "ASSET-1": {"cell-crack": {"reference": order(1).reference, "erp_id": "WO-1", "status": "created"}}
    }

    assert folded(before, order(1), in_erp(order(1))).desired["ASSET-1"]["cell-crack"] == in_erp(order(1))


def test_a_merged_orders_evidence_is_held_in_its_place_and_bounded_as_the_rest() -> None:
    merged = order(1, "merged")

    assert held(merged) == held(order(1))
    assert in_erp(merged) is None
    full = filled(range(2, 2 + MOST_ORDERS))
    assert folded(full, merged, held(merged)).left_out == {merged.reference}


@pytest.fixture
def two(machine: Line, cloud: StandinCloud, desk: Desk, request: pytest.FixtureRequest) -> list[WorkOrder]:
    """Orders of two machines of one device; both await approval."""
    waiting = replace(desk, pilot=True)
    found: list[WorkOrder] = []
    for line in (machine, Line.register(cloud, request.node.name + " other", "machine")):
        for message in enriched(line, waiting, [line.severity(0.95) for _ in range(4)]):
            observe(message, waiting)
        stored = desk.orders.get(line.orders()[0]["reference"])
        assert stored is not None
        found.append(stored)
    return found


def test_merging_drops_no_evidence_until_the_order_that_took_it_in_has_ended(
    two: list[WorkOrder], desk: Desk
) -> None:
    merged, into = two
    thing = f"{merged.document['thing_name']}-forwarder"
    pinned = shadow_of(thing)[merged.asset_id]
    assert pinned["hpc-degradation"]["event_ids"]

    assert desk.orders.merge(merged, into, "M. Keller", "one crew")
    swept(desk)
    assert shadow_of(thing)[merged.asset_id] == pinned
    now = desk.orders.get(into.reference)
    assert now is not None
    assert desk.orders.reject(now, closed_episodes(now, desk, after_rejecting(now)), "M. Keller", "a sensor")
    swept(desk)

    assert {merged.asset_id, into.asset_id}.isdisjoint(shadow_of(thing))


def test_a_writer_that_was_late_does_not_say_that_a_merged_orders_evidence_was_let_go(
    two: list[WorkOrder], desk: Desk
) -> None:
    """It read the merged order before the other one ended; `shadow` is pending then as it was before."""
    order, into = two
    assert desk.orders.merge(order, into, "M. Keller", "one crew")
    seen, now = desk.orders.get(order.reference), desk.orders.get(into.reference)
    assert seen is not None
    assert now is not None
    assert seen.shadow == "pending"
    assert desk.orders.reject(now, closed_episodes(now, desk, after_rejecting(now)), "M. Keller", "a sensor")

    desk.orders.shadow_written(seen)

    after = desk.orders.get(order.reference)
    assert after is not None
    assert after.shadow == "pending", "the sweep must come for it"
    swept(desk)
    assert order.asset_id not in shadow_of(f"{order.document['thing_name']}-forwarder")


def shadow_of(thing: str) -> Mapping[str, Any]:
    answer = boto3.client("iot-data").get_thing_shadow(thingName=thing, shadowName="work-orders")
    desired: Mapping[str, Any] = json.loads(answer["payload"].read())["state"].get("desired", {})
    return desired


class Racing:
    """The real data plane, where something happens between a writer's reading and its writing."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self.real = boto3.client("iot-data")
        self.meanwhile: Callable[[], object] | None = meanwhile

    def get_thing_shadow(self, **request: Any) -> Any:
        return self.real.get_thing_shadow(**request)

    def update_thing_shadow(self, **request: Any) -> Any:
        now, self.meanwhile = self.meanwhile, None
        if now:
            now()
        return self.real.update_thing_shadow(**request)


def test_a_writer_that_was_overtaken_shows_the_order_as_it_is(
    machine: Line, desk: Desk, erp: ErpClient
) -> None:
    for message in enriched(machine, desk, [machine.severity(0.95) for _ in range(4)]):
        observe(message, desk)
    made = machine.order("created")
    assert made is not None
    created = desk.orders.get(made["reference"])
    assert created is not None
    thing = created.document["thing_name"]
    assert shadow_of(thing)[machine.asset_id]["hpc-degradation"]["erp_id"] == created.erp_id
    desk.orders.mark(created.reference, shadow="pending")

    def closed() -> None:
        episode = desk.episodes.get(created.asset_id, created.failure_mode).closed({})
        assert desk.orders.close(created, episode, "mei", "confirmed", "")
        ended = desk.orders.get(created.reference)
        assert ended is not None
        desk.shadow.show(ended, desk.orders)

    boto3.client("iot-data").update_thing_shadow(
        thingName=thing, shadowName="work-orders",
        payload=json.dumps({"state": {"desired": {machine.asset_id: None}}}),
    )  # fmt: skip
    late = replace(desk, shadow=DeviceShadow(Racing(closed)))
    late.shadow.show(created, late.orders)

    assert machine.asset_id not in shadow_of(thing)
    assert machine.asset_id not in shadow_of(f"{thing}-forwarder")
    ended = desk.orders.get(created.reference)
    assert ended is not None
    assert (ended.status, ended.shadow) == ("closed", "written")


def test_an_order_that_moves_on_between_its_two_shadows_is_written_again(
    machine: Line, desk: Desk, erp: ErpClient
) -> None:
    waiting = replace(desk, pilot=True)
    for message in enriched(machine, waiting, [machine.severity(0.95) for _ in range(4)]):
        observe(message, waiting)
    order = desk.orders.get(machine.orders()[0]["reference"])
    assert order is not None
    desk.orders.mark(order.reference, shadow="pending")
    thing = order.document["thing_name"]

    class CreatedMeanwhile(Racing):
        def get_thing_shadow(self, **request: Any) -> Any:
            if request["thingName"].endswith("-forwarder") and self.meanwhile:
                now, self.meanwhile = self.meanwhile, None
                now()
            return super().get_thing_shadow(**request)

    def created() -> None:
        assert desk.orders.confirm(order.reference, "mei", "heard it") is not None
        assert place(order.reference, desk.orders, desk.erp, desk.patience) is not None

    DeviceShadow(CreatedMeanwhile(created)).show(order, desk.orders)

    now = desk.orders.get(order.reference)
    assert now is not None
    assert (now.status, now.shadow) == ("created", "pending"), "the core device's shadow does not show it yet"
    swept(desk)
    assert shadow_of(thing)[machine.asset_id]["hpc-degradation"]["erp_id"] == now.erp_id


def test_an_order_without_a_device_is_shown_nowhere(machine: Line, cloud: StandinCloud, desk: Desk) -> None:
    messages = enriched(machine, desk, [machine.severity(0.95) for _ in range(4)])
    for message in messages:
        message["asset"]["thing_name"] = ""
        observe(message, desk)

    stored = desk.orders.get(machine.orders()[0]["reference"])
    assert stored is not None
    assert stored.shadow == "written"


def test_the_deployed_desk_gives_a_devices_endpoint_three_seconds_and_one_attempt(desk: Desk) -> None:
    config = desk.shadow._iot_data.meta.config

    assert config.connect_timeout + config.read_timeout <= 3
    assert config.retries["total_max_attempts"] == 1
