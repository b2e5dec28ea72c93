# SPDX-License-Identifier: Apache-2.0
"""Approvals by the clock, over real tables, a real topic and its subscribers; time is the desk's, in steps of the test."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest
from cloud_line import Eventually, Line

from api import deciding
from api.errors import ConflictError
from linewatch.records import first_fault
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from watch.approvals import approvals, expire
from work_orders.announcing import EXPIRED, Announcer
from work_orders.observing import Desk
from work_orders.order_items import WorkOrder
from work_orders.orders import WorkOrders
from work_orders.policy_data import Approval
from work_orders.subscribers import Subscribers
from work_orders.wiring import desk_of

HOUR = 3600.0


@dataclass
class Inbox:
    """A subscriber of the announcements."""

    cloud: StandinCloud
    url: str

    def read(self, reference: str) -> list[dict[str, Any]]:
        """What came about this order since the last time, as a webhook gets it, with subject and attributes."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.cloud.client("sqs").receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
            if not answer.get("Messages"):
                return [one for one in found if one["reference"] == reference]
            for message in answer["Messages"]:
                body = json.loads(message["Body"])
                found.append({**json.loads(body["Message"]), "subject": body["Subject"]})
                self.cloud.client("sqs").delete_message(
                    QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"]
                )


@pytest.fixture
def inbox(cloud: StandinCloud, request: pytest.FixtureRequest) -> Iterator[Inbox]:
    sqs, sns = cloud.client("sqs"), cloud.client("sns")
    url = sqs.create_queue(QueueName=f"inbox-{abs(hash(request.node.name))}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    may_send = {
        "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn,
    }  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may_send]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    subscription = sns.subscribe(
        TopicArn=cloud.outputs["AnnouncementsArn"], Protocol="sqs", Endpoint=arn, ReturnSubscriptionArn=True
    )["SubscriptionArn"]
    yield Inbox(cloud, url)
    sns.unsubscribe(SubscriptionArn=subscription)
    sqs.delete_queue(QueueUrl=url)


class Clock:
    """Seconds since 1970, moved by the test."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def desk_at(environment: dict[str, str], clock: Clock, on_expiry: str = "reject") -> Desk:
    """A desk in this process whose time is the test's, and whose policy expires after two hours."""
    made = desk_of({**environment, "CONSOLE_URL": "https://console.example"})
    orders = WorkOrders(
        made.dynamodb, environment["WORK_ORDERS_TABLE"], made.episodes, made.records,
        outcomes_table=environment["OUTCOMES_TABLE"], clock=clock,
    )  # fmt: skip
    data = replace(made.data, approval=Approval(1.0, 2.0, on_expiry), quiet_hours=())  # type: ignore[arg-type]
    return replace(made, data=data, clock=clock, orders=orders)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(environment: dict[str, str], clock: Clock) -> Desk:
    return desk_at(environment, clock)


@pytest.fixture
def waiting(machine: Line, desk: Desk, eventually: Eventually) -> WorkOrder:
    """An order that waits and that nobody was told of: announced by the functions under their own policy before."""
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    shown = eventually(lambda: machine.order("awaiting_approval"), "the order")
    eventually(machine.all_decided, "the rest")
    desk.orders.mark(shown["reference"], announced_at="", expires_approval_at="", announcing_until=0)
    order = desk.orders.get(shown["reference"])
    assert order is not None
    return order


def now(desk: Desk, order: WorkOrder) -> WorkOrder:
    found = desk.orders.get(order.reference)
    assert found is not None
    return found


def test_a_new_approval_is_announced_by_the_flow_itself(
    cloud: StandinCloud, inbox: Inbox, machine: Line, eventually: Eventually
) -> None:
    machine.send(*(machine.severity(0.65) for _ in range(6)))
    shown = eventually(lambda: machine.order("awaiting_approval"), "the order")
    eventually(machine.all_decided, "the rest")

    [told] = eventually(lambda: inbox.read(shown["reference"]), "the announcement")

    assert told["kind"] == "waiting"
    assert told["asset_id"] == machine.asset_id
    assert told["subject"].startswith("Approve? risk 0.65")
    assert "Approve, merge or reject" in told["text"]
    cloud.watch()
    assert inbox.read(shown["reference"]) == []
    assert machine.orders()[0]["approval"]["announced_at"]


def test_announced_reminded_and_expired_each_once_however_often_anybody_looks(
    inbox: Inbox, desk: Desk, clock: Clock, waiting: WorkOrder, machine: Line, erp: ErpClient
) -> None:
    inbox.read(waiting.reference)
    kinds = []
    for _ in range(10):
        clock.now += HOUR / 4
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: approvals(desk), range(4)))
        kinds += [(one["kind"], one["expires_at"]) for one in inbox.read(waiting.reference)]

    assert [kind for kind, _ in kinds] == ["waiting", "reminder", "expired"]
    ended = now(desk, waiting)
    assert (ended.status, ended.item["decided_by"]) == ("rejected", "policy")
    assert ended.item["reason"] == f"{EXPIRED} 2 hours"
    assert [one["external_reference"] for one in erp.orders()].count(waiting.reference) == 0
    entries = desk.records.of(waiting.reference)
    assert [entry.what for entry in entries] == ["opened", "rejected"]
    assert first_fault(entries, ended.head) is None


def test_an_alarm_that_lasts_is_asked_for_again_after_an_expiry_and_not_after_a_no(
    desk: Desk, clock: Clock, waiting: WorkOrder, machine: Line, eventually: Eventually, inbox: Inbox
) -> None:
    """Expired with the latch of a person's no: the band was silent for as long as the alarm lasted."""
    approvals(desk)
    clock.now += 2 * HOUR + 1
    approvals(desk)
    assert now(desk, waiting).status == "rejected"
    machine.send(*(machine.severity(0.65) for _ in range(3)))
    eventually(machine.all_decided, "three parts more")
    assert len(machine.orders()) == 1  # what was seen before the expiry does not count again

    machine.send(machine.severity(0.65), machine.severity(0.65))

    again = eventually(lambda: machine.orders()[1:], "the order of the next episode")[0]
    assert (again["status"], again["band"], again["episode"]) == ("awaiting_approval", "approval", 2)
    assert again["reference"] != waiting.reference
    [told] = eventually(lambda: inbox.read(again["reference"]), "its announcement")
    assert told["kind"] == "waiting"

    eventually(machine.all_decided, "the rest")
    second = desk.orders.get(again["reference"])
    assert second is not None
    deciding.reject(second, "M. Keller", "a loose sensor", desk)
    machine.send(*(machine.severity(0.65) for _ in range(6)))
    eventually(machine.all_decided, "the rest")
    assert len(machine.orders()) == 2


def test_an_expiry_may_create_the_order_where_the_policy_says_so(
    environment: dict[str, str], clock: Clock, waiting: WorkOrder, erp: ErpClient, inbox: Inbox
) -> None:
    desk = desk_at(environment, clock, "create")
    approvals(desk)
    clock.now += 2 * HOUR + 1

    approvals(desk)

    assert now(desk, waiting).status == "created"
    assert [one["external_reference"] for one in erp.orders()].count(waiting.reference) == 1
    assert "approved by the policy" in inbox.read(waiting.reference)[-1]["text"]


def test_kept_orders_wait_for_ever(environment: dict[str, str], clock: Clock, waiting: WorkOrder) -> None:
    desk = desk_at(environment, clock, "keep")
    for _ in range(5):
        approvals(desk)
        clock.now += 100 * HOUR

    assert now(desk, waiting).status == "awaiting_approval"
    assert int(now(desk, waiting).item["reminders"]) == 4


@pytest.mark.parametrize("turn", range(4))
def test_of_an_approval_and_an_expiry_at_the_same_moment_one_wins(
    desk: Desk, clock: Clock, waiting: WorkOrder, erp: ErpClient, turn: int
) -> None:
    approvals(desk)
    clock.now += 2 * HOUR + 1
    order = now(desk, waiting)

    def approve() -> str:
        try:
            deciding.approve(order, "M. Keller", "in time", desk)
        except ConflictError as error:
            return str(error)
        return "approved"

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(approve), pool.submit(expire, order, desk)]
        said, expired = jobs[0].result(), jobs[1].result()

    ended = now(desk, waiting)
    placed = [one["external_reference"] for one in erp.orders()].count(waiting.reference)
    if expired:
        assert (ended.status, ended.item["decided_by"], placed) == ("rejected", "policy", 0)
        assert EXPIRED in said
    else:
        assert (ended.status, ended.item["decided_by"], placed, said) == (
            "created",
            "M. Keller",
            1,
            "approved",
        )
    decided = [
        entry.what for entry in desk.records.of(waiting.reference) if entry.what in ("approved", "rejected")
    ]
    assert len(decided) == 1


class CrashError(BaseException):
    """The process dies here."""


class Dying:
    """A topic whose caller dies before or after SNS has taken the announcement."""

    def __init__(self, sns: Any, *, after: bool) -> None:
        self._sns, self._after = sns, after

    def publish(self, **call: Any) -> None:
        if self._after:
            self._sns.publish(**call)
        raise CrashError


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_beside_the_announcement_loses_none_and_doubles_at_most_that_one(
    inbox: Inbox, desk: Desk, clock: Clock, waiting: WorkOrder, after: bool
) -> None:
    inbox.read(waiting.reference)
    dying = replace(desk, announcer=replace(desk.announcer, sns=Dying(desk.announcer.sns, after=after)))
    with pytest.raises(CrashError):
        dying.announcer.announce(waiting, desk.orders, desk.data, clock.now)
    approvals(desk)
    before = len(inbox.read(waiting.reference))
    clock.now += 61

    approvals(desk)
    approvals(desk)

    assert before == (1 if after else 0)
    assert [one["kind"] for one in inbox.read(waiting.reference)] == ["waiting"]


def test_an_expiry_whose_announcement_a_crash_left_out_is_announced_by_the_next_run(
    inbox: Inbox, desk: Desk, clock: Clock, waiting: WorkOrder
) -> None:
    approvals(desk)
    clock.now += 2 * HOUR + 1
    inbox.read(waiting.reference)
    dying = replace(desk, announcer=replace(desk.announcer, sns=Dying(desk.announcer.sns, after=False)))
    with pytest.raises(CrashError):
        expire(now(desk, waiting), dying)
    assert now(desk, waiting).status == "rejected"
    clock.now += 61

    approvals(desk)
    approvals(desk)

    assert [one["kind"] for one in inbox.read(waiting.reference)] == ["expired"]


def test_sns_being_away_stops_nothing_and_expires_nothing(
    environment: dict[str, str], desk: Desk, clock: Clock, waiting: WorkOrder, inbox: Inbox
) -> None:
    import boto3
    from botocore.config import Config

    nowhere = boto3.client(
        "sns",
        endpoint_url="http://127.0.0.1:9",
        config=Config(retries={"max_attempts": 0}, connect_timeout=1),
    )
    away = replace(desk, announcer=Announcer(nowhere, desk.announcer.topic_arn, "", "test"))
    for _ in range(3):
        counted = approvals(away)
        clock.now += 100 * HOUR
    assert counted["failed"] == 0
    assert now(desk, waiting).status == "awaiting_approval"
    inbox.read(waiting.reference)

    approvals(desk)

    assert [one["kind"] for one in inbox.read(waiting.reference)] == ["waiting"]


def test_without_a_subscriber_nothing_is_announced_and_nothing_expires(
    cloud: StandinCloud, desk: Desk, clock: Clock, waiting: WorkOrder
) -> None:
    """SNS takes what nobody hears: once that set the deadline, and the order was rejected with nobody told."""
    sns = cloud.client("sns")
    topic = sns.create_topic(Name=f"nobody-{waiting.reference}")["TopicArn"]
    unheard = replace(desk, announcer=Announcer(sns, topic, "", "test"))
    for _ in range(4):
        counted = approvals(unheard)
        assert (counted["announced"], counted["failed"]) == (0, 0)
        clock.now += 100 * HOUR
    silent = now(desk, waiting)
    assert (silent.status, silent.expires_approval_at) == ("awaiting_approval", "")
    shown = cloud.api("GET", f"/work-orders/{waiting.reference}").json()["approval"]
    assert not shown["announced_at"]
    assert shown["expires_at"] is None

    arn = f"arn:aws:sqs:{topic.split(':')[3]}:000000000000:somebody"
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    # An answer is believed for a minute: another process asks anew.
    heard = replace(unheard, announcer=replace(unheard.announcer, subscribers=Subscribers(sns, topic)))
    approvals(heard)

    told = now(desk, waiting)
    ends = datetime.fromisoformat(told.expires_approval_at).timestamp()
    assert told.status == "awaiting_approval"
    assert ends == pytest.approx(clock.now + 2 * HOUR, abs=1)


def test_the_scheduled_run_counts_what_waits(cloud: StandinCloud, waiting: WorkOrder) -> None:
    counted = cloud.watch()

    assert counted["failed"] == []
    assert counted["approvals"]["awaiting"] >= 1
