# SPDX-License-Identifier: Apache-2.0
"""Stream and delivery against a model: any sequence of appends, turns with any answers, kills, torn writes, power losses,
full streams, expiry, burials and replays leaves what the model says, and no event leaves before the cloud has it.

Real: the embedded streams on a file, the delivery flow, the MQTT uplink with its batches. Played: the connection below the
uplink, the nucleus that takes events over and may lose them, and the clocks.

    lost     an acknowledged event is in the stream, at the cloud, buried, or dropped by policy and counted
    doubled  a turn sends only what waits, and what was settled never waits again: a repeat needs a lost answer or a kill
    order    a turn sends, of each class of a stream, the oldest that wait and no others; so first arrivals are in order
    counts   stored + replayed = waiting + settled + buried + dropped, for each stream, to the unit

Guards: services/forwarder/linewatch_forwarder/{delivery,handed_over,rests}.py, streams/embedded.py, uplinks/{batches,iot_core}.py.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from faults.volumes import Volume, volume
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.handed_over import HandedOver
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.uplinks.iot_core import IotCore
from linewatch_forwarder.uplinks.port import Outcome, Uplink
from linewatch_runtime.mqtt import NobodySubscribed, NotConnected, Refused
from linewatch_runtime.records import Record, Stored
from linewatch_runtime.spool import ROW_OVERHEAD, Spool, SpoolFull, SpoolWorker, StreamLimit, WhenFull

pytestmark = pytest.mark.faults

STREAMS = {"predictions-line-1": "line-1", "predictions-line-2": "line-2"}
DEVICE = "events-device"
PAYLOAD = 120
ROOM = 8
"""Events that fit a stream."""
MAX_AGE_S = 950.0
"""Between two steps of the clock, so that no rounding decides what is too old."""
STEP_S = 100.0
WINDOW_S = 250.0
ANSWERS = ("taken", "taken", "taken", "lost", "down", "denied", "nobody")
CRASHES = ("after send", "before settle", "after settle", "before bury", "after bury")


STEPS = 150
"""Of a sequence. With 40, few were long enough for a nucleus to die with events and for their window to pass."""


class Crash(Exception):
    """The process dies here."""


def record(number: int, stream: str, *, alarm: bool) -> Record:
    payload = json.dumps({"id": f"e{number}"}).encode().ljust(PAYLOAD)
    topic = f"linewatch/v1/plant-1/{STREAMS.get(stream, 'device')}/station-1/inspection"
    return Record(f"e{number}", stream, topic, payload, alarm)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@dataclass(slots=True)
class PlayedCloud:
    """The far end. `first` keeps the order in which it took each event first; `has` all that it took since it came in."""

    first: list[str] = field(default_factory=list)
    has: set[str] = field(default_factory=set)
    poison: set[str] = field(default_factory=set)

    def take(self, event_ids: Sequence[str]) -> None:
        for one in event_ids:
            if one not in self.has:
                self.first.append(one)
            self.has.add(one)


@dataclass(slots=True)
class PlayedConnection:
    """What is below the MQTT uplink: answers each publish as the script says; a poisoned one is always refused."""

    cloud: PlayedCloud
    script: list[str] = field(default_factory=list)
    largest_packet: int = 0
    trouble: str = ""
    twin: str = ""
    connected: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, topic: str, payload: bytes, **_: object) -> None:
        answer = self.script.pop(0) if self.script else "taken"
        told = json.loads(payload)
        event_ids = [one["id"] for one in told.get("events", [told])]
        if answer == "down":
            raise NotConnected("down")
        if answer == "denied":
            raise Refused(topic, 0x87, "not authorized")
        if answer == "nobody":
            raise NobodySubscribed(topic)
        if self.cloud.poison & set(event_ids):
            raise Refused(topic, 0x99, "payload format invalid")
        self.cloud.take(event_ids)
        if answer == "lost":
            raise NotConnected("the answer was lost")


@dataclass(slots=True)
class PlayedNucleus:
    """An uplink whose success is not delivery: it holds what it took in memory, in order."""

    cloud: PlayedCloud
    script: list[str] = field(default_factory=list)
    memory: list[tuple[str, float]] = field(default_factory=list)
    """What it holds, and since when."""
    session: int = 1
    resend_window_s: float = WINDOW_S
    is_connected: bool = True
    trouble: str = ""
    held: frozenset[str] = frozenset()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def ready(self) -> None:
        return

    async def send(self, records: Sequence[Record]) -> Outcome:
        answer = self.script.pop(0) if self.script else "taken"
        outcome = Outcome(publishes=len(records))
        if answer == "down":
            outcome.trouble = "down"
            return outcome
        for one in records:
            if one.event_id in self.cloud.poison:
                outcome.refused.append((one, "too large"))
            else:
                outcome.handed_over.append(one.event_id)
        now = time.monotonic()
        self.memory += [(one, now) for one in outcome.handed_over]
        return outcome

    def delivers(self, count: int) -> None:
        self.cloud.take([one for one, _ in self.memory[:count]])
        del self.memory[:count]

    def time_passed(self) -> None:
        """While it lives, it delivers within the window: that is what the window stands for."""
        latest = time.monotonic() - WINDOW_S + STEP_S
        self.delivers(sum(at <= latest for _, at in self.memory))

    def dies(self) -> None:
        self.memory.clear()
        self.session += 1


class Watched:
    """The streams as the flow sees them: tells the machine what happens, ends the turn's run, and dies where it should."""

    def __init__(self, machine: "StreamModel", streams: EmbeddedStreams) -> None:
        self._machine = machine
        self._streams = streams
        self.crash = ""
        self.stop = asyncio.Event()

    async def next(self, limit: int, **options: object) -> list[Stored]:
        stored = await self._streams.next(limit, **options)
        self.stop.set()  # one turn
        return stored

    async def settle(self, event_ids: Sequence[str]) -> None:
        self._dies("before settle")
        await self._streams.settle(event_ids)
        self._machine.was_settled(event_ids)
        self._dies("after settle")

    async def bury(self, one: Record, reason: str) -> None:
        self._dies("before bury")
        await self._streams.bury(one, reason)
        self._machine.was_buried(one)
        self._dies("after bury")

    def _dies(self, where: str) -> None:
        if self.crash == where:
            raise Crash(where)


class Offered:
    """The uplink as the flow sees it: every batch is checked before it goes out."""

    def __init__(self, machine: "StreamModel", uplink: Uplink) -> None:
        self._machine = machine
        self._uplink = uplink
        self.crash = ""

    def __getattr__(self, name: str) -> object:
        return getattr(self._uplink, name)

    async def ready(self) -> None:
        return

    async def send(self, records: Sequence[Record]) -> Outcome:
        self._machine.is_offered(records)
        outcome = await self._uplink.send(records)
        if self.crash == "after send":
            raise Crash(self.crash)
        return outcome


class StreamModel(RuleBasedStateMachine):
    """`waiting` maps ids to records in order of position; `stored_at` is on the spool's own clock."""

    disk: Volume | None = None
    """With one, the power can go."""
    flow = Delivery
    window = HandedOver

    @initialize(policy=st.sampled_from(WhenFull), over=st.sampled_from(["MQTT", "nucleus"]))
    def start(self, policy: WhenFull, over: str) -> None:
        memory = Path("/dev/shm")
        base = self.disk.folder if self.disk else memory if memory.is_dir() else None
        self.folder = Path(tempfile.mkdtemp(dir=base))
        self.loop = asyncio.new_event_loop()
        self.now, self.wall_jump = 1000.0, 0.0
        self.clocks = contextlib.ExitStack()
        self.fake_clocks()
        self.limit = StreamLimit(ROOM * (PAYLOAD + ROW_OVERHEAD), MAX_AGE_S, policy)
        self.names = itertools.count(1)
        self.files = itertools.count(1)
        self.made: dict[str, Record] = {}
        self.acknowledged: set[str] = set()
        self.waiting: dict[str, Record] = {}
        self.stored_at: dict[str, float] = {}
        self.gone: set[str] = set()
        self.buried: dict[str, Record] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.unreported: Counter[tuple[str, str]] = Counter()
        self.dropped_ids: set[str] = set()
        self.late: set[str] = set()
        self.power_losses = 0
        self.cloud = PlayedCloud()
        self.over = over
        self.nucleus = PlayedNucleus(self.cloud)
        self.path = self.folder / "forwarder.db"
        self.open()

    # --- the process ---

    def open(self) -> None:
        """A new process on the file at `path`."""
        self.worker = SpoolWorker(lambda: Spool(self.path, self.limit))
        self.streams = EmbeddedStreams(self.worker)
        self.connection = PlayedConnection(self.cloud)
        uplink: Uplink = IotCore(self.connection) if self.over == "MQTT" else self.nucleus  # type: ignore[arg-type]
        self.offered = Offered(self, uplink)
        self.watched = Watched(self, self.streams)
        self.delivery = self.flow(self.watched, self.offered, 1e9, bytes_per_s=1e12)  # type: ignore[arg-type]
        self.delivery._handed_over = self.window(uplink.resend_window_s, lambda: self.now)

    def do(self, work: Coroutine[None, None, object]) -> object:
        return self.loop.run_until_complete(work)

    def killed(self, log_bytes: int | None = None) -> None:
        """kill -9: what goes on is a copy of the files as they are; of the log its first bytes, where so many are given."""
        copy = self.folder / str(next(self.files)) / "forwarder.db"
        copy.parent.mkdir()
        for end in ("", "-wal"):
            if (file := self.path.with_name(self.path.name + end)).exists():
                shutil.copyfile(file, copy.with_name(copy.name + end))
        if log_bytes is not None:
            with copy.with_name(f"{copy.name}-wal").open("r+b") as log:
                log.truncate(log_bytes)
        for one in (*copy.parent.iterdir(), copy.parent, self.folder):  # the kernel had the originals safe
            _sync(one)
        self.worker.close()
        self.path = copy
        self.open()

    # --- rules ---

    @rule(
        stream=st.sampled_from(sorted(STREAMS)),
        batch=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=4),
    )
    def append(self, stream: str, batch: list[tuple[bool, int]]) -> None:
        records = [record(next(self.names), stream, alarm=alarm) for alarm, _ in batch]
        self.made |= {one.event_id: one for one in records}
        self.cloud.poison |= {
            one.event_id for one, (_, dice) in zip(records, batch, strict=True) if dice == 0
        }
        self._append(records)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def append_again(self, data: st.DataObject) -> None:
        one = self.made[data.draw(st.sampled_from(sorted(self.made)))]
        if one.event_id not in self.waiting:
            self.late.add(one.event_id)
        self._append([one])

    def _append(self, records: list[Record]) -> None:
        expected = self._model_append(records)
        try:
            new = self.do(self.streams.append(records))
        except SpoolFull:
            assert expected is None, "refused although there is room"
            return
        assert expected is not None, "taken although the stream is full"
        assert new == self._keep(records, *expected)
        self.acknowledged |= {one.event_id for one in records}

    def _model_append(self, records: list[Record]) -> tuple[dict[str, Record], list[Record]] | None:
        """What waits after it, and who was dropped for it; None when the policy refuses."""
        waiting, dropped = dict(self.waiting), []
        for one in records:
            if one.event_id in waiting or one.event_id in self.gone:
                continue
            same = [kept for kept in waiting.values() if kept.stream == one.stream]
            if len(same) >= ROOM:
                shed = self.limit.when_full is WhenFull.SHED_GOOD
                losers = [kept for kept in same if not (shed and kept.alarm)]
                if self.limit.when_full is WhenFull.REJECT or not losers:
                    return None
                del waiting[losers[0].event_id]
                dropped.append(losers[0])
            waiting[one.event_id] = one
        return waiting, dropped

    def _keep(self, records: list[Record], waiting: dict[str, Record], dropped: list[Record]) -> int:
        """Makes it so; returns how many were new."""
        # One that was dropped before and is sent again is new, too.
        fresh = {
            one.event_id: one
            for one in records
            if one.event_id not in self.waiting and one.event_id not in self.gone
        }
        clock = self.worker.spool.clock()
        for one in fresh.values():
            self.counts[one.stream, "stored"] += 1
            self.stored_at[one.event_id] = clock
        self.waiting = waiting
        reason = "shed_good" if self.limit.when_full is WhenFull.SHED_GOOD else "overwritten"
        self._dropped(dropped, reason)
        return len(fresh)

    def _dropped(self, dropped: list[Record], reason: str) -> None:
        for one in dropped:
            self.waiting.pop(one.event_id, None)
            self.dropped_ids.add(one.event_id)
            self.counts[one.stream, "dropped"] += 1
            self.unreported[one.stream, reason] += 1

    @rule(
        answers=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4),
        crash=st.sampled_from(("", "", "", "", *CRASHES)),
    )
    def deliver(self, answers: list[str], crash: str) -> None:
        """One turn of the flow."""
        self.connection.script, self.nucleus.script = list(answers), list(answers)
        self.watched.crash = self.offered.crash = crash
        self.watched.stop.clear()
        try:
            self.do(self.delivery.run(self.watched.stop))
        except Crash:
            self.killed()
        else:
            self.watched.crash = self.offered.crash = ""

    @rule(turns=st.integers(1, 3))
    def deliver_well(self, turns: int) -> None:
        """Turns in which nothing goes wrong."""
        for _ in range(turns):
            self.deliver(["taken"] * 4, "")

    @rule(steps=st.integers(1, 6))
    def time_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.now += STEP_S
            self.nucleus.time_passed()

    @rule(days=st.sampled_from([-400, -8, 8, 400]))
    def wall_clock_jumps(self, days: int) -> None:
        self.wall_jump += days * 86400.0

    @precondition(lambda self: self.over == "nucleus")
    @rule(count=st.integers(0, 10), dies=st.booleans())
    def nucleus_works(self, count: int, dies: bool) -> None:
        self.nucleus.delivers(count)
        if dies:
            self.nucleus.dies()

    @precondition(lambda self: self.nucleus.memory)
    @rule(delivered=st.integers(0, 3))
    def nucleus_dies_and_its_window_passes(self, delivered: int) -> None:
        """In one step: alone, the parts of it seldom fall together before a kill forgets the window."""
        self.nucleus.delivers(delivered)
        self.nucleus.dies()
        self.deliver_well(1)
        self.now += WINDOW_S + STEP_S
        self.nucleus.time_passed()
        self.deliver_well(1)

    @rule()
    def expire(self) -> None:
        old = self.worker.spool.clock() - MAX_AGE_S
        victims = [one for name, one in self.waiting.items() if self.stored_at[name] < old]
        assert self.do(self.streams.expire()) == len(victims)
        self._dropped(victims, "expired")

    @rule()
    def report_drops(self) -> None:
        told: Counter[tuple[str, str]] = Counter()

        def make(stream: str, reason: str, count: int) -> Record:
            told[stream, reason] += count
            one = record(next(self.names), DEVICE, alarm=True)
            self.made[one.event_id] = self.waiting[one.event_id] = one
            self.stored_at[one.event_id] = self.worker.spool.clock()
            self.acknowledged.add(one.event_id)
            self.counts[DEVICE, "stored"] += 1
            return one

        self.do(self.streams.take_unreported_drops(make))
        assert told == self.unreported, "a drop was told twice, or not"
        self.unreported.clear()

    @precondition(lambda self: self.buried)
    @rule(cured=st.booleans(), data=st.data())
    def replay(self, cured: bool, data: st.DataObject) -> None:
        letters = self.do(self.streams.dead_letters(100))
        letter = data.draw(st.sampled_from(letters))
        one = self.buried[letter.record.event_id]
        expected = self._model_append_replayed(one)
        try:
            assert self.do(self.streams.replay([letter.number])) == 1
        except SpoolFull:
            assert expected is None
            return
        assert expected is not None
        self.waiting, dropped = expected
        self._dropped(dropped, "shed_good" if self.limit.when_full is WhenFull.SHED_GOOD else "overwritten")
        del self.buried[one.event_id]
        self.gone.discard(one.event_id)
        self.late.add(one.event_id)
        self.stored_at[one.event_id] = self.worker.spool.clock()
        self.counts[one.stream, "replayed"] += 1
        if cured:
            self.cloud.poison.discard(one.event_id)

    def _model_append_replayed(self, one: Record) -> tuple[dict[str, Record], list[Record]] | None:
        gone, self.gone = self.gone, self.gone - {one.event_id}
        try:
            return self._model_append([one])
        finally:
            self.gone = gone

    @rule()
    def reopen(self) -> None:
        self.worker.close()
        self.open()

    @rule()
    def kill(self) -> None:
        self.killed()

    @rule(stream=st.sampled_from(sorted(STREAMS)), alarms=st.lists(st.booleans(), min_size=1, max_size=4),
          share=st.floats(0, 1))  # fmt: skip
    def kill_in_an_append(self, stream: str, alarms: list[bool], share: float) -> None:
        """The log is torn at any byte of what the append wrote; it was not acknowledged, and is there whole or not at all."""
        records = [record(next(self.names), stream, alarm=alarm) for alarm in alarms]
        expected = self._model_append(records)
        if expected is None:
            return
        log = self.path.with_name(f"{self.path.name}-wal")
        before = log.stat().st_size if log.exists() else 0
        self.do(self.streams.append(records))
        written = log.stat().st_size - before
        if written <= 0:  # the log began anew, over its old frames
            self.made |= {one.event_id: one for one in records}
            self._keep(records, *expected)
            self.killed()
            return
        clock = self.worker.spool.clock()
        self.killed(before + int(share * written))
        there = {one.record.event_id for one in self._held()} & {one.event_id for one in records}
        assert there in (set(), {one.event_id for one in records}), "half an append"
        if there:
            self.made |= {one.event_id: one for one in records}
            self._keep(records, *expected)
            self.stored_at |= dict.fromkeys(there, clock)
        assert not list(self.path.parent.glob("*.damaged*")), "a torn write is no damage"

    @precondition(lambda self: self.disk is not None)
    @rule()
    def lose_power(self) -> None:
        """Everything that was told as done is there again; the file system forgets what was not synced."""
        assert self.disk is not None
        self.power_losses += 1
        self.disk.lose_power()
        with contextlib.suppress(Exception):  # a file that is gone can't be closed well
            self.worker.close()
        self.worker._thread.shutdown()
        self.clocks.close()  # the waiting for the device is real
        self.disk.power_returns()
        self.fake_clocks()
        self.open()

    def fake_clocks(self) -> None:
        real_wall = time.time
        self.clocks.enter_context(mock.patch.object(time, "monotonic", lambda: self.now))  # noqa: PT008
        self.clocks.enter_context(mock.patch.object(time, "time", lambda: real_wall() + self.wall_jump))  # noqa: PT008

    # --- what the flow does, as it does it ---

    def is_offered(self, records: Sequence[Record]) -> None:
        """Of each class of a stream the oldest that wait and are not handed over, and no others."""
        held = self.delivery._handed_over.event_ids
        for key in {(one.stream, one.alarm) for one in records}:
            mine = [one.event_id for one in records if (one.stream, one.alarm) == key]
            due = [
                name
                for name, one in self.waiting.items()
                if (one.stream, one.alarm) == key and name not in held
            ]
            assert mine == due[: len(mine)], f"{key}: out of order, or sent again without need"
        assert all(self.waiting[one.event_id] == one for one in records), "not what was stored"

    def was_settled(self, event_ids: Sequence[str]) -> None:
        for one in event_ids:
            assert one in self.cloud.has, "it left before the cloud had it"
            gone = self.waiting.pop(one, None)
            if gone is None:  # dropped by policy, while somebody had it in hand
                assert one in self.dropped_ids
                continue
            self.gone.add(one)
            self.counts[gone.stream, "settled"] += 1

    def was_buried(self, one: Record) -> None:
        assert one.event_id in self.cloud.poison, "buried although the cloud would take it"
        self.buried[one.event_id] = self.waiting.pop(one.event_id)
        self.gone.add(one.event_id)
        self.counts[one.stream, "buried"] += 1

    # --- what must always hold ---

    def _held(self) -> list[Stored]:
        return self.do(self.streams.next(10_000))  # type: ignore[return-value]

    @invariant()
    def both_hold_the_same(self) -> None:
        if not hasattr(self, "streams"):
            return
        rows = self._held()
        model = [*self.waiting.values()]
        assert [one.record for one in rows] == sorted(model, key=lambda one: not one.alarm)
        for state in self.do(self.streams.streams()):  # type: ignore[attr-defined]
            mine = [one for one in model if one.stream == state.name]
            assert (state.events, state.bytes) == (len(mine), sum(one.size for one in mine))
            told = {"stored": state.stored, "settled": state.settled, "buried": state.buried,
                    "dropped": sum(state.dropped.values())}  # fmt: skip
            counts = {name: self.counts[state.name, name] for name in told}
            assert told == counts
            came = counts["stored"] + self.counts[state.name, "replayed"]
            assert came == state.events + counts["settled"] + counts["buried"] + counts["dropped"]

    @invariant()
    def first_arrivals_are_in_order(self) -> None:
        """But for those that were stored late: a replay, and what was refused or dropped before, come behind younger ones."""
        if not hasattr(self, "streams"):
            return
        newest: dict[tuple[str, bool], int] = {}
        for name in self.cloud.first:
            one, number = self.made[name], int(name[1:])
            if name not in self.late:
                assert number > newest.get((one.stream, one.alarm), 0), "out of order at the cloud"
                newest[one.stream, one.alarm] = number

    def teardown(self) -> None:
        if not hasattr(self, "streams"):
            return
        try:
            if sys.exc_info()[0] is None:  # what went wrong already is the news
                self._drain()
        finally:
            with contextlib.suppress(Exception):
                self.worker.close()
            self.loop.close()
            self.clocks.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _drain(self) -> None:
        """At last the cloud takes everything: what was acknowledged is there, or is accounted for."""
        for _ in range(200):
            if not self.waiting:
                break
            self.deliver(["taken"] * 4, "")
            self.time_passes(1)
        assert not self.waiting, "it never drains"
        for one in self.acknowledged:
            accounted = one in self.cloud.has or one in self.buried or one in self.dropped_ids
            assert accounted, "acknowledged, and gone without a word"
        TOTALS.update(
            accepted=len(self.acknowledged), first=len(self.cloud.first), buried=len(self.buried), machines=1,
            dropped=sum(count for (_, name), count in self.counts.items() if name == "dropped"),
            kills=next(self.files) - 1, power=self.power_losses,
        )  # fmt: skip


TOTALS: Counter[str] = Counter()
"""Over all machines of a test."""


class TrustsTheNucleus(Delivery):
    """The control: what was handed over counts as delivered at once."""

    async def _settle(self, outcome: Outcome) -> None:
        outcome.accepted, outcome.handed_over = outcome.accepted + outcome.handed_over, []
        await super()._settle(outcome)


class IgnoresTheSession(HandedOver):
    """The control: what a session took that is gone still ripens."""

    def forget_other_than(self, session: int) -> bool:
        return False


def run(machine: type[StreamModel], examples: int, steps: int = STEPS, *, shrinks: bool = True) -> None:
    """Runs sequences, the same ones each time."""
    TOTALS.clear()
    phases = (Phase.generate, Phase.shrink) if shrinks else (Phase.generate,)
    made = settings(
        max_examples=examples, stateful_step_count=steps, phases=phases, deadline=None, database=None,
        derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False, report_multiple_bugs=False,
    )  # fmt: skip
    flow = logging.getLogger("linewatch_forwarder")
    before = flow.level
    flow.setLevel(logging.CRITICAL)
    try:
        run_state_machine_as_test(machine, settings=made)
    finally:
        flow.setLevel(before)


def told() -> str:
    return (
        f"{TOTALS['machines']} sequences: {TOTALS['first']} at the cloud, {TOTALS['buried']} buried, {TOTALS['dropped']}"
        f" dropped by policy and counted, {TOTALS['kills']} kills, {TOTALS['power']} power losses"
    )


@pytest.mark.timeout(1200)
def test_no_sequence_of_appends_turns_and_kills_loses_doubles_or_reorders(tally, long: bool) -> None:
    run(StreamModel, 250 if long else 30)
    tally.accepted, tally.note = TOTALS["accepted"], told()
    assert TOTALS["kills"]


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
@pytest.mark.timeout(1200)
def test_no_sequence_with_power_losses_loses_doubles_or_reorders(
    kind: str, tally, long: bool, tmp_path: Path
) -> None:
    with volume(kind, tmp_path, 64) as disk:
        run(type("OnADisk", (StreamModel,), {"disk": disk}), 40 if long else 6)
    tally.accepted, tally.note = TOTALS["accepted"], told()
    assert TOTALS["power"]


@pytest.mark.parametrize(
    "control",
    [{"flow": TrustsTheNucleus}, {"window": IgnoresTheSession}],
    ids=["trusts", "ignores-the-session"],
)
def test_control_a_flow_that_takes_handed_over_for_delivered_is_found_out(
    control: dict[str, type], tally
) -> None:
    with pytest.raises(AssertionError, match="before the cloud had it"):
        run(type("Control", (StreamModel,), control), 40, shrinks=False)
    tally.control_lost = 1
    tally.note = "within 40 sequences; it settles an event that the cloud does not have"
