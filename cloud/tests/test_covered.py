# SPDX-License-Identifier: Apache-2.0
"""Whatever is changed of a stored order or its outcome, `verify` names it, or docs/why.md says that nobody would see it.

Orders of the whole flow, in virtual time (tests/faults).
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.schedule_checks import broken
from faults.schedule_world import Station, World, world_of
from faults.schedules import _begin, _come_to_rest
from virtual_flow import now_of, order_of, says

from api import deciding
from api.dossier import Dossier, gather
from api.policies import bundled
from api.stated import COVERED, UNCOVERED, UNTIL_THE_END
from api.verifying import findings
from outcomes.closing import close
from work_orders.order_items import ENDED, WorkOrder, text_of

PAGE = Path(__file__).parents[2] / "docs" / "why.md"
KEYS = {"reference", "document", "head", "records"}
"""What holds the order and its chain together; each has checks of its own."""
MACHINE, OTHER = Station("ASSET-0", "line-0"), Station("ASSET-1", "line-0")


@pytest.fixture(scope="module")
def stored() -> list[Dossier]:
    """Orders at rest: decided, merged, held, worse, late, doubled, closed, corrected, expired; on a bad ERP and a bad network."""
    found: list[Dossier] = []
    for seed in range(8):
        with world_of(seed) as world:
            _begin(world)
            world.hub.run_until(world.hub.now + 2_400)
            _come_to_rest(world)
            assert broken(world) == []
            found += dossiers(world)
    with world_of(1, faults=False) as world:
        whole_life(world)
        found += dossiers(world)
    return found


def whole_life(world: World) -> None:
    for station in (MACHINE, OTHER):
        station.sequence = 0
        station.sent.clear()
        world.stations.append(station)
    says(world, *[0.65] * 5)
    says(world, *[0.65] * 5, of=OTHER)
    order, into = order_of(world), order_of(world, "ASSET-1")
    deciding.merge(order, into, "mei", "one cause", world.desk())
    at = text_of(world.hub.now)
    world.desk().orders.mark(into.reference, announced_at=at, expires_approval_at=at, on_expiry="reject")
    deciding.approve(now_of(world, into.reference), "mei", "heard it", world.desk(), "sha256:audit")
    says(world, *[0.85] * 8, of=OTHER)
    says(world, *[0.97] * 8)
    desk = world.desk()
    assert close(now_of(world, into.reference), desk, by="omar", finding="no_fault", note="nothing")
    world.hub.run_until(world.hub.now + 60)
    ended = now_of(world, into.reference)
    assert close(ended, desk, by="mei", finding="confirmed", note="blade", found_failure="blade")


def dossiers(world: World) -> list[Dossier]:
    desk = world.desk()
    items = world.dynamodb.scan(TableName=world.tables["WorkOrdersTable"])["Items"]
    return [
        gather(order, desk.orders, desk.records, desk.events, desk.policies, bundled())
        for order in desk.orders.get_many([item["reference"] for item in items])
    ]


def changed(value: Any) -> Any:
    """Another value of the same kind, for each kind that is stored."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1) if value and not value.startswith("[") else "[1]"
    if isinstance(value, list):
        return value[1:] or ["x"]
    return value + 1


def differing(dossiers: list[Dossier], name: str) -> Iterator[list[str]]:
    """Where verify finds something after the attribute was changed, of each order that has it."""
    for dossier in dossiers:
        if name in dossier.order:
            order = {**dossier.order, name: changed(dossier.order[name])}
            yield [fault.where for fault in findings(replace(dossier, order=order))]


def test_orders_as_they_were_written_are_named_for_nothing(stored: list[Dossier]) -> None:
    assert len(stored) > 10
    assert {dossier.order["status"] for dossier in stored} >= {*ENDED, "created"}
    for dossier in stored:
        assert findings(dossier) == []
        assert (dossier.outcome is not None) == (dossier.order["status"] == "closed")


def test_every_attribute_that_is_stored_is_told_of_by_an_entry_or_listed(stored: list[Dossier]) -> None:
    names = {name for dossier in stored for name in dossier.order}

    assert names - COVERED - {*UNCOVERED} - KEYS == set()
    assert COVERED.isdisjoint(UNCOVERED)
    assert len(names & COVERED) >= 28


@pytest.mark.parametrize("name", sorted(COVERED - {*UNTIL_THE_END}))
def test_a_changed_attribute_is_named(stored: list[Dossier], name: str) -> None:
    found = list(differing(stored, name))
    assert found or name in ("history", "unrecorded", "doubles"), "no stored order has it"

    assert all("order" in where for where in found), found


@pytest.mark.parametrize("name", sorted(COVERED - {*UNTIL_THE_END}))
def test_an_attribute_that_no_entry_told_of_is_named(stored: list[Dossier], name: str) -> None:
    added = [dossier for dossier in stored if not dossier.order.get(name)]

    for dossier in added:
        order = {**dossier.order, name: '[{"risk": 1}]' if name == "escalations" else "x"}
        assert "order" in [fault.where for fault in findings(replace(dossier, order=order))]


@pytest.mark.parametrize("name", UNTIL_THE_END)
def test_what_an_order_ended_with_is_named(stored: list[Dossier], name: str) -> None:
    counted = [dossier for dossier in stored if dossier.order["status"] in ("closed", "rejected")]

    assert counted
    assert all("order" in where for where in differing(counted, name))


@pytest.mark.parametrize("name", UNCOVERED)
def test_the_page_tells_of_what_nobody_would_see_and_of_nothing_else(
    stored: list[Dossier], name: str
) -> None:
    assert f"`{name}`" in PAGE.read_text().partition("## What it does not prove")[2]
    assert all(where == [] for where in differing(stored, name))


def test_the_page_lists_no_attribute_that_is_covered() -> None:
    paragraph = PAGE.read_text().partition("- What no entry tells of.")[2].partition("\n- ")[0]

    assert set(re.findall(r"`(\w+)`", paragraph)) - {"policy"} == {*UNCOVERED}


def test_every_field_of_an_outcome_is_held_against_its_order(stored: list[Dossier]) -> None:
    """Accuracy counts what the table `outcomes` says, and `verify` did not look there."""
    closed = [dossier for dossier in stored if dossier.outcome is not None]
    seen: set[str] = set()
    for dossier in closed:
        assert dossier.outcome is not None
        for name, value in dossier.outcome.items():
            spoilt = {**dossier.outcome, name: changed(value)}
            where = [fault.where for fault in findings(replace(dossier, outcome=spoilt))]
            assert where == ([] if name == "expires_at" else ["outcome"]), name
            seen.add(name)
        assert [one.where for one in findings(replace(dossier, outcome={}))] == ["outcome"]
    assert seen >= {
        "finding",
        "closed_at",
        "highest_risk",
        "band",
        "approved_by",
        "corrected_at",
        "is_pilot",
        "risk",
    }


def test_an_outcome_is_of_the_order_as_it_ended_though_it_got_worse_at_that_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with world_of(1, faults=False) as world:
        MACHINE.sequence = 0
        MACHINE.sent.clear()
        world.stations.append(MACHINE)
        says(world, *[0.92] * 5)
        desk, order = world.desk(), order_of(world)
        real, waiting = type(desk.episodes).get, [1]

        def get(*arguments: Any) -> Any:
            # After the outcome was made of the order, and before the order ends.
            if waiting:
                waiting.pop()
                says_worse(world, order)
            return real(*arguments)

        monkeypatch.setattr(type(desk.episodes), "get", get)
        assert close(order, desk, by="omar", finding="confirmed")

        (dossier,) = dossiers(world)
        assert dossier.outcome is not None
        assert (dossier.outcome["highest_risk"], findings(dossier)) == (0.99, [])


def says_worse(world: World, order: WorkOrder) -> None:
    assert world.desk().orders.reached(order, 0.99, [0.8]).highest_risk == pytest.approx(0.99)
