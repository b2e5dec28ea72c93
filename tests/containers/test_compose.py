# SPDX-License-Identifier: Apache-2.0
"""`docker compose up --wait` brings up a plant that works, is confined, and loses nothing. In order: one stack for all."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from brokers import wait_for

pytestmark = pytest.mark.containers

SERVICES = (
    "broker", "inference", "capture-line-1", "capture-line-2", "forwarder", "console", "erp-simulator", "standin-cloud",
)  # fmt: skip
PARTS = 300
GRACE_S = 12

PUBLISH_AS = """
import pathlib, sys, threading
import paho.mqtt.client as m
user, topic = sys.argv[1:]
codes, ended = [], threading.Event()

def connected(client, _u, _flags, code, _p):
    codes.append(code.value)
    if code.value:
        ended.set()
    else:
        client.publish(topic, b"{}", qos=1)

def published(_c, _u, _mid, code, _p):
    codes.append(code.value)
    ended.set()

client = m.Client(m.CallbackAPIVersion.VERSION2, "test", protocol=m.MQTTv5)
client.username_pw_set(user, pathlib.Path("/run/linewatch/mqtt-password").read_text().strip())
client.on_connect, client.on_publish = connected, published
client.connect("broker", 1883)
client.loop_start()
ended.wait(10)
print(*codes)
"""
CONNECTED, NOT_AUTHORISED = 0x00, 0x87


def test_every_service_is_healthy_by_its_own_check(stack: Any) -> None:
    for service in SERVICES:
        assert stack.is_healthy(service), service


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_confined(
    stack: Any, service: str, first_process: Callable[[str], dict[str, str]]
) -> None:
    status = first_process(service)

    assert set(status["Uid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    mounts = [line.split() for line in stack.inside(service, "cat", "/proc/mounts").splitlines()]
    assert next(mount[3] for mount in mounts if mount[1] == "/").split(",")[0] == "ro"
    described = stack.inspect(service)["HostConfig"]
    assert described["Memory"] > 0
    assert described["PidsLimit"] > 0
    assert described["LogConfig"]["Config"]["max-size"]


def test_only_the_page_is_published_and_on_loopback_only(stack: Any) -> None:
    published = {
        service: binding
        for service in SERVICES
        for binding in (stack.inspect(service)["HostConfig"]["PortBindings"] or {}).values()
    }

    assert published == {"console": [{"HostIp": "127.0.0.1", "HostPort": str(stack.console_port)}]}


def test_the_page_asks_for_its_password(stack: Any) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.console_port}/", timeout=10) as answer:
        assert answer.url.endswith("/login")
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.console_port}/healthz", timeout=10) as answer:
        assert json.load(answer) == {"state": "serving", "broker": "connected", "cloud_api": "up"}


@pytest.mark.parametrize(
    ("user", "topic", "codes"),
    [
        ("line-1", "linewatch/v1/plant-1/line-2/machine-1/inspection", [CONNECTED, NOT_AUTHORISED]),
        ("line-1", "linewatch/v1/plant-1/line-1/station-1/committed", [CONNECTED, NOT_AUTHORISED]),
        ("forwarder", "linewatch/v1/plant-1/line-1/station-1/committed", [NOT_AUTHORISED]),
    ],
    ids=["another line's event", "a false commit", "another client's name"],
)
def test_the_broker_refuses_what_a_station_may_not_say(
    stack: Any, user: str, topic: str, codes: list[int]
) -> None:
    said = stack.inside("capture-line-1", "python", "-c", PUBLISH_AS, user, topic)

    assert [int(code) for code in said.split()] == codes


def test_no_service_sees_another_ones_secrets(stack: Any) -> None:
    for service in ("inference", "capture-line-1", "forwarder"):
        assert stack.inside(service, "ls", "/run/linewatch").split() == ["mqtt-password"]
    assert sorted(stack.inside("console", "ls", "/run/linewatch").split()) == [
        "mqtt-password",
        "page-password",
    ]
    assert sorted(stack.inside("forwarder", "ls", "/run/uplink").split()) == [
        "ca.pem",
        "certificate.pem",
        "key.pem",
    ]


def test_a_restart_and_kills_on_the_way_lose_and_double_nothing(stack: Any) -> None:
    wait_for(lambda: stack.counts().parts["judged"] >= 10, "parts are judged", 60)
    stack.run("restart", "forwarder")
    for service in ("forwarder", "broker", "capture-line-1", "inference"):
        stack.kill(service)
        wait_for(lambda name=service: stack.is_healthy(name), f"{service} is healthy again", 60)  # type: ignore[misc]

    wait_for(lambda: stack.is_at_rest(PARTS), "every part is judged and every event has arrived", 240)
    counts = stack.counts()
    assert counts.parts["sent"] == PARTS
    assert counts.disagreements() == []
    assert counts.parts["judged"] > PARTS // 2
    assert counts.events["enriched"] >= counts.parts["judged"] + counts.parts["not_inspected"]
    for capture in ("capture-line-1", "capture-line-2"):
        assert stack.spool(capture)[0]["", "judged"] > 0
    assert counts.work_orders["in_erp"] + counts.work_orders["awaiting_approval"] > 0
    assert stack.cloud()["dead_letters"] == 0


def test_sigterm_stops_every_service_within_its_grace(stack: Any) -> None:
    started = time.monotonic()
    stack.run("stop")
    took_s = time.monotonic() - started

    codes = {service: stack.inspect(service)["State"]["ExitCode"] for service in SERVICES}
    assert codes == dict.fromkeys(SERVICES, 0)
    # Compose stops consumers before what they depend on: three or four layers, each within its grace.
    assert took_s < 4 * GRACE_S
