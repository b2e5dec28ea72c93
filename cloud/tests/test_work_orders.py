# SPDX-License-Identifier: Apache-2.0
"""One order per episode, whatever the ERP, the queue or a crash does. Real tables, real ERP simulator."""

import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cloud_line import PATIENT, Eventually, Line

from erp.port import Erp, ErpAwayError, ErpOrder, ErpUnavailableError
from linewatch.records import first_fault
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from work_orders.ending import after_closing, closed_episodes
from work_orders.observing import Desk, observe
from work_orders.order_items import NEVER
from work_orders.placing import Patience, TryLaterError, sweep_one
from work_orders.sweep import sweep
from work_orders.wiring import desk_of


@pytest.fixture(scope="session")
def desk(environment: dict[str, str]) -> Desk:
    """A work_orders Lambda in this process."""
    return desk_of({**environment, **PATIENT, "LEASE_S": "1"})


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

    def swept() -> Any:
        cloud.sweep()
        return machine.order("created")

    # After a 5xx the order rests first: the ERP may still be at it.
    eventually(swept, "the sweep")
    assert parked["attempts"] == 3
    assert len(in_erp(erp, machine)) == 1


def test_an_erp_that_refuses_parks_at_once(machine: Line, desk: Desk, erp: ErpClient) -> None:
    # By this desk, which waits for the answer: a try that ended before it would be a second one (test_why.py has the
    # function's own).
    erp.set_faults(refuse=1)

    for message in enriched(machine, desk, [machine.severity(0.95) for _ in range(4)]):
        observe(message, desk)

    order = machine.order("parked")
    assert order is not None
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
    # Nobody dies here: a lease ends after the longest try of a busy machine, as the functions' own does.
    lasting = replace(desk, patience=replace(desk.patience, lease_s=90.0))

    def work(message: Mapping[str, Any]) -> None:
        for _ in range(20):
            try:
                observe(message, lasting)
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

    def delivered_again() -> Any:
        observe(messages[3], desk)
        return machine.order("created")

    eventually(delivered_again, "the dead worker's lease to end")
    assert len(in_erp(erp, machine)) == 1


def test_a_crash_between_state_and_order_is_healed_by_the_next_delivery(
    machine: Line, desk: Desk, erp: ErpClient
) -> None:
    messages = enriched(machine, desk, [machine.severity(0.95) for _ in range(4)])
    for message in messages[:3]:
        observe(message, desk)
    # The state knows the fourth part, the worker died before it looked at the order.
    from work_orders.observed import part_of, to_observation

    rule = desk.data.rules["machine"]
    fourth = to_observation(part_of(messages[3]["event"]), messages[3]["asset"], desk.data)
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
        sweep(desk)
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


def test_a_part_too_old_to_count_is_told_and_counted(
    machine: Line, cloud: StandinCloud, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    short = replace(desk, data=replace(desk.data, remember=2))
    machine.epoch = 2
    for message in enriched(machine, desk, [machine.severity(0.1) for _ in range(3)]):
        observe(message, short)
    taken, machine.sequence = machine.events[-1], 2
    another = machine.severity(0.1)
    machine.epoch = 1
    old = machine.severity(0.1)
    before = cloud.api("GET", "/summary").json()["too_late"]

    with caplog.at_level(logging.WARNING):
        for message in enriched(machine, desk, [taken, another, old]):
            observe(message, short)

    told = [record.__dict__ for record in caplog.records if record.message == "observation_too_old"]
    assert [record["event_id"] for record in told] == [another["id"], old["id"]]
    assert (told[1]["position"], told[1]["remembered"]) == ([1, 4], [[2, 2], [2, 3]])
    assert cloud.api("GET", "/summary").json()["too_late"] - before == 2


def test_an_erp_that_commits_after_its_500_does_not_double_the_order(
    machine: Line, desk: Desk, erp: ErpClient, eventually: Eventually
) -> None:
    # Its time to settle is passed by the clock of the orders: the ERP's own, a busy machine may hold up.
    orders, ahead_s = copy(desk.orders), [0.0]
    orders._clock = lambda: time.time() + ahead_s[0]
    patience = replace(desk.patience, settle_s=300.0, retry_base_s=0.0)
    patient = replace(desk, orders=orders, patience=patience)
    messages = enriched(machine, desk, [machine.severity(0.95) for _ in range(4)])
    late = erp.calls().get("created_late", 0)
    erp.set_faults(error_500_create_late=1, late_ms=5000)
    for message in messages[:3]:
        observe(message, patient)
    with pytest.raises(TryLaterError) as failed:
        observe(messages[3], patient)

    # A message that comes early changes nothing: the ERP is not asked before it has settled.
    observe(messages[3], patient)
    assert machine.order("creating")
    assert failed.value.delay_s >= patience.settle_s
    eventually(lambda: erp.calls().get("created_late", 0) > late, "the late commit")
    ahead_s[0] = failed.value.delay_s
    observe(messages[3], patient)

    assert machine.order("created")
    assert len(in_erp(erp, machine)) == 1


def test_further_events_of_the_station_are_no_tries(machine: Line, desk: Desk, erp: ErpClient) -> None:
    slow = replace(desk, patience=replace(desk.patience, retry_base_s=1e6))
    messages = enriched(machine, desk, [machine.severity(0.95) for _ in range(10)])
    erp.set_faults(too_many=-1)
    for message in messages[:3]:
        observe(message, slow)
    with pytest.raises(TryLaterError) as failed:
        observe(messages[3], slow)

    for message in messages[4:]:
        observe(message, slow)

    order = machine.order("creating")
    assert order is not None
    assert order["attempts"] == 1
    stored = desk.orders.get(order["reference"])
    assert stored is not None
    # The message comes back when the order is due, not before.
    assert time.time() + failed.value.delay_s > stored.lease_until + 1


def parked(line: Line, desk: Desk, erp: ErpClient) -> str:
    """Reference of an order of this line that was parked after one try, which the ERP had no time for."""
    erp.set_faults(too_many=1)
    hasty = replace(desk, patience=replace(desk.patience, tries=1))
    for message in enriched(line, desk, [line.severity(0.95) for _ in range(4)]):
        observe(message, hasty)
    order = line.order("parked")
    assert order is not None
    return str(order["reference"])


def whats(desk: Desk, reference: str) -> list[str]:
    """What the order's records tell of, oldest first."""
    entries = desk.records.of(reference)
    order = desk.orders.get(reference)
    assert order is not None
    assert first_fault(entries, order.head) is None
    assert order.records == len(entries)
    return [entry.what for entry in entries]


def test_an_order_that_fails_for_ever_in_the_same_way_is_counted_not_recorded(
    machine: Line, desk: Desk, erp: ErpClient
) -> None:
    reference = parked(machine, desk, erp)
    erp.set_faults(too_many=-1)

    for _ in range(6):
        sweep_one(reference, desk.orders, desk.erp, desk.patience)

    order = desk.orders.get(reference)
    assert order is not None
    assert whats(desk, reference) == ["opened", "parked"]
    assert (int(order.item["failures"]), order.attempts) == (7, 7)
    erp.set_faults(too_many=0)
    sweep_one(reference, desk.orders, desk.erp, desk.patience)
    created = json.loads(desk.records.of(reference)[-1].detail)
    assert created["repeated"]["times"] == 7


class Noting:
    """The ERP, and a note of every call: a sweep also takes what other tests left in the tables."""

    def __init__(self, erp: Erp) -> None:
        self._erp = erp
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._erp, name)

        def call(*arguments: Any) -> Any:
            self.asked.append(f"{name}{arguments}")
            return method(*arguments)

        return call


def test_a_refused_order_costs_the_sweep_nothing_until_a_person_replays_it(
    machine: Line, desk: Desk, erp: ErpClient, eventually: Eventually
) -> None:
    erp.set_faults(refuse=1)
    for message in enriched(machine, desk, [machine.severity(0.95) for _ in range(4)]):
        observe(message, desk)
    reference = machine.orders()[0]["reference"]
    noting = Noting(desk.erp)
    noted = replace(desk, erp=noting)

    def swept() -> Any:
        sweep(noted)
        return machine.order("created")

    sweep(noted)

    order = desk.orders.get(reference)
    assert order is not None
    assert (order.status, order.is_refused, order.due_at) == ("parked", True, NEVER)
    assert not any(reference in call for call in noting.asked), noting.asked
    assert desk.orders.replay(reference, "mei", "the plant code is known now") is not None
    eventually(swept, "the order in the ERP")
    assert any(reference in call for call in noting.asked), "the control: its calls are noted"
    assert whats(desk, reference) == ["opened", "parked", "replayed", "created"]


def test_three_tries_come_within_fifteen_minutes_anywhere_in_their_time() -> None:
    patience = Patience(tries=3, retry_base_s=300.0, lease_s=90.0, settle_s=30.0)

    runs = [(patience.delay_s(1), patience.delay_s(2)) for _ in range(200)]

    assert all(1.0 <= first <= 300.0 and 1.0 <= second <= 600.0 for first, second in runs)
    # Full jitter: all of the time is used, so that a plant's orders do not come back together.
    for longest, delays in ((300.0, [run[0] for run in runs]), (600.0, [run[1] for run in runs])):
        assert min(delays) < 0.1 * longest
        assert max(delays) > 0.9 * longest


def test_the_erps_retry_after_is_honoured_within_the_fifteen_minutes_and_pauses_grow_to_an_hour() -> None:
    patience = Patience(tries=3, retry_base_s=300.0, lease_s=90.0, settle_s=30.0)

    assert all(120 <= patience.delay_s(1, asked_s=120) <= 300 for _ in range(50))
    assert {patience.delay_s(1, asked_s=900) for _ in range(50)} == {300.0}
    longest = [max(patience.pause_s(tries) for _ in range(200)) for tries in (3, 4, 5, 6, 30)]
    assert [round(pause / 300) for pause in longest] == pytest.approx([1, 2, 4, 8, 12], abs=1)
    assert max(longest) <= 3600
    assert patience.pause_s(3, asked_s=86_400) == 3600


@dataclass
class SilentErp:
    """The real ERP client; the ERP makes the order, does not answer, and can't be asked for a moment."""

    real: Erp
    has_made: bool = False

    def find_by_reference(self, reference: str) -> ErpOrder | None:
        if self.has_made:
            raise ErpUnavailableError("GET answered 500")
        return self.real.find_by_reference(reference)

    def create(self, order: Mapping[str, Any]) -> ErpOrder:
        self.real.create(order)
        self.has_made = True
        raise ErpUnavailableError("POST: no whole answer", may_have_created=True)


def test_an_order_closed_while_parked_is_known_when_the_erp_made_it_after_all(
    machine: Line, desk: Desk, erp: ErpClient, eventually: Eventually
) -> None:
    hasty = replace(desk, erp=SilentErp(desk.erp), patience=replace(desk.patience, tries=1, settle_s=1.0))
    for message in enriched(machine, desk, [machine.severity(0.95) for _ in range(4)]):
        observe(message, hasty)
    order = desk.orders.get(machine.orders()[0]["reference"])
    assert order is not None
    assert order.status == "parked"

    def closed() -> bool:
        episodes = closed_episodes(order, desk, after_closing(time.time()))
        return desk.orders.close(order, episodes, "mei", "no_fault", "")

    eventually(closed, "the ERP's time to settle")
    # One run looks at so many orders of a kind, and other files of this account leave theirs behind.
    for _ in range(5):
        sweep(desk)

    now = desk.orders.get(order.reference)
    assert now is not None
    assert (now.status, now.erp_id) == ("closed", in_erp(erp, machine)[0]["id"])
    assert whats(desk, order.reference) == ["opened", "parked", "closed", "answered", "note", "note_told"]


@dataclass
class PickyErp:
    """The real ERP client, which fails for one order."""

    real: Erp
    reference: str
    error: Exception

    def find_by_reference(self, reference: str) -> ErpOrder | None:
        return self.real.find_by_reference(reference)

    def create(self, order: Mapping[str, Any]) -> ErpOrder:
        if order["external_reference"] == self.reference:
            raise self.error
        return self.real.create(order)


@pytest.mark.parametrize(
    "error", [ErpUnavailableError("POST answered 500", may_have_created=True), KeyError("id")]
)
def test_an_order_that_always_fails_holds_up_no_other(
    cloud: StandinCloud, desk: Desk, erp: ErpClient, request: pytest.FixtureRequest, error: Exception
) -> None:
    lines = [Line.register(cloud, f"{request.node.name} {number}", "machine") for number in range(3)]
    references = [parked(line, desk, erp) for line in lines]

    sweep(replace(desk, erp=PickyErp(desk.erp, references[1], error)))

    assert [line.orders()[0]["status"] for line in lines] == ["created", "parked", "created"]


def test_the_sweep_begins_with_the_order_that_was_tried_longest_ago(
    cloud: StandinCloud, desk: Desk, erp: ErpClient, request: pytest.FixtureRequest
) -> None:
    lines = [Line.register(cloud, f"{request.node.name} {number}", "machine") for number in range(2)]
    first, second = (parked(line, desk, erp) for line in lines)
    erp.set_faults(down=-1)
    with pytest.raises(ErpAwayError):
        sweep_one(first, desk.orders, desk.erp, desk.patience)

    waiting = desk.orders.due("parked", 1000)
    rested, other = desk.orders.get(first), desk.orders.get(second)

    assert second in waiting
    assert rested is not None
    assert other is not None
    assert rested.due_at > other.due_at, "it may be its own affair: it goes behind"
    assert rested.attempts == other.attempts, "the ERP's absence is no failed try of the order"
