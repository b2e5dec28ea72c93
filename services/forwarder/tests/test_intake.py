# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from brokers import STATION, Broker, inspection, until
from forwarding import state, taking_in

from linewatch_forwarder import intake
from linewatch_forwarder.arrivals import KEPT_OF_UNREADABLE, LARGEST_PAYLOAD, LONGEST_TOPIC, arrival
from linewatch_forwarder.intake import GROUP, Intake
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.streams.port import StreamsUnavailable
from linewatch_runtime.events import Place
from linewatch_runtime.mqtt import Message
from linewatch_runtime.spool import Record, SpoolWorker

TOPIC = STATION.topic("inspection")
GOLDEN = sorted((Path(__file__).parents[3] / "protos" / "golden" / "v1").glob("*.json"))


def message(payload: bytes, topic: str = TOPIC) -> Message:
    return Message(topic, payload, 1, 1, False, {}, None)


def buried(worker: SpoolWorker) -> list[str]:
    return [reason for _, _, reason in worker._thread.submit(worker.spool.buried).result()]


LARGE = {"specversion": "1.0", "id": "large", "type": "x", "data": {"x": "x" * LARGEST_PAYLOAD}}


# --- one message -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "alarm"), [("OK", False), ("NG", True), ("REVIEW", True), ("UNSPECIFIED", True)]
)
def test_only_a_part_that_was_judged_ok_is_routine(result: str, alarm: bool) -> None:
    event_id, payload = inspection(1, result)

    one = arrival(message(payload))

    assert (one.record.event_id, one.record.alarm, one.reason) == (event_id, alarm, "")
    assert (one.place, one.record.stream, one.record.payload) == (STATION, "predictions-line-1", payload)


@pytest.mark.parametrize("kind", ["InferenceError", "PartsSkipped", "EngineError", "something new"])
def test_every_other_event_is_an_alarm(kind: str) -> None:
    event = {"specversion": "1.0", "id": "1", "type": kind, "data": {"verdict": {"result": "OK"}}}
    payload = json.dumps(event).encode()

    assert arrival(message(payload)).record.alarm


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xff\xfe", b"no json", b"null", b"[]", b"7", b"{}", b'{"id":"","type":"x"}',
        b'{"id":null,"type":"x"}', b'{"id":7,"type":"x"}', b'{"id":"\\ud800","type":"x"}',
        b'{"id":"a\\nb","type":"x"}', b'{"id":"' + b"9" * 65 + b'","type":"x"}', b"[" * 100_000,
        b'{"id":1' + b"0" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_event_gets_a_reason_and_the_same_id_each_time(payload: bytes) -> None:
    one, again, other = arrival(message(payload)), arrival(message(payload)), arrival(message(payload + b" "))

    assert one.reason
    assert not one.told_id
    assert one.record.event_id == again.record.event_id != other.record.event_id
    assert one.record.payload == payload[:KEPT_OF_UNREADABLE]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id":"1"}', b'{"id":"1","type":"x"}', b'{"specversion":"1.0","id":"1","type":"x"}',
        b'{"specversion":"1.0","id":"1","type":"x","data":[]}', b'{"specversion":"0.3","id":"1","type":"x","data":{}}',
        json.dumps({**LARGE, "id": "1"}).encode(),
    ],
)  # fmt: skip
def test_poison_with_a_readable_id_is_told_by_it_and_put_aside_under_another(payload: bytes) -> None:
    """Nobody was told of it before: its producer sent it for ever, and each time was a dead letter more."""
    one = arrival(message(payload))

    assert one.reason
    assert "(id 1)" in one.reason
    assert one.told_id == "1"
    assert one.record.event_id != "1"


def _with(text: bytes) -> bytes:
    return inspection(1)[1][:-1] + b',"x":' + text + b"}"


@pytest.mark.parametrize(
    "payload",
    [_with(b"NaN"), _with(b"-Infinity"), _with(b'"\xed\xa0\x80"'), _with(b"[" * 32 + b"]" * 32),
     _with(b"[" * 980 + b"]" * 980), _with(b'{"x":' * 32 + b"1" + b"}" * 32),
     inspection(1)[1].decode().encode("utf-16"), b"\xef\xbb\xbf" + inspection(1)[1]],
    ids=["nan", "infinity", "surrogate", "33 levels", "981 levels", "33 levels of objects", "utf-16", "bom"],
)  # fmt: skip
def test_what_only_python_reads_as_json_is_no_event(payload: bytes) -> None:
    """IoT Core acknowledged a batch with one of these, and its rule dropped all of it."""
    assert 0 < len(arrival(message(payload)).reason) < 200, "it is told in the log and the status"


def test_event_of_as_many_levels_as_may_be_is_one() -> None:
    assert not arrival(message(_with(b"[" * 31 + b"]" * 31))).reason


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_event_arrives(path: Path) -> None:
    payload = path.read_bytes().rstrip(b"\n")

    one = arrival(message(payload))

    assert (one.reason, one.record.event_id) == ("", json.loads(payload)["id"])
    assert one.told_id == one.record.event_id


@pytest.mark.parametrize("kind", ["inspection", "engine"])
def test_topic_that_the_cloud_does_not_take_is_put_aside(kind: str) -> None:
    def place(length: int) -> Place:
        return Place("plant-1", "x" * (length - len(Place("plant-1", "", "s").topic(kind))), "s")

    for length in (257, 65_535):
        one = arrival(message(inspection(1)[1], place(length).topic(kind)))
        assert "over 256 bytes" in one.reason
        assert one.told_id
        assert len(one.record.topic) <= LONGEST_TOPIC + 1
        assert arrival(message(one.record.payload, one.record.topic)).reason, "never replayed"
        assert len(one.record.stream) < LONGEST_TOPIC
    assert not arrival(message(inspection(1)[1], place(240).topic(kind))).reason
    # The topic of a batch is longer: "forwarder/batch" for "s/inspection".
    assert arrival(message(inspection(1)[1], place(256).topic(kind))).reason


# --- the flow --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_event_is_on_disk_before_its_producer_is_told(broker: Broker, worker: SpoolWorker) -> None:
    async with taking_in(broker, worker) as taking:
        event_id = await taking.send(inspection(1))

        await until(lambda: event_id in taking.committed, "committed")

        assert state(worker).stored == 1


@pytest.mark.anyio
async def test_broker_is_acknowledged_only_after_the_commit(broker: Broker, worker: SpoolWorker) -> None:
    gate, held = asyncio.Event(), []
    real = worker.run

    async def slow(function, *arguments):
        if function == worker.spool.append:
            held.append(1)
            await gate.wait()
        return await real(function, *arguments)

    worker.run = slow
    async with taking_in(broker, worker) as taking:
        event_id = await taking.send(inspection(1))
        await until(lambda: held, "the commit has begun")
        assert not taking.committed
    assert state(worker) is None
    worker.run = real

    async with taking_in(broker, worker) as taking:  # the broker still has it, so it was not acknowledged
        await until(lambda: event_id in taking.committed, "committed")
        assert state(worker).stored == 1


@pytest.mark.anyio
async def test_many_events_go_into_few_commits(broker: Broker, worker: SpoolWorker) -> None:
    groups = []
    real = worker.run

    async def counting(function, *arguments):
        if function == worker.spool.append:
            if not groups:  # a disk that takes its time: on a fast one each event might be alone
                await until(
                    lambda: len(arguments[0]) + taking.listener.messages.qsize() == 60, "all are there"
                )
            groups.append(len(arguments[0]))
        return await real(function, *arguments)

    worker.run = counting
    async with taking_in(broker, worker) as taking:
        sent = await asyncio.gather(*(taking.send(inspection(number)) for number in range(60)))

        await until(lambda: set(taking.committed) == set(sent), "all are committed")

    assert len(groups) <= 2
    assert sum(groups) == 60
    assert max(groups) <= GROUP


@pytest.mark.anyio
async def test_repeat_is_committed_again_and_stored_once(broker: Broker, worker: SpoolWorker) -> None:
    event = inspection(1)
    async with taking_in(broker, worker) as taking:
        await taking.send(event)
        await until(lambda: len(taking.committed) == 1, "committed")

        await taking.send(event)

        await until(lambda: len(taking.committed) == 2, "committed again")
    assert state(worker).stored == 1


@pytest.mark.anyio
async def test_what_is_no_event_is_buried_visibly_and_what_follows_is_taken(
    broker: Broker, worker: SpoolWorker
) -> None:
    async with taking_in(broker, worker) as taking:
        for payload in (b"garbage", b'{"id":"\\ud800","type":"x"}', b"\xff"):
            await taking.producer.publish(TOPIC, payload)
        event_id = await taking.send(inspection(1))

        await until(lambda: event_id in taking.committed, "the good one is committed")

    assert len(buried(worker)) == 3
    assert (state(worker).buried, state(worker).stored) == (3, 1)


@pytest.mark.anyio
async def test_event_that_was_buried_is_not_sent_for_ever(broker: Broker, worker: SpoolWorker) -> None:
    payload = json.dumps(LARGE).encode()
    async with taking_in(broker, worker) as taking:
        await taking.send(("large", payload))

        await until(lambda: "large" in taking.committed, "its producer may let it go")

    assert len(buried(worker)) == 1


@pytest.mark.anyio
async def test_poison_that_comes_again_is_put_aside_once_and_told_each_time(
    broker: Broker, worker: SpoolWorker
) -> None:
    event_id, payload = inspection(1)
    poison = payload.replace(b'"specversion":"1.0"', b'"specversion":"1.1"')
    async with taking_in(broker, worker) as taking:
        for count in (1, 2, 3):
            await taking.send((event_id, poison))
            await until(lambda: taking.committed == [event_id] * count, "told")  # noqa: B023
        for _ in range(3):
            await taking.producer.publish(TOPIC, b"garbage")
        last = await taking.send(inspection(2))
        await until(lambda: last in taking.committed, "the good one is committed")

    assert len(buried(worker)) == 2
    assert state(worker).buried == 2


@pytest.mark.anyio
@pytest.mark.parametrize("is_first", [False, True])
async def test_poison_buries_no_good_event_of_the_same_id(
    broker: Broker, worker: SpoolWorker, is_first: bool
) -> None:
    event_id, payload = inspection(1)
    poison = payload.replace(b'"specversion":"1.0"', b'"specversion":"1.1"')
    both = [poison, payload] if is_first else [payload, poison]
    async with taking_in(broker, worker) as taking:
        for count, one in enumerate(both, 1):
            await taking.send((event_id, one))
            await until(lambda: len(taking.committed) == count, "told")  # noqa: B023

    (waiting,) = worker._thread.submit(worker.spool.oldest, 10).result()
    assert (waiting.record.event_id, waiting.record.payload) == (event_id, payload)
    assert len(buried(worker)) == 1


@pytest.mark.anyio
async def test_topic_of_65535_bytes_ends_no_intake(mosquitto: Broker, worker: SpoolWorker) -> None:
    """The topic of `committed` is longer than `engine`'s: paho raised, and the forwarder died at each start."""
    event = inspection(1)
    long = Place("plant-1", "x" * (65_535 - len(Place("plant-1", "", "s").topic("engine"))), "s").topic(
        "engine"
    )
    async with taking_in(mosquitto, worker) as taking:
        taking.listener.messages.put_nowait(message(event[1], long))
        event_id = await taking.send(inspection(2))

        await until(lambda: event_id in taking.committed, "the next one is committed")

    assert len(buried(worker)) == 1


@pytest.mark.anyio
async def test_full_is_told_until_something_new_goes_in(worker: SpoolWorker) -> None:
    taking_in = Intake(None, None, EmbeddedStreams(worker), lambda: None)

    async def commit(payload: bytes) -> None:
        await taking_in._commit([arrival(message(payload))])

    first = inspection(0, "NG")[1]
    await commit(first)
    number = 0
    while not taking_in.full:
        await commit(inspection(number := number + 1, "NG")[1])

    await commit(b"junk")
    await commit(first)
    assert taking_in.full, "a dead letter and a repeat need no room"

    for one in await worker.run(worker.spool.oldest, 50):
        await worker.run(worker.spool.settle, [one.record.event_id])
    await commit(inspection(9999, "NG")[1])
    assert not taking_in.full


@pytest.mark.anyio
async def test_full_stream_whose_producer_is_gone_is_forgotten(
    worker: SpoolWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(
        intake, "time", SimpleNamespace(monotonic=lambda: now)
    )  # its own, not the event loop's
    taking_in = Intake(None, None, EmbeddedStreams(worker), lambda: None)
    for number in range(intake.MOST_FULL + 10):
        taking_in._refuse(f"made up {number}", "no room")
    assert len(taking_in.full) == intake.MOST_FULL

    now += intake.FULL_FOR_S + 1

    assert not taking_in.full
    taking_in._refuse("predictions-line-1", "no room")
    assert taking_in.full == {"predictions-line-1": "no room"}
    assert len(taking_in._full) == 1


class _Away(EmbeddedStreams):
    async def append(self, records: object) -> int:
        raise StreamsUnavailable("Stream Manager is away")


@pytest.mark.anyio
async def test_streams_that_are_away_are_not_called_full_and_told_once(
    worker: SpoolWorker, caplog: pytest.LogCaptureFixture
) -> None:
    taking_in = Intake(None, None, _Away(worker), lambda: None)

    for number in range(5):
        assert await taking_in._commit([arrival(message(inspection(number)[1]))]) == []

    assert not taking_in.full
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == ["events_not_stored"]


@pytest.mark.anyio
async def test_full_stream_holds_its_producer_and_blocks_no_other_line(
    broker: Broker, worker: SpoolWorker
) -> None:
    other = Place("plant-1", "line-2", "press-1")
    async with taking_in(broker, worker) as taking:
        fill = [
            Record(f"fill {number}", "predictions-line-1", TOPIC, bytes(1000), alarm=True)
            for number in range(187)
        ]
        await worker.run(worker.spool.append, fill)
        sent = [await taking.send(inspection(1, "NG"))]
        await until(lambda: taking.intake.full, "line 1 is full")

        beside = [await taking.send(inspection(number, place=other), other) for number in range(5)]

        await until(lambda: set(beside) <= set(taking.committed), "line 2 is committed")
        assert list(taking.intake.full) == ["predictions-line-1"]
        assert sent[0] not in taking.committed
        await worker.run(worker.spool.settle, [one.event_id for one in fill])
        await taking.send(inspection(1, "NG", event_id=sent[0]))  # as its producer does every 2 s
        await until(lambda: sent[0] in taking.committed, "taken when there is room")
        assert not taking.intake.full


@pytest.mark.anyio
async def test_intake_goes_on_after_the_broker_was_killed(broker: Broker, worker: SpoolWorker) -> None:
    async with taking_in(broker, worker) as taking:
        await taking.send(inspection(1))
        await until(lambda: len(taking.committed) == 1, "committed")
        broker.kill()
        connections = (taking.producer, taking.listener, taking.intake._speaker)
        for connection in connections:
            await until(lambda: not connection.connected.is_set(), "the break is seen")  # noqa: B023
        broker.start()
        for connection in connections:
            await until(connection.connected.is_set, "connected again")

        event_id = await taking.send(inspection(2))

        await until(lambda: event_id in taking.committed, "committed")
