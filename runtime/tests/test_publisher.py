# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from brokers import (
    MOSQUITTO,
    MOSQUITTO_PROGRAM,
    NO_MOSQUITTO,
    STATION,
    Broker,
    Listener,
    connected,
    inspection,
    listening,
    running,
    until,
)
from full_disk import fill_to_the_last_page

from linewatch_runtime.mqtt import Connection, Message, NobodySubscribed, Refused, Subscriptions
from linewatch_runtime.publisher import PUBLISH_WINDOW, Publisher
from linewatch_runtime.spool import Record, Spool, SpoolWorker

pytestmark = pytest.mark.anyio

TOPIC = STATION.topic("inspection")


def event(sequence: int) -> Record:
    event_id, payload = inspection(sequence)
    return Record(event_id, "predictions-line-1", TOPIC, payload, alarm=sequence % 3 == 0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent again for want of a commit, however slow this machine is."""
    monkeypatch.setattr("linewatch_runtime.publisher.RESEND_AFTER_S", 600.0)


@asynccontextmanager
async def producing(broker: Broker, folder: Path) -> AsyncIterator[tuple[SpoolWorker, Publisher, Connection]]:
    worker = SpoolWorker(lambda: Spool(folder / "capture.db"))
    try:
        topics = Subscriptions([STATION.topic("committed")])
        async with connected(broker.endpoint("capture"), topics) as connection:
            publisher = Publisher(worker, connection)
            task = asyncio.create_task(publisher.run(), name="publisher")
            try:
                yield worker, publisher, connection
            finally:
                task.cancel()
                await asyncio.wait([task])
    finally:
        worker.close()


async def commit(connection: Connection, event_ids: list[str]) -> None:
    await connection.publish(STATION.topic("committed"), json.dumps({"event_ids": event_ids}).encode())


def left(worker: SpoolWorker) -> int:
    return sum(one.events for one in worker._thread.submit(worker.spool.streams).result())


async def heard(listener: Listener, count: int) -> None:
    await until(lambda: len(listener.heard) >= count, f"{count} events arrive", 60)


async def test_events_leave_the_spool_only_when_committed_and_arrive_in_order(
    broker: Broker, tmp_path: Path, patient: None
) -> None:
    events = [event(number) for number in range(1, 31)]
    async with (
        listening(broker.endpoint("forwarder"), TOPIC) as forwarder,
        producing(broker, tmp_path) as (worker, publisher, _),
    ):
        await worker.run(worker.spool.append, events)
        publisher.wake()
        await heard(forwarder, 30)
        assert left(worker) == 30

        await commit(forwarder.connection, forwarder.ids[:10])

        await until(lambda: left(worker) == 20, "ten are settled")
        await until(lambda: publisher.in_flight == 20, "they are no longer on their way")
        assert forwarder.ids == [one.event_id for one in events]


async def test_event_that_is_not_committed_is_sent_again(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_runtime.publisher.RESEND_AFTER_S", 0.3)
    async with (
        listening(broker.endpoint("forwarder"), TOPIC) as forwarder,
        producing(broker, tmp_path) as (worker, _, _),
    ):
        await worker.run(worker.spool.append, [event(1), event(2)])

        await heard(forwarder, 6)

        assert len(set(forwarder.ids)) == 2
        await commit(forwarder.connection, forwarder.ids)
        await until(lambda: left(worker) == 0, "both are settled")


async def test_no_more_than_the_window_is_on_its_way(broker: Broker, tmp_path: Path, patient: None) -> None:
    events = [event(number) for number in range(PUBLISH_WINDOW + 50)]
    async with (
        listening(broker.endpoint("forwarder"), TOPIC) as forwarder,
        producing(broker, tmp_path) as (worker, publisher, _),
    ):
        await worker.run(worker.spool.append, events)
        await heard(forwarder, PUBLISH_WINDOW)
        assert publisher.in_flight == PUBLISH_WINDOW

        await commit(forwarder.connection, forwarder.ids[:50])

        last = events[-1].event_id
        await until(lambda: last in forwarder.ids, "the rest follows")


async def test_garbage_on_committed_settles_nothing_and_stops_nothing(broker: Broker, tmp_path: Path) -> None:
    async with (
        listening(broker.endpoint("forwarder"), TOPIC) as forwarder,
        producing(broker, tmp_path) as (worker, _, _),
    ):
        await worker.run(worker.spool.append, [event(1), event(2)])
        await heard(forwarder, 2)
        for garbage in (
            b"", b"\xff", b"null", b"[]", b"{}", b'{"event_ids":7}', b'{"event_ids":[null,["\\ud800"],"\\ud800"]}',
            b'{"event_ids":["unknown"]}', b"[" * 100_000,
        ):  # fmt: skip
            await forwarder.connection.publish(STATION.topic("committed"), garbage)
        await commit(forwarder.connection, forwarder.ids[:1])

        await until(lambda: left(worker) == 1, "the good one is settled")


async def test_full_disk_ends_nothing_and_what_could_not_be_settled_is_sent_again(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("linewatch_runtime.publisher.RESEND_AFTER_S", 0.3)
    async with (
        listening(broker.endpoint("forwarder"), TOPIC) as forwarder,
        producing(broker, tmp_path) as (worker, _, _),
    ):
        await worker.run(worker.spool.append, [event(1)])
        await heard(forwarder, 1)
        await worker.run(fill_to_the_last_page, worker.spool)

        for repeats in (2, 4, 6):
            await commit(forwarder.connection, forwarder.ids[:1])
            await heard(forwarder, repeats)

        assert left(worker) == 1
        assert [one.msg for one in caplog.records].count("settle_failed") == 1, "told once"
        await worker.run(lambda: worker.spool._db.execute("PRAGMA max_page_count = 65536").fetchall())
        await commit(forwarder.connection, forwarder.ids[:1])
        await until(lambda: left(worker) == 0, "settled once there is room")


async def test_broker_that_refuses_is_told_once_and_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if MOSQUITTO_PROGRAM is None:
        pytest.skip(NO_MOSQUITTO)
    rules = tmp_path / "acl"
    rules.write_text("topic read #\n")
    strict = Broker(
        MOSQUITTO, tmp_path / "strict",
        f"listener {{port}} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\nacl_file {rules}\n",
    )  # fmt: skip
    with running(strict):
        async with (
            listening(strict.endpoint("forwarder"), TOPIC) as forwarder,
            producing(strict, tmp_path) as (worker, _, connection),
        ):
            asked, publish = 0, connection.publish

            async def counted(topic: str, payload: bytes, **more: bool) -> None:
                nonlocal asked
                asked += 1
                await publish(topic, payload, **more)

            connection.publish = counted
            await worker.run(worker.spool.append, [event(number) for number in range(20)])
            await until(lambda: asked >= 100, "five rounds", 120)

            told = [one.reason for one in caplog.records if one.msg == "publish_failed"]
            assert len(told) == 1
            assert "0x87" in told[0]

            rules.write_text("topic readwrite #\n")
            strict.process.send_signal(signal.SIGHUP)
            await until(lambda: len(set(forwarder.ids)) == 20, "all arrive once it allows them", 60)


async def test_events_that_nobody_heard_come_first_once_somebody_listens(
    mosquitto: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They came 2 s behind younger ones while a message without a subscriber counted as on its way."""
    async with producing(mosquitto, tmp_path) as (worker, publisher, _):
        events = [event(number) for number in range(20)]
        await worker.run(worker.spool.append, events[:5])
        publisher.wake()
        await until(lambda: "publish_failed" in caplog.messages, "nobody hears the first five")
        async with listening(mosquitto.endpoint("forwarder"), TOPIC) as forwarder:
            await worker.run(worker.spool.append, events[5:])
            publisher.wake()

            await until(lambda: len(set(forwarder.ids)) == 20, "all arrive", 60)

            assert list(dict.fromkeys(forwarder.ids)) == [one.event_id for one in events]


async def test_forwarder_that_subscribes_while_events_pass_hears_them_in_their_order(tmp_path: Path) -> None:
    heard: list[bytes] = []
    deaf = iter(range(5))

    class Way:
        """A broker at which somebody begins to listen between two publishes of one window."""

        def __init__(self) -> None:
            self.connected, self.messages = asyncio.Event(), asyncio.Queue[Message]()
            self.on_connected: list[Callable[[], None]] = []
            self.connected.set()

        async def publish(self, _topic: str, payload: bytes, **_how: object) -> None:
            if next(deaf, None) is not None:
                raise NobodySubscribed("0x10")
            heard.append(payload)

    events = [event(number) for number in range(20)]
    worker = SpoolWorker(lambda: Spool(tmp_path / "capture.db"))
    try:
        await worker.run(worker.spool.append, events)
        task = asyncio.create_task(Publisher(worker, Way()).run(), name="publisher")  # type: ignore[arg-type]
        await until(lambda: len(heard) >= 20, "all are heard", 60)
        task.cancel()
        await asyncio.wait([task])
    finally:
        worker.close()
    assert heard[:20] == [one.payload for one in events]


async def test_session_that_begins_while_an_event_is_buried_finds_out_anew_who_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []

    class Way:
        """A broker that refuses the first event; in its next session somebody begins to listen in the middle."""

        def __init__(self) -> None:
            self.connected, self.messages = asyncio.Event(), asyncio.Queue[Message]()
            self.on_connected: list[Callable[[], None]] = []
            self.connected.set()
            self.answers = iter([Refused("publish", 0x99, "Payload format invalid")])
            self.is_again = asyncio.Event()

        def begin_again(self) -> None:
            for call in self.on_connected:
                call()
            self.answers = iter([NobodySubscribed("0x10")] * 5)
            self.is_again.set()

        async def publish(self, _topic: str, payload: bytes, **_how: object) -> None:
            if (answer := next(self.answers, None)) is not None:
                raise answer
            heard.append(payload)

    events = [event(number) for number in range(20)]
    worker = SpoolWorker(lambda: Spool(tmp_path / "capture.db"))
    loop, way = asyncio.get_running_loop(), Way()
    bury = worker.spool.bury

    def slowly(record: Record, reason: str) -> bool:
        """As a disk that takes longer than the way to a new session."""
        loop.call_soon_threadsafe(way.begin_again)
        asyncio.run_coroutine_threadsafe(way.is_again.wait(), loop).result(60)
        return bury(record, reason)

    monkeypatch.setattr(worker.spool, "bury", slowly)
    try:
        await worker.run(worker.spool.append, events)
        task = asyncio.create_task(Publisher(worker, way).run(), name="publisher")  # type: ignore[arg-type]
        await until(lambda: len(heard) >= 19, "all others are heard", 60)
        task.cancel()
        await asyncio.wait([task])
    finally:
        worker.close()
    assert heard[:19] == [one.payload for one in events[1:]]


async def test_all_is_sent_again_after_the_broker_was_killed(broker: Broker, tmp_path: Path) -> None:
    async with (
        listening(broker.endpoint("forwarder"), TOPIC) as forwarder,
        producing(broker, tmp_path) as (worker, _, _),
    ):
        broker.kill()
        await worker.run(worker.spool.append, [event(number) for number in range(1, 21)])
        broker.start()

        await until(lambda: len(set(forwarder.ids)) == 20, "all arrive", 60)

        await commit(forwarder.connection, forwarder.ids)
        await until(lambda: left(worker) == 0, "all are settled")


@pytest.mark.parametrize("limit", ["max_packet_size 4000", "message_size_limit 4000"])
async def test_event_that_the_broker_can_never_take_is_buried_and_holds_up_no_other(
    tmp_path: Path, limit: str
) -> None:
    """Announced at connect, or not: then each publish of it ended the connection, and all others with it, for ever."""
    if MOSQUITTO_PROGRAM is None:
        pytest.skip(NO_MOSQUITTO)
    strict = Broker(
        MOSQUITTO, tmp_path / "strict",
        f"listener {{port}} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n{limit}\n",
    )  # fmt: skip
    events = [event(number) for number in range(60)]
    large = event(60)
    large = Record(large.event_id, large.stream, TOPIC, large.payload[:-1] + b',"x":"' + b"y" * 5000 + b'"}')
    with running(strict):
        async with (
            listening(strict.endpoint("forwarder"), TOPIC) as forwarder,
            producing(strict, tmp_path) as (worker, _, connection),
        ):
            await worker.run(worker.spool.append, [*events[:20], large, *events[20:]])

            await until(lambda: buried(worker), "it is buried", 90)
            await until(lambda: len(set(forwarder.ids)) == 60, "all others arrive", 60)

            ((event_id, reason),) = buried(worker)
            assert event_id == large.event_id
            assert ("0x95" in reason) if "packet" in limit else ("ends each connection" in reason)
            assert not connection.twin
            await commit(
                forwarder.connection, [one.event_id for one in events]
            )  # one message, not over the limit
            await until(lambda: left(worker) == 0, "all are settled")


def buried(worker: SpoolWorker) -> list[tuple[str, str]]:
    letters = worker._thread.submit(worker.spool.buried).result()
    return [(one.event_id, reason) for _, one, reason in letters]
