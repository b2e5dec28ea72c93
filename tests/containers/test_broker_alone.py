# SPDX-License-Identifier: Apache-2.0
"""The broker's image by itself, asked from outside: who may say what, who hears what, and who is let in at all."""

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import paho.mqtt.client as mqtt
import pytest
from brokers import wait_for

from linewatch_runtime.mqtt_client import SessionClient

os.environ.setdefault(
    "TESTCONTAINERS_RYUK_DISABLED", "true"
)  # its image can't be had everywhere; we clean up ourselves
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy

pytestmark = pytest.mark.containers

USERS = ("inference", "forwarder", "console", "line-1", "line-2")
# What make-secrets and the broker do in two containers of docker-compose.yml, in one.
START = f"make-secrets {' '.join(USERS)} && cp /secrets/broker/* /run/linewatch && exec mosquitto -c /mosquitto/config/mosquitto.conf"

LINE_1 = "linewatch/v1/plant-1/line-1/station-1"
LINE_2 = "linewatch/v1/plant-1/line-2/machine-1"
INFERENCE = "linewatch/v1/plant-1/device/inference"
FORWARDER = "linewatch/v1/plant-1/device/forwarder"

# Each topic of the system: who says it, and who hears it.
TOPICS: dict[str, tuple[str, set[str]]] = {
    f"{LINE_1}/inspection": ("line-1", {"forwarder", "console"}),
    f"{LINE_1}/status": ("line-1", {"console"}),
    f"{LINE_1}/committed": ("forwarder", {"line-1"}),
    f"{LINE_2}/inspection": ("line-2", {"forwarder", "console"}),
    f"{LINE_2}/status": ("line-2", {"console"}),
    f"{LINE_2}/committed": ("forwarder", {"line-2"}),
    f"{INFERENCE}/engine": ("inference", {"forwarder", "console"}),
    f"{INFERENCE}/status": ("inference", {"console"}),
    f"{INFERENCE}/committed": ("forwarder", {"inference"}),
    f"{FORWARDER}/status": ("forwarder", {"console"}),
}
SUCCESS, NOT_AUTHORISED, NO_SUBSCRIBERS = 0x00, 0x87, 0x10


class Client:
    """A connected user that hears everything it is allowed to."""

    def __init__(self, host: str, port: int, user: str, password: str) -> None:
        self.heard: set[str] = set()
        self.code = -1
        self._told: dict[int, int] = {}
        self._event = threading.Event()
        self._client = SessionClient(
            mqtt.CallbackAPIVersion.VERSION2, f"test-{secrets.token_hex(6)}", protocol=mqtt.MQTTv5
        )
        if user:
            self._client.username_pw_set(user, password)
        self._client.on_connect = lambda _c, _u, _f, code, _p: (
            setattr(self, "code", code.value),
            self._event.set(),
        )
        self._client.on_message = lambda _c, _u, message: self.heard.add(message.topic)
        self._client.on_publish = lambda _c, _u, number, code, _p: self._told.__setitem__(number, code.value)
        self._client.on_subscribe = lambda _c, _u, number, _codes, _p: self._told.__setitem__(number, 0)
        self._client.connect(host, port)
        self._client.loop_start()
        assert self._event.wait(60), f"{user}: no answer"

    def says(self, topic: str) -> int:
        """Publishes; the broker's answer."""
        number = self._client.publish(topic, b"{}", qos=1).mid
        wait_for(lambda: number in self._told, f"an answer to {topic}", 60)
        return self._told[number]

    def listens(self, topics: str) -> None:
        """Subscribes and returns with the broker's answer: all that was sent here before it has been read, too."""
        _, number = self._client.subscribe(topics, qos=1)
        wait_for(lambda: number in self._told, "an answer to the subscription", 60)

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def broker(images: dict[str, str]) -> Iterator[DockerContainer]:
    container = DockerContainer(images["LINEWATCH_BROKER_IMAGE"]).with_exposed_ports(1883)
    container.with_command(["sh", "-c", START]).with_kwargs(labels={"io.linewatch.test": "broker"})
    container.waiting_for(HealthcheckWaitStrategy())
    with container:
        yield container


@pytest.fixture
def connect(broker: DockerContainer) -> Iterator[Callable[..., Client]]:
    passwords = {
        user: broker.exec(["cat", f"/secrets/{user}/mqtt-password"]).output.decode().strip() for user in USERS
    }
    with ExitStack() as clients:

        def connected(user: str, password: str | None = None) -> Client:
            password = passwords[user] if password is None else password
            client = Client(
                broker.get_container_host_ip(), int(broker.get_exposed_port(1883)), user, password
            )
            clients.callback(client.close)
            return client

        yield connected


def test_each_topic_is_said_by_one_and_heard_by_those_who_need_it(connect: Callable[..., Client]) -> None:
    clients = {user: connect(user) for user in USERS}
    for client in clients.values():
        client.listens("#")

    # A client of its own for each: a connection on which a publication was refused ends.
    answers = {(user, topic): connect(user).says(topic) for topic in TOPICS for user in USERS}
    for client in clients.values():
        client.listens("#")

    allowed = {who for who, code in answers.items() if code in {SUCCESS, NO_SUBSCRIBERS}}
    assert allowed == {(user, topic) for topic, (user, _) in TOPICS.items()}
    assert {code for who, code in answers.items() if who not in allowed} == {NOT_AUTHORISED}
    for user, client in clients.items():
        assert client.heard == {topic for topic, (_, hearers) in TOPICS.items() if user in hearers}, user


@pytest.mark.parametrize(
    ("user", "password"), [("", ""), ("line-1", "wrong"), ("line-9", "unknown"), ("health", "")],
    ids=["anonymous", "wrong password", "unknown", "the health check's name without its password"],
)  # fmt: skip
def test_nobody_else_is_let_in(connect: Callable[..., Client], user: str, password: str) -> None:
    assert connect(user, password).code == NOT_AUTHORISED


def test_the_health_check_tells_a_broker_that_answers_from_one_that_does_not(broker: DockerContainer) -> None:
    wait_for(lambda: broker.exec(["healthy"]).exit_code == 0, "it is healthy", 60)
    # The same question with a password that the broker does not have.
    assert (
        broker.exec(
            [
                "sh",
                "-c",
                "cp /run/linewatch/mqtt-password /tmp/kept; echo wrong >/run/linewatch/mqtt-password",
            ]
        ).exit_code
        == 0
    )
    try:
        assert broker.exec(["healthy"]).exit_code != 0
    finally:
        broker.exec(["cp", "/tmp/kept", "/run/linewatch/mqtt-password"])
