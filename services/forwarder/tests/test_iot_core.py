# SPDX-License-Identifier: Apache-2.0
"""The uplink to IoT Core: batches, what is taken apart, and what the cloud can't take."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from brokers import (
    AT_THE_CLOUD,
    STATION,
    Cloud,
    Listener,
    answering,
    connected,
    inspection,
    listening,
    running,
    skip_without_mosquitto,
    until,
)
from forwarding import state

from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.uplinks.batches import Limits
from linewatch_forwarder.uplinks.iot_core import NEVER, PROOFS, IotCore
from linewatch_runtime.mqtt import Connection, Endpoint, NobodySubscribed, NotConnected, Refused
from linewatch_runtime.spool import Record, SpoolWorker

pytestmark = pytest.mark.anyio


def record(sequence: int, result: str = "OK", size: int = 0) -> Record:
    event_id, payload = inspection(sequence, result)
    payload = payload[:-1] + b"," + json.dumps({"x": "y" * size}).encode()[1:] if size else payload
    return Record(event_id, "predictions-line-1", STATION.topic("inspection"), payload, alarm=result != "OK")


def ids(records: list[Record]) -> list[str]:
    return [one.event_id for one in records]


@asynccontextmanager
async def delivering(worker: SpoolWorker, uplink: IotCore, rate: float = 10_000) -> AsyncIterator[Delivery]:
    delivery, stop = Delivery(EmbeddedStreams(worker), uplink, rate, bytes_per_s=1e9), asyncio.Event()
    task = asyncio.create_task(delivery.run(stop), name="delivery")
    try:
        yield delivery
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await task


def settled(worker: SpoolWorker) -> int:
    one = state(worker)
    return one.settled if one else 0


class ScriptedConnection:
    """A cloud that looks into each publish: `answer` raises for what it does not take."""

    largest_packet = 0

    def __init__(self, answer) -> None:
        self.answer = answer
        self.published: list[list[str]] = []

    async def publish(self, _topic: str, payload: bytes, **_more: object) -> None:
        told = json.loads(payload)
        event_ids = [one["id"] for one in told.get("events", [told])]
        self.published.append(event_ids)
        self.answer(event_ids)


async def send_until_done(uplink: IotCore, records: list[Record]) -> tuple[list[str], list[str], int]:
    """What was accepted and what was refused, in order, and how many turns that took."""
    accepted, refused, turns, waiting = [], [], 0, list(records)
    while waiting:
        turns += 1
        assert turns < 500, "it never ends"
        outcome = await uplink.send(waiting)
        accepted += outcome.accepted
        refused += [one.event_id for one, _ in outcome.refused]
        waiting = [one for one in waiting if one.event_id not in accepted and one.event_id not in refused]
    return accepted, refused, turns


# --- what can't be taken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(NEVER))
async def test_batch_that_is_refused_is_taken_apart_and_only_the_culprit_is_refused(code: int) -> None:
    events = [record(number) for number in range(100)]
    culprit = events[57].event_id

    def answer(event_ids: list[str]) -> None:
        if culprit in event_ids:
            raise Refused("publish", code, "never")

    connection = ScriptedConnection(answer)
    accepted, refused, turns = await send_until_done(IotCore(connection), events)

    assert refused == [culprit]
    assert accepted == [one for one in ids(events) if one != culprit], "the others in order"
    assert turns == 1 + 1 + 40 + 1, "a batch, the refused one, its forty alone, the last twenty"


@pytest.mark.parametrize("code", [0x81, 0x82, 0x95])
async def test_event_that_ends_connections_is_found_and_refused_after_proof(code: int) -> None:
    events = [record(number, "NG" if number % 2 else "OK") for number in range(60)]
    culprit = events[20].event_id

    def answer(event_ids: list[str]) -> None:
        if culprit in event_ids:
            connection.ended += 1
            raise NotConnected("the connection broke", code)

    connection = ScriptedConnection(answer)
    connection.ended = 0
    accepted, refused, _ = await send_until_done(IotCore(connection), events)

    assert refused == [culprit]
    assert sorted(accepted) == sorted(one for one in ids(events) if one != culprit)
    assert connection.ended <= PROOFS + 3


async def test_event_for_which_the_policy_ends_the_connection_is_kept_and_troubles_its_stream_only() -> None:
    bad, good = record(1), record(2)
    good = Record(good.event_id, "predictions-line-2", good.topic, good.payload)

    def answer(event_ids: list[str]) -> None:
        raise (
            NotConnected("the connection broke", 0x87) if bad.event_id in event_ids else NotConnected("broke")
        )

    uplink = IotCore(ScriptedConnection(answer))
    first = await uplink.send([bad, good])
    assert first.trouble
    assert not first.accepted
    second = await uplink.send([bad, good])

    assert list(second.troubled) == ["predictions-line-1"]
    assert not second.trouble
    assert not second.refused


async def test_connection_that_breaks_for_no_reason_given_accuses_nobody() -> None:
    events = [record(number) for number in range(50)]

    def answer(_event_ids: list[str]) -> None:
        raise NotConnected("the connection broke")

    connection = ScriptedConnection(answer)
    uplink = IotCore(connection)
    for _ in range(10):
        outcome = await uplink.send(events)
        assert outcome.trouble
        assert not outcome.refused
    assert {len(one) for one in connection.published} == {40}, "batches are sent as batches"


async def test_batch_that_no_rule_takes_is_trouble_and_no_loss() -> None:
    events = [record(number) for number in range(10)]

    def answer(_event_ids: list[str]) -> None:
        raise NobodySubscribed("batch")

    outcome = await IotCore(ScriptedConnection(answer)).send(events)

    assert "NobodySubscribed" in outcome.troubled["predictions-line-1"]
    assert not outcome.accepted
    assert not outcome.refused


async def test_nothing_of_a_class_is_accepted_before_what_came_earlier(worker: SpoolWorker) -> None:
    """The 30th event is refused for now twice: what comes after it waits, in its class of its line."""
    events = [record(number, "NG" if number % 3 == 0 else "OK") for number in range(90)]
    held, tries = events[31].event_id, 0
    arrived: list[str] = []

    def answer(event_ids: list[str]) -> None:
        nonlocal tries
        if held in event_ids and tries < 2:
            tries += 1
            raise Refused("publish", 0x80, "Unspecified error")
        arrived.extend(event_ids)

    await worker.run(worker.spool.append, events)
    async with delivering(worker, IotCore(ScriptedConnection(answer), Limits(5, 32 * 1024))):
        await until(lambda: settled(worker) == 90, "all are accepted", 60)

    assert tries == 2
    for alarm in (True, False):
        assert [one for one in arrived if one in ids([e for e in events if e.alarm == alarm])] == ids(
            [one for one in events if one.alarm == alarm]
        )


# --- against a broker over mutual TLS --------------------------------------------------------------------------------


async def test_backlog_goes_out_in_few_publishes_and_a_lone_event_on_its_own_topic(
    cloud: Cloud, worker: SpoolWorker
) -> None:
    events = [record(number) for number in range(100)]
    async with (
        listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
        connected(cloud.endpoint("device")) as uplink,
    ):
        await worker.run(worker.spool.append, events)
        async with delivering(worker, IotCore(uplink)) as delivery:
            await until(lambda: settled(worker) == 100, "the backlog is accepted")
            await until(lambda: len(rule.ids) == 100, "it arrives")
            assert [topic.rpartition("/")[2] for topic, _ in rule.heard] == ["batch"] * 3
            assert [len(json.loads(payload)["events"]) for _, payload in rule.heard] == [40, 40, 20]

            lone = record(100)
            await worker.run(worker.spool.append, [lone])
            delivery.wake()
            await until(lambda: len(rule.ids) == 101, "it arrives")
    assert rule.heard[-1] == (lone.topic, lone.payload)
    assert rule.ids == [*ids(events), lone.event_id]


async def test_rate_of_the_drain(cloud: Cloud, worker: SpoolWorker) -> None:
    """At the defaults' pace, 100 publishes and 512 KiB each second, over TLS on the loopback."""
    count, room = 1500, 200
    events = [record(number) for number in range(count)]
    clock = asyncio.get_running_loop().time
    async with (
        listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
        connected(cloud.endpoint("device")) as connection,
    ):
        delivery, stop = Delivery(EmbeddedStreams(worker), IotCore(connection), 100.0), asyncio.Event()
        begun, worked, stored = clock(), time.process_time(), 0
        task = asyncio.create_task(delivery.run(stop), name="delivery")
        while settled(worker) < count:
            if stored < count and stored - settled(worker) < room // 2:  # a test's spool has room for 250
                await worker.run(worker.spool.append, events[stored : stored + 100])
                stored += 100
                delivery.wake()
            await asyncio.sleep(0.005)
            assert clock() - begun < 240
        seconds, worked = clock() - begun, time.process_time() - worked
        stop.set()
        await task
    size = sum(len(one.payload) for one in events)
    print(
        f"{count / seconds:.0f} events/s, {size / seconds / 1024:.0f} KiB/s, {len(rule.heard) / seconds:.0f} publishes/s"
    )
    assert size / seconds <= 512 * 1024 * 1.2
    assert len(rule.heard) / seconds <= 100 * 1.2
    # Of this process's own time, which nobody else's load stretches: broker, rule and spool of the test are in it, too.
    assert count / worked >= 200, "it takes more of a core than it may"
    assert len(rule.heard) <= count / 20, "in batches: one event at a time would be as slow as its answers"


async def test_fresh_alarm_waits_for_one_turn_and_for_no_backlog(cloud: Cloud, worker: SpoolWorker) -> None:
    backlog = [record(number) for number in range(220)]
    alarm = record(1000, "NG")
    async with (
        listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
        connected(cloud.endpoint("device")) as connection,
    ):
        sent: list[bytes] = []  # counted here: whoever listens may hear of a publish any time later
        publish = connection.publish

        async def counted(topic: str, payload: bytes, **more: object) -> None:
            sent.append(payload)
            await publish(topic, payload, **more)

        connection.publish = counted
        await worker.run(worker.spool.append, backlog)
        async with delivering(worker, IotCore(connection, Limits(5, 32 * 1024))):
            await until(lambda: sent, "the drain has begun")
            before = len(sent)
            await worker.run(worker.spool.append, [alarm])
            at_most = len(sent)
            await until(lambda: len(rule.ids) == 221, "all arrive")

    place = sent.index(alarm.payload)
    assert before <= place <= at_most + 1, "what had been read when it was stored"
    assert len(sent) > place + 10, "before a backlog"
    assert [one for one in rule.ids if one != alarm.event_id] == ids(backlog)


async def test_cloud_that_announces_what_it_takes_gets_smaller_batches_and_the_rest_is_buried(
    tmp_path: Path, worker: SpoolWorker
) -> None:
    skip_without_mosquitto()
    events = [record(1), record(2), record(3, size=5000), record(4), record(5)]
    with running(LimitedCloud(tmp_path / "limited", "max_packet_size 4000")) as cloud:
        async with heard_from(cloud, worker, events) as (rule, sessions):
            await until(lambda: settled(worker) == 4, "the others are accepted")
            await until(lambda: state(worker).buried == 1, "it is buried")
        assert sessions == []
    assert rule.ids == ids([one for one in events if len(one.payload) < 5000])
    ((_, one, reason),) = await worker.run(worker.spool.buried)
    assert one.event_id == events[2].event_id
    assert "0x95" in reason
    assert "the broker takes 4000" in reason


async def test_cloud_that_ends_the_connection_for_a_large_event_without_a_word_before_gets_all_others(
    tmp_path: Path, worker: SpoolWorker
) -> None:
    skip_without_mosquitto()
    events = [record(1), record(2), record(3, size=5000), record(4), record(5), record(6, "NG")]
    with running(LimitedCloud(tmp_path / "limited", "message_size_limit 4000")) as cloud:
        async with heard_from(cloud, worker, events) as (rule, sessions):
            await until(lambda: state(worker).buried == 1, "it is buried", 60)
            await until(lambda: settled(worker) == 5, "the others are accepted", 60)
        assert PROOFS <= len(sessions) <= PROOFS + 3
    assert set(rule.ids) == {one.event_id for one in events if len(one.payload) < 5000}
    ((_, one, reason),) = await worker.run(worker.spool.buried)
    assert one.event_id == events[2].event_id
    assert f"it ended {PROOFS} connections" in reason


async def test_way_of_64_kbit_per_s_carries_a_backlog_of_many_lines_and_a_large_event(
    cloud: Cloud, worker: SpoolWorker
) -> None:
    """More than was waited for was on its way at once there: it was given up after 10 s and sent again, for ever."""
    lines = [
        Record(one.event_id, f"predictions-line-{number % 8}", one.topic, one.payload)
        for number in range(16)
        for one in [record(number, size=4_000)]
    ]
    large = record(99, size=100_000)
    async with (
        slow_way(cloud.port, bytes_per_s=8_000) as port,
        listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
    ):
        endpoint = cloud.endpoint("device")
        slow = Endpoint(endpoint.host, port, endpoint.client_id, tls=endpoint.tls)
        async with connected(slow) as connection:
            sessions: list[int] = []
            _count_sessions(connection, sessions)
            await worker.run(worker.spool.append, [large])
            await worker.run(worker.spool.append, lines)
            async with delivering(worker, IotCore(connection)):
                await until(lambda: len(set(rule.ids)) == 17, "all arrive", 240)
            assert sessions == [], "in one session"
    assert len(rule.ids) == 17, "once each"


@asynccontextmanager
async def slow_way(port: int, bytes_per_s: int) -> AsyncIterator[int]:
    """A port of a proxy that carries so much up, and answers at once."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
        with suppress(OSError):
            while data := await reader.read(1024):
                await asyncio.sleep(len(data) / rate)  # this is the slowness itself
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(carry(reader, far_writer, bytes_per_s), carry(far_reader, writer, 1e9))
        finally:
            far_writer.transport.abort()

    # A small window, or the kernel would hide the slowness from the sender.
    async with answering(serve, limit=2048) as slow:
        yield slow


async def test_basic_ingest_goes_past_the_broker_to_the_rule(tmp_path: Path, worker: SpoolWorker) -> None:
    skip_without_mosquitto()
    rule_topic = "$aws/rules/linewatch_events/#"
    events = [record(number) for number in range(20)]
    with running(Cloud(tmp_path / "ingest", allowed=rule_topic)) as cloud:
        async with (
            listening(cloud.endpoint("rule"), rule_topic) as rule,
            connected(cloud.endpoint("device")) as connection,
        ):
            await worker.run(worker.spool.append, events)
            async with delivering(worker, IotCore(connection, ingest_rule="linewatch_events")):
                await until(lambda: settled(worker) == 20, "all are accepted")
                await until(lambda: rule.ids == ids(events), "all arrive")

    assert {topic for topic, _ in rule.heard} == {
        "$aws/rules/linewatch_events/linewatch/v1/plant-1/line-1/forwarder/batch"
    }


class LimitedCloud(Cloud):
    """A cloud with one more line in its configuration."""

    def __init__(self, folder: Path, line: str) -> None:
        super().__init__(folder)
        with (folder / "mosquitto.conf").open("a") as configuration:
            configuration.write(f"{line}\n")


@asynccontextmanager
async def heard_from(
    cloud: Cloud, worker: SpoolWorker, events: list[Record]
) -> AsyncIterator[tuple[Listener, list[int]]]:
    """Delivers the events; what a rule hears, and a note of each session after the first."""
    async with (
        listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
        connected(cloud.endpoint("device")) as connection,
    ):
        sessions: list[int] = []
        _count_sessions(connection, sessions)
        await worker.run(worker.spool.append, events)
        async with delivering(worker, IotCore(connection)):
            yield rule, sessions


def _count_sessions(connection: Connection, sessions: list[int]) -> None:
    connection.on_connected.append(lambda: sessions.append(1))
