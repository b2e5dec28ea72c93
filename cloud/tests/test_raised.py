# SPDX-License-Identifier: Apache-2.0
"""What further parts of a station do to the order of their case. The whole flow, in virtual time (tests/faults)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from faults.schedule_world import Station, World
from hypothesis import given
from hypothesis import strategies as st
from virtual_flow import MACHINE, flow_with, order_of, says

import work_orders.handler
from api import deciding, telling
from api.errors import ConflictError
from api.stated import stated
from assets.asset import Maintenance
from assets.registry import Registry
from erp.port import ErpStatus
from outcomes import escapes, polling
from outcomes.outcome import Outcome, of_order
from work_orders.announcing import Announcer
from work_orders.maintenance import remember
from work_orders.order_items import NEVER, WorkOrder, is_new_height, text_of
from work_orders.policy_data import RateLimit
from work_orders.quiet_hours import DAYS, QuietHours
from work_orders.states import StationStates
from work_orders.sweep import sweep

OTHER = Station("ASSET-1", "line-1")


@pytest.fixture
def world() -> Iterator[World]:
    with flow_with(MACHINE, OTHER) as made:
        yield made


def test_the_rate_limit_does_not_count_an_order_against_itself(world: World) -> None:
    world.data = replace(world.data, rate_limit=RateLimit(1, 24))
    says(world, *[0.65] * 5)
    assert order_of(world).status == "awaiting_approval"

    says(world, *[0.95] * 8)

    assert (order_of(world).status, order_of(world).item["decided_by"]) == ("created", "policy")


def test_the_rate_limit_counts_the_other_orders_of_the_asset(world: World) -> None:
    world.data = replace(world.data, rate_limit=RateLimit(0, 24))
    says(world, *[0.65] * 5)

    says(world, *[0.95] * 8)

    assert order_of(world).status == "awaiting_approval"


def judged(world: World, order: WorkOrder) -> Outcome:
    """What accuracy will know of the order."""
    return of_order(order, "no_fault", "2026-11-21T00:00:00.000Z")


def test_the_outcome_holds_the_highest_risk_of_an_order_that_nothing_escalated(world: World) -> None:
    says(world, *[0.91] * 5)
    says(world, *[0.99] * 10)

    order = order_of(world)
    assert (order.status, order.risk, len(order.escalations)) == ("created", 0.91, 0)
    assert judged(world, order).highest_risk == pytest.approx(0.99)
    assert judged(world, order).risk == pytest.approx(0.91)


def test_what_waits_for_a_person_in_the_pilot_keeps_its_highest_risk(world: World) -> None:
    world.data = replace(world.data, pilot=replace(world.data.pilot, is_on=True))
    says(world, *[0.55] * 5)
    says(world, *[0.68] * 10)
    says(world, *[0.55] * 70)

    assert order_of(world).status == "awaiting_approval"
    assert judged(world, order_of(world)).highest_risk == pytest.approx(0.68)


@given(
    st.lists(st.floats(0.5, 1.0), min_size=1, max_size=200),
    st.integers(50, 100),
    st.sampled_from([0.875, 0.8]),
)
def test_every_threshold_tells_the_kept_risk_from_others_as_the_true_one(
    risks: list[float], hundredths: int, band: float
) -> None:
    kept, writes = Decimal("0.5"), 0
    for risk in risks:
        if is_new_height(risk, kept, [band]):
            kept, writes = Decimal(str(risk)), writes + 1

    true = max(0.5, *risks)
    for threshold in (hundredths / 100, band):
        assert (float(kept) > threshold, float(kept) >= threshold) == (true > threshold, true >= threshold)
    assert writes <= 104


def test_of_a_long_slow_rise_few_steps_are_written() -> None:
    kept, writes = Decimal(0), 0
    for step in range(1, 100_001):
        if is_new_height(step / 100_000, kept, [0.8]):
            kept, writes = Decimal(str(step / 100_000)), writes + 1

    assert writes <= 210


def test_an_order_opened_before_heights_were_kept_has_none(world: World) -> None:
    says(world, *[0.91] * 5)
    item = dict(order_of(world).item)
    del item["highest_risk"]
    world.dynamodb.put_item(TableName=world.tables["WorkOrdersTable"], Item=item)

    says(world, *[0.99] * 10)

    assert judged(world, order_of(world)).highest_risk is None


@pytest.fixture
def merged(world: World) -> WorkOrder:
    """An order of MACHINE that was merged into the one of OTHER, which a person approved."""
    says(world, *[0.65] * 5)
    says(world, *[0.65] * 5, of=OTHER)
    order, into = order_of(world), order_of(world, "ASSET-1")
    assert world.desk().orders.merge(order, into, "mei", "one cause")
    return order_of(world)


def test_a_merged_orders_station_escalates_the_order_that_took_it_in(world: World, merged: WorkOrder) -> None:
    desk = world.desk()
    assert desk.orders.confirm(merged.merged_into, "mei", "heard it") is not None

    says(world, *[0.97] * 8)

    target = order_of(world, "ASSET-1")
    assert (target.status, target.priority, target.band) == ("created", "urgent", "automatic")
    assert merged.reference in target.escalations[-1]["why"]
    assert order_of(world).status == "merged"
    [in_erp] = world.erp.orders
    assert (
        sum(merged.reference in note["text"] and "Severity rose" in note["text"] for note in in_erp["notes"])
        == 1
    )


def history(world: World, station: Station) -> list[Maintenance]:
    registry = Registry(world.dynamodb, world.tables["AssetsTable"])
    asset = registry.get(f"plant-1/{station.line}/m")
    assert asset is not None
    return list(asset.maintenance_history)


def test_the_asset_of_a_merged_order_remembers_the_visit_and_what_was_found_until_that_is_corrected(
    world: World, merged: WorkOrder
) -> None:
    desk = world.desk()
    deciding.approve(order_of(world, "ASSET-1"), "mei", "heard it", desk)

    deciding.close(order_of(world, "ASSET-1"), "ada", "confirmed", "washed both", "", desk)
    sweep(desk)

    (own,), (other,) = history(world, OTHER), history(world, MACHINE)
    assert (own.order, own.what) == (merged.merged_into, "hpc-degradation confirmed: washed both")
    assert (other.order, other.by, other.date) == (merged.reference, "ada", own.date)
    assert other.what == f"with ASSET-1 ({merged.merged_into}): hpc-degradation confirmed: washed both"
    world.hub.run_until(world.hub.now + 60)
    deciding.close(order_of(world, "ASSET-1"), "ada", "no_fault", "", "", desk)
    assert history(world, OTHER) == history(world, MACHINE) == []


def test_a_registry_that_fails_leaves_the_merged_orders_asset_to_the_sweep(
    world: World, merged: WorkOrder
) -> None:
    class Refusing(Registry):
        def remember_maintenance(self, asset_id: str, entry: Maintenance) -> int:
            if asset_id == "ASSET-0":
                raise RuntimeError("others kept writing the same rows")
            return super().remember_maintenance(asset_id, entry)

    desk = world.desk()
    deciding.approve(order_of(world, "ASSET-1"), "mei", "heard it", desk)
    broken = replace(desk, assets=Refusing(world.dynamodb, world.tables["AssetsTable"]))
    deciding.close(order_of(world, "ASSET-1"), "ada", "confirmed", "", "", broken)
    assert (len(history(world, OTHER)), history(world, MACHINE)) == (1, [])

    for _ in range(2):
        sweep(desk)

    assert [one.order for one in history(world, MACHINE)] == [merged.reference]
    assert [one.order for one in history(world, OTHER)] == [merged.merged_into]


def test_two_orders_of_one_asset_that_were_merged_are_one_visit_in_its_history(world: World) -> None:
    says(world, *[0.95] * 5)
    first = order_of(world)
    desk = world.desk()
    item = {**first.item, "merged": ["lw-00000000000000aa"]}
    world.dynamodb.put_item(TableName=world.tables["WorkOrdersTable"], Item=item)
    twin = {
        **first.item,
        "reference": "lw-00000000000000aa",
        "status": "merged",
        "merged_into": first.reference,
    }
    world.dynamodb.put_item(TableName=world.tables["WorkOrdersTable"], Item=twin)
    found = {
        "status": "closed",
        "finding": "confirmed",
        "closed_at": text_of(world.hub.now),
        "closed_by": "ada",
    }
    world.dynamodb.put_item(TableName=world.tables["WorkOrdersTable"], Item={**item, **found})

    remember(first.reference, desk)

    assert [one.order for one in history(world, MACHINE)] == [first.reference]


def test_orders_that_were_merged_have_the_highest_risk_of_all(world: World) -> None:
    says(world, *[0.75] * 5)
    says(world, *[0.65] * 5, of=OTHER)
    desk = world.desk()
    assert desk.orders.merge(order_of(world), order_of(world, "ASSET-1"), "mei", "one cause")
    assert judged(world, order_of(world, "ASSET-1")).highest_risk == pytest.approx(0.75)

    says(world, *[0.79] * 8)

    assert judged(world, order_of(world, "ASSET-1")).highest_risk == pytest.approx(0.79)


def test_a_merged_orders_stronger_band_confirms_the_order_that_waits(world: World, merged: WorkOrder) -> None:
    says(world, *[0.97] * 8)

    target = order_of(world, "ASSET-1")
    assert (target.status, target.item["decided_by"]) == ("created", "policy")
    assert merged.reference in target.item["reason"]


def test_an_escape_of_a_merged_order_names_the_one_that_can_be_closed(
    world: World, merged: WorkOrder
) -> None:
    body = {"asset_id": "ASSET-0", "failure_mode": "hpc-degradation", "found_at": "2026-11-21T03:00:00Z"}

    with pytest.raises(escapes.OrderPointsAtItError, match=merged.merged_into) as refused:
        escapes.record(
            world.desk(),
            None,
            body,
            by="mei",
            order_days=1,
            now=datetime(2026, 11, 21, 4, tzinfo=UTC),  # type: ignore[arg-type]
        )

    assert refused.value.reference == merged.merged_into


@pytest.fixture
def held(world: World) -> WorkOrder:
    """An automatic order that quiet hours hold until 06:00; it is 04:00."""
    quiet = QuietHours(frozenset(DAYS), time(0, 0), time(6, 0), ZoneInfo("UTC"), 0.97)
    world.data = replace(world.data, quiet_hours=(quiet,))
    says(world, *[0.95] * 5)
    order = order_of(world)
    assert order.is_held
    return order


def sweep_after_the_hold(world: World) -> None:
    world.hub.run_until(world.hub.now + 7200)
    world.sweep_later(world.hub.now)
    world.hub.run_until(world.hub.now + 100)


def in_a_pilot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = World.desk
    monkeypatch.setattr(World, "desk", lambda self: replace(made(self), pilot=True))
    monkeypatch.setattr(work_orders.handler, "desk", world.desk)


@pytest.mark.parametrize("who", ["the sweep", "the station"])
def test_a_hold_that_ends_in_a_pilot_asks_a_person(
    world: World, held: WorkOrder, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_pilot(world, monkeypatch)
    told: list[str] = []
    monkeypatch.setattr(Announcer, "announce", lambda _, order, *__: told.append(order.status) or order)
    if who == "the station":
        world.hub.run_until(world.hub.now + 7200)
        says(world, 0.95)
    else:
        sweep_after_the_hold(world)

    order = order_of(world)
    assert (order.status, order.hold_until, world.erp.orders) == ("awaiting_approval", 0, [])
    entries = world.desk().records.of(order.reference)
    assert [entry.what for entry in entries] == ["opened", "asked"]
    assert stated(entries)["status"] == order.status
    assert telling.told("asked", "policy", json.loads(entries[1].detail)).startswith(
        "A supervisor is asked: pilot"
    )
    assert told[-1] == "awaiting_approval"

    deciding.approve(order, "mei", "heard it", world.desk())
    assert (order_of(world).status, len(world.erp.orders)) == ("created", 1)


def test_a_hold_that_ends_without_a_pilot_is_placed(world: World, held: WorkOrder) -> None:
    sweep_after_the_hold(world)

    assert (order_of(world).status, len(world.erp.orders)) == ("created", 1)


def test_a_person_rejects_a_held_order_and_nothing_is_placed(world: World, held: WorkOrder) -> None:
    deciding.reject(held, "mei", "the valve was stuck, it is free now", world.desk())
    sweep_after_the_hold(world)

    order = order_of(world)
    assert (order.status, order.item["decided_by"], world.erp.orders) == ("rejected", "mei", [])
    assert not world.desk().episodes.get("ASSET-0", "hpc-degradation").is_open


def test_a_person_approves_a_held_order_and_it_is_placed_at_once(world: World, held: WorkOrder) -> None:
    deciding.approve(held, "mei", "it can't wait", world.desk(), "sha256:audit")

    order = order_of(world)
    assert (order.status, order.item["decided_by"], len(world.erp.orders)) == ("created", "mei", 1)
    released = next(e for e in world.desk().records.of(order.reference) if e.what == "released")
    assert (released.by, json.loads(released.detail)["audit"]) == ("mei", "sha256:audit")


def test_an_order_that_is_being_placed_is_no_longer_rejected(world: World, held: WorkOrder) -> None:
    world.hub.run_until(world.hub.now + 7200)
    desk = world.desk()
    assert desk.orders.lease(held.reference, 90) is not None

    with pytest.raises(ConflictError):
        deciding.reject(held, "mei", "too late", desk)

    assert order_of(world).status == "creating"


@dataclass(frozen=True)
class Ended:
    """An ERP whose technician was done at this time."""

    ended_at: str

    def status(self, _erp_id: str) -> ErpStatus:
        return ErpStatus("completed", "COMPLETED", "confirmed", ended_at=self.ended_at)


def test_parts_since_the_technicians_end_open_the_next_order_though_the_poll_comes_later(
    world: World,
) -> None:
    says(world, *[0.95] * 5)
    first = order_of(world)
    world.hub.run_until(world.hub.now + 3600)
    ended = text_of(world.hub.now)
    world.hub.run_until(world.hub.now + 60)
    says(world, *[0.97] * 4)
    world.hub.run_until(world.hub.now + 840)

    desk = replace(world.desk(), erp=Ended(ended))
    assert polling.poll_one(first.reference, desk) == "ended"
    says(world, 0.97)

    closed, second = world.desk().orders.get(first.reference), order_of(world)
    assert closed is not None
    assert closed.item["closed_at"] == ended
    assert (second.episode, second.status) == (2, "created")
    [outcome] = world.dynamodb.scan(TableName=world.tables["OutcomesTable"])["Items"]
    assert outcome["id"] == f"{ended}#{first.reference}"
    assert polling.poll_one(first.reference, desk) == "same"


def ended_while_it_ran_on(world: World) -> WorkOrder:
    """An order that the ERP ended before the machine's last four parts; then the machine stood still."""
    says(world, *[0.95] * 5)
    first = order_of(world)
    world.hub.run_until(world.hub.now + 3600)
    ended = text_of(world.hub.now)
    world.hub.run_until(world.hub.now + 60)
    says(world, *[0.97] * 4)
    world.hub.run_until(world.hub.now + 840)
    assert polling.poll_one(first.reference, replace(world.desk(), erp=Ended(ended))) == "ended"
    assert order_of(world).reference == first.reference
    return first


def test_a_machine_that_stands_still_after_the_technicians_end_gets_its_next_order_from_the_sweep(
    world: World,
) -> None:
    first = ended_while_it_ran_on(world)

    for _ in range(3):
        sweep(world.desk())

    second = order_of(world)
    assert (second.episode, second.status, second.risk) == (2, "created", 0.97)
    assert [order["external_reference"] for order in world.erp.orders] == [first.reference, second.reference]
    says(world, 0.97)
    assert order_of(world).reference == second.reference


def test_the_next_order_is_opened_once_though_sweeps_and_the_station_come_at_once(world: World) -> None:
    first = ended_while_it_ran_on(world)

    for _ in range(3):
        world.sweep_later(world.hub.now, is_repeated=False)
    says(world, *[0.97] * 4)
    world.hub.run_until(world.hub.now + 1000)

    second = order_of(world)
    assert (second.episode, second.status) == (2, "created")
    assert [order["external_reference"] for order in world.erp.orders] == [first.reference, second.reference]


def test_the_next_order_waits_for_an_erp_that_is_away_and_is_not_lost(world: World) -> None:
    ended_while_it_ran_on(world)
    world.erp.away.append((world.hub.now, world.hub.now + 600))

    sweep(world.desk())
    assert (order_of(world).episode, order_of(world).status) == (2, "creating")
    world.hub.run_until(world.hub.now + 3000)
    sweep(world.desk())

    assert order_of(world).status == "created"


def test_in_a_pilot_the_sweep_asks_for_the_next_order_as_an_event_does(world: World) -> None:
    ended_while_it_ran_on(world)

    sweep(replace(world.desk(), pilot=True))

    assert (order_of(world).episode, order_of(world).status) == (2, "awaiting_approval")


def test_events_that_are_forgotten_since_the_end_do_not_fail_the_sweep_for_ever(world: World) -> None:
    first = ended_while_it_ran_on(world)
    world.dynamodb._tables["EventsTable"].items.clear()  # type: ignore[union-attr]

    assert sweep(world.desk())["failed"] == 0

    assert world.desk().orders.get(first.reference).due_at == NEVER  # type: ignore[union-attr]


def test_a_part_that_was_remembered_while_its_order_ended_opens_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(world, *[0.95] * 5)
    first = order_of(world)
    world.hub.run_until(world.hub.now + 3600)
    ended = text_of(world.hub.now)
    world.hub.run_until(world.hub.now + 60)
    says(world, *[0.97] * 3)
    real = StationStates.record

    def record(self: StationStates, *arguments: Any) -> Any:
        # Between the look at the episodes and the part: the end, and the sweep that looks after it.
        monkeypatch.undo()
        polling.poll_one(first.reference, replace(world.desk(), erp=Ended(ended)))
        sweep(world.desk())
        return real(self, *arguments)

    monkeypatch.setattr(StationStates, "record", record)
    says(world, 0.97)

    assert (order_of(world).episode, order_of(world).status) == (2, "created")


@pytest.mark.parametrize(
    "told",
    [
        "",
        "2026-11-21",
        "2026-11-21T03:00:00Z",
        "2999-01-01T00:00:00Z",
        "2026-11-21T04:01:00",
        "0001-01-01T00:00:00Z",
    ],
)
def test_an_end_that_can_not_be_is_the_polls_own_time(world: World, told: str) -> None:
    says(world, *[0.95] * 5)
    world.hub.run_until(world.hub.now + 3600)

    polling.poll_one(order_of(world).reference, replace(world.desk(), erp=Ended(told)))
    says(world, *[0.1] * 2)

    order = order_of(world)
    assert (order.episode, order.status) == (1, "closed")
    assert order.item["closed_at"] >= text_of(world.hub.now - 200)
