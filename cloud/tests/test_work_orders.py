# SPDX-License-Identifier: Apache-2.0
"""One order per episode, whatever the ERP, the queue or a crash does. Real tables, real ERP simulator."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from cloud_line import Eventually, Line

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from work_orders.erp import Erp, ErpOrder
from work_orders.observing import Desk, observe
from work_orders.placing import TryLaterError
from work_orders.sweep import sweep
from work_orders.wiring import desk_of


@pytest.fixture(scope="session")
def desk(environment: dict[str, str]) -> Desk:
    """A work_orders Lambda in this process."""
    return desk_of({**environment, "LEASE_S": "1"})


def enriched(line: Line, desk: Desk, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What enrich stores and sends for these events, without the Lambda in between."""
    key = {"station_key": f"plant-1/{line.line}/station-1"}
    asset = desk.dynamodb.get_item(TableName=line.cloud.outputs["AssetsTable"], Key=key)["Item"]
    for event in events:
        desk.dynamodb.put_item(
            TableName=line.cloud.outputs["EventsTable"],
            Item={
                "event_id": event["id"],
                "event": json.dumps(event),
                "site": "plant-1",
                "line": line.line,
                "station": "x",
            },
        )
    return [{"event": event, "asset": asset} for event in events]


def in_erp(erp: ErpClient, line: Line) -> list[dict[str, Any]]:
    return [order for order in erp.orders() if order["asset_id"] == line.asset_id]


def test_an_answer_that_did_not_come_is_looked_up_not_repeated(
    machine: Line, erp: ErpClient, eventually: Eventually
) -> None:
    erp.set_faults(hang_after_create=1)

    machine.send(*(machine.severity(0.95) for _ in range(6)))

    order = eventually(lambda: machine.order("created"), "the order")
    eventually(machine.all_decided, "the rest")
    assert [found["external_reference"] for found in in_erp(erp, machine)] == [order["reference"]]


def test_a_500_after_the_order_was_made_does_not_double_it(
    machine: Line, erp: ErpClient, eventually: Eventually
) -> None:
    erp.set_faults(error_500_after_create=1)

    machine.send(*(machine.severity(0.95) for _ in range(6)))

    eventually(lambda: machine.order("created") and machine.all_decided(), "the order")
    assert len(in_erp(erp, machine)) == 1


@pytest.mark.parametrize("fault", ["error_500", "too_many"])
def test_three_failed_tries_park_the_order_and_the_sweep_places_it(
    machine: Line, cloud: StandinCloud, erp: ErpClient, eventually: Eventually, fault: str
) -> None:
    erp.set_faults(**{fault: -1})
    machine.send(*(machine.severity(0.95) for _ in range(4)))
    parked = eventually(lambda: machine.order("parked"), "the parked order")
    cloud.sweep()
    assert machine.order("parked")

    erp.set_faults(**{fault: 0})
    cloud.sweep()

    assert machine.order("created")
    assert parked["attempts"] == 3
    assert len(in_erp(erp, machine)) == 1


def test_an_erp_that_refuses_parks_at_once(machine: Line, erp: ErpClient, eventually: Eventually) -> None:
    erp.set_faults(refuse=1)

    machine.send(*(machine.severity(0.95) for _ in range(4)))

    order = eventually(lambda: machine.order("parked"), "the parked order")
    assert order["attempts"] == 1


def test_a_token_that_ended_early_is_fetched_again_once(machine: Line, desk: Desk, erp: ErpClient) -> None:
    desk.erp.find_by_reference("lw-none")
    erp.set_faults(revoke_tokens=1)
    before = erp.calls()

    assert desk.erp.find_by_reference("lw-none") is None

    after = erp.calls()
    assert after["token"] - before["token"] == 1
    assert after["unauthorized"] - before.get("unauthorized", 0) == 1


def test_many_workers_on_the_same_events_make_one_order(machine: Line, desk: Desk, erp: ErpClient) -> None:
    messages = enriched(machine, desk, [machine.severity(0.95) for _ in range(6)])

    def work(message: Mapping[str, Any]) -> None:
        for _ in range(20):
            try:
                observe(message, desk)
                break
            except TryLaterError:
                continue  # another worker has the lease; the queue would bring the message back

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, messages * 3))

    assert machine.order("created")
    assert len(in_erp(erp, machine)) == 1


class CrashError(BaseException):
    """The worker dies here: no handler of the code under test sees it."""


@dataclass
class CrashingErp:
    """The real ERP client in a worker that dies beside one of its calls."""

    real: Erp
    step: str

    def find_by_reference(self, reference: str) -> ErpOrder | None:
        if self.step == "before find":
            raise CrashError
        return self.real.find_by_reference(reference)

    def create(self, order: Mapping[str, Any]) -> ErpOrder:
        if self.step == "before create":
            raise CrashError
        made = self.real.create(order)
        if self.step == "after create":
            raise CrashError
        return made


@pytest.mark.parametrize("step", ["before find", "before create", "after create"])
def test_a_crash_beside_any_call_of_the_erp_leaves_one_order(
    machine: Line, desk: Desk, erp: ErpClient, eventually: Eventually, step: str
) -> None:
    messages = enriched(machine, desk, [machine.severity(0.95) for _ in range(4)])
    dying = replace(desk, erp=CrashingErp(desk.erp, step))
    for message in messages[:3]:
        observe(message, dying)
    with pytest.raises(CrashError):
        observe(messages[3], dying)

    def delivered_again() -> bool:
        try:
            observe(messages[3], desk)
        except TryLaterError:
            return False
        return True

    eventually(delivered_again, "the dead worker's lease to end")
    assert machine.order("created")
    assert len(in_erp(erp, machine)) == 1


def test_a_crash_between_state_and_order_is_healed_by_the_next_delivery(
    machine: Line, desk: Desk, erp: ErpClient
) -> None:
    messages = enriched(machine, desk, [machine.severity(0.95) for _ in range(4)])
    for message in messages[:3]:
        observe(message, desk)
    # The state knows the fourth part, the worker died before it looked at the order.
    from work_orders.observing import to_observation

    rule = desk.data.rules["machine"]
    fourth = to_observation(messages[3]["event"], messages[3]["asset"], desk.data)
    desk.states.record(machine.asset_id, f"plant-1/{machine.line}/station-1", fourth, rule, 64, {})
    assert machine.orders() == []

    observe(messages[3], desk)

    assert machine.order("created")
    assert len(in_erp(erp, machine)) == 1


def test_an_order_that_lost_its_message_is_finished_by_the_sweep(
    machine: Line, desk: Desk, erp: ErpClient, eventually: Eventually
) -> None:
    messages = enriched(machine, desk, [machine.severity(0.95) for _ in range(4)])
    for message in messages[:3]:
        observe(message, desk)
    with pytest.raises(CrashError):
        observe(messages[3], replace(desk, erp=CrashingErp(desk.erp, "after create")))

    def swept() -> Any:
        sweep(desk, timedelta(seconds=-1))
        return machine.order("created")

    eventually(swept, "the sweep")
    assert len(in_erp(erp, machine)) == 1


def test_in_the_pilot_every_order_awaits_approval(machine: Line, desk: Desk, erp: ErpClient) -> None:
    for message in enriched(machine, desk, [machine.severity(0.95) for _ in range(6)]):
        observe(message, replace(desk, pilot=True))

    order = machine.order("awaiting_approval")

    assert order is not None
    assert (order["band"], order["pilot"], order["ai_generated"]) == ("automatic", True, True)
    assert in_erp(erp, machine) == []
