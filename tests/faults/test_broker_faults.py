# SPDX-License-Identifier: Apache-2.0
"""R6: a broker that dies, forgets, refuses, takes nothing large, or serves a twin; and garbage on every topic.

Nothing is lost, and each fault shows on the forwarder's metrics, read from its real endpoint. The aim is 5 s; how long
it took is told, and what fails the test is only that it never shows. The control of the kill tests is in test_kills.py.

Guards: runtime/linewatch_runtime/{mqtt,publisher}.py, services/forwarder.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from brokers import (
    MOSQUITTO,
    STATION,
    Broker,
    Child,
    Cloud,
    connected,
    inspection,
    listening,
    running,
    until,
)
from faults.gate import DOWN, PUBACK, UP, gate_before
from faults.producer import ids_made
from faults.sink import Sink, sinking
from forwarding import Forwarder, held_writes
from paho.mqtt.enums import CallbackAPIVersion
from prometheus_client.parser import text_string_to_metric_families

from linewatch_plant.processes import free_port
from linewatch_runtime.events import Place
from linewatch_runtime.mqtt import Endpoint, MqttError, Subscriptions
from linewatch_runtime.mqtt_client import SessionClient
from linewatch_runtime.publisher import Publisher
from linewatch_runtime.spool import Record, Spool, SpoolWorker

pytestmark = [pytest.mark.faults, pytest.mark.anyio, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261121
SHOWN_DEADLINE_S = 120.0
STREAM = "predictions-line-1"
RULE = ("linewatch/v1/+/+/+/inspection", "linewatch/v1/+/+/+/batch")
PRODUCER = Path(__file__).with_name("producer.py")
DYNAMIC_SECURITY = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")


@dataclass(slots=True)
class Line:
    """A forwarder between a device's broker and a cloud that counts; all run, and the forwarder tells its metrics."""

    folder: Path
    broker: Broker
    cloud: Cloud
    forwarder: Forwarder
    metrics_port: int
    sink: Sink
    told: list[str] = field(default_factory=list)

    def metric(self, name: str, **labels: str) -> float:
        """A metric's samples with these labels, added up; NaN while there is none."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        found = [
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == f"linewatch_{name}" and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else float("nan")

    async def shows(self, what: str, name: str, wanted: Callable[[float], bool], **labels: str) -> float:
        """Returns once the metric shows it; how many seconds that took is told."""
        began = time.monotonic()

        async def value() -> float:
            with contextlib.suppress(OSError):  # it starts this moment
                return await asyncio.to_thread(lambda: self.metric(name, **labels))
            return float("nan")

        while not wanted(seen := await value()):
            assert time.monotonic() - began < SHOWN_DEADLINE_S, f"{what}: {name} is still {seen}"
        took_s = time.monotonic() - began
        self.told.append(f"{what} after {took_s:.1f} s")
        return took_s

    async def all_arrive(self, event_ids: Sequence[str], deadline_s: float = 120) -> None:
        await until(lambda: not self.sink.lacks(event_ids), "every event arrives", deadline_s)

    def report(self, tally, expected: Sequence[str]) -> None:
        """Counts into the tally; every accepted event is one row, whatever came twice."""
        tally.accepted, tally.lost = len(expected), len(self.sink.lacks(expected))
        tally.doubled = self.rows() - self.sink_rows()
        tally.note = "; ".join([*self.told, f"{self.sink.repeats} repeats on the wire"])

    def rows(self) -> int:
        """Rows that the forwarder ever stored for the line."""
        path = self.forwarder.state_dir / "forwarder.db"
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as spool:
            return rows_of(spool)

    def sink_rows(self) -> int:
        """Distinct events of the line at the cloud."""
        return sum("/line-1/" in one.source for one in self.sink.first.values())


@asynccontextmanager
async def running_line(
    folder: Path, broker: Broker, cloud: Cloud, rule: Sequence[str] = RULE, *, port: int = 0, script: Path | None = None
) -> AsyncIterator[Line]:  # fmt: skip
    """The forwarder starts, and is connected at both ends. `port`: of a gate before the broker; `script`: a control."""
    metrics_port = free_port()
    forwarder = Forwarder(
        folder, port or broker.port, FORWARDER_METRICS_PORT=str(metrics_port), **cloud.settings()
    )
    if script:
        forwarder.command = [sys.executable, str(script)]
    async with sinking(cloud.endpoint("rule"), tuple(rule)) as sink:
        with running(forwarder):
            line = Line(folder, broker, cloud, forwarder, metrics_port, sink)
            await until(lambda: len(forwarder.events("mqtt_connected")) >= 3, "the forwarder is connected")
            await line.shows("connected", "forwarder_uplink_connected", lambda value: value == 1)
            line.told.clear()
            yield line
            assert forwarder.runs, forwarder.told()[-2000:]
            assert "Traceback" not in forwarder.told()


@pytest.fixture
async def line(mosquitto: Broker, cloud: Cloud, tmp_path: Path) -> AsyncIterator[Line]:
    async with running_line(tmp_path, mosquitto, cloud) as made:
        yield made


@dataclass(slots=True)
class Produced:
    """A producer in this process, with the product's own spool and publisher."""

    worker: SpoolWorker
    publisher: Publisher
    made: int = 0

    async def make(self, count: int, result: str = "OK", more: Mapping[str, object] | None = None) -> list[str]:  # fmt: skip
        """Events on this producer's disk, on their way. `more` goes into the data. Returns their ids."""
        events = [inspection(self.made + number + 1, result) for number in range(count)]
        self.made += count
        if more:
            events = [(name, _with(payload, more)) for name, payload in events]
        records = [
            Record(name, STREAM, STATION.topic("inspection"), payload, result != "OK")
            for name, payload in events
        ]
        await self.worker.run(self.worker.spool.append, records)
        self.publisher.wake()
        return [name for name, _ in events]

    async def left(self) -> int:
        """Events that the forwarder has not committed yet."""
        return len(await self.worker.run(self.worker.spool.oldest, 100_000))


def _with(payload: bytes, more: Mapping[str, object]) -> bytes:
    event = json.loads(payload)
    event["data"] |= more
    return json.dumps(event).encode()


@asynccontextmanager
async def producing(folder: Path, broker: Broker, *, wait: bool = True) -> AsyncIterator[Produced]:
    worker = SpoolWorker(lambda: Spool(folder / "capture.db"))
    committed = Subscriptions([STATION.topic("committed")], optional=True)
    try:
        async with connected(broker.endpoint("capture"), committed, wait=wait) as connection:
            publisher = Publisher(worker, connection)
            task = asyncio.create_task(publisher.run(), name="publisher")
            try:
                yield Produced(worker, publisher)
            finally:
                task.cancel()
                await asyncio.wait([task])
    finally:
        worker.close()


# --- it dies, and it forgets ------------------------------------------------------------------------------------------


async def test_broker_that_is_killed_again_and_again_loses_nothing(line: Line, tally, long: bool) -> None:
    kills = 50 if long else 10
    count, rate = (10_000, 150) if long else (800, 60)
    chance, enough = random.Random(SEED), line.folder / "enough"
    options = {
        "--port": line.broker.port,
        "--spool": line.folder / "capture.db",
        "--count": count,
        "--rate": rate,
        "--enough": enough,
    }
    producer = Child(
        [sys.executable, PRODUCER, *(part for pair in options.items() for part in pair)],
        line.folder / "producer.log",
    )
    shown_s: list[float] = []
    with running(producer):
        for number in range(kills):
            arrived = len(line.sink.first)
            await until(lambda: len(line.sink.first) > arrived, "events flow", 120)  # noqa: B023 - in this round
            await asyncio.sleep(chance.uniform(0, 0.3))  # where it dies is the point of the test
            line.broker.kill()
            if number % 5 == 0:
                shown_s.append(
                    await line.shows("a kill", "forwarder_broker_connected", lambda value: value == 0)
                )
            await asyncio.to_thread(line.broker.start)
        enough.touch()
        await until(lambda: ids_made(producer.told()), "the last event is made", 180)
        expected = ids_made(producer.told())
        await line.all_arrive(expected, 300)

    line.told = [f"{kills} kills of the broker, every fifth was looked for, shown after {max(shown_s):.1f} s"]
    line.report(tally, expected)
    assert (tally.lost, tally.doubled) == (0, 0)
    assert line.sink_rows() == len(expected) >= count


async def test_session_that_the_broker_forgot_costs_nothing(line: Line, tally) -> None:
    async with producing(line.folder, line.broker) as capture:
        first = await capture.make(10)
        await line.all_arrive(first)
        line.forwarder.kill()
        # They wait in the forwarder's session, on the broker's disk.
        async with listening(line.broker.endpoint("witness"), RULE[0]) as witness:
            second = await capture.make(20)
            await until(lambda: set(second) <= set(witness.ids), "the broker has them")
        state = next(line.folder.rglob("mosquitto.db"), None)
        os.kill(line.broker.process.pid, signal.SIGUSR1)
        await until(
            lambda: next(line.folder.rglob("mosquitto.db"), None), "the broker has saved its sessions"
        )
        state = next(line.folder.rglob("mosquitto.db"))
        line.broker.kill()
        state.unlink()
        line.broker.start()
        line.forwarder.start()
        third = await capture.make(10)

        await line.all_arrive(first + second + third)
        await line.shows("all stored", "forwarder_stored_total", lambda value: value == 40, stream=STREAM)

    line.report(tally, first + second + third)
    assert (tally.lost, tally.doubled) == (0, 0)


async def test_session_that_was_forgotten_under_a_running_forwarder_shows(line: Line, tally) -> None:
    async with producing(line.folder, line.broker) as capture:
        made = await capture.make(5)
        await line.all_arrive(made)

        line.broker.kill()
        for state in line.folder.rglob("mosquitto.db"):
            state.unlink()
        await line.shows("no broker", "forwarder_broker_connected", lambda value: value == 0)
        line.broker.start()

        await line.shows("a forgotten session", "mqtt_sessions_forgotten_total", lambda value: value >= 1)
        made += await capture.make(5)
        await line.all_arrive(made)
    line.report(tally, made)
    assert (tally.lost, tally.doubled) == (0, 0)


# --- it refuses -------------------------------------------------------------------------------------------------------


async def reloaded(cloud: Cloud) -> None:
    """Returns once mosquitto has read its files again: a publish before that would go by the old ones."""
    before = cloud.told().count("Reloading config.")
    os.kill(cloud.process.pid, signal.SIGHUP)
    await until(lambda: cloud.told().count("Reloading config.") > before, "it reads its files again")


async def test_publish_that_the_cloud_refuses_waits_and_shows(line: Line, tally) -> None:
    acl = line.folder / "cloud" / "acl"
    allowed = acl.read_text()
    async with producing(line.folder, line.broker) as capture:
        made = await capture.make(3)
        await line.all_arrive(made)
        acl.write_text("user device-1\ntopic read linewatch/#\n")
        await reloaded(line.cloud)

        made += await capture.make(5, "NG")
        await line.shows("a refusal", "forwarder_stream_refused", lambda value: value == 1, stream=STREAM)

        acl.write_text(allowed)
        await reloaded(line.cloud)
        await line.all_arrive(made)
        await line.shows("its end", "forwarder_stream_refused", lambda value: value == 0, stream=STREAM)
    line.report(tally, made)
    assert (tally.lost, tally.doubled) == (0, 0)


async def test_event_that_nobody_in_the_cloud_takes_waits_and_shows(
    mosquitto: Broker, cloud: Cloud, tmp_path: Path, tally
) -> None:
    nobody = ["linewatch/v1/+/+/+/nothing"]
    async with (
        running_line(tmp_path, mosquitto, cloud, nobody) as line,
        producing(tmp_path, mosquitto) as capture,
    ):
        made = await capture.make(5)
        await line.shows("no subscriber", "forwarder_stream_refused", lambda value: value == 1, stream=STREAM)
        await line.shows("what waits", "forwarder_backlog_events", lambda value: value == 5, stream=STREAM)
        assert not line.sink.first

        async with sinking(cloud.endpoint("rule-2"), RULE) as line.sink:
            await line.all_arrive(made)
            line.report(tally, made)
    assert (tally.lost, tally.doubled) == (0, 0)


SECURED = """\
listener {{port}} 127.0.0.1
allow_anonymous true
max_inflight_messages 200
max_queued_messages 0
max_queued_bytes 67108864
plugin {plugin}
plugin_opt_config_file {{folder}}/security.json
"""


class SecuredBroker(Broker):
    """A device's broker with an access list that refuses as MQTT 5 does: mosquitto's own acl_file refuses no subscription."""

    def __init__(self, folder: Path) -> None:
        if not DYNAMIC_SECURITY.exists():
            pytest.skip(f"mosquitto's dynamic security plugin is not at {DYNAMIC_SECURITY}")
        folder.mkdir(parents=True)
        self.rules = folder / "security.json"
        self.allow()
        super().__init__(MOSQUITTO, folder, SECURED.format(plugin=DYNAMIC_SECURITY))

    def allow(self, *denied: tuple[str, str]) -> None:
        """Everything but these (kind, topic) pairs; read at the next start."""
        acls = [{"acltype": kind, "topic": topic, "priority": 1, "allow": False} for kind, topic in denied]
        everything = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
        self.rules.write_text(
            json.dumps(
                {
                    "defaultACLAccess": dict.fromkeys(everything, True),
                    "clients": [],
                    "groups": [{"groupname": "all", "roles": [{"rolename": "all"}]}],
                    "roles": [{"rolename": "all", "acls": acls}],
                    "anonymousGroup": "all",
                }
            )
        )


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[SecuredBroker]:
    made = SecuredBroker(tmp_path / "secured")
    with running(made):
        yield made


@pytest.mark.parametrize(
    ("denied", "refusal", "metric", "shown"),
    [
        # The forwarder hears nothing: it is as good as without a broker.
        (
            ("subscribePattern", "linewatch/v1/plant-1/+/+/inspection"),
            "subscribe: 0x87",
            "forwarder_broker_connected",
            0,
        ),
        # It hears, and can tell no producer: what it stored is sent to it again and again.
        (
            ("publishClientSend", STATION.topic("committed")),
            "committed_refused",
            "forwarder_producers_untold",
            1,
        ),
    ],
    ids=["subscribe", "committed"],
)
async def test_local_broker_that_refuses_the_forwarder_shows_and_costs_nothing(
    denied: tuple[str, str], refusal: str, metric: str, shown: float, secured: SecuredBroker, cloud: Cloud, tmp_path: Path, tally
) -> None:  # fmt: skip
    async with running_line(tmp_path, secured, cloud) as line, producing(tmp_path, secured) as capture:
        made = await capture.make(3)
        await line.all_arrive(made)
        secured.kill()
        secured.allow(denied)
        secured.start()
        made += await capture.make(3)
        await until(lambda: refusal in line.forwarder.told(), "the broker refuses")

        await line.shows("a refusal", metric, lambda value: value == shown)
        assert await capture.left() > 0, "the producer keeps what it was not told"

        secured.kill()
        secured.allow()
        secured.start()
        await line.all_arrive(made)
        await line.shows("its end", metric, lambda value: value == 1 - shown)
        while await capture.left():  # noqa: ASYNC110 - pytest's timeout is the deadline
            await asyncio.sleep(0.05)
        line.report(tally, made)
    assert (tally.lost, tally.doubled) == (0, 0)


async def test_local_broker_that_refuses_capture_shows_there_and_costs_nothing(
    secured: SecuredBroker, cloud: Cloud, tmp_path: Path, tally
) -> None:
    machine, parts = Place("plant-1", "line-1", "machine-1"), 30
    secured.kill()
    secured.allow(("publishClientSend", machine.topic("inspection")))
    secured.start()
    inference_port, metrics_port = free_port(), free_port()
    inference = _service(
        tmp_path, "linewatch_inference", MODELS_DIR=ROOT / "models", TRUSTED_KEYS_DIR=ROOT / "models" / "trusted-keys",
        MODELS="turbofan", HOST="127.0.0.1", PORT=inference_port, MQTT_PORT=secured.port,
    )  # fmt: skip
    capture = _service(
        tmp_path, "linewatch_capture", LINE=machine.line, STATION=machine.station, SOURCE="records", RATE=20,
        PATH=ROOT / "plant" / "sample" / "turbofan" / "records.csv.gz", PARTS=parts, LOOP="true", MODEL="turbofan",
        INFERENCE_ADDRESS=f"127.0.0.1:{inference_port}", MQTT_PORT=secured.port, METRICS_PORT=metrics_port,
    )  # fmt: skip
    async with running_line(tmp_path, secured, cloud) as line:
        at_capture = replace(line, metrics_port=metrics_port)
        with running(inference), running(capture):
            await at_capture.shows("what waits", "capture_spool_events", lambda value: value == parts)
            await at_capture.shows("a refusal", "capture_spool_oldest_age_seconds", lambda value: value > 1)
            assert not line.sink_rows()

            secured.kill()
            secured.allow()
            secured.start()
            await until(lambda: line.sink_rows() == parts, "every event arrives", 180)
            await at_capture.shows("its end", "capture_spool_events", lambda value: value == 0)
    tally.accepted, tally.lost, tally.doubled = parts, 0, line.rows() - parts
    tally.note = "; ".join(line.told)
    assert tally.doubled == 0


def _service(folder: Path, module: str, **own: object) -> Child:
    """One of the device's services, not started."""
    prefix = module.removeprefix("linewatch_").upper()
    own = {"STATE_DIR": folder / module, "SITE": "plant-1", **own}
    environment = {f"{prefix}_{name}": str(value) for name, value in own.items()}
    return Child([sys.executable, "-m", module], folder / f"{module}.log", environment)


# --- too large, and twice the same ------------------------------------------------------------------------------------


async def test_event_over_the_clouds_limit_is_buried_shows_and_holds_up_nobody(
    mosquitto: Broker, tmp_path: Path, tally
) -> None:
    cloud = Cloud(tmp_path / "cloud")
    configuration = tmp_path / "cloud" / "mosquitto.conf"
    configuration.write_text(configuration.read_text() + "max_packet_size 8000\n")
    with running(cloud):
        async with (
            running_line(tmp_path, mosquitto, cloud) as line,
            producing(tmp_path, mosquitto) as capture,
        ):
            before = await capture.make(5)
            large = await capture.make(1, more={"part_id": "x" * 10_000})
            after = await capture.make(5)

            await line.shows(
                "an oversize event", "forwarder_buried_total", lambda value: value == 1, stream=STREAM
            )
            await line.all_arrive(before + after)
            assert line.sink.lacks(large)
            line.told.append("1 event over the limit is kept as a dead letter")
            line.report(tally, before + after)
            tally.doubled = 0
    assert tally.lost == 0


async def test_message_that_no_publish_can_carry_is_buried_at_the_door_and_shows(line: Line, tally) -> None:
    async with producing(line.folder, line.broker) as capture:
        large = await capture.make(1, more={"part_id": "x" * 140_000})
        after = await capture.make(5)

        await line.shows(
            "an oversize event", "forwarder_buried_total", lambda value: value == 1, stream=STREAM
        )
        await line.all_arrive(after)
        assert line.sink.lacks(large)
        line.report(tally, after)
        tally.doubled = 0
    assert tally.lost == 0


@contextmanager
def stranger(endpoint: Endpoint) -> Iterator[None]:
    """Another program with this client id, that comes back at once whenever its session is ended."""
    client = SessionClient(CallbackAPIVersion.VERSION2, endpoint.client_id, protocol=paho.MQTTv5)
    client.reconnect_delay_set(0.2, 0.2)
    if endpoint.tls:
        client.tls_set_context(endpoint.tls.context())
    client.connect_async(endpoint.host, endpoint.port)
    client.loop_start()
    try:
        yield
    finally:
        client.close()


@pytest.mark.parametrize("where", ["listener", "speaker", "uplink"])
async def test_twin_with_the_same_client_id_shows_and_costs_nothing(where: str, line: Line, tally) -> None:
    ids = {str(one["client_id"]) for one in line.forwarder.events("mqtt_connected")}
    of_broker = {role: one for role in ("listener", "speaker") for one in ids if one.endswith(role)}
    (of_uplink,) = ids - set(of_broker.values())
    endpoint = line.cloud.endpoint(of_uplink) if where == "uplink" else line.broker.endpoint(of_broker[where])
    async with producing(line.folder, line.broker) as capture:
        made = await capture.make(3)
        await line.all_arrive(made)
        with stranger(endpoint):
            made += await capture.make(10)
            await line.shows("a twin", "mqtt_twin", lambda value: value >= 1)
            made += await capture.make(10)

        await line.all_arrive(made)
    line.report(tally, made)
    assert (tally.lost, tally.doubled) == (0, 0)


# --- late, and unreadable ---------------------------------------------------------------------------------------------


NEW = 7
EVENT, COMMITTED = STATION.topic("inspection").encode(), STATION.topic("committed").encode()
PATIENT = Path(__file__).with_name("patient_forwarder.py")
ACKNOWLEDGES_OLD_MESSAGES = Path(__file__).with_name("acknowledge_old_messages.py")


async def _after_a_late_acknowledgement(
    broker: Broker, cloud: Cloud, folder: Path, tally, script: Path | None = None
) -> set[str]:
    """An old event is committed after the broker was replaced, its acknowledgement has the packet id of a new one, and
    the forwarder dies before the new one is on disk. Only the broker still has that, for it is published once.

    Returns the ids that never arrive.
    """
    made: list[str] = []
    async with (
        gate_before(broker.port) as gate,
        running_line(folder, broker, cloud, port=gate.port, script=script or PATIENT) as line,
        connected(broker.endpoint("speaker-of-the-test")) as speaker,
    ):

        async def publish(count: int) -> None:
            for _ in range(count):
                name, payload = inspection(len(made) + 1)
                made.append(name)
                await speaker.publish(STATION.topic("inspection"), payload)

        with held_writes(line.forwarder) as spool:
            gate.count(DOWN, EVENT)
            await publish(1)
            await until(lambda: gate.counted[DOWN, EVENT] == 1, "the forwarder has the old one in hand")
            sessions = len(line.forwarder.events("mqtt_connected"))
            broker.kill()
            broker.start()
            await until(
                lambda: len(line.forwarder.events("mqtt_connected")) >= sessions + 2,
                "the forwarder is back", 120,
            )  # fmt: skip
            await until(speaker.connected.is_set, "the test is back", 120)
            await publish(NEW)
            await until(lambda: gate.counted[DOWN, EVENT] >= 1 + NEW, "the new ones are on their way to it")
            # It hears no answer to its `committed`, which comes behind the acknowledgement: there it stands.
            gate.hold(DOWN)
            gate.count(UP, PUBACK)
            gate.count(UP, COMMITTED)
            spool.execute("ROLLBACK")
            await until(lambda: gate.counted[UP, COMMITTED], "it has told of the old one")
            if script:
                await until(lambda: gate.counted[UP, PUBACK], "the control has acknowledged it")
            assert rows_of(spool) == 1, "of the new ones none is on disk"
            line.forwarder.kill()
        gate.open()
        line.forwarder.start()
        await publish(1)
        await line.all_arrive(made[-1:] if script else made)
        if not script:
            line.told.append("killed between the two commits")
            line.report(tally, made)
        return line.sink.lacks(made)


async def test_acknowledgement_that_comes_after_a_reconnect_costs_no_new_event(
    mosquitto: Broker, cloud: Cloud, tmp_path: Path, tally
) -> None:
    ours, control = tmp_path / "ours", tmp_path / "control"
    ours.mkdir()
    control.mkdir()

    lost = await _after_a_late_acknowledgement(mosquitto, cloud, ours, tally)
    mosquitto.kill()
    fresh = Broker(MOSQUITTO, control / "broker")
    with running(fresh):
        lost_by_the_control = await _after_a_late_acknowledgement(
            fresh, cloud, control, tally, ACKNOWLEDGES_OLD_MESSAGES
        )

    tally.control_lost = len(lost_by_the_control)
    assert (len(lost), tally.doubled) == (0, 0)
    assert lost_by_the_control, "the control must lose an event, or the test sees nothing"


def rows_of(spool: sqlite3.Connection) -> int:
    """Rows that were ever stored for the line."""
    found = spool.execute(
        "SELECT value FROM counts WHERE stream = ? AND name = 'stored'", (STREAM,)
    ).fetchone()
    return int(found[0]) if found else 0


NESTED = b"[" * 50_000 + b"]" * 50_000
GARBAGE: Sequence[bytes] = (
    b"", b"\x00", b"\xff\xfe\x80", b"null", b"[]", b"{}", b"42", b'"text"', b"NaN", b'{"id": 1}', NESTED,
    b'{"event_ids": 5}', b'{"event_ids": [1, null, {"a": []}, "\\ud800"]}', b'{"id": "\\ud800", "type": "x"}',
    b'{"id": "#", "type": "+"}', b'{"id": "linewatch/#", "type": "InferenceCompleted", "data": []}',
    b'{"id": "", "type": ""}', b'[{"id": "a"}]', b'{"state": {"a": "' + b"x" * 20_000 + b'"}}', b"\xef\xbb\xbf{}",
)  # fmt: skip
KINDS = ("inspection", "engine", "committed", "batch", "status", "unheard-of")
WHERE = (
    STATION, Place("plant-1", "device", "forwarder"), Place("plant-1", "device", "inference"), Place("", "", ""),
    Place("plant-1", "no such line", "ü"), Place("plant-1", "predictions-line-1", "$SYS"), Place("plant-2", "line-1", "a"),
)  # fmt: skip


async def test_garbage_on_every_topic_ends_nothing_is_buried_and_shows(line: Line, tally) -> None:
    async with (
        producing(line.folder, line.broker) as capture,
        connected(line.broker.endpoint("garbage")) as speaker,
        listening(line.cloud.endpoint("witness"), *RULE, "linewatch/v1/+/+/+/status") as witness,
    ):
        made = await capture.make(5)
        sent = 0
        for retain in (False, True):
            for place in WHERE:
                for kind in KINDS:
                    for payload in GARBAGE:
                        # A broker may refuse a topic, and that is its right; a session that it ends comes back.
                        with contextlib.suppress(MqttError):
                            await speaker.publish(place.topic(kind), payload, retain=retain)
                            sent += 1
            made += await capture.make(5)

        await line.shows("garbage", "forwarder_buried_total", lambda value: value > len(GARBAGE))
        await line.all_arrive(made, 120)
        # Retained garbage comes again with every session.
        line.forwarder.kill()
        line.forwarder.start()
        made += await capture.make(5)
        await line.all_arrive(made)
        while await capture.left():  # noqa: ASYNC110 - pytest's timeout is the deadline
            await asyncio.sleep(0.05)
        line.told.append(f"{sent} messages of garbage")
        line.report(tally, made)
        strangers = [one for one in witness.heard if b"InferenceCompleted" not in one[1]]
    assert (tally.lost, strangers) == (0, [])
