# SPDX-License-Identifier: Apache-2.0
"""Approvals under seeded schedules: processes die at any call, SNS is away or does not answer, people decide meanwhile.

Whatever happens: one decision, its records whole, nobody left untold, and nothing told twice but what a crash or a lost
answer of SNS doubled. The real code over the tables in memory that test_memory_dynamodb.py holds against the stand-in.
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from faults.memory_dynamodb import MemoryDynamoDb
from faults.schedule_aws import tables

from api.stated import stated
from linewatch.records import first_fault
from watch import approvals as watching
from work_orders import announcing
from work_orders.announcing import Announcer
from work_orders.ending import after_rejecting, closed_episodes
from work_orders.episodes import Episode, Episodes
from work_orders.observing import Desk, Events
from work_orders.orders import WorkOrder, WorkOrders
from work_orders.policies import Policies
from work_orders.policy import Latch, Observation, Position
from work_orders.policy_data import Approval, load
from work_orders.records import Records
from work_orders.states import StationStates
from work_orders.subscribers import Subscribers

BEGIN = 1_795_000_000.0
HOUR = 3600.0
SCHEDULES = 600
DOCUMENT = {
    "risk": 0.65,
    "asset_name": "Compressor 7",
    "criticality": "A",
    "line": "line-1",
    "priority": "low",
}


TOPIC = "arn:aws:sns:eu-central-1:000000000000:t"
STATION = "plant-1/line-1/station-1"
LAST = Position(1, 5)


class CrashError(BaseException):
    """The process dies here."""


@dataclass
class World:
    """One order, its desk, and what was done to them."""

    chance: random.Random
    now: float = BEGIN
    # Calls that the running process may still make.
    left: int | None = None
    told: Counter[str] = field(default_factory=Counter)
    # Announcements of which SNS's answer, or the note of it, was lost.
    unsure: int = 0
    fault: str = ""

    def step(self, _where: str) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise CrashError

    def list_subscriptions_by_topic(self, **_call: Any) -> dict[str, Any]:
        """SNS, as the announcer asks it."""
        self.step("before subscriptions")
        if self.fault == "away":
            raise EndpointConnectionError(endpoint_url="sns")
        return {"Subscriptions": [{"SubscriptionArn": "arn:aws:sns:eu-central-1:000000000000:t:1"}]}

    def publish(self, **call: Any) -> None:
        """SNS, as the announcer calls it."""
        self.step("before publish")
        if self.fault == "away":
            raise EndpointConnectionError(endpoint_url="sns")
        self.told[json.loads(json.loads(call["Message"])["sqs"])["kind"]] += 1
        if self.fault == "no answer":
            self.unsure += 1
            raise ReadTimeoutError(endpoint_url="sns")
        self.step("after publish")


def desk_in(world: World, on_expiry: str) -> Desk:
    dynamodb = MemoryDynamoDb(world.step)
    for name, arguments in tables().items():
        dynamodb.create_table(TableName=name, **arguments)
    episodes, records = Episodes(dynamodb, "EpisodesTable"), Records(dynamodb, "RecordsTable")
    orders = WorkOrders(
        dynamodb, "WorkOrdersTable", episodes, records, outcomes_table="OutcomesTable",
        clock=lambda: world.now, pause=lambda _: None,
    )  # fmt: skip
    return Desk(
        data=replace(load(), approval=Approval(1.0, 4.0, on_expiry), quiet_hours=()),  # type: ignore[arg-type]
        policies=Policies(dynamodb, "PoliciesTable", records), records=records, dynamodb=dynamodb,
        patience=None, pilot=False, events=Events(dynamodb, "EventsTable"),  # type: ignore[arg-type]
        states=StationStates(dynamodb, "PolicyStateTable", "CountersTable"), episodes=episodes, orders=orders,
        erp=None, shadow=NoShadow(), clock=lambda: world.now,  # type: ignore[arg-type]
        announcer=Announcer(
            world, TOPIC, "https://console.example", "test", Subscribers(world, TOPIC, lambda: world.now)
        ),
    )  # fmt: skip


class NoShadow:
    """Device shadows are another test's."""

    def show(self, order: WorkOrder, orders: WorkOrders) -> None:
        orders.shadow_written(order)


def approve(order: WorkOrder, desk: Desk) -> None:
    desk.orders.confirm(order.reference, "M. Keller", "heard it too")


def reject(order: WorkOrder, desk: Desk) -> None:
    desk.orders.reject(order, closed_episodes(order, desk, after_rejecting(order)), "A. Roy", "loose sensor")


def look(order: WorkOrder, desk: Desk) -> None:
    desk.announcer.announce(order, desk.orders, desk.data, desk.clock())


def play(seed: int) -> tuple[World, Desk, WorkOrder]:
    """One schedule: 5 to 25 steps with faults, then everything heals and `watch` runs on."""
    world = World(random.Random(seed))
    chance = world.chance
    desk = desk_in(world, chance.choice(("reject", "keep")))
    opened = desk.orders.open(Episode("ENGINE-1", "hpc"), "awaiting_approval", "approval", DOCUMENT)
    assert opened is not None
    rule, seen_last = desk.data.rule("machine", "A"), Observation(LAST, "event-5", None, "hpc", 0.65)
    desk.states.record("ENGINE-1", STATION, seen_last, rule, 64, {})
    people: list[Callable[[WorkOrder, Desk], None]] = [approve, reject] if chance.random() < 0.6 else []
    for _ in range(chance.randint(5, 25)):
        world.now += chance.choice((0, 1, 61, HOUR / 2, HOUR))
        world.left = chance.randint(0, 12) if chance.random() < 0.4 else None
        world.fault = chance.choice(("", "", "", "away", "no answer"))
        # Whoever acts may have read the order a while ago.
        seen = desk_seen(desk, opened, world, chance)
        before = sum(world.told.values())
        try:
            act = chance.choice([look, look, watch, watch, watch, *people])
            act(seen, desk)
        except CrashError:
            # At most the last announcement of this process was not noted yet.
            world.unsure += sum(world.told.values()) > before
        world.left = None
    world.fault = ""
    for _ in range(8):
        world.now += 61
        watch(opened, desk)
    world.now += 5 * HOUR
    for _ in range(3):
        world.now += 61
        watch(opened, desk)
    return world, desk, opened


def desk_seen(desk: Desk, opened: WorkOrder, world: World, chance: random.Random) -> WorkOrder:
    limit, world.left = world.left, None
    found = opened if chance.random() < 0.2 else desk.orders.get(opened.reference)
    world.left = limit
    assert found is not None
    return found


def watch(_order: WorkOrder, desk: Desk) -> None:
    watching.approvals(desk)


def broken(world: World, desk: Desk, opened: WorkOrder) -> list[str]:
    """What a schedule must not lead to."""
    order = desk.orders.get(opened.reference)
    assert order is not None
    entries = desk.records.of(order.reference)
    decided = [entry for entry in entries if entry.what in ("approved", "rejected")]
    is_open = order.status == "awaiting_approval"
    by_policy = bool(decided) and decided[0].by == "policy"
    wrong = []
    if first_fault(entries, order.head) is not None or stated(entries)["status"] != order.status:
        wrong.append("the records are not those of the order")
    if len(decided) != (0 if is_open else 1):
        wrong.append(f"{len(decided)} decisions of an order that is {order.status}")
    if is_open and (order.expires_approval_at or not world.told["waiting"]):
        wrong.append("it waits for ever, or nobody was told")
    if bool(world.told["expired"]) != by_policy:
        wrong.append(f"expired told {world.told['expired']} times, decided by {decided and decided[0].by}")
    # A person's no silences the band; that nobody spoke silences nothing.
    silent = {"policy": Latch(LAST), "A. Roy": Latch(LAST, band="approval")}
    latch = desk.episodes.get("ENGINE-1", "hpc").latch(STATION)
    if latch != (silent[decided[0].by] if order.status == "rejected" else Latch()):
        wrong.append(f"{order.status} by {decided and decided[0].by}, and the station has {latch}")
    reminded = int(order.item.get("reminders", 0))
    due = {"waiting": bool(order.item.get("announced_at")), "expired": by_policy, "reminder": reminded}
    doubled = sum(max(0, world.told[kind] - int(times)) for kind, times in due.items())
    if doubled > world.unsure:
        wrong.append(f"{dict(world.told)} told, {due} due, {world.unsure} answers lost")
    if any(world.told[kind] < int(times) for kind, times in due.items()):
        wrong.append(f"noted and not told: {dict(world.told)}, {due}")
    return wrong


def test_under_any_schedule_each_approval_is_decided_once_and_everybody_is_told() -> None:
    ends: Counter[str] = Counter()
    for seed in range(SCHEDULES):
        world, desk, opened = play(seed)
        assert broken(world, desk, opened) == [], f"seed {seed}"
        order = desk.orders.get(opened.reference)
        assert order is not None
        ends[f"{order.status} by {order.item.get('decided_by')}"] += 1
        ends["doubled by a lost answer"] += sum(world.told.values()) > len(world.told) and world.unsure > 0

    # The schedules reach what they are for.
    assert min(ends[end] for end in (
        "creating by M. Keller", "rejected by A. Roy", "rejected by policy", "awaiting_approval by None",
        "doubled by a lost answer",
    )) > SCHEDULES / 60, ends  # fmt: skip


def _mark_first(self: Announcer, order: WorkOrder, orders: WorkOrders, data: Any, now_s: float) -> WorkOrder:
    """The control: notes the announcement before it is made, as one would who fears a double."""
    what = announcing.due(order, data, now_s)
    if what is not None:
        orders.mark(order.reference, **what.marks)
        self._publish(order, what, data)
    return orders.get(order.reference) or order


def _without_claim(
    self: Announcer, order: WorkOrder, orders: WorkOrders, data: Any, now_s: float
) -> WorkOrder:
    """The control: announces what is due by the order as it was read, a while ago."""
    what = announcing.due(order, data, now_s)
    if what is not None and self._publish(order, what, data):
        orders.mark(order.reference, **what.marks)
    return orders.get(order.reference) or order


def test_an_expiry_that_silences_the_band_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: expires with the latch of a person's no, as it was once."""
    monkeypatch.setattr(watching, "after_expiring", lambda: lambda state: Latch(state.last, band="approval"))

    assert any(broken(*play(seed)) for seed in range(120))


@pytest.mark.parametrize("control", [_mark_first, _without_claim])
def test_the_controls_are_seen(control: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Announcer, "announce", control)

    assert any(broken(*play(seed)) for seed in range(120))
