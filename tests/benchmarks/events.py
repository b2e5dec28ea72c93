# SPDX-License-Identifier: Apache-2.0
"""How fast events go from MQTT to disk and from disk to the cloud, as ratios to simpler things that promise less.

    .venv/bin/python tests/benchmarks/events.py [--events 20000]

In one run, on one machine: the bare broker (mosquitto, nothing on disk), bare SQLite (one table, the same groups, FULL),
the forwarder from MQTT to its durable row, its drain to a cloud over mutual TLS as it is paced by default and without a
pace, and a mosquitto bridge that drains the same events over the same TLS. Needs mosquitto. Ratios are what to read.
"""

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import paho.mqtt.client as paho
from brokers import (
    MOSQUITTO,
    MOSQUITTO_PROGRAM,
    NO_MOSQUITTO,
    STATION,
    Broker,
    Cloud,
    inspection,
    running,
    wait_for,
)
from faults.sink import Sink, sinking
from forwarding import Forwarder
from paho.mqtt.enums import CallbackAPIVersion

from linewatch_runtime.mqtt_client import SessionClient

TOPIC = STATION.topic("inspection")
GROUP = 200
IN_FLIGHT = 500
RATE_FOR_LATENCY = 200.0
DEADLINE_S = 300.0
_ROOM = str(512 * 1024 * 1024)
UNPACED = {"FORWARDER_UPLINK_RATE": "100000", "FORWARDER_UPLINK_BYTES_PER_S": "1000000000"}


def made(count: int) -> list[tuple[str, bytes]]:
    """Events as capture makes them; every twentieth is a bad part."""
    return [inspection(number, "NG" if number % 20 == 0 else "OK") for number in range(1, count + 1)]


class Load:
    """A client with many messages in flight that counts what came back on one topic, by what the payload holds."""

    def __init__(self, port: int, hears: str, ids: Callable[[bytes], list[str]]) -> None:
        self.heard: dict[str, float] = {}
        self._ids = ids
        self._subscribed = threading.Event()
        self._client = SessionClient(
            CallbackAPIVersion.VERSION2, f"load-{time.monotonic_ns()}", protocol=paho.MQTTv5
        )
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.max_queued_messages_set(0)
        self._client.on_connect = lambda client, *_: client.subscribe(hears, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def _message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        now = time.perf_counter()
        for one in self._ids(message.payload):
            self.heard.setdefault(one, now)

    def publish(self, payload: bytes) -> None:
        self._client.publish(TOPIC, payload, qos=1)

    def close(self) -> None:
        self._client.close()


def _own_id(payload: bytes) -> list[str]:
    return [json.loads(payload)["id"]]


def _committed(payload: bytes) -> list[str]:
    return json.loads(payload)["event_ids"]


def through(load: Load, events: list[tuple[str, bytes]], again: bool = False) -> float:
    """Events per second from the first publish to the last answer. `again`: what has no answer is sent again."""
    started = time.perf_counter()
    for _, payload in events:
        load.publish(payload)
    end, patience = time.monotonic() + DEADLINE_S, time.monotonic() + 5.0
    while len(load.heard) < len(events):
        assert time.monotonic() < end, f"{len(load.heard)} of {len(events)} answered"
        if again and time.monotonic() > patience:
            patience = time.monotonic() + 5.0
            for event_id, payload in events:
                if event_id not in load.heard:
                    load.publish(payload)
        time.sleep(0.002)
    return len(events) / (max(load.heard.values()) - started)


@contextmanager
def loading(broker: Broker, hears: str, ids: Callable[[bytes], list[str]]) -> Iterator[Load]:
    load = Load(broker.port, hears, ids)
    try:
        yield load
    finally:
        load.close()


def bare_broker(folder: Path, events: list[tuple[str, bytes]]) -> float:
    broker = Broker(MOSQUITTO, folder / "bare")
    with running(broker), loading(broker, TOPIC, _own_id) as load:
        return through(load, events)


def bare_sqlite(folder: Path, events: list[tuple[str, bytes]]) -> float:
    """Rows per second into one table, GROUP to a commit, WAL and FULL."""
    db = sqlite3.connect(folder / "bare.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE events (event_id TEXT PRIMARY KEY, payload BLOB NOT NULL)")
    started = time.perf_counter()
    for first in range(0, len(events), GROUP):
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO events VALUES (?, ?)", events[first : first + GROUP])
        db.execute("COMMIT")
    seconds = time.perf_counter() - started
    db.close()
    return len(events) / seconds


def latency_ms(load: Load, events: list[tuple[str, bytes]]) -> list[float]:
    """From publish to the forwarder's word that the event is on disk, at a steady rate, sorted."""
    sent: dict[str, float] = {}
    started = time.perf_counter()
    for number, (event_id, payload) in enumerate(events):
        while time.perf_counter() < started + number / RATE_FOR_LATENCY:
            time.sleep(0.0005)
        sent[event_id] = time.perf_counter()
        load.publish(payload)
    wait_for(lambda: sent.keys() <= load.heard.keys(), "all are committed", 30)
    return sorted((load.heard[name] - at) * 1000 for name, at in sent.items())


def mqtt_to_disk(folder: Path, events: list[tuple[str, bytes]]) -> tuple[float, list[float], int]:
    """Events per second to the durable row, latencies in ms at RATE_FOR_LATENCY, bytes on disk per event."""
    broker = Broker(MOSQUITTO, folder / "broker")
    cloud = Cloud(folder / "no-cloud")
    forwarder = Forwarder(
        folder / "to-disk", broker.port, **cloud.settings(), FORWARDER_STREAM_MAX_BYTES=_ROOM
    )
    forwarder.state_dir.mkdir(parents=True)
    with running(broker), running(forwarder):
        wait_for(lambda: len(forwarder.events("mqtt_connected")) == 2, "the forwarder listens", 20)
        with loading(broker, STATION.topic("committed"), _committed) as load:
            slow = latency_ms(load, made(int(RATE_FOR_LATENCY * 15)))
        with loading(broker, STATION.topic("committed"), _committed) as load:
            rate = through(load, events, again=True)
        files = forwarder.state_dir.glob("forwarder.db*")
        size = sum(one.stat().st_size for one in files) // (len(events) + len(slow))
    return rate, slow, size


async def drain(folder: Path, events: list[tuple[str, bytes]], more: dict[str, str]) -> tuple[float, Sink]:
    """Events per second from the first to the last arrival at a cloud that was away while they were stored."""
    broker, cloud = Broker(MOSQUITTO, folder / "broker"), Cloud(folder / "cloud")
    forwarder = Forwarder(folder, broker.port, **cloud.settings(), FORWARDER_STREAM_MAX_BYTES=_ROOM, **more)
    forwarder.state_dir.mkdir(parents=True)
    with running(broker), running(forwarder):
        await asyncio.to_thread(
            wait_for, lambda: len(forwarder.events("mqtt_connected")) == 2, "it listens", 20
        )
        with loading(broker, STATION.topic("committed"), _committed) as load:
            await asyncio.to_thread(through, load, events, again=True)
        with running(cloud):
            return await _arrivals(cloud, len(events))


async def bridge(folder: Path, events: list[tuple[str, bytes]]) -> float:
    """The same from a mosquitto bridge's queue, which is in memory."""
    cloud = Cloud(folder / "cloud")
    files = cloud.certificates
    broker = Broker(
        MOSQUITTO, folder / "broker",
        "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 10000000\nmax_inflight_messages 1000\n"
        f"connection cloud\naddress localhost:{cloud.port}\ntopic linewatch/# out 1\ncleansession false\n"
        f"bridge_cafile {files.ca_file}\nbridge_certfile {files.device_file}\nbridge_keyfile {files.device_key_file}\n"
        "bridge_protocol_version mqttv50\nrestart_timeout 1 1\n",
    )  # fmt: skip
    with running(broker):
        with loading(broker, TOPIC, _own_id) as load:
            await asyncio.to_thread(through, load, events)
        with running(cloud):
            return (await _arrivals(cloud, len(events)))[0]


async def _arrivals(cloud: Cloud, count: int) -> tuple[float, Sink]:
    async with sinking(cloud.endpoint("sink")) as sink:
        end = time.monotonic() + DEADLINE_S
        while len(sink.first) < count:
            assert time.monotonic() < end, f"{len(sink.first)} of {count} arrived"
            await asyncio.sleep(0.02)
        times = [one.at for one in sink.first.values()]
        return (count - 1) / (max(times) - min(times)), sink


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=20_000)
    count = parser.parse_args().events
    if MOSQUITTO_PROGRAM is None:
        sys.exit(NO_MOSQUITTO)
    events = made(count)
    with tempfile.TemporaryDirectory(prefix="linewatch-events-") as place:
        folder = Path(place)
        folders = {name: folder / name for name in ("disk", "paced", "unpaced", "bridge")}
        for one in folders.values():
            one.mkdir()
        broker_rate = bare_broker(folder, events)
        sqlite_rate = bare_sqlite(folder, events)
        disk_rate, slow, size = mqtt_to_disk(folders["disk"], events)
        paced, _ = asyncio.run(drain(folders["paced"], made(min(count, 10_000)), {}))
        free, sink = asyncio.run(drain(folders["unpaced"], made(count), UNPACED))
        bridged = asyncio.run(bridge(folders["bridge"], made(count)))
    payload = statistics.mean(len(payload) for _, payload in events)
    told = subprocess.run(
        [MOSQUITTO_PROGRAM, "-h"], capture_output=True, text=True, check=False
    ).stdout.split("\n")[0]
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}; {told}; {count} events of {payload:.0f} bytes"
    )
    for name, value in (
        ("bare broker, nothing on disk, events/s", f"{broker_rate:8.0f}"),
        ("bare SQLite, FULL, 200 to a commit, rows/s", f"{sqlite_rate:8.0f}"),
        ("MQTT to durable row, events/s", f"{disk_rate:8.0f}   {disk_rate / broker_rate:.2f} of the bare broker"),
        (f"publish to durable at {RATE_FOR_LATENCY:g}/s, ms", _percentiles(slow)),
        ("bytes on disk per waiting event", f"{size:8d}"),
        ("drain to the cloud as paced by default, events/s", f"{paced:8.0f}"),
        ("drain without a pace, events/s", f"{free:8.0f}   {free / bridged:.2f} of the bridge; {count / sink.publishes:.1f} events a publish"),
        ("mosquitto bridge, queue in memory, events/s", f"{bridged:8.0f}"),
    ):  # fmt: skip
        print(f"{name:52} {value}")


def _percentiles(values: list[float]) -> str:
    return f"p50 {values[len(values) // 2]:.1f}, p99 {values[int(len(values) * 0.99)]:.1f}"


if __name__ == "__main__":
    main()
