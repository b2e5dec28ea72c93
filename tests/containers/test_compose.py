# SPDX-License-Identifier: Apache-2.0
"""`docker compose up --wait` brings up a plant that works and is confined.

The files of this folder share one stack, in their order: it works, it is watched, it is disturbed, it is stopped.
"""

import json
import urllib.request
from collections.abc import Callable

import pytest
from brokers import wait_for
from compose_stack import CAPTURES, SERVICES, SOON_S, Stack

pytestmark = pytest.mark.containers

PUBLISH_AS = """
import pathlib, sys, threading
import paho.mqtt.client as m
user, topic = sys.argv[1:]
codes, ended = [], threading.Event()

def connected(client, _u, _flags, code, _p):
    codes.append(code.value)
    if code.value:
        client.disconnect()  # or it would try again, and be told once more
        ended.set()
    else:
        client.publish(topic, b"{}", qos=1)

def published(client, _u, _mid, code, _p):
    codes.append(code.value)
    client.disconnect()
    ended.set()

client = m.Client(m.CallbackAPIVersion.VERSION2, "test", protocol=m.MQTTv5)
client.username_pw_set(user, pathlib.Path("/run/linewatch/mqtt-password").read_text().strip())
client.on_connect, client.on_publish = connected, published
client.connect("broker", 1883)
client.loop_start()
ended.wait(120)
print(*codes)
"""
CONNECTED, NOT_AUTHORISED = 0x00, 0x87


def test_every_service_is_healthy_by_its_own_check(stack: Stack) -> None:
    for service in SERVICES:
        # It was, or there were no stack; one look may come while a busy machine lets a check wait too long.
        wait_for(lambda service=service: stack.is_healthy(service), f"{service} is healthy", SOON_S)  # type: ignore[misc]


def test_it_inspects_parts_of_both_lines_and_raises_work_orders(stack: Stack) -> None:
    wait_for(
        lambda: all(stack.spool(one)[0].get(("", "judged"), 0) > 10 for one in CAPTURES),
        "parts are judged",
        SOON_S,
    )
    stack.flows()
    wait_for(lambda: sum(stack.cloud()["work_orders"].values()), "a work order is raised", SOON_S)


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_confined(
    stack: Stack, service: str, first_process: Callable[[str], dict[str, str]]
) -> None:
    status = first_process(service)

    assert set(status["Uid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    mounts = [line.split() for line in stack.run("exec", "-T", service, "cat", "/proc/mounts").splitlines()]
    assert next(mount[3] for mount in mounts if mount[1] == "/").split(",")[0] == "ro"
    described = stack.inspect(service)["HostConfig"]
    assert described["Memory"] > 0
    assert described["PidsLimit"] > 0
    assert described["MemorySwap"] == described["Memory"]
    assert described["NanoCpus"] > 0
    assert described["Init"]
    assert described["LogConfig"]["Config"]["max-size"]


def test_only_the_page_is_published_and_on_loopback_only(stack: Stack) -> None:
    published = {
        service: binding
        for service in SERVICES
        for binding in (stack.inspect(service)["HostConfig"]["PortBindings"] or {}).values()
    }

    assert published == {"console": [{"HostIp": "127.0.0.1", "HostPort": str(stack.console_port)}]}


def test_the_page_asks_for_its_password(stack: Stack) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.console_port}/", timeout=60) as answer:
        assert answer.url.endswith("/login")

    def health() -> object:
        with urllib.request.urlopen(f"http://127.0.0.1:{stack.console_port}/healthz", timeout=60) as answer:
            return json.load(answer)

    # One look may come while a busy machine lets the cloud's API wait too long.
    serving = {"state": "serving", "broker": "connected", "cloud_api": "up"}
    wait_for(lambda: health() == serving, "the page serves, and reaches its broker and its cloud", SOON_S)


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
    stack: Stack, user: str, topic: str, codes: list[int]
) -> None:
    said = stack.python("capture-line-1", "-c", PUBLISH_AS, user, topic)

    assert [int(code) for code in said.split()] == codes


def test_no_service_sees_another_ones_secrets(stack: Stack) -> None:
    for service in ("inference", "capture-line-1", "forwarder"):
        assert stack.run("exec", "-T", service, "ls", "/run/linewatch").split() == ["mqtt-password"]
    assert sorted(stack.run("exec", "-T", "console", "ls", "/run/linewatch").split()) == [
        "mqtt-password",
        "page-password",
        "sign-in",
        "users.json",
    ]
    assert sorted(stack.run("exec", "-T", "forwarder", "ls", "/run/uplink").split()) == [
        "ca.pem",
        "certificate.pem",
        "key.pem",
    ]
