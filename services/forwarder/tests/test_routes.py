# SPDX-License-Identifier: Apache-2.0
"""Several uplinks as one: the real flow over a real spool, into sinks that do as they are told."""

import asyncio
import dataclasses
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from brokers import STATION, inspection, until
from forwarding import state

from linewatch.v1 import event_pb2
from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.uplinks import routes
from linewatch_forwarder.uplinks.event_bus import EventBus
from linewatch_forwarder.uplinks.port import Outcome
from linewatch_forwarder.uplinks.routes import Routes
from linewatch_forwarder.uplinks.sinks import Sink, is_for_bus, is_for_iot_core
from linewatch_runtime.events import DEVICE_LINE, Place, envelope, new_event_id, origin
from linewatch_runtime.records import Record, SpoolFull
from linewatch_runtime.spool import Spool, SpoolWorker, StreamLimit

pytestmark = pytest.mark.anyio

ENGINE = Place("plant-1", DEVICE_LINE, "inference")
NUMBERS = itertools.count(1)


@dataclass(slots=True)
class Scripted:
    """A sink that takes all, unless told otherwise; `sent` is what it was ever sent, repeats included."""

    trouble_now: str = ""
    never: set[str] = field(default_factory=set)
    troubled: dict[str, str] = field(default_factory=dict)
    hands_over: bool = False
    is_connected: bool = True
    session: int = 0
    resend_window_s: float = 0.0
    trouble: str = ""
    held: frozenset[str] = frozenset()
    sent: list[str] = field(default_factory=list)
    took: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    connected: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.connected.set()

    def go_away(self) -> None:
        self.is_connected = False
        self.connected.clear()

    def come_back(self) -> None:
        self.is_connected = True
        self.connected.set()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def ready(self) -> None:
        await self.connected.wait()

    async def send(self, records: Sequence[Record]) -> Outcome:
        await self.gate.wait()
        self.sent += [one.event_id for one in records]
        outcome = Outcome(trouble=self.trouble_now, publishes=len(records))
        for record in records:
            if self.trouble_now:
                continue
            if record.event_id in self.never:
                outcome.refused.append((record, "never"))
            elif record.stream in self.troubled:
                outcome.troubled[record.stream] = self.troubled[record.stream]
            else:
                (outcome.handed_over if self.hands_over else outcome.accepted).append(record.event_id)
                self.took.append(record.event_id)
        return outcome


def engine_event() -> Record:
    event_id = new_event_id()
    data = event_pb2.Engine(origin=origin(ENGINE, 1, next(NUMBERS)), service_version="1")
    payload = envelope(event_id, "EngineStarted", ENGINE, data)
    return Record(event_id, "events-device", ENGINE.topic("engine"), payload, alarm=True)


def completed(result: str = "OK") -> Record:
    event_id, payload = inspection(next(NUMBERS), result)
    return Record(event_id, "predictions-line-1", STATION.topic("inspection"), payload, alarm=result != "OK")


def dropped() -> Record:
    """An event of the forwarder's own, which shares topic and stream with others."""
    place = Place("plant-1", DEVICE_LINE, "forwarder")
    event_id = new_event_id()
    data = event_pb2.EventsDropped(
        origin=origin(place, 1, next(NUMBERS)), stream="x", count=1, reason="expired"
    )
    payload = envelope(event_id, "EventsDropped", place, data)
    return Record(event_id, "events-device", place.topic("inspection"), payload, alarm=True)


def ids(records: Sequence[Record]) -> list[str]:
    return [one.event_id for one in records]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[SpoolWorker]:
    made = SpoolWorker(lambda: Spool(tmp_path / "forwarder.db", StreamLimit()))
    yield made
    made.close()


@pytest.fixture
def core() -> Scripted:
    return Scripted()


@pytest.fixture
def bus() -> Scripted:
    return Scripted()


def routed(core: Scripted, bus: Scripted, *, everything: bool = False, most_held: int = 5_000) -> Routes:
    to_bus = is_for_bus(everything=everything)
    return Routes([Sink("IoT Core", core, is_for_iot_core), Sink("event bus", bus, to_bus)], most_held)


@asynccontextmanager
async def delivering(worker: SpoolWorker, uplink: Routes) -> AsyncIterator[Delivery]:
    delivery, stop = Delivery(EmbeddedStreams(worker), uplink, 100_000), asyncio.Event()
    tasks = [asyncio.create_task(delivery.run(stop)), asyncio.create_task(uplink.run())]
    try:
        yield delivery
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await tasks[0]
        tasks[1].cancel()
        await asyncio.wait(tasks)


async def store(worker: SpoolWorker, *records: Record) -> None:
    await worker.run(worker.spool.append, list(records))


def waiting(worker: SpoolWorker) -> int:
    return sum(one.events for one in worker._thread.submit(worker.spool.streams).result())


async def took(events: Sequence[Record], *sinks: Scripted) -> None:
    await until(lambda: all(set(ids(events)) <= set(one.took) for one in sinks), "they are taken")


WINDOW_S = 60.0


def window_of(delivery: Delivery) -> Callable[[], None]:
    """The resend window by a clock that only the test moves: on a slow machine it would pass before the test has looked.

    Called, it passes.
    """
    now = 0.0
    delivery._handed_over._clock = lambda: now

    def passes() -> None:
        nonlocal now
        now += WINDOW_S

    return passes


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink in trouble is tried again soon."""
    monkeypatch.setattr("linewatch_forwarder.rests.LONGEST_BACKOFF_S", 0.05)


async def test_engine_events_go_to_the_bus_instead_and_all_others_to_the_main_sink(
    worker: SpoolWorker, core: Scripted, bus: Scripted
) -> None:
    engine, others = [engine_event() for _ in range(3)], [completed(), dropped(), completed("NG")]
    for one in (*engine, *others):
        await store(worker, one)
    async with delivering(worker, routed(core, bus)):
        await until(lambda: not waiting(worker), "all are delivered")

    assert bus.took == ids(engine)
    assert sorted(core.took) == sorted(ids(others))
    assert not set(core.sent) & set(bus.sent)


async def test_by_choice_every_completed_inspection_goes_to_both(
    worker: SpoolWorker, core: Scripted, bus: Scripted
) -> None:
    events = [engine_event(), completed(), completed("NG"), dropped()]
    for one in events:
        await store(worker, one)
    async with delivering(worker, routed(core, bus, everything=True)):
        await until(lambda: not waiting(worker), "all are delivered")

    assert sorted(bus.took) == sorted(ids(events[:3]))
    assert sorted(core.took) == sorted(ids(events[1:]))


async def test_what_one_sink_has_waits_for_the_other_and_is_not_sent_twice(
    worker: SpoolWorker, core: Scripted, bus: Scripted, quick: None
) -> None:
    bus.trouble_now = "throttled"
    events = [completed() for _ in range(300)]
    await store(worker, *events)
    async with delivering(worker, routed(core, bus, everything=True)):
        await until(lambda: len(core.took) == 300, "the main sink has all")
        await until(lambda: len(bus.sent) > 600, "the bus was tried again and again")
        assert waiting(worker) == 300, "none is settled"
        assert len(core.sent) == 300, "none was sent to the main sink again"

        bus.trouble_now = ""
        await until(lambda: not waiting(worker), "settled when both have it")

    assert core.took == bus.took == ids(events), "in order, at each"


@pytest.mark.parametrize("looks", range(1, 40))
async def test_a_rest_that_ends_in_the_middle_of_a_turn_lets_nothing_go_past_what_it_kept_waiting(
    core: Scripted, bus: Scripted, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    tick_s = 1e-4
    ticks = itertools.count(step=tick_s)
    monkeypatch.setattr(
        "linewatch_forwarder.uplinks.sinks.time", SimpleNamespace(monotonic=lambda: next(ticks))
    )
    monkeypatch.setattr(routes, "REST_S", 0.01)
    waits, both = [completed() for _ in range(6)], routed(core, bus, everything=True)
    bus.trouble_now = "throttled"
    await both.send(waits[:3])
    bus.trouble_now = ""
    _, resting = both._sinks
    resting.rests_until = next(ticks) + looks * tick_s

    async with asyncio.timeout(60):
        while waits:
            held = both.held
            outcome = await both.send([one for one in waits if one.event_id not in held][:3])
            waits = [one for one in waits if one.event_id not in outcome.accepted]

    assert core.took == bus.took


@pytest.mark.parametrize("silent", [False, True])
async def test_a_bus_in_trouble_holds_nothing_that_it_has_not_to_take(
    worker: SpoolWorker, core: Scripted, bus: Scripted, silent: bool
) -> None:
    if silent:
        bus.gate.clear()
    else:
        bus.trouble_now = "away"
    engine = [engine_event() for _ in range(250)]
    await store(worker, *engine)
    uplink = routed(core, bus)
    async with delivering(worker, uplink):
        await until(lambda: silent or uplink.trouble, "it is tried")
        for _ in range(5):
            events = [completed("NG"), completed()]
            await store(worker, *events)
            await took(events, core)  # past the whole backlog
        assert uplink.is_connected
        assert silent or uplink.trouble == "event bus: away"

        bus.trouble_now = ""
        bus.gate.set()
        await until(lambda: not waiting(worker), "all are delivered", 60)
    assert [one for one in bus.took if one in ids(engine)] == ids(engine)


async def test_an_answer_after_the_turn_is_seen_though_nothing_else_is_left_to_offer(
    worker: SpoolWorker, core: Scripted, bus: Scripted
) -> None:
    """It was not: the events in hand stayed held, the flow offered nothing, and so nobody looked at the answer."""
    bus.gate.clear()
    await store(worker, *[engine_event() for _ in range(3)])
    uplink = routed(core, bus)
    async with delivering(worker, uplink):
        await until(lambda: uplink.held, "the turn is over, the answer is not there")
        bus.gate.set()
        await until(lambda: not waiting(worker), "settled")
    assert len(bus.sent) == 3


async def test_engine_events_go_while_the_main_sink_has_no_connection(
    worker: SpoolWorker, core: Scripted, bus: Scripted
) -> None:
    core.go_away()
    backlog = [completed("NG") for _ in range(450)]
    await store(worker, *backlog)
    engine = engine_event()
    await store(worker, engine)
    uplink = routed(core, bus)
    async with delivering(worker, uplink):
        await until(lambda: bus.took == [engine.event_id], "past 450 alarms")
        assert not uplink.is_connected
        assert core.sent == []

        core.come_back()
        await until(lambda: not waiting(worker), "when it is back")
    assert core.took == ids(backlog)


async def test_what_is_held_is_bounded_and_alarms_have_room_of_their_own(
    worker: SpoolWorker, core: Scripted, bus: Scripted, quick: None
) -> None:
    bus.trouble_now = "away"
    routine, alarms = [completed() for _ in range(60)], [completed("NG") for _ in range(10)]
    await store(worker, *routine)
    uplink = routed(core, bus, everything=True, most_held=40)
    async with delivering(worker, uplink):
        await until(lambda: "others wait behind" in uplink.trouble, "being full has a name")
        assert core.took == ids(routine[:20]), "half of the room"

        await store(worker, *alarms)
        await until(lambda: len(core.took) == 30, "alarms go on")
        assert core.took[20:] == ids(alarms)
        turns = len(bus.sent)
        assert len(core.sent) == 30
        bus.trouble_now = ""
        await until(lambda: not waiting(worker), "all are delivered", 30)
    assert turns < 10_000
    assert core.took[30:] == ids(routine[20:])


async def test_a_full_hold_is_no_busy_loop(worker: SpoolWorker, core: Scripted, bus: Scripted) -> None:
    bus.gate.clear()
    await store(worker, *[completed() for _ in range(60)])
    uplink = routed(core, bus, everything=True, most_held=4)
    turns = 0
    send = uplink.send

    async def counted(records: Sequence[Record]) -> Outcome:
        nonlocal turns
        turns += 1
        return await send(records)

    uplink.send = counted  # type: ignore[method-assign]
    async with delivering(worker, uplink):
        await until(lambda: turns >= 8, "it goes on looking")
        loop = asyncio.get_running_loop()
        begun, before = loop.time(), turns
        await until(lambda: turns >= before + 4, "in turns")
        assert loop.time() - begun > 2 * routes.TURN_S
        bus.gate.set()
        await until(lambda: not waiting(worker), "all are delivered", 30)


async def test_events_that_left_the_streams_do_not_fill_the_room(
    worker: SpoolWorker, core: Scripted, bus: Scripted, quick: None
) -> None:
    """What waited for the bus and was shed, or expired, is never offered again."""
    bus.trouble_now = "away"
    first = [completed() for _ in range(30)]
    await store(worker, *first)
    uplink = routed(core, bus, everything=True, most_held=40)
    async with delivering(worker, uplink):
        await until(lambda: len(core.took) == 20, "the room of routine events is full")
        await worker.run(worker.spool.settle, ids(first))  # as if they had been shed
        bus.trouble_now = ""
        for _ in range(4):
            events = [completed() for _ in range(20)]
            await store(worker, *events)
            await took(events, core, bus)
        await until(lambda: not waiting(worker), "all are delivered")
        assert "others wait" not in uplink.trouble
    assert all(len(sink.has) <= 80 for sink in uplink._sinks)


async def test_what_one_sink_refuses_for_ever_is_buried_once_the_other_has_it(
    worker: SpoolWorker, core: Scripted, bus: Scripted
) -> None:
    events = [completed() for _ in range(3)]
    bus.never = {events[1].event_id}
    await store(worker, *events)
    async with delivering(worker, routed(core, bus, everything=True)):
        await until(lambda: not waiting(worker), "none is left")

    assert core.took == ids(events)
    ((_, one, reason),) = await worker.run(worker.spool.buried)
    assert (one.event_id, reason) == (events[1].event_id, "never")
    assert state(worker).settled == 2


async def test_a_line_that_the_main_sink_refuses_rests_and_holds_no_other(
    worker: SpoolWorker, core: Scripted, bus: Scripted, quick: None
) -> None:
    core.troubled = {"predictions-line-1": "0x87"}
    event, engine = completed(), engine_event()
    await store(worker, event)
    await store(worker, engine)
    async with delivering(worker, routed(core, bus)) as delivery:
        await until(lambda: bus.took == [engine.event_id], "the engine event goes")
        await until(lambda: "0x87" in delivery.troubled("predictions-line-1"), "it is told")
        assert delivery.troubled("predictions-line-1").startswith("IoT Core: ")

        core.troubled = {}
        await until(lambda: not waiting(worker), "all are delivered")


async def test_what_was_handed_over_settles_after_its_window_and_a_lost_session_sends_again(
    worker: SpoolWorker, core: Scripted, bus: Scripted
) -> None:
    core.hands_over, core.resend_window_s = True, WINDOW_S
    first, second = completed(), completed()
    uplink = routed(core, bus, everything=True)
    assert uplink.resend_window_s == WINDOW_S
    async with delivering(worker, uplink) as delivery:
        passes = window_of(delivery)
        await store(worker, first)
        await until(lambda: core.took == [first.event_id] and bus.took == [first.event_id], "both took it")
        await until(lambda: delivery.handed_over == 1, "handed over")
        assert waiting(worker) == 1
        passes()
        await until(lambda: not waiting(worker), "the window has passed")

        core.resend_window_s = 0.0
        bus.gate.clear()  # the bus is slow, and the session is lost before it answers
        await store(worker, second)
        await until(lambda: core.took[1:] == [second.event_id], "handed over")
        core.session += 1
        bus.gate.set()
        await until(lambda: core.took[1:] == [second.event_id] * 2, "sent again")
        await until(lambda: delivery.handed_over == 1, "handed over again")
        passes()
        await until(lambda: not waiting(worker), "settled")
    assert bus.took == ids([first, second]), "the bus, which has it, is not sent it again"


async def test_what_was_handed_over_is_lost_with_its_session_also_while_a_turn_waits_for_another_sink(
    core: Scripted, bus: Scripted
) -> None:
    """The flow counts it to the session that is there when the turn ends: what the nucleus forgot would be settled."""
    core.hands_over, core.resend_window_s = True, WINDOW_S
    uplink = routed(core, bus)
    to_core, to_bus = uplink._sinks
    one = completed()
    core.gate.clear()
    assert not (await uplink.send([one])).handed_over, "a slow nucleus"
    core.gate.set()
    await until(lambda: to_core.sending is not None and to_core.sending.done(), "it has taken the event")

    bus.gate.clear()
    turn = asyncio.create_task(uplink.send([engine_event()]))
    await until(lambda: to_bus.sending is not None, "the turn waits for the bus")
    core.session += 1
    bus.gate.set()

    assert (await turn).handed_over == []
    assert (await uplink.send([one])).handed_over == [one.event_id]
    assert core.sent == [one.event_id] * 2


async def test_older_events_that_come_back_to_a_full_room_go_first_and_nothing_stands_still(
    worker: SpoolWorker, core: Scripted, bus: Scripted, quick: None
) -> None:
    """Younger ones filled the room and stayed in it; they had to wait behind the older ones, which found no room."""
    core.hands_over, core.resend_window_s = True, WINDOW_S
    first, younger = [completed() for _ in range(5)], [completed() for _ in range(30)]
    uplink = routed(core, bus, everything=True, most_held=40)
    async with delivering(worker, uplink) as delivery:
        passes = window_of(delivery)
        await store(worker, *first)
        await took(first, core, bus)
        bus.trouble_now = "away"
        await store(worker, *younger)
        await until(lambda: len(core.took) == 25, "the room of routine events is full")

        core.session += 1  # the nucleus restarts, and may have lost all that it took
        again = ids([*first, *younger[:15]])
        await until(lambda: core.took[25:45] == again, "it is sent them again, though the bus is away")
        assert len(uplink._room) <= 20
        bus.trouble_now = ""
        await took(younger, core, bus)
        await until(lambda: delivery.handed_over == 35, "all are handed over")
        passes()
        await until(lambda: not waiting(worker), "all are delivered")
    assert list(dict.fromkeys(bus.took)) == ids([*first, *younger]), "in order"


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_comes_back_everything_goes_once_all_is_well(
    worker: SpoolWorker,
    core: Scripted,
    bus: Scripted,
    seed: int,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sinks that fail, sessions that end, a disk that settles nothing, and a small room; then none of it."""
    chance, stored, settles = random.Random(seed), list[Record](), EmbeddedStreams.settle
    core.hands_over, core.resend_window_s = True, 0.1
    failing = True

    async def settle(streams: EmbeddedStreams, event_ids: Sequence[str]) -> None:
        if failing and event_ids and chance.random() < 0.3:
            raise SpoolFull("", "the disk is full")
        await settles(streams, event_ids)

    monkeypatch.setattr(EmbeddedStreams, "settle", settle)
    monkeypatch.setattr(routes, "TURN_S", 0.02)
    monkeypatch.setattr(routes, "REST_S", 0.05)
    async with delivering(worker, routed(core, bus, everything=True, most_held=20)):
        for _ in range(40):
            made = [completed(chance.choice(["OK", "OK", "NG"])) for _ in range(chance.randint(1, 10))]
            stored += made
            await store(worker, *made)
            for sink in (core, bus):
                sink.trouble_now = chance.choice(["", "away"])
            core.session += chance.random() < 0.3
            await asyncio.sleep(chance.uniform(0, 0.06))  # the load's pace
        failing = False
        core.trouble_now = bus.trouble_now = ""
        await until(lambda: not waiting(worker), "all are delivered", 120)

    for sink, alarm in itertools.product((core, bus), (True, False)):
        of_class = ids([one for one in stored if one.alarm is alarm])
        assert [one for one in dict.fromkeys(sink.took) if one in of_class] == of_class, "in order at each"


@pytest.mark.parametrize("payload", [b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"\xff", b"[]"])
async def test_what_no_json_can_be_read_from_ends_no_flow(
    worker: SpoolWorker, core: Scripted, payload: bytes
) -> None:
    """It raised in the flow, at every start again."""
    deep, good = dataclasses.replace(completed(), payload=payload), completed()
    await store(worker, deep, good)
    bus = EventBus("bus", Answering)
    wants = is_for_bus(everything=True)
    uplink = Routes([Sink("IoT Core", core, is_for_iot_core), Sink("event bus", bus, wants)])
    async with delivering(worker, uplink):
        await until(lambda: not waiting(worker), "nothing is left")

    assert core.took == ids([deep, good])
    ((_, one, reason),) = await worker.run(worker.spool.buried)
    assert one.event_id == deep.event_id
    assert "no JSON object that can be read" in reason
    assert state(worker).settled == 1


class Answering:
    """A client of a bus that takes all."""

    def put_events(self, Entries: list[dict[str, str]]) -> dict[str, object]:  # noqa: N803 - boto3's name
        return {"Entries": [{"EventId": str(number)} for number, _ in enumerate(Entries)]}


async def test_an_end_cancels_what_is_in_hand(worker: SpoolWorker, core: Scripted, bus: Scripted) -> None:
    bus.gate.clear()
    await store(worker, engine_event())
    async with delivering(worker, uplink := routed(core, bus)):
        await until(lambda: uplink._sinks[1].sending, "it is in hand")
        sending = uplink._sinks[1].sending
    assert sending is not None
    assert sending.cancelled()
