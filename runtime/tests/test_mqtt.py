# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import gc
import json
import signal
import socket
import socketserver
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import psutil
import pytest
from brokers import (
    MOSQUITTO,
    Broker,
    Cloud,
    answering,
    connected,
    listening,
    running,
    skip_without_mosquitto,
    until,
    wait_for,
)
from prometheus_client import REGISTRY

from linewatch_runtime.mqtt import (
    Connection,
    Endpoint,
    NobodySubscribed,
    NotConnected,
    Refused,
    Subscriptions,
    Will,
)
from linewatch_runtime.mqtt_client import SessionClient
from linewatch_runtime.mqtt_sessions import (
    SESSION_TAKEN_OVER,
    SHORT_SESSIONS,
    TWIN_BACKOFF_S,
    TWIN_GONE_AFTER_S,
    Sessions,
)

pytestmark = pytest.mark.anyio

KEPT = Subscriptions(["in/#"], manual_ack=True, session_expiry_s=3600)

WAIT_S = 60.0
"""For what has to come; no promise of ours."""


async def stopped(broker: Broker) -> None:
    """SIGSTOP, and back once it has stopped: from here on it takes packets and answers none."""
    broker.process.send_signal(signal.SIGSTOP)
    process = psutil.Process(broker.process.pid)
    await until(lambda: process.status() == psutil.STATUS_STOPPED, "it has stopped", WAIT_S)


async def test_what_is_published_arrives_with_its_properties(broker: Broker) -> None:
    async with (
        connected(broker.endpoint("hears"), Subscriptions(["in/#"])) as hears,
        connected(broker.endpoint("speaks")) as speaks,
    ):
        await speaks.publish("in/a", b"\x00payload", user_properties={"traceparent": "00-1-2-01"})

        message = await asyncio.wait_for(hears.messages.get(), WAIT_S)

    assert (message.topic, message.payload, message.qos) == ("in/a", b"\x00payload", 1)
    assert message.user_properties == {"traceparent": "00-1-2-01"}


async def test_more_messages_than_the_window_arrive_in_order(broker: Broker) -> None:
    count = 600
    async with (
        connected(broker.endpoint("hears"), Subscriptions(["in/#"])) as hears,
        connected(broker.endpoint("speaks")) as speaks,
    ):
        await asyncio.gather(*(speaks.publish("in/a", b"%d" % number) for number in range(count)))

        heard = [int((await asyncio.wait_for(hears.messages.get(), WAIT_S)).payload) for _ in range(count)]

    assert heard == list(range(count))


async def test_connection_comes_back_after_the_broker_was_killed(broker: Broker) -> None:
    async with connected(broker.endpoint("a"), Subscriptions(["in/#"])) as connection:
        sessions = []
        connection.on_connected.append(lambda: sessions.append(1))

        broker.kill()
        await until(lambda: not connection.connected.is_set(), "the break is seen")
        with pytest.raises(NotConnected):
            await connection.publish("in/a", b"lost")
        assert connection.trouble
        broker.start()
        await asyncio.wait_for(connection.connected.wait(), WAIT_S)
        await connection.publish("in/a", b"again")

        assert (await asyncio.wait_for(connection.messages.get(), WAIT_S)).payload == b"again"
        assert sessions == [1]
        assert not connection.trouble


async def test_session_that_ended_leaves_no_file_open(broker: Broker) -> None:
    """Two sockets of paho's thread stayed open at each reconnect, until the collector found them."""
    async with connected(broker.endpoint("device"), Subscriptions(["a/b"])) as connection:
        gc.disable()
        try:
            before = psutil.Process().num_fds()
            for _ in range(3):
                broker.kill()
                await until(lambda: not connection.connected.is_set(), "the loss is noticed")
                broker.start()
                await until(connection.connected.is_set, "it is back", WAIT_S)
            after = psutil.Process().num_fds()
        finally:
            gc.enable()
    assert after <= before


async def test_connect_that_comes_through_after_the_connection_ended_leaves_no_socket(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, over = threading.Event(), threading.Event()
    made: list[object] = []
    connect = paho.Client.connect

    def late(client: paho.Client, *arguments: object, **more: object) -> object:
        asked.set()
        over.wait(60)
        answer = connect(client, *arguments, **more)  # type: ignore[arg-type]
        made.append(client.socket())
        return answer

    monkeypatch.setattr(paho.Client, "connect", late)
    task = asyncio.create_task(Connection(broker.endpoint("late")).run())
    await until(asked.is_set, "it connects")
    task.cancel()
    await asyncio.wait([task])
    over.set()

    await until(lambda: made and made[0].fileno() == -1, "the late socket is closed")  # type: ignore[attr-defined]


async def test_publish_on_its_way_fails_when_the_connection_breaks(mosquitto: Broker) -> None:
    async with connected(mosquitto.endpoint("a")) as connection:
        await stopped(mosquitto)
        publishing = asyncio.create_task(connection.publish("in/a", b"x"))
        await until(lambda: connection._pending, "the publish is on its way")

        mosquitto.kill()

        with pytest.raises(NotConnected):
            await asyncio.wait_for(publishing, WAIT_S)


async def test_broker_that_answers_nothing_is_given_up(
    mosquitto: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_runtime.mqtt.PUBLISH_TIMEOUT_S", 0.5)
    async with connected(mosquitto.endpoint("a")) as connection:
        await stopped(mosquitto)

        with pytest.raises(NotConnected, match="did not acknowledge"):
            await connection.publish("in/a", b"x")

        await until(lambda: not connection.connected.is_set(), "the session is given up")
        mosquitto.process.send_signal(signal.SIGCONT)
        await asyncio.wait_for(connection.connected.wait(), WAIT_S)


async def test_unacknowledged_messages_come_again_after_a_reconnect(broker: Broker) -> None:
    async with connected(broker.endpoint("speaks")) as speaks:
        async with connected(broker.endpoint("hears"), KEPT) as hears:
            for number in range(5):
                await speaks.publish("in/a", b"%d" % number)
            messages = [await asyncio.wait_for(hears.messages.get(), WAIT_S) for _ in range(5)]
            hears.acknowledge(messages[0])
            hears.acknowledge(messages[1])
            await until(lambda: not hears._client.want_write(), "acknowledgements are sent")

        async with connected(broker.endpoint("hears"), KEPT) as hears:
            again = [await asyncio.wait_for(hears.messages.get(), WAIT_S) for _ in range(3)]

    assert [int(message.payload) for message in again] == [2, 3, 4]


async def test_stale_acknowledgement_acknowledges_no_new_message(broker: Broker) -> None:
    async with connected(broker.endpoint("speaks")) as speaks:
        async with connected(broker.endpoint("hears"), KEPT) as hears:
            await speaks.publish("in/a", b"old")
            old = await asyncio.wait_for(hears.messages.get(), WAIT_S)
            hears.acknowledge(old)

        # A new session of the broker counts packet ids from 1 again: "new" has the id that "old" had.
        broker.kill()
        await until(lambda: not speaks.connected.is_set(), "the break is seen")
        broker.start()
        async with connected(broker.endpoint("hears"), KEPT) as hears:
            await asyncio.wait_for(_connected_again(speaks), WAIT_S)
            await speaks.publish("in/a", b"new")
            new = await asyncio.wait_for(hears.messages.get(), WAIT_S)
            assert new.packet_id == old.packet_id

            hears.acknowledge(old)
            await hears.publish("elsewhere", b"")  # whatever was sent before is with the broker now

        async with connected(broker.endpoint("hears"), KEPT) as hears:
            assert (await asyncio.wait_for(hears.messages.get(), WAIT_S)).payload == b"new"


async def _connected_again(connection: Connection) -> None:
    await until(connection.connected.is_set, "connected again", WAIT_S)


async def test_message_that_nobody_takes_raises(mosquitto: Broker) -> None:
    async with connected(mosquitto.endpoint("a")) as connection:
        with pytest.raises(NobodySubscribed):
            await connection.publish("nobody/here", b"x", needs_subscriber=True)

        await connection.publish("nobody/here", b"x")


ACL = """\
listener {port} 127.0.0.1
allow_anonymous true
acl_file {folder}/acl
"""


async def test_publish_against_the_access_list_raises_its_code(mosquitto: Broker, tmp_path: Path) -> None:
    folder = tmp_path / "with-acl"
    broker = Broker(MOSQUITTO, folder, ACL)
    (folder / "acl").write_text("topic readwrite allowed/#\n")
    with running(broker):
        async with connected(broker.endpoint("a")) as connection:
            await connection.publish("allowed/a", b"x")

            with pytest.raises(Refused) as refused:
                await connection.publish("denied/a", b"x")

            assert refused.value.code == 0x87
            await connection.publish("allowed/a", b"still connected")


PASSWORD = """\
listener {port} 127.0.0.1
allow_anonymous false
"""


async def test_topic_that_no_packet_can_have_is_refused_and_the_session_goes_on(broker: Broker) -> None:
    """paho raises ValueError, which ended the process; what it was for was still there at the next start."""
    async with connected(broker.endpoint("speaks")) as speaks:
        for topic in ("x" * 65_536, "a/+/b"):
            with pytest.raises(Refused) as refused:
                await speaks.publish(topic, b"")
            assert refused.value.code == 0x90
            assert len(str(refused.value)) < 1000
        await speaks.publish("in/a", b"")


async def test_connection_that_is_refused_says_why_and_tries_again(mosquitto: Broker, tmp_path: Path) -> None:
    broker = Broker(MOSQUITTO, tmp_path / "with-password", PASSWORD)
    with running(broker):
        async with connected(broker.endpoint("a"), wait=False) as connection:
            await until(lambda: "0x87" in connection.trouble, "the refusal is told")


async def test_last_will_is_told_when_the_process_vanishes_and_not_when_it_leaves(broker: Broker) -> None:
    will = Will("status/a", json.dumps({"state": "offline"}).encode())
    async with listening(broker.endpoint("hears"), "status/#") as told:
        leaving = Connection(broker.endpoint("leaves"), will=Will("status/b", b'{"state": "offline"}'))
        task = asyncio.create_task(leaving.run())
        await asyncio.wait_for(leaving.connected.wait(), WAIT_S)
        leaving.has_said_last_word = True
        task.cancel()
        await asyncio.wait([task])
        async with connected(broker.endpoint("vanishes"), will=will) as vanishing:
            vanishing._client.socket().shutdown(2)

            await until(lambda: told.last("status/a"), "the will is told")

    assert told.last("status/a") == {"state": "offline"}
    assert not told.last("status/b")
    async with listening(broker.endpoint("late"), "status/#") as late:
        await until(lambda: late.last("status/a"), "the will is retained")


async def test_last_will_is_told_of_who_leaves_without_a_last_word(broker: Broker) -> None:
    """As after a fault of its own, or where the disk let it say none: its last status would stand there for ever."""
    will = Will("status/a", json.dumps({"state": "offline"}).encode())
    async with listening(broker.endpoint("hears"), "status/#") as told:
        async with connected(broker.endpoint("leaves"), will=will) as leaving:
            await leaving.publish("status/a", b'{"state": "running"}', retain=True)

        await until(lambda: told.last("status/a") == {"state": "offline"}, "the will is told")


async def test_taken_over_session_is_told_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def take_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK: success
        # DISCONNECT: session taken over. Newer brokers send it, mosquitto 2.0.11 and rumqttd just close.
        writer.write(b"\xe0\x02\x8e\x00")

    async with (
        answering(take_over) as port,
        connected(Endpoint("127.0.0.1", port, "same", role="taken-over"), wait=False) as connection,
    ):
        await until(
            lambda: any(one.message == "mqtt_client_id_taken" for one in caplog.records), "it is told"
        )
        assert "client id same" in connection.twin
        assert sample("linewatch_mqtt_twin", "taken-over") == 1
        assert sample("linewatch_mqtt_taken_over_total", "taken-over") == 1


async def test_two_processes_with_one_client_id_are_told_by_a_broker_that_gives_no_reason(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        connected(broker.endpoint("same", role="one-of-two")) as one_of_two,
        connected(broker.endpoint("same"), wait=False),
    ):
        await until(lambda: one_of_two.twin, "it is told", 240)
        assert "client id same" in one_of_two.twin
        assert sample("linewatch_mqtt_twin", "one-of-two") == 1
    assert any(one.message == "mqtt_sessions_short" for one in caplog.records)


def test_twin_that_takes_its_time_is_told_and_a_broker_that_restarts_is_none() -> None:
    now = 0.0
    twin, restarts = (Sessions("same", role, lambda: now) for role in ("slow-twin", "restarts"))
    for _ in range(5):
        for sessions in (twin, restarts):
            sessions.begin()
        now += 10.0
        for sessions in (twin, restarts):
            sessions.end(0)
        restarts.fail()

    assert "client id same" in twin.twin
    assert not restarts.twin


async def test_session_that_the_broker_should_have_kept_and_did_not_is_counted(mosquitto: Broker) -> None:
    async with connected(mosquitto.endpoint("hears", role="forgotten"), KEPT) as hears:
        assert sample("linewatch_mqtt_sessions_forgotten_total", "forgotten") == 0, "the first one is none"
        mosquitto.kill()
        await until(lambda: not hears.connected.is_set(), "it is gone")
        mosquitto.start()
        await until(hears.connected.is_set, "it is back", WAIT_S)

    assert sample("linewatch_mqtt_sessions_forgotten_total", "forgotten") == 1


def sample(name: str, role: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"role": role})


def test_twins_connect_once_in_a_few_seconds_each_and_one_that_is_alone_again_is_no_twin() -> None:
    now = 0.0
    sessions = Sessions("same", "clocked", lambda: now)
    assert sessions.pause_s() < 1
    sessions.begin()
    now += 30.0
    sessions.end(SESSION_TAKEN_OVER)
    assert all(TWIN_BACKOFF_S[0] <= sessions.pause_s() <= TWIN_BACKOFF_S[1] for _ in range(100))

    sessions.begin()
    now += TWIN_GONE_AFTER_S - 1
    assert sessions.twin
    now += 1
    assert not sessions.twin
    sessions.end(0)

    assert not sessions.twin
    assert sessions.pause_s() < 1


def test_broker_that_is_killed_again_and_again_is_no_twin() -> None:
    """Its clients waited 4 to 12 s after the fifth short session, and nothing flowed."""
    sessions = Sessions("same", "clocked", lambda: 0.0)
    for _ in range(4 * SHORT_SESSIONS):
        sessions.begin()
        sessions.end(0)
        sessions.fail()

    assert not sessions.twin
    assert sessions.pause_s() <= 2


def test_broker_that_blames_what_we_sent_speaks_of_no_twin() -> None:
    """An event that no broker takes ended five sessions, and its producer was told of a twin that was none."""
    sessions = Sessions("same", "clocked", lambda: 0.0)
    for _ in range(2 * SHORT_SESSIONS):
        sessions.begin()
        sessions.end(0x82)

    assert not sessions.twin


def test_session_that_we_end_ourselves_is_no_sign_of_a_twin() -> None:
    sessions = Sessions("same", "clocked", lambda: 0.0)
    for _ in range(2 * SHORT_SESSIONS):
        sessions.begin()
        sessions.end(0, by_us=True)

    assert not sessions.twin


LIMITED = """\
listener {port} 127.0.0.1
allow_anonymous true
max_packet_size 1000
"""


@pytest.mark.parametrize("topic", ["in/a", "in/ä" + "x" * 200])
async def test_packet_that_the_broker_does_not_take_is_not_sent_and_the_session_goes_on(
    tmp_path: Path, topic: str
) -> None:
    skip_without_mosquitto()
    broker = Broker(MOSQUITTO, tmp_path / "limited", LIMITED)
    with running(broker):
        async with connected(broker.endpoint("a")) as connection:
            assert connection.largest_packet == 1000
            sessions = []
            connection.on_connected.append(lambda: sessions.append(1))
            head = (
                1 + 2 + 2 + len(topic.encode()) + 2 + 1
            )  # fixed header, topic with its length, packet id, properties

            await connection.publish(topic, b"x" * (1000 - head))
            with pytest.raises(Refused) as refused:
                await connection.publish(topic, b"x" * (1000 - head + 1))
            await connection.publish(topic, b"the session goes on")

            assert refused.value.code == 0x95
            assert "1001 bytes, and the broker takes 1000" in str(refused.value)
            assert not sessions


async def test_control_packet_that_is_sent_all_the_same_ends_the_session(tmp_path: Path) -> None:
    skip_without_mosquitto()
    broker = Broker(MOSQUITTO, tmp_path / "limited", LIMITED)
    with running(broker):
        async with connected(broker.endpoint("a")) as connection:
            connection.largest_packet = 0

            with pytest.raises(NotConnected) as broke:
                await connection.publish("in/a", b"x" * 1001)

            # The reset of a connection that was closed with bytes unread may overtake the DISCONNECT with its code.
            assert broke.value.code in {0x95, 0}
            assert not connection.connected.is_set()


@contextlib.contextmanager
def blaming_peer() -> Iterator[int]:
    """A broker that ends each connection for its first publish, with 0x95. It reads all of it first: mosquitto does not, and
    the reset of its connection may overtake the reason.
    """

    class Blames(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                for answer in (b"\x20\x03\x00\x00\x00", b"\xe0\x02\x95\x00"):  # CONNACK, DISCONNECT
                    size, shift = 0, 0
                    self.rfile.read(1)
                    while (byte := self.rfile.read(1)[0]) & 0x80:
                        size, shift = size | (byte & 0x7F) << shift, shift + 7
                    self.rfile.read(size | byte << shift)
                    self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Blames) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


async def test_session_that_ends_while_a_publish_is_handed_over_tells_why() -> None:
    """paho's thread had the broker's 0x95 before `publish` was back: the code was lost, and blamed nobody."""
    with blaming_peer() as port:
        async with connected(Endpoint("127.0.0.1", port, "a")) as connection:
            client = connection._client
            hand_over = client.publish

            def beaten(*arguments: object, **named: object) -> paho.MQTTMessageInfo:
                sent = hand_over(*arguments, **named)
                wait_for(lambda: client.socket() is None, "the broker ended the session")
                sent.rc = paho.MQTT_ERR_NO_CONN  # paho's answer where its thread has gone by then
                return sent

            client.publish = beaten

            with pytest.raises(NotConnected) as broke:
                await connection.publish("in/a", b"x" * 1001)

            assert broke.value.code == 0x95
            assert not connection.connected.is_set()


class EndsMeanwhile(SessionClient):
    """Its thread's last act, `_thread = None`, comes in the moment in which it is told to end."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_thread" and value is None:
            wait_for(lambda: self._thread_terminate, "it is stopped")
        super().__setattr__(name, value)
        if name == "_thread_terminate" and value:
            wait_for(lambda: self._thread is None, "the thread has ended")


async def test_thread_that_ends_while_it_is_stopped_ends_no_service(mosquitto: Broker) -> None:
    """A forwarder that was told to stop ended with 1: 'NoneType' object has no attribute 'join'."""
    connection = Connection(mosquitto.endpoint("a"))
    task = asyncio.create_task(connection.run())
    for end in (mosquitto.kill, task.cancel):
        await until(connection.connected.is_set, "connected")
        connection._client.__class__ = EndsMeanwhile
        end()
        await until(lambda: not connection.connected.is_set(), "the session has ended")
        if end == mosquitto.kill:
            mosquitto.start()

    with pytest.raises(asyncio.CancelledError):
        await task


class EndsSlowly(SessionClient):
    """It is closed when the test lets it."""

    closing: threading.Event
    may_close: threading.Event

    def close(self, *, with_will: bool = False) -> None:
        self.closing.set()
        self.may_close.wait(60)
        super().close(with_will=with_will)


async def test_stop_while_a_session_ends_leaves_no_socket(mosquitto: Broker) -> None:
    """Two sockets of paho's stayed open for each session that had just ended by itself when its service was told to stop."""
    connection = Connection(mosquitto.endpoint("a"))
    task = asyncio.create_task(connection.run())
    await until(connection.connected.is_set, "connected")
    client = connection._client
    sockets = [client._sockpairR, client._sockpairW, client.socket()]
    client.__class__ = EndsSlowly
    client.closing, client.may_close = threading.Event(), threading.Event()
    mosquitto.kill()
    await until(client.closing.is_set, "it is being closed")

    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)  # the loop turns until the cancellation is delivered
    client.may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [one.fileno() for one in sockets] == [-1, -1, -1]


async def test_stop_while_the_broker_reads_nothing_does_not_wait_for_the_goodbye(tmp_path: Path) -> None:
    """What is on its way fills the kernel's buffers, so that DISCONNECT can't leave: it took the keepalive's 20 s."""
    skip_without_mosquitto()
    broker = Broker(MOSQUITTO, tmp_path / "reads-nothing")
    with running(broker):
        connection = Connection(broker.endpoint("a"))
        task = asyncio.create_task(connection.run())
        await until(connection.connected.is_set, "connected")
        client = connection._client
        await stopped(broker)
        publishes = [asyncio.create_task(connection.publish("in/a", bytes(4 << 20))) for _ in range(16)]
        await until(lambda: client.want_write() and len(connection._pending) == 16, "its buffers are full")
        began = time.monotonic()

        task.cancel()
        await asyncio.wait([task])

        took_s = time.monotonic() - began
        broker.kill()
        for publish in publishes:
            with pytest.raises(NotConnected):
                await publish
    assert not client._thread
    assert took_s < 10, "the promise of a stop"


async def test_machine_without_another_thread_leaves_no_socket(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither paho's thread begins nor one that cleans up; the process ends with the error."""
    connection, begin = Connection(broker.endpoint("a")), threading.Thread.start
    clients, make, refused = [], connection._new_client, []

    def made(*arguments: object) -> SessionClient:
        clients.append(make(*arguments))
        return clients[0]

    def begins(thread: threading.Thread) -> None:
        if refused or thread.name.startswith("paho"):
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        begin(thread)

    connection._new_client = made
    with monkeypatch.context() as machine:
        machine.setattr(threading.Thread, "start", begins)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await connection.run()

    (client,) = clients
    assert len(refused) == 2
    assert [client._sockpairR, client._sockpairW, client.socket()] == [None, None, None]


async def test_connection_that_is_reset_before_its_handshake_leaves_no_socket(tmp_path: Path) -> None:
    """Python 3.11 finds out in `wrap_socket`, and leaves the socket to the garbage collector."""
    skip_without_mosquitto()
    with running(Cloud(tmp_path / "cloud")) as cloud, socket.create_server(("127.0.0.1", 0)) as listener:
        context = cloud.endpoint("a").tls.context()
        peer = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        near.close()
        gc.collect()  # what others left is not this test's

        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with pytest.raises(OSError, match=r"reset|not connected|EOF"):
                context.wrap_socket(peer, server_hostname="localhost")
            gc.collect()

    assert told == []


async def test_stop_in_the_moment_of_a_connect_tells_of_no_failure(mosquitto: Broker) -> None:
    """asyncio told of "Future exception was never retrieved" on a service's standard error."""
    loop, told, sockets = asyncio.get_running_loop(), [], []
    connection = Connection(mosquitto.endpoint("a"))
    make = connection._new_client

    def stopped_at_once(*arguments: object) -> paho.Client:
        client = make(*arguments)
        connect = client.connect

        def connects(*to: object, **named: object) -> None:
            connect(*to, **named)
            sockets.append(client.socket())
            loop.call_soon_threadsafe(task.cancel)

        client.connect = connects
        return client

    connection._new_client = stopped_at_once
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, what: told.append(what["message"]))
    try:
        task = asyncio.create_task(connection.run())
        with pytest.raises(asyncio.CancelledError):
            await task
        heard = asyncio.Event()
        loop.call_soon(loop.call_soon, heard.set)  # what paho's thread had scheduled comes first
        await heard.wait()
        gc.collect()
    finally:
        loop.set_exception_handler(before)
    assert told == []
    await until(lambda: sockets[0].fileno() == -1, "its socket is closed, by whichever thread let go last")


async def test_connection_that_breaks_without_a_word_has_no_reason_code(tmp_path: Path) -> None:
    """paho's own word for it, 0x80, was passed on as the broker's."""
    skip_without_mosquitto()
    broker = Broker(MOSQUITTO, tmp_path / "silent", LIMITED)
    with running(broker):
        async with connected(broker.endpoint("a")) as connection:
            await stopped(broker)
            publish = asyncio.create_task(connection.publish("in/a", b"x"))
            await until(lambda: connection._pending, "it is on its way")
            broker.kill()

            with pytest.raises(NotConnected) as broke:
                await publish
    assert broke.value.code == 0
    assert "the connection broke" in str(broke.value)


async def test_session_is_renewed_at_once(mosquitto: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with connected(mosquitto.endpoint("a")) as connection:
        for _ in range(10):
            again = asyncio.Event()
            connection.on_connected = [again.set]
            connection.renew()
            await asyncio.wait_for(again.wait(), WAIT_S)
        await until(connection.connected.is_set, "connected")
        await connection.publish("in/a", b"x")

        assert not connection.twin
    assert not [one for one in caplog.records if one.levelname == "WARNING"]


async def test_absent_broker_is_tried_for_ever_and_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_runtime.mqtt_sessions.LONGEST_BACKOFF_S", 0.06)
    connection = Connection(Endpoint("127.0.0.1", 1, "a"))
    attempts = []
    real = connection._session
    connection._session = lambda: (attempts.append(1), real())[1]
    task = asyncio.create_task(connection.run())

    await until(lambda: len(attempts) > 5, "it tries again")

    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert [one.message for one in caplog.records] == ["mqtt_unreachable"]
    assert "refused" in connection.trouble.lower()
