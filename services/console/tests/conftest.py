# SPDX-License-Identifier: Apache-2.0
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

sys.path.insert(
    0, str(Path(__file__).parent)
)  # importlib mode leaves the modules beside the tests out of reach

from console_process import (
    Broker,
    CloudServer,
    Console,
    Start,
    begun,
    ended,
    environment_in,
    free_port,
    wait_for,
)
from console_stand_in import StandInCloud


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(free_port(), tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def publish(broker: Broker) -> Iterator[Callable[[str, bytes | dict[str, Any]], None]]:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "feeder", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()

    def send(topic: str, payload: bytes | dict[str, Any]) -> None:
        content = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        client.publish(topic, content, qos=1, retain=topic.endswith("/status")).wait_for_publish(5)

    yield send
    client.disconnect()
    client.loop_stop()


@pytest.fixture(scope="module")
def cloud_server() -> Iterator[CloudServer]:
    server = CloudServer(StandInCloud(), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cloud(cloud_server: CloudServer) -> CloudServer:
    """The module's cloud as if it were new."""
    cloud_server.stand_in.__init__()  # type: ignore[misc]
    return cloud_server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return environment_in(tmp_path)


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Starts a console of the test's own."""
    started: list[Console] = []

    def begin(**settings: str) -> Console:
        started.append(begun(environment | settings))
        return started[-1]

    yield begin
    for console in started:
        ended(console)


@pytest.fixture(scope="module")
def line_console(
    broker: Broker, cloud_server: CloudServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    console = begun(
        environment_in(folder)
        | {
            "CONSOLE_MQTT_PORT": str(broker.port),
            "CONSOLE_CLOUD_API_URL": f"http://127.0.0.1:{cloud_server.port}",
            "CONSOLE_CLOUD_API_TOKEN_FILE": str(folder / "token"),
        }
    )
    wait_for("the broker", lambda: console.http.get("/healthz").json()["broker"] == "connected")
    yield console
    ended(console)


@pytest.fixture
def console(line_console: Console, cloud: CloudServer) -> Console:
    """The module's console with both back ends; its wall remembers what earlier tests published."""
    line_console.http.cookies.clear()
    return line_console
