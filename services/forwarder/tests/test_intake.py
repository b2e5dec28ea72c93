# SPDX-License-Identifier: Apache-2.0
import asyncio
import json

import pytest
from brokers import STATION, Broker, inspection, until
from forwarding import state, taking_in

from linewatch_forwarder.arrivals import KEPT_OF_UNREADABLE, LARGEST_PAYLOAD, arrival
from linewatch_forwarder.intake import GROUP
from linewatch_runtime.events import Place
from linewatch_runtime.mqtt import Message
from linewatch_runtime.spool import Record, SpoolWorker

TOPIC = STATION.topic("inspection")


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
        b"", b"\xff\xfe", b"no json", b"null", b"[]", b"7", b"{}", b'{"id":"1"}', b'{"id":"","type":"x"}',
        b'{"id":null,"type":"x"}', b'{"id":7,"type":"x"}', b'{"id":"\\ud800","type":"x"}',
        b'{"id":"a\\nb","type":"x"}', b'{"id":"' + b"9" * 65 + b'","type":"x"}', b"[" * 100_000,
        b'{"id":1' + b"0" * 5000 + b"}", b'{"id":"1","type":"x"}', b'{"specversion":"1.0","id":"1","type":"x"}',
        b'{"specversion":"1.0","id":"1","type":"x","data":[]}', b'{"specversion":"0.3","id":"1","type":"x","data":{}}',
    ],
)  # fmt: skip
def test_what_is_no_event_gets_a_reason_and_an_id_of_its_own(payload: bytes) -> None:
    one, other = arrival(message(payload)), arrival(message(payload))

    assert one.reason
    assert one.record.event_id != other.record.event_id
    assert one.record.payload == payload[:KEPT_OF_UNREADABLE]


def test_event_too_large_for_the_cloud_gets_a_reason_and_keeps_its_id() -> None:
    payload = json.dumps(LARGE).encode()

    one = arrival(message(payload))

    assert one.reason
    assert one.record.event_id == "large"


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
            groups.append(len(arguments[0]))
        return await real(function, *arguments)

    worker.run = counting
    async with taking_in(broker, worker) as taking:
        sent = await asyncio.gather(*(taking.send(inspection(number)) for number in range(60)))

        await until(lambda: set(taking.committed) == set(sent), "all are committed")

    assert max(groups) > 1
    assert len(groups) < 60
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
        await until(lambda: not taking.listener.connected.is_set(), "the break is seen")
        broker.start()
        for connection in (taking.producer, taking.listener, taking.intake._speaker):
            await until(connection.connected.is_set, "connected again", 30)

        event_id = await taking.send(inspection(2))

        await until(lambda: event_id in taking.committed, "committed")
