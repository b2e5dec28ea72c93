# SPDX-License-Identifier: Apache-2.0
"""One schedule: a plant's bad parts, the queue, up to three Lambdas at once, the sweep, the poll of what technicians found,
people, and what goes wrong.

Everything between the queue and the ERP's wire is the product: handler, observing, placing, telling, sweep, polling, closing,
deciding.
The queue is modelled (visibility, receive count, dead letters); DynamoDB and shadows are the stand-in's engine.
"""

import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.exceptions import ClientError, ReadTimeoutError
from faults import schedule_aws
from faults.memory_dynamodb import MemoryDynamoDb
from faults.schedule_erp import ErpServer, adapter
from faults.schedule_hub import DiedError, Hub

import work_orders.handler
from api import deciding
from api.errors import ConflictError
from assets.asset import Asset, to_item
from assets.registry import Registry
from erp.port import ErpError
from outcomes import polling
from work_orders.announcing import SILENT
from work_orders.batches import BatchLeftOutError
from work_orders.episodes import Episodes
from work_orders.metrics import metrics
from work_orders.observing import Desk, Events
from work_orders.order_table import ContendedError
from work_orders.orders import OPEN, WorkOrder, WorkOrders
from work_orders.placing import Patience
from work_orders.policies import Policies
from work_orders.policy_data import RateLimit, load
from work_orders.quiet_hours import DAYS, QuietHours
from work_orders.records import Records
from work_orders.shadow import DeviceShadow
from work_orders.states import StationStates
from work_orders.sweep import sweep

BEGIN = 1_795_233_600.0
"""2026-11-21 04:00 UTC."""

# As in the template.
LEASE_S, SETTLE_S, LONGEST_S, VISIBILITY_S, MOST_RECEIVES = 90.0, 30.0, 60.0, 360.0, 10
SWEEP_EVERY_S = 300.0
FAULTS_FOR_S = 2_400.0
WORKERS = 3
CRITICALITY = "C"
LETS_THROUGH = 0.97
"""Of the quiet hours."""
DEVICE = "linewatch-plant-1-device-1"
STEPS = tuple(
    f"{when} {call}"
    for when in ("before", "after")
    for call in ("GetItem", "UpdateItem", "TransactWriteItems", "GetThingShadow", "UpdateThingShadow", "erp GET",
                 "erp create", "erp POST")
)  # fmt: skip
AWS_ERRORS = (ReadTimeoutError, ClientError, ContendedError, BatchLeftOutError)
"""With these a run of the sweep or of the API ends; its caller comes again."""
POISON = ("no JSON at all", '{"event": 5, "asset": null}')


@dataclass(slots=True, eq=False)
class Message:
    """One message of the queue `enriched`."""

    body: str
    visible_at: float
    receives: int = 0


@dataclass(slots=True)
class Station:
    """A machine, and the severities of its cycles; the last one that is over the automatic or the approval band."""

    asset_id: str
    line: str
    sequence: int = 0
    sent: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class World:
    """What a seed makes."""

    seed: int
    chance: random.Random
    hub: Hub
    erp: ErpServer
    dynamodb: schedule_aws.DynamoDb | MemoryDynamoDb
    tables: dict[str, str]
    stations: list[Station]
    # Chances in percent: a process dies at a boundary; AWS fails there.
    dies: float
    aws_fails: float
    # Product parts that a control replaces.
    changed: dict[str, Any]
    queue: list[Message] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    running: int = 0
    deaths: int = 0
    spoilings: int = 0
    decisions: int = 0
    conflicts: int = 0
    # Orders that the sweep opened: parts since an end that was known later, and then nothing more.
    opened_by_sweep: int = 0
    # How long a call may take, seconds.
    pauses: tuple[float, ...] = (0.0,)
    retry_base_s: float = 300.0
    # A step's name at which every fifth process dies.
    dies_often_at: str = ""
    # A step's name: the process dies there, once.
    dies_at: str = ""
    # Steps that take so many seconds, and in how many of all cases.
    slow_share: float = 1.0
    slow_at: dict[str, float] = field(default_factory=dict)
    data: Any = None
    # When a pilot is switched on.
    pilot_from: float = math.inf
    # Of a hundred transactions so many meet another one, of a hundred batches so many leave items out.
    spoilt: float = 0.0

    @property
    def faults_on(self) -> bool:
        return self.hub.now < BEGIN + FAULTS_FOR_S

    # -- boundaries

    def step(self, name: str) -> None:
        """Before and after each call: others may go on, and the process may die."""
        actor = self.hub.current()
        if actor is None:
            return
        if name == self.dies_at and actor.faults:
            self.dies_at = ""
            self._die(actor.name, name)
        seconds = self.chance.choice(self.pauses)
        if name in self.slow_at and self.chance.random() < self.slow_share:
            seconds = self.slow_at[name]
        self.hub.sleep(seconds if self.faults_on else 0.0)
        if not (self.faults_on and actor.faults):
            return
        share = 8.0 if "create" in name or name == "after erp POST" else 1.0
        if self.chance.uniform(0, 100) < (20.0 if name == self.dies_often_at else self.dies * share):
            self._die(actor.name, name)
        if " erp " not in name and self.chance.uniform(0, 100) < self.aws_fails:
            self.hub.log.append(f"{self.hub.now:.1f} {actor.name}: AWS fails {name}")
            raise ReadTimeoutError(endpoint_url="https://dynamodb")

    def spoils(self, action: str) -> bool:
        """Whether AWS answers neither yes nor no."""
        actor = self.hub.current()
        if actor is None or not self.spoilt or not (self.faults_on and actor.faults):
            return False
        if is_spoilt := self.chance.uniform(0, 100) < self.spoilt:
            self.spoilings += 1
            self.hub.log.append(f"{self.hub.now:.1f} {actor.name}: AWS spoils {action}")
        return is_spoilt

    def _die(self, who: str, name: str) -> None:
        self.deaths += 1
        self.hub.log.append(f"{self.hub.now:.1f} {who} dies {name}")
        raise DiedError

    # -- the product, as one Lambda has it

    def desk(self) -> Desk:
        table = self.tables
        dynamodb = self.dynamodb
        episodes = Episodes(dynamodb, table["EpisodesTable"])
        records = Records(dynamodb, table["RecordsTable"])
        orders_class = self.changed.get("orders", WorkOrders)
        orders = orders_class(
            dynamodb, table["WorkOrdersTable"], episodes, records, outcomes_table=table["OutcomesTable"],
            clock=self.hub.clock, pause=self.hub.sleep,
        )  # fmt: skip
        shadow_class = self.changed.get("shadow", DeviceShadow)
        return Desk(
            data=self.data,
            policies=Policies(dynamodb, table["PoliciesTable"], records),
            records=records,
            dynamodb=dynamodb,
            patience=Patience(3, self.retry_base_s, self.changed.get("lease_s", LEASE_S), SETTLE_S),
            pilot=self.hub.now >= self.pilot_from,
            events=Events(dynamodb, table["EventsTable"]),
            states=StationStates(dynamodb, table["PolicyStateTable"], table["CountersTable"]),
            episodes=episodes,
            orders=orders,
            erp=adapter(self.erp, self.step, self.hub.clock),
            shadow=shadow_class(schedule_aws.IotData(self.step), self.hub.clock),
            clock=self.hub.clock,
            announcer=self.changed.get("announcer", SILENT),
            assets=Registry(dynamodb, table["AssetsTable"]),
        )

    # -- the queue

    def send(self, body: str, delay_s: float = 0.0) -> None:
        self.queue.append(Message(body, self.hub.now + delay_s))
        self.hub.at(self.hub.now + delay_s, self.poll)

    def poll(self) -> None:
        """Gives visible messages to free workers, in any order."""
        while self.running < WORKERS:
            visible = [message for message in self.queue if message.visible_at <= self.hub.now]
            if not visible:
                return
            message = self.chance.choice(visible)
            message.receives += 1
            if message.receives > MOST_RECEIVES:
                self.queue.remove(message)
                self.dead.append(message.body)
                continue
            message.visible_at = self.hub.now + VISIBILITY_S
            self.hub.at(message.visible_at, self.poll)
            self.running += 1
            self.hub.start("worker", lambda message=message: self._work(message), LONGEST_S)

    def _work(self, message: Message) -> None:
        try:
            record = SQSRecord(
                {"messageId": str(id(message)), "receiptHandle": str(id(message)), "body": message.body}
            )
            actor = self.hub.current()
            try:
                with suppress(DiedError):
                    self.changed.get("record", work_orders.handler._record)(record)
                    if actor is None or self.hub.now < actor.ends_at:
                        self.queue.remove(message)
            except Exception as error:  # noqa: BLE001 - the queue delivers it again, whatever it was
                self.hub.log.append(f"{self.hub.now:.1f} worker: {type(error).__name__} {error}")
        finally:
            self.running -= 1
            self.hub.at(self.hub.now, self.poll)

    # -- what AWS calls the product calls

    def change_message_visibility(self, ReceiptHandle: str, VisibilityTimeout: int, **_: Any) -> None:  # noqa: N803
        for message in self.queue:
            if str(id(message)) == ReceiptHandle:
                message.visible_at = self.hub.now + VisibilityTimeout
                self.hub.at(message.visible_at, self.poll)

    def send_message(self, QueueUrl: str, MessageBody: str, DelaySeconds: int = 0, **_: Any) -> None:  # noqa: N803
        self.step("before SendMessage")
        if QueueUrl == "dead":
            self.dead.append(MessageBody)
        else:
            self.send(MessageBody, DelaySeconds)
        self.step("after SendMessage")

    # -- the plant

    def bad_part(self, station: Station, severity: float, times: int = 0) -> None:
        """One cycle: stored as enrich does, and sent, sometimes twice. `times`: how often, 0 for by chance."""
        station.sequence += 1
        event_id = f"{self.seed:08x}-{station.asset_id[-1]}-{station.sequence:04}"
        verdict = {"result": "NG", "score": severity, "severity": severity, "label": "HPC"}
        at = schedule_world_text(self.hub.now)
        origin = {"site": "plant-1", "line": station.line, "station": "m", "epoch": 1, "sequence": station.sequence,
                  "corrected_at": at}  # fmt: skip
        event = {
            "specversion": "1.0", "id": event_id, "source": f"/linewatch/v1/plant-1/{station.line}/m",
            "type": "InferenceCompleted", "time": at,
            "data": {"origin": origin, "part_id": event_id, "verdict": verdict,
                     "evidence": [{"kind": "window", "path": f"{event_id}.csv", "digest": "sha256:0"}]},
        }  # fmt: skip
        asset = Asset(
            site="plant-1", line=station.line, station="m", asset_id=station.asset_id, asset_name=station.asset_id,
            location="hall A", criticality=CRITICALITY, kind="machine", thing_name=DEVICE,
            failure_modes={"HPC": "hpc-degradation"},
        )  # fmt: skip
        if station.sequence == 1:
            row = {**to_item(asset), "revision": 1}
            self.dynamodb.put_item(TableName=self.tables["AssetsTable"], Item=row)
        item = {
            "event_id": event_id,
            "event": json.dumps(event),
            "site": "plant-1",
            "line": station.line,
            "station": "m",
        }
        self.dynamodb.put_item(TableName=self.tables["EventsTable"], Item=item)
        station.sent.append(event)
        body = json.dumps({"event": event, "asset": asset.card()})
        if times:
            self.send(body)
            return
        for _ in range(2 if self.chance.random() < 0.3 else 1):
            self.send(body, self.chance.choice((0.0, 0.0, 0.0, self.chance.uniform(0, 900))))

    # -- the sweep and people

    def sweep_later(self, moment: float, *, is_repeated: bool = True) -> None:
        def begin() -> None:
            self.hub.start("sweep", self._swept, LONGEST_S)
            if self.faults_on and is_repeated:
                self.sweep_later(self.hub.now + SWEEP_EVERY_S * self.chance.uniform(0.5, 3))

        self.hub.at(moment, begin)

    def _swept(self) -> None:
        with suppress(DiedError, *AWS_ERRORS):
            self.changed.get("sweep", sweep)(self.desk())

    def poll_later(self, moment: float, *, is_repeated: bool = True) -> None:
        """The job `outcomes` of the Lambda `watch`, sometimes twice at once."""

        def begin() -> None:
            for _ in range(2 if self.chance.random() < 0.3 else 1):
                self.hub.start("watch", self._polled, LONGEST_S)
            if self.faults_on and is_repeated:
                self.poll_later(self.hub.now + SWEEP_EVERY_S * self.chance.uniform(0.5, 3))

        self.hub.at(moment, begin)

    def _polled(self) -> None:
        with suppress(DiedError, *AWS_ERRORS):
            polling.job(self.desk())

    def hint_later(self, moment: float) -> None:
        """The ERP's webhook says that something has changed, and not about which order it is wrong."""
        self.hub.at(moment, lambda: self.hub.start("webhook", self._hinted, 29.0))

    def _hinted(self) -> None:
        with suppress(DiedError, ErpError, *AWS_ERRORS):
            desk = self.desk()
            for reference in desk.orders.references(None, 20):
                polling.poll_one(reference, desk)

    def technician_later(self, moment: float) -> None:
        """Somebody is done at that moment, and writes it down then or a while later; the ERP says when he was done."""
        ended_at = self.chance.choice((schedule_world_text(moment), schedule_world_text(moment), ""))
        later_s = self.chance.choice((0.0, 0.0, 60.0, 900.0))
        self.hub.at(moment + later_s, lambda: self.erp.technician(ended_at))

    def person_later(self, moment: float, name: str) -> None:
        self.hub.at(moment, lambda: self.hub.start(name, lambda: self._decide(name), 29.0))

    def _decide(self, name: str) -> None:
        """A few things that a person does, one after the other, by the API's functions."""
        with suppress(DiedError, *AWS_ERRORS):
            desk = self.desk()
            for _ in range(self.chance.randrange(1, 4)):
                orders = desk.orders.get_many(desk.orders.references(None, 20))
                if not orders:
                    return
                # People look at the same order: the newest, mostly.
                order = orders[0] if self.chance.random() < 0.5 else self.chance.choice(orders)
                self.decisions += 1
                try:
                    self._act(order, orders, name, desk)
                except ConflictError:
                    self.conflicts += 1

    def _act(self, order: WorkOrder, orders: list[WorkOrder], name: str, desk: Desk) -> None:
        if order.status == "awaiting_approval":
            into = self.chance.choice(orders)
            what = self.chance.choice(("approve", "approve", "reject", "merge", "merge"))
            if what == "approve":
                deciding.approve(order, name, "seen", desk)
            elif what == "reject":
                deciding.reject(order, name, "a sensor", desk)
            elif into.status in OPEN and into.reference != order.reference:
                desk.orders.merge(order, into, name, "one cause")
        elif order.status == "creating" and order.hold_until:
            if self.chance.random() < 0.5:
                deciding.reject(order, name, "it has gone", desk)
            else:
                deciding.approve(order, name, "it can't wait", desk)
        elif order.status == "parked" and order.is_refused:
            desk.orders.replay(order.reference, name, "the plant code is known now")
        elif order.status in ("created", "parked", "closed"):
            deciding.close(order, name, self.chance.choice(("confirmed", "no_fault")), "", "", desk)


def schedule_world_text(moment: float) -> str:
    from work_orders.order_items import text_of

    return text_of(moment)


@contextmanager
def world_of(seed: int, *, faults: bool = True, engine: str = "memory", **changed: Any) -> Iterator[World]:
    """The world of this seed, with the product's modules pointed at it while the block lasts."""
    chance = random.Random(seed)
    random.seed(seed)
    schedule_aws.emptied()
    hub = Hub(chance, BEGIN)
    erp = ErpServer(chance, hub.clock, hub.sleep, hub.at, SETTLE_S)
    made = World(seed, chance, hub, erp, None, {}, [], 0.0, 0.0, changed)  # type: ignore[arg-type]
    made.dynamodb = (schedule_aws.DynamoDb if engine == "stand-in" else MemoryDynamoDb)(
        made.step, made.spoils
    )
    for name, arguments in schedule_aws.tables().items():
        made.dynamodb.create_table(TableName=name, **arguments)
        made.tables[name] = name
    made.data = load()
    if faults:
        erp.percent = chance.choice((0, 30, 60, 90))
        # The template's, and shorter ones, for which more happens in the same time.
        made.retry_base_s = chance.choice((300.0, 30.0, 5.0, 1.0))
        made.spoilt = chance.choice((0, 0, 3, 30, 90))
        erp.is_unique = chance.random() < 0.2
        made.pauses = chance.choice(((0.0,), (0.0, 0.0, 0.05), (0.0, 0.3, 2.0), (0.0, 0.5, 9.0)))
        # A weak spot: where it is slow, others come between; where it dies, the next one finds what was left.
        made.slow_at = {chance.choice(STEPS): chance.choice((0.2, 2.0, 12.0, 45.0)) for _ in range(2)}
        made.slow_share = chance.choice((0.0, 0.3, 0.7))
        made.dies_often_at = chance.choice(("", "", *STEPS))
        made.dies, made.aws_fails = chance.choice((0, 0.3, 1, 3)), chance.choice((0, 0.3, 1))
        for _ in range(chance.choice((0, 0, 1, 2))):
            begin = BEGIN + chance.uniform(0, 1800)
            erp.away.append((begin, begin + chance.uniform(60, 1500)))
        if chance.random() < 0.35:
            quiet = QuietHours(frozenset(DAYS), *_quiet(chance), LETS_THROUGH)
            made.data = replace(made.data, quiet_hours=(quiet,))
            if chance.random() < 0.4:
                made.pilot_from = BEGIN + chance.uniform(0, 2400)
        if chance.random() < 0.3:
            made.data = replace(made.data, rate_limit=RateLimit(1, 24))
    environment = {
        "ENRICHED_QUEUE_URL": "enriched", "ENRICHED_DEAD_LETTERS_URL": "dead",
        "OUTCOME_POLL_S": chance.choice(("0", "300")) if faults else "0",
    }  # fmt: skip

    def count(name: str, *_: Any, **__: Any) -> None:
        actor = hub.current()
        made.opened_by_sweep += name == "OrdersReserved" and actor is not None and actor.name == "sweep"

    with (
        patch.dict("os.environ", environment),
        patch.object(work_orders.handler, "desk", made.desk),
        patch.object(work_orders.handler, "_sqs", lambda: made),
        patch.object(deciding, "_sqs", lambda: made),
        patch("work_orders.states.time.sleep", hub.sleep),
        patch("assets.registry.time.sleep", hub.sleep),
        patch.object(polling, "time", SimpleNamespace(monotonic=hub.clock)),
        patch.object(metrics, "add_metric", count),
    ):
        yield made


def _quiet(chance: random.Random) -> tuple[Any, ...]:
    from datetime import time
    from zoneinfo import ZoneInfo

    return time(3, 30), time(4, chance.randrange(2, 40)), ZoneInfo("UTC")
