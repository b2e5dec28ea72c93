# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from linewatch_runtime.mqtt_client import SessionClient

sys.path.insert(
    0, str(Path(__file__).parent)
)  # importlib mode leaves the modules beside the tests out of reach

from console_process import (
    DEADLINE_S,
    Broker,
    CloudServer,
    Console,
    Start,
    begun,
    ended,
    environment_in,
    free_port,
    hears,
    users_in,
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
    client = SessionClient(paho.CallbackAPIVersion.VERSION2, "feeder", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()

    def send(topic: str, payload: bytes | dict[str, Any]) -> None:
        content = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        sent = client.publish(topic, content, qos=1, retain=topic.endswith("/status"))
        sent.wait_for_publish(DEADLINE_S)
        assert sent.is_published(), f"the broker did not take it: {topic}"

    yield send
    client.close()


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
    with contextlib.ExitStack() as ending:  # each of them, whatever the one before did
        for console in started:
            ending.callback(ended, console)


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
    hears(console)
    yield console
    ended(console)


@pytest.fixture
def console(line_console: Console, cloud: CloudServer) -> Console:
    """The module's console with both back ends; its wall remembers what earlier tests published."""
    line_console.http.cookies.clear()
    hears(line_console)
    return line_console


@pytest.fixture(scope="module")
def signing_console(cloud_server: CloudServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    console = begun(
        environment_in(folder)
        | {
            "CONSOLE_USERS_FILE": str(users_in(folder)),
            "CONSOLE_CLOUD_API_URL": f"http://127.0.0.1:{cloud_server.port}",
            "CONSOLE_CLOUD_API_TOKEN_FILE": str(folder / "token"),
        }
    )
    yield console
    ended(console)


@pytest.fixture
def signing(signing_console: Console, cloud: CloudServer) -> Console:
    """The module's console with a user of each role, the browser signed out."""
    signing_console.http.cookies.clear()
    return signing_console
