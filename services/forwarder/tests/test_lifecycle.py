# SPDX-License-Identifier: Apache-2.0
"""Broker, cloud, certificates and the forwarder itself come and go in any order; nothing is lost and nobody gives up."""

import asyncio
import contextlib
import json
import random
import signal
import socketserver
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from brokers import (
    AT_THE_CLOUD,
    STATION,
    Broker,
    Cloud,
    connected,
    inspection,
    listening,
    make_certificates,
    until,
)
from forwarding import Forwarder, told_state

from linewatch_plant.processes import free_port
from linewatch_plant.uplink_cable import UplinkCable
from linewatch_runtime.mqtt import Subscriptions
from linewatch_runtime.publisher import Publisher
from linewatch_runtime.spool import Record, Spool, SpoolWorker, StreamLimit

pytestmark = pytest.mark.anyio

STATUS = "linewatch/v1/plant-1/device/forwarder/status"
STOP_S = 10.0


# --- in any order ----------------------------------------------------------------------------------------------------

STEPS = 20
EVENTS_EACH_STEP = 10
SEED = 20261121


@asynccontextmanager
async def producing(broker: Broker, folder: Path) -> AsyncIterator[SpoolWorker]:
    """A producer as capture is: a spool of its own, and the publisher."""
    worker = SpoolWorker(lambda: Spool(folder / "capture.db", StreamLimit()))
    subscriptions = Subscriptions([STATION.topic("committed")])
    async with connected(broker.endpoint("capture"), subscriptions, wait=False) as connection:
        task = asyncio.create_task(Publisher(worker, connection).run(), name="publisher")
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.wait([task])
            worker.close()


async def noticed(forwarder: Forwarder) -> None:
    """Returns when the forwarder has said something new, at the latest after the longest pause that it may be in."""
    before = len(forwarder.told())
    with contextlib.suppress(AssertionError):
        await until(lambda: len(forwarder.told()) > before, "it says something", 2.0)


async def test_broker_cloud_certificates_and_forwarder_come_and_go_in_any_order(
    mosquitto: Broker, cloud: Cloud, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    cable = UplinkCable("127.0.0.1", cloud.port)
    await cable.start()
    forwarder = Forwarder(tmp_path, mosquitto.port, **cloud.settings(cable.port))
    files = cloud.certificates
    good = {path: path.read_bytes() for path in (files.device_file, files.device_key_file)}
    order: list[tuple[str, bool]] = []

    def toggle_broker() -> None:
        if mosquitto.runs:
            mosquitto.kill()
        else:
            mosquitto.start()

    def toggle_cloud() -> None:
        if cable.is_cut:
            cable.mend()
        else:
            cable.cut()

    def toggle_certificates() -> None:
        path = chance.choice(list(good))
        if path.exists() and path.read_bytes() == good[path]:
            chance.choice([lambda: path.write_bytes(good[path][:200]), path.unlink])()
        else:
            for one, content in good.items():
                one.write_bytes(content)

    def end() -> None:
        for one, content in good.items():
            one.write_bytes(content)  # a start without them is refused, and says so
        if chance.random() < 0.5:
            forwarder.kill()
        else:
            assert forwarder.end(STOP_S) == 0

    async def started() -> None:
        before = len(forwarder.events("started"))
        forwarder.start()
        await until(lambda: len(forwarder.events("started")) > before, "it runs", 120)

    steps = [toggle_broker, toggle_broker, toggle_cloud, toggle_cloud, toggle_certificates, end]
    taken: list[str] = []
    try:
        async with (
            listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
            producing(mosquitto, tmp_path) as producer,
        ):
            await started()
            for _ in range(STEPS):
                batch = [
                    inspection(len(order) + n, "NG" if (len(order) + n) % 5 == 0 else "OK")
                    for n in range(EVENTS_EACH_STEP)
                ]
                order += [(event_id, b'"NG"' in payload) for event_id, payload in batch]
                records = [
                    Record(event_id, "capture", STATION.topic("inspection"), payload)
                    for event_id, payload in batch
                ]
                await producer.run(producer.spool.append, records)
                step = chance.choice(steps)
                taken.append(step.__name__)
                if step in {toggle_broker, end}:
                    await asyncio.to_thread(step)  # they wait
                else:
                    step()  # the cable is of this event loop
                await (started() if step is end else noticed(forwarder))
                assert forwarder.runs, f"ended after {taken}: {forwarder.told()[-2000:]}"
            for one, content in good.items():
                one.write_bytes(content)
            cable.mend()
            if not mosquitto.runs:
                await asyncio.to_thread(mosquitto.start)
            sent = {event_id for event_id, _ in order}

            await until(lambda: set(rule.ids) >= sent, f"all arrive after {taken}", 240)

            assert set(rule.ids) == sent
            first = list(dict.fromkeys(rule.ids))
            for wanted in (True, False):
                of_class = [event_id for event_id, is_alarm in order if is_alarm is wanted]
                assert [one for one in first if one in set(of_class)] == of_class, f"in order, after {taken}"
            assert forwarder.end(STOP_S) == 0
        assert "Traceback" not in forwarder.told()
    finally:
        forwarder.kill()
        await cable.stop()


# --- a network that is wrong in its own way --------------------------------------------------------------------------


@contextmanager
def babbling_peer() -> Iterator[int]:
    """A port where somebody speaks, but not TLS: a captive portal, a wrong port."""

    class Babble(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Babble) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("wrong", ["no such name", "refused", "no TLS", "another CA", "another name"])
async def test_network_that_is_wrong_ends_nothing_is_told_and_heals(
    mosquitto: Broker, forwarder: Forwarder, cloud: Cloud, tmp_path: Path, wrong: str
) -> None:
    right = dict(forwarder.environment)
    with babbling_peer() as babbling:
        forwarder.environment |= {
            "no such name": {"FORWARDER_UPLINK_HOST": "no-such-host.invalid"},
            "refused": {"FORWARDER_UPLINK_PORT": str(free_port())},
            "no TLS": {"FORWARDER_UPLINK_PORT": str(babbling)},
            "another CA": {"FORWARDER_UPLINK_CA_FILE": str(make_certificates(tmp_path / "other").ca_file)},
            "another name": {"FORWARDER_UPLINK_HOST": "ip6-loopback.invalid.localhost"},
        }[wrong]
        forwarder.start()
        async with (
            listening(mosquitto.endpoint("console"), STATUS) as console,
            listening(mosquitto.endpoint("capture"), STATION.topic("committed")) as capture,
        ):
            await until(lambda: len(forwarder.events("mqtt_connected")) == 2, "the device is connected", 120)
            events = [inspection(number) for number in range(10)]
            for _, payload in events:
                await capture.connection.publish(STATION.topic("inspection"), payload)
            await told_state(console, "offline-uplink", 120)
            await until(lambda: console.last(STATUS)["uplink"]["detail"], "it says why", 120)  # of DNS late
            await until(
                lambda: [one["events"] for one in console.last(STATUS)["streams"]] == [10], "they wait", 30
            )
            assert forwarder.runs
            assert forwarder.end(STOP_S) == 0

            forwarder.environment |= right
            async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
                forwarder.start()
                await until(lambda: len(set(rule.ids)) == 10, "all arrive", 120)
    assert rule.ids == [event_id for event_id, _ in events]
    assert "Traceback" not in forwarder.told()


# --- the end in time -------------------------------------------------------------------------------------------------


async def backlog(mosquitto: Broker, events: list[tuple[str, bytes]]) -> None:
    """Publishes and waits until all are committed."""
    async with listening(mosquitto.endpoint("capture"), STATION.topic("committed")) as capture:
        for _, payload in events:
            await capture.connection.publish(STATION.topic("inspection"), payload)
        wanted = {event_id for event_id, _ in events}

        def committed() -> set[str]:
            return {one for _, told in capture.heard for one in json.loads(told)["event_ids"]}

        await until(lambda: committed() >= wanted, "all are on disk", 120)


async def test_cloud_that_has_stopped_answering_holds_no_stop(
    mosquitto: Broker, forwarder: Forwarder, cloud: Cloud
) -> None:
    events = [inspection(number) for number in range(50)]
    forwarder.start()
    await until(lambda: len(forwarder.events("mqtt_connected")) == 3, "all is connected", 120)
    cloud.process.send_signal(signal.SIGSTOP)
    try:
        await backlog(mosquitto, events)

        begun = time.monotonic()
        assert await asyncio.to_thread(forwarder.end, STOP_S) == 0
        assert time.monotonic() - begun < STOP_S
    finally:
        cloud.process.send_signal(signal.SIGCONT)
    async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
        forwarder.start()
        # Those that the silent cloud had taken in already may come before anybody listens: they are repeats for it.
        await until(lambda: _settled(forwarder) == 50, "all are delivered", 120)
        assert set(rule.ids) <= {event_id for event_id, _ in events}


def _settled(forwarder: Forwarder) -> int:
    with contextlib.closing(
        sqlite3.connect(f"file:{forwarder.state_dir}/forwarder.db?mode=ro", uri=True)
    ) as db:
        return sum(
            row[0] for row in db.execute("SELECT value FROM counts WHERE name = 'settled' AND stream != ''")
        )


@contextmanager
def slow_disk(path: Path, commit_s: float) -> Iterator[threading.Event]:
    """Makes each commit to the file wait for about `commit_s`, as a card that erases does."""
    stop, held = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
            while not stop.is_set():
                db.execute("BEGIN IMMEDIATE")
                held.set()
                stop.wait(commit_s)
                db.execute("ROLLBACK")
                stop.wait(0.15)  # SQLite looks every 0.1 s

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield held
    finally:
        stop.set()
        thread.join()


async def test_slow_disk_holds_no_stop_and_loses_nothing_that_was_committed(
    mosquitto: Broker, forwarder: Forwarder, cloud: Cloud
) -> None:
    cloud.kill()
    forwarder.start()
    await until(lambda: len(forwarder.events("mqtt_connected")) == 2, "the device is connected", 120)
    events = [inspection(number) for number in range(100)]
    await backlog(mosquitto, events)
    with slow_disk(forwarder.state_dir / "forwarder.db", 1.0) as held:
        assert await asyncio.to_thread(held.wait, 120)
        async with listening(mosquitto.endpoint("more"), STATION.topic("committed")) as capture:
            late = [inspection(1000 + number) for number in range(20)]
            for _, payload in late:
                await capture.connection.publish(STATION.topic("inspection"), payload)

            begun = time.monotonic()
            assert await asyncio.to_thread(forwarder.end, STOP_S) == 0
            assert time.monotonic() - begun < STOP_S
    cloud.start()
    async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
        forwarder.start()
        await until(lambda: {event_id for event_id, _ in events} <= set(rule.ids), "all arrive", 120)
    assert "Traceback" not in forwarder.told()
