# SPDX-License-Identifier: Apache-2.0
"""Capture as its users run it: a process that is killed, stopped, started twice and started wrong."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import paho.mqtt.client as paho
import pytest
from faults.volumes import Ballast, volume
from nucleus_ipc import NucleusIpc
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from linewatch_plant.processes import free_port
from linewatch_runtime.mqtt_client import SessionClient


def parts_of(events):
    return [event["data"]["part_id"] for event in events if "part_id" in event["data"]]


def test_no_kill_loses_or_doubles_a_part(capture, folder, inspector, spool_file, wait, a_verdict):
    path = folder(300)
    gates = {number: threading.Event() for number in (0, 7, 40)}
    reached = {number: threading.Event() for number in gates}

    def script(request, _context):
        number = int(request.encoded_image.data.rpartition(b" ")[2])
        if number in gates:
            reached[number].set()
            gates[number].wait(60)
        return a_verdict("NG" if number % 5 == 0 else "OK")

    inspector.script = script
    # Killed with a part asked and not recorded, before the first event and after some.
    for number, gate in gates.items():
        process = capture(path=path)
        assert reached[number].wait(60), process.said()
        process.end("kill")
        gate.set()
        assert len(spool_file.events()) == number
    # Killed at full speed, wherever it is.
    for count in (80, 150):
        process = capture(path=path)
        wait(lambda count=count: len(spool_file.events()) >= count)
        process.end("kill")

    process = capture(path=path)
    wait(lambda: spool_file.counts().get("sent", 0) >= 300)

    assert process.end() == 0
    events, counts = spool_file.events(), spool_file.counts()
    assert parts_of(events) == [f"cell_{number:04}.jpg" for number in range(300)]
    assert counts["sent"] == counts["judged"] == 300
    places = [(event["data"]["origin"]["epoch"], event["data"]["origin"]["sequence"]) for event in events]
    assert places == sorted(set(places))
    for epoch in {epoch for epoch, _ in places}:
        numbers = [sequence for own, sequence in places if own == epoch]
        assert numbers == list(range(1, len(numbers) + 1)), "no hole within an epoch"


def test_start_on_a_full_volume_waits_in_the_process_and_goes_on_when_there_is_room(
    capture, folder, wait, tmp_path
):
    path = folder(3)
    with volume("tmpfs", tmp_path / "disk", 4) as disk:
        process = capture(path=path, state_dir=disk.folder)
        wait(lambda: '"started"' in process.said())
        assert process.end() == 0
        ballast = Ballast(disk)
        ballast.fill()

        process = capture(path=path, state_dir=disk.folder)
        wait(lambda: '"waits_for_room"' in process.said())
        assert "the volume is full" in process.said()
        assert process.end() == 0, "SIGTERM ends the wait"

        process = capture(path=path, state_dir=disk.folder)
        wait(lambda: '"waits_for_room"' in process.said())
        ballast.take_away()
        wait(lambda: '"started"' in process.said())
        assert process.end() == 0


def test_what_the_disk_damaged_is_told_with_the_next_part(
    capture, folder, inspector, spool_file, wait, a_verdict, tmp_path
):
    gates = {number: threading.Event() for number in (100,)}

    def script(request, _context):
        number = int(request.encoded_image.data.rpartition(b" ")[2])
        if number in gates:
            gates[number].wait(60)
        return a_verdict("OK")

    inspector.script = script
    process = capture(path=folder(150))
    wait(lambda: len(spool_file.events()) == 100)
    process.end("kill")
    gates[100].set()
    with contextlib.closing(sqlite3.connect(tmp_path / "capture.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    page, data = 4096, (tmp_path / "capture.db").read_bytes()
    victim = next(
        at for at in range(len(data) - page, 0, -page) if data[at] == 13 and b"cell_005" in data[at:][:page]
    )
    (tmp_path / "capture.db").write_bytes(data[:victim] + b"\xff" * page + data[victim + page :])

    process = capture(path=tmp_path / "pictures")
    wait(lambda: "spool_salvaged" in process.said())
    wait(lambda: spool_file.counts().get("sent", 0) >= 150)

    assert process.end() == 0
    events, counts = spool_file.events(), spool_file.counts()
    (dropped,) = [event["data"] for event in events if event["type"] == "EventsDropped"]
    assert (dropped["stream"], dropped["reason"]) == ("predictions-line-1", "damaged")
    assert 0 < dropped["count"] <= 8
    assert len(parts_of(events)) == len(set(parts_of(events))) == 150 - dropped["count"]
    assert counts["sent"] == counts["judged"] == 150, "no part is judged twice"
    own = [
        event["data"]["origin"]
        for event in events
        if event["data"]["origin"]["epoch"] == dropped["origin"]["epoch"]
    ]
    assert [one["sequence"] for one in own] == list(range(1, len(own) + 1)), "no hole within an epoch"
    assert (tmp_path / "capture.db.damaged-1").exists()


def test_what_a_live_line_skipped_adds_up_after_a_kill(
    capture, folder, inspector, spool_file, wait, a_verdict
):
    gate = threading.Semaphore(3)
    inspector.script = lambda _request, _context: gate.acquire(timeout=60) and a_verdict()
    path = folder(60)
    process = capture(path=path, live=1, rate=100, loop=1)
    wait(lambda: len(inspector.asked) >= 4)
    process.end("kill")
    gate.release(1000)

    process = capture(path=path, live=1, rate=100, loop=1)
    wait(lambda: spool_file.counts().get("sent", 0) > 100)

    assert process.end() == 0
    events, counts = spool_file.events(), spool_file.counts()
    skipped = sum(event["data"]["count"] for event in events if event["type"] == "PartsSkipped")
    # On a busy machine a part's time may be up before it is asked for; that is told, too.
    inspected = counts["judged"] + counts.get("not_inspected", 0)
    assert counts["sent"] == inspected + counts.get("skipped", 0)
    assert skipped == counts.get("skipped", 0)
    assert len(parts_of(events)) == inspected


def test_a_second_capture_on_the_same_state_is_refused(capture, folder, wait):
    first = capture(path=folder(1))
    wait(lambda: '"started"' in first.said())

    second = capture(path=folder(1))

    assert second.process.wait(60) == 2
    assert "CAPTURE_STATE_DIR: another capture holds" in second.said()
    assert first.end() == 0


def test_what_cannot_be_used_is_told_before_anything_starts(capture, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wrong = {
            "CAPTURE_PATH: ": {"path": tmp_path / "empty"},
            "is not a directory": {"path": tmp_path / "missing"},
            "CAPTURE_PATH: can't be read": {"path": tmp_path / "missing.csv", "source": "records"},
            "CAPTURE_STATE_DIR: ": {"path": folder(1), "state_dir": tmp_path / "file"},
            "CAPTURE_EVIDENCE_DIR: ": {"path": folder(1), "evidence_dir": tmp_path / "file"},
            "CAPTURE_METRICS_PORT: can't listen": {"path": folder(1), "metrics_port": taken.getsockname()[1]},
        }
        processes = {told: capture(**settings) for told, settings in wrong.items()}

        for told, process in processes.items():
            assert process.process.wait(60) == 2, process.said()
            assert told.partition(": ")[0] in process.said()
            assert "Traceback" not in process.said()


def test_without_broker_and_inference_it_stays_up_and_says_so(capture, folder, inspector, tmp_path, wait):
    inspector.stop()
    process = capture(path=folder(2), heartbeat_file=tmp_path / "heartbeat")

    wait(lambda: '"waiting"' in process.said() and "mqtt_unreachable" in process.said())

    assert process.process.poll() is None
    assert not (tmp_path / "heartbeat").exists(), "healthy means that it reaches the device's broker"
    assert process.end() == 0


def test_broker_that_answers_nothing_holds_no_stop(capture, folder, spool_file, mosquitto, wait):
    process = capture(path=folder(3), mqtt_port=mosquitto.port)
    wait(lambda: '"mqtt_connected"' in process.said() and spool_file.counts().get("sent", 0) >= 3)
    mosquitto.process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert process.end() == 0
        took_s = time.monotonic() - begun
    finally:
        mosquitto.process.send_signal(signal.SIGCONT)
    assert took_s < 10, "README: stops within 10 s"


@pytest.fixture
def broker(tmp_path, wait):
    """The plant's broker as a process; its port."""
    port = free_port()
    from pathlib import Path

    plant = Path(__file__).resolve().parents[3] / "plant"
    process = subprocess.Popen(
        [sys.executable, "-m", "linewatch_plant.broker", "--port", str(port), "--state-dir", str(tmp_path / "broker")],
        env=os.environ | {"PYTHONPATH": str(plant)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def answers():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True

    wait(answers)
    yield port
    process.kill()
    process.wait(30)


@pytest.fixture
def forwarder(broker, wait):
    """Hears everything; `commit()` says that it is on its disk."""

    class Forwarder:
        def __init__(self):
            self.heard = []
            self.client = SessionClient(CallbackAPIVersion.VERSION2, "forwarder", protocol=paho.MQTTv5)
            self.client.on_message = lambda _c, _u, message: self.heard.append(
                (message.topic, json.loads(message.payload))
            )
            ready = threading.Event()
            self.client.on_subscribe = lambda *_: ready.set()
            self.client.connect("127.0.0.1", broker)
            self.client.loop_start()
            self.client.subscribe("linewatch/v1/+/+/+/+", options=SubscribeOptions(qos=1))
            assert ready.wait(30)

        def events(self):
            return [event for topic, event in list(self.heard) if topic.endswith("/inspection")]

        def status(self):
            statuses = [status for topic, status in list(self.heard) if topic.endswith("/status")]
            return statuses[-1] if statuses else {}

        def commit(self, event_ids):
            body = json.dumps({"event_ids": event_ids})
            self.client.publish(
                "linewatch/v1/plant-1/line-1/station-1/committed", body, qos=1
            ).wait_for_publish(30)

    made = Forwarder()
    yield made
    made.client.close()


def is_at_rest(status):
    return status["state"] == "stopped" and status["spool"]["events"] == 0


def test_events_leave_when_the_forwarder_has_them_and_the_status_tells(
    capture, folder, broker, forwarder, spool_file, wait
):
    process = capture(path=folder(5), mqtt_port=broker)
    wait(lambda: len({event["id"] for event in forwarder.events()}) == 5)

    assert len(spool_file.events()) == 5, "the broker's acknowledgement is not the forwarder's"
    forwarder.commit([event["id"] for event in forwarder.events()])
    wait(lambda: spool_file.events() == [])
    # Not the first one, from before there was a part: of that one the spool is empty, too.
    status = wait(lambda: (told := forwarder.status()).get("sent") == 5 and is_at_rest(told) and told)
    assert "source has ended" in status["detail"]
    assert {name: status[name] for name in ("sent", "judged", "model", "source")} == {
        "sent": 5, "judged": 5, "model": "pv-el-cells", "source": "folder",
    }  # fmt: skip

    process.end("kill")
    wait(lambda: forwarder.status() == {"state": "offline"})

    again = capture(path=folder(5), mqtt_port=broker)
    wait(lambda: forwarder.status().get("state") == "stopped")
    assert again.end() == 0
    wait(lambda: forwarder.status().get("detail") == "the process was stopped")
    before = len(forwarder.heard)
    forwarder.client.subscribe(
        "linewatch/v1/plant-1/line-1/station-1/status", options=SubscribeOptions(qos=1)
    )
    wait(lambda: len(forwarder.heard) > before)  # as it is retained
    assert (forwarder.status()["state"], forwarder.status().get("detail")) == (
        "offline",
        "the process was stopped",
    )


@pytest.fixture
def nucleus(tmp_path, monkeypatch):
    """A nucleus, and its variables for the processes that are started."""
    ipc = NucleusIpc(tmp_path / "ipc.socket", tokens={"capture"})
    for name, value in ipc.environment("capture").items():
        monkeypatch.setenv(name, value)
    with ipc:
        yield ipc


def test_it_is_healthy_and_running_to_the_nucleus_once_the_broker_is_reached(
    capture, folder, inspector, broker, nucleus, tmp_path, wait
):
    inspector.stop()
    heartbeat = tmp_path / "heartbeat"
    offline = capture(path=folder(2), heartbeat_file=heartbeat)
    wait(lambda: "nucleus_connected" in offline.said() and "mqtt_unreachable" in offline.said())
    assert nucleus.states == []
    assert offline.end() == 0

    process = capture(path=folder(2), heartbeat_file=heartbeat, mqtt_port=broker)

    nucleus.wait_for_state("capture")
    wait(heartbeat.exists)
    wait(lambda: '"waiting"' in process.said())  # inference is away, which is not capture's illness
    assert process.end() == 0


def test_an_update_waits_for_the_part_under_inspection(
    capture, folder, inspector, broker, nucleus, a_verdict, wait
):
    gate = threading.Event()
    inspector.script = lambda _request, _context: gate.wait(60) and a_verdict()
    process = capture(path=folder(2), mqtt_port=broker, loop=1, parts=2)
    nucleus.wait_for_subscribers(1)
    wait(lambda: inspector.asked)

    assert nucleus.ask_to_update("deployment-1") == {"capture": 1000}
    gate.set()
    assert nucleus.update("deployment-1") < 15
    assert [one.recheck_after_ms for one in nucleus.deferrals][-1] == 0
    assert process.end() == 0
