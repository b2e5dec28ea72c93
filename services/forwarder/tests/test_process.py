# SPDX-License-Identifier: Apache-2.0
"""The forwarder as a process: settings, start, outages, stop."""

import json
import math
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from brokers import (
    AT_THE_CLOUD,
    STATION,
    Broker,
    Certificates,
    Cloud,
    connected,
    inspection,
    issue,
    listening,
    make_certificates,
    until,
    wait_for,
)
from forwarding import Forwarder, told_state
from nucleus_ipc import NucleusIpc

from linewatch_plant.processes import free_port
from linewatch_runtime.mqtt import Subscriptions

STATUS = "linewatch/v1/plant-1/device/forwarder/status"
STOP_S = 10.0


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "certificates")


@pytest.fixture
def offline(tmp_path: Path, certificates: Certificates) -> Iterator[Forwarder]:
    """A forwarder that reaches neither broker nor cloud; not started."""
    made = Forwarder(
        tmp_path, free_port(), FORWARDER_UPLINK_HOST="localhost", FORWARDER_UPLINK_PORT=str(free_port()),
        FORWARDER_UPLINK_CA_FILE=str(certificates.ca_file),
        FORWARDER_UPLINK_CERTIFICATE_FILE=str(certificates.device_file),
        FORWARDER_UPLINK_KEY_FILE=str(certificates.device_key_file),
    )  # fmt: skip
    yield made
    made.kill()


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return answer.read().decode()


# --- a start that can't be ------------------------------------------------------------------------------------------


def refused(forwarder: Forwarder, *command: str) -> str:
    run = subprocess.run(
        [*command, *forwarder.command], env=forwarder.environment, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    return run.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FORWARDER_UPLINK_HOST", ""), ("FORWARDER_UPLINK_CA_FILE", ""), ("FORWARDER_UPLINK_KEY_FILE", "/no/such"),
        ("FORWARDER_STREAM_MAX_BYTES", "1"), ("FORWARDER_WHEN_FULL", "panic"), ("FORWARDER_UPLINK_RATE", "0"),
        ("FORWARDER_UPLINK_RAET", "5"), ("FORWARDER_UPLINK", "ipc"), ("FORWARDER_METRICS_PORT", "70000"),
    ],
)  # fmt: skip
def test_wrong_setting_ends_the_start_and_is_named(offline: Forwarder, name: str, value: str) -> None:
    offline.environment[name] = value

    assert refused(offline).startswith(name)
    assert not offline.state_dir.exists()


def test_client_id_of_the_nucleus_is_refused_with_the_remedy(offline: Forwarder) -> None:
    offline.environment |= {
        "AWS_IOT_THING_NAME": "plant-1-device-1",
        "FORWARDER_UPLINK_CLIENT_ID": "plant-1-device-1",
    }
    said = refused(offline)
    assert said.startswith("FORWARDER_UPLINK_CLIENT_ID: plant-1-device-1 is the Greengrass nucleus's own")

    offline.environment["FORWARDER_UPLINK_CLIENT_ID"] = "plant-1-device-1-forwarder"
    offline.start()
    wait_for(lambda: offline.events("started"), "its own name will do")


def test_uplink_file_that_can_not_be_used_is_named_with_the_remedy(
    offline: Forwarder, certificates: Certificates, tmp_path: Path
) -> None:
    ca, certificate, key = (f"FORWARDER_UPLINK_{name}_FILE" for name in ("CA", "CERTIFICATE", "KEY"))
    damaged = tmp_path / "damaged.pem"
    damaged.write_bytes(certificates.device_file.read_bytes()[:200] + b"\n-----END CERTIFICATE-----\n")
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    wrong = [
        (ca, tmp_path / "none.pem", "there is no such file"),
        (certificate, tmp_path, "is a directory"),
        (ca, certificates.device_key_file, "does not hold, in PEM form, a CA certificate"),
        (certificate, certificates.device_key_file, "does not hold, in PEM form, a certificate"),
        (key, certificates.device_file, "does not hold, in PEM form, a private key"),
        (key, encrypted, "decrypt it"),
        (key, certificates.server_key_file, "is not the key of"),
        (ca, damaged, "is damaged"),
    ]
    for name, path, told in wrong:
        right = offline.environment[name]
        offline.environment[name] = str(path)
        said = refused(offline)
        assert said.startswith(f"{name}: "), said
        assert told in said
        offline.environment[name] = right
    offline.environment[certificate] = str(damaged)
    assert refused(offline).startswith(f"{certificate}, {key}: ")


def test_uplink_key_of_another_user_is_named_with_who_may_read_it(
    offline: Forwarder, certificates: Certificates
) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, with setpriv")
    key = Path(tempfile.mkdtemp(dir="/tmp")) / "key.pem"  # other users may not enter pytest's folders
    key.parent.chmod(0o755)
    shutil.copy(certificates.device_key_file, key)
    key.chmod(0o400)
    offline.environment["FORWARDER_UPLINK_KEY_FILE"] = str(key)
    for name in ("CA", "CERTIFICATE"):
        copy = shutil.copy(offline.environment[f"FORWARDER_UPLINK_{name}_FILE"], key.parent / f"{name}.pem")
        copy.chmod(0o444)
        offline.environment[f"FORWARDER_UPLINK_{name}_FILE"] = str(copy)

    said = refused(offline, "setpriv", "--reuid=10001", "--regid=10001", "--clear-groups")

    assert said.startswith(f"FORWARDER_UPLINK_KEY_FILE: {key}: user 10001 may not read it")
    shutil.rmtree(key.parent)


def test_taken_metrics_port_ends_the_start_and_is_named(offline: Forwarder) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        offline.environment["FORWARDER_METRICS_PORT"] = str(taken.getsockname()[1])

        assert refused(offline).startswith("FORWARDER_METRICS_PORT: can't listen")


def test_state_directory_that_can_not_be_made_or_opened_is_named(offline: Forwarder) -> None:
    offline.state_dir.write_text("a file is in the way")
    assert refused(offline).startswith("FORWARDER_STATE_DIR: ")
    offline.state_dir.unlink()
    (offline.state_dir / "forwarder.db").mkdir(parents=True)

    assert refused(offline).startswith("FORWARDER_STATE_DIR: ")


def test_state_directory_that_can_not_be_written_is_named(offline: Forwarder) -> None:
    offline.environment["FORWARDER_STATE_DIR"] = "/proc"  # root can write anywhere else

    assert refused(offline).startswith("FORWARDER_STATE_DIR: ")


def test_damaged_spool_is_kept_beside_a_new_one_and_the_service_starts(offline: Forwarder) -> None:
    offline.state_dir.mkdir()
    (offline.state_dir / "forwarder.db").write_bytes(b"no database" * 1000)

    offline.start()
    wait_for(lambda: offline.events("started"), "it starts all the same")

    assert offline.events("spool_salvaged")
    assert (offline.state_dir / "forwarder.db.damaged-1").read_bytes() == b"no database" * 1000


def test_second_forwarder_on_the_same_state_is_refused(offline: Forwarder) -> None:
    offline.start()
    wait_for(lambda: offline.events("started"), "the first one runs")

    assert refused(offline).startswith("FORWARDER_STATE_DIR: another forwarder holds")
    assert offline.runs


# --- life -----------------------------------------------------------------------------------------------------------


def test_forwarder_without_broker_and_cloud_stays_up_and_stops_in_time(offline: Forwarder) -> None:
    offline.start()
    wait_for(lambda: len(offline.events("mqtt_unreachable")) >= 3, "it says what it can't reach")
    assert offline.runs

    begun = time.monotonic()

    assert offline.end(STOP_S) == 0
    assert time.monotonic() - begun < STOP_S
    assert "Traceback" not in offline.told()


def test_it_is_healthy_and_running_to_the_nucleus_with_the_broker_and_without_the_cloud(
    offline: Forwarder, mosquitto: Broker, tmp_path: Path
) -> None:
    heartbeat = tmp_path / "heartbeat"
    offline.environment["FORWARDER_HEARTBEAT_FILE"] = str(heartbeat)
    with NucleusIpc(tmp_path / "ipc.socket", tokens={"forwarder"}) as nucleus:
        offline.environment |= nucleus.environment("forwarder")
        offline.start()
        wait_for(lambda: offline.events("nucleus_connected"), "the nucleus is reached")
        wait_for(lambda: len(offline.events("mqtt_unreachable")) >= 3, "it says what it can't reach")
        assert (nucleus.states, heartbeat.exists()) == ([], False)
        assert offline.end(STOP_S) == 0

        offline.environment["FORWARDER_MQTT_PORT"] = str(mosquitto.port)
        offline.start()
        nucleus.wait_for_state("forwarder", timeout_s=120)
        wait_for(heartbeat.exists, "the heartbeat")
        assert offline.end(STOP_S) == 0


@contextmanager
def silent_peer() -> Iterator[int]:
    """A port that takes connections and says nothing, as a cloud behind a broken proxy does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_peer_that_says_nothing_holds_no_stop(offline: Forwarder) -> None:
    with silent_peer() as port:
        offline.environment["FORWARDER_UPLINK_PORT"] = str(port)
        offline.environment["FORWARDER_MQTT_PORT"] = str(port)
        offline.start()
        wait_for(lambda: offline.events("started"), "it runs")

        begun = time.monotonic()

        assert offline.end(STOP_S) == 0
        assert time.monotonic() - begun < 5


@pytest.mark.anyio
async def test_backlog_grows_while_the_uplink_is_away_and_drains_when_it_is_back(
    mosquitto: Broker, forwarder: Forwarder, cloud: Broker, tmp_path: Path
) -> None:
    cloud.kill()
    port = free_port()
    heartbeat = tmp_path / "heartbeat"
    forwarder.environment |= {
        "FORWARDER_METRICS_PORT": str(port), "FORWARDER_HEARTBEAT_FILE": str(heartbeat),
    }  # fmt: skip
    forwarder.start()
    async with (
        listening(mosquitto.endpoint("console"), STATUS) as console,
        connected(mosquitto.endpoint("capture"), Subscriptions([STATION.topic("committed")])) as capture,
    ):
        await told_state(console, "offline-uplink")
        await until(lambda: len(forwarder.events("mqtt_connected")) == 2, "it hears, too")
        events = [inspection(number, "NG" if number % 5 == 0 else "OK") for number in range(100)]
        for _, payload in events:
            await capture.publish(STATION.topic("inspection"), payload)
        await until(lambda: _backlog(console) == 100, "the backlog is told")
        wait_for(
            lambda: 'backlog_events{stream="predictions-line-1"} 100.0' in metrics(port), "and in the metrics"
        )
        wait_for(heartbeat.exists, "the cloud being away is no illness of the device")
        assert forwarder.runs
        assert forwarder.end(STOP_S) == 0
        await told_state(console, "stopped")
        async with listening(mosquitto.endpoint("who comes later"), STATUS) as late:
            await until(lambda: late.last(STATUS), "the last word is retained")
        assert late.last(STATUS)["state"] == "stopped"

        cloud.start()
        async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
            forwarder.start()
            await until(lambda: len(set(rule.ids)) == 100, "all arrive", 120)

        told = await told_state(console, "online")
        assert told["uplink"]["connected"]
        assert [event_id for event_id, _ in events if event_id not in rule.ids] == []
        wait_for(
            lambda: 'delivered_total{stream="predictions-line-1"} 100.0' in metrics(port), "the count is told"
        )


@pytest.mark.anyio
async def test_without_an_uplink_events_wait_here_and_go_out_once_there_is_one(
    mosquitto: Broker, forwarder: Forwarder, cloud: Broker
) -> None:
    uplink = {name: value for name, value in forwarder.environment.items() if "UPLINK" in name}
    for name in uplink:
        del forwarder.environment[name]
    forwarder.environment["FORWARDER_UPLINK"] = "none"
    forwarder.start()
    async with (
        listening(mosquitto.endpoint("console"), STATUS) as console,
        connected(mosquitto.endpoint("capture"), Subscriptions([STATION.topic("committed")])) as capture,
    ):
        await told_state(console, "offline-uplink")
        await until(lambda: len(forwarder.events("mqtt_connected")) == 2, "it hears, too")
        events = [inspection(number) for number in range(20)]
        for _, payload in events:
            await capture.publish(STATION.topic("inspection"), payload)
        await until(lambda: _backlog(console) == 20, "the backlog is told")
        told = console.last(STATUS)
        assert "no uplink is set up" in told["uplink"]["detail"]
        assert forwarder.end(STOP_S) == 0

        del forwarder.environment["FORWARDER_UPLINK"]
        forwarder.environment |= uplink
        async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
            forwarder.start()
            await until(lambda: len(set(rule.ids)) == 20, "all arrive", 120)
    assert {event_id for event_id, _ in events} == set(rule.ids)


def _backlog(console: object) -> int:
    return sum(one["events"] for one in console.last(STATUS).get("streams", []))


@pytest.mark.anyio
async def test_vanished_forwarder_is_told_offline_by_the_broker(
    mosquitto: Broker, forwarder: Forwarder
) -> None:
    forwarder.start()
    async with listening(mosquitto.endpoint("console"), STATUS) as console:
        await until(lambda: console.last(STATUS), "a status")

        forwarder.kill()

        await told_state(console, "offline")


@pytest.mark.anyio
async def test_sigterm_under_load_ends_in_time_and_nothing_is_lost(
    mosquitto: Broker, forwarder: Forwarder, cloud: Broker
) -> None:
    forwarder.start()
    async with (
        listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
        listening(mosquitto.endpoint("capture"), STATION.topic("committed")) as capture,
    ):
        await until(lambda: len(forwarder.events("mqtt_connected")) == 3, "all is connected")
        events = [inspection(number) for number in range(400)]
        for _, payload in events:
            await capture.connection.publish(STATION.topic("inspection"), payload)
        await until(lambda: len(rule.ids) >= 100, "some are delivered")

        assert forwarder.end(STOP_S) == 0

        forwarder.start()
        await until(lambda: len(set(rule.ids)) == 400, "the rest follows", 120)
    assert "Traceback" not in forwarder.told()


@pytest.mark.anyio
async def test_what_was_dropped_is_told_to_the_cloud_as_an_event(
    mosquitto: Broker, forwarder: Forwarder, cloud: Broker
) -> None:
    forwarder.environment["FORWARDER_STREAM_MAX_AGE_S"] = "0.001"
    cloud.kill()
    forwarder.start()
    async with listening(mosquitto.endpoint("capture"), STATION.topic("committed")) as capture:
        await until(lambda: len(forwarder.events("mqtt_connected")) == 2, "the device is connected")
        await capture.connection.publish(STATION.topic("inspection"), inspection(1)[1])
        await until(lambda: capture.heard, "it is stored")
    forwarder.end(STOP_S)

    cloud.start()
    async with listening(cloud.endpoint("rule"), "linewatch/v1/+/device/+/inspection") as rule:
        forwarder.start()

        await until(lambda: rule.heard, "the drop is told", 120)

    told = rule.last(rule.heard[0][0])
    assert told["type"] == "EventsDropped"
    assert (told["data"]["stream"], told["data"]["count"], told["data"]["reason"]) == (
        "predictions-line-1", 1, "expired",
    )  # fmt: skip


@pytest.mark.anyio
async def test_renewed_certificate_is_used_without_a_restart_and_its_days_are_told(
    mosquitto: Broker, forwarder: Forwarder, cloud: Cloud
) -> None:
    port = free_port()
    files = cloud.certificates
    forwarder.environment["FORWARDER_METRICS_PORT"] = str(port)
    forwarder.start()
    wait_for(lambda: len(forwarder.events("mqtt_connected")) == 3, "all is connected")
    wait_for(lambda: 29 < days_left(port) <= 30, "its end is told")

    certificate, key = issue(files.ca_file.parent, "device-1", days=90)
    files.device_file.write_bytes(certificate)
    files.device_key_file.write_bytes(key)

    wait_for(lambda: forwarder.events("certificates_renewed"), "it is seen", 120)
    wait_for(lambda: len(forwarder.events("mqtt_connected")) == 4, "a session with it")
    wait_for(lambda: 89 < days_left(port) <= 90, "the new one's end is told")
    assert forwarder.runs
    assert forwarder.end(STOP_S) == 0


def days_left(port: int) -> float:
    name = "linewatch_forwarder_certificate_seconds "
    lines = [one for one in metrics(port).splitlines() if one.startswith(name)]
    return float(lines[0].removeprefix(name)) / 86_400 if lines else math.nan  # none before the first look


@pytest.mark.anyio
async def test_backlog_passes_within_the_settings_of_a_batch(
    mosquitto: Broker, forwarder: Forwarder, cloud: Cloud
) -> None:
    forwarder.environment |= {"FORWARDER_BATCH_MAX_EVENTS": "7", "FORWARDER_BATCH_MAX_BYTES": "4000"}
    cloud.kill()
    forwarder.start()
    async with listening(mosquitto.endpoint("capture"), STATION.topic("committed")) as capture:
        await until(lambda: len(forwarder.events("mqtt_connected")) == 2, "the device is connected")
        for number in range(50):
            await capture.connection.publish(STATION.topic("inspection"), inspection(number)[1])
        await until(
            lambda: sum(len(json.loads(payload)["event_ids"]) for _, payload in capture.heard) >= 50,
            "stored",
            30,
        )
        cloud.start()
        async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
            await until(lambda: len(set(rule.ids)) == 50, "all arrive", 120)

    told = [payload for topic, payload in rule.heard if topic.endswith("/batch")]
    assert told
    assert max(len(payload) for payload in told) <= 4000
    assert max(len(json.loads(payload)["events"]) for payload in told) <= 7
