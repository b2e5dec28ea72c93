# SPDX-License-Identifier: Apache-2.0
"""Each choice of uplink with the real process, killed and started again: what it promises is there at the end."""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from brokers import STATION, Broker, Cloud, connected, inspection, listening, until, wait_for
from credential_provider import CredentialServer
from event_bus_server import EventBusServer
from forwarding import Forwarder, told_state
from nucleus_ipc import NucleusIpc, Published

from linewatch.v1 import event_pb2
from linewatch_runtime.events import DEVICE_LINE, Place, envelope, new_event_id, origin
from linewatch_runtime.mqtt import Connection, Subscriptions

pytestmark = pytest.mark.anyio

EVERYTHING = "linewatch/v1/#"
STATUS = Place("plant-1", DEVICE_LINE, "forwarder").topic("status")
ENGINE = Place("plant-1", DEVICE_LINE, "inference")
TOKEN = "of-the-forwarder"


def engine_event(sequence: int) -> tuple[str, bytes]:
    event_id = new_event_id()
    data = event_pb2.Engine(origin=origin(ENGINE, 1, sequence), service_version="1")
    return event_id, envelope(event_id, "EngineStarted", ENGINE, data)


AGAIN_S = 2.0


async def committed(capture: Connection, events: Sequence[tuple[str, tuple[str, bytes]]]) -> None:
    """Publishes (topic, event) until the forwarder has told each as committed; again, as producers do, what it has not:
    a forwarder that has just started hears before it can speak, and one that never ran before hears nothing yet.
    """
    told: set[str] = set()
    async with asyncio.timeout(120):
        while waiting := [one for one in events if one[1][0] not in told]:
            for topic, (_, payload) in waiting:
                await capture.publish(topic, payload)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    while not {event_id for _, (event_id, _) in waiting} <= told:
                        message = await capture.messages.get()
                        told |= set(json.loads(message.payload)["event_ids"])


def some(count: int, first: int = 0) -> list[tuple[str, tuple[str, bytes]]]:
    """Inspections, and an engine event after every fifth."""
    events = []
    for number in range(first, first + count):
        events.append((STATION.topic("inspection"), inspection(number, "NG" if number % 7 == 0 else "OK")))
        if number % 5 == 4:
            events.append((ENGINE.topic("engine"), engine_event(number)))
    return events


def ids_of(events: Sequence[tuple[str, tuple[str, bytes]]], kind: str) -> set[str]:
    return {event_id for topic, (event_id, _) in events if topic.endswith(kind)}


def producing(broker: Broker) -> object:
    return connected(broker.endpoint("capture"), Subscriptions(["linewatch/v1/+/+/+/committed"]))


# --- the event bus beside IoT Core ----------------------------------------------------------------------------------


@pytest.fixture
def bus() -> Iterator[EventBusServer]:
    with EventBusServer() as made:
        yield made
        assert made.wrong == []


@pytest.fixture
def credentials(cloud: Cloud) -> Iterator[CredentialServer]:
    with CredentialServer(cloud.certificates) as made:
        yield made


@pytest.fixture
def beside(forwarder: Forwarder, bus: EventBusServer, credentials: CredentialServer) -> Forwarder:
    """A forwarder with IoT Core and a bus; not started."""
    forwarder.environment |= {
        **credentials.settings(), "FORWARDER_EVENT_BUS": "linewatch-test", "FORWARDER_AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_EVENTBRIDGE": bus.url,
    }  # fmt: skip
    return forwarder


@pytest.mark.parametrize("kinds", ["lifecycle", "all"])
async def test_engine_events_go_to_the_bus_and_none_is_lost_by_kills(
    mosquitto: Broker, cloud: Cloud, bus: EventBusServer, beside: Forwarder, kinds: str,
    credentials: CredentialServer,
) -> None:  # fmt: skip
    beside.environment["FORWARDER_EVENT_BUS_KINDS"] = kinds
    events = some(300)
    async with listening(cloud.endpoint("rule"), EVERYTHING) as rule, producing(mosquitto) as capture:
        beside.start()
        await until(lambda: len(beside.events("mqtt_connected")) >= 3, "all is connected", 120)
        for part in range(3):
            await committed(capture, events[part::3])
            await until(lambda part=part: len(set(rule.ids)) > 60 * part, "some are delivered", 120)
            beside.kill()
            beside.start()
        await until(
            lambda: ids_of(events, "/inspection") <= set(rule.ids), "IoT Core has all of its own", 120
        )
        wanted = ids_of(events, "/engine") | (ids_of(events, "/inspection") if kinds == "all" else set())
        await until(lambda: wanted <= set(bus.ids), "the bus has all of its own", 120)

        async with listening(mosquitto.endpoint("console"), STATUS) as console:
            await until(lambda: _waiting(console.last(STATUS)) == 0, "nothing is left", 120)

    assert set(bus.ids) == wanted
    assert not ids_of(events, "/engine") & set(rule.ids), (
        "the cloud announces what it gets: not twice on the bus"
    )
    assert {one["source"] for one in bus.accepted}, "the event itself is the detail"
    assert set(bus.keys) <= {f"ASIA{number}" for number in range(1, len(credentials.asked) + 1)}
    assert {one.who for one in credentials.asked} == {"device-1"}


def _waiting(status: dict[str, object]) -> int:
    streams = status.get("streams")
    return sum(one["events"] for one in streams) if streams else -1  # type: ignore[union-attr]


async def test_a_bus_that_is_away_holds_its_own_events_only_and_is_told(
    mosquitto: Broker, cloud: Cloud, bus: EventBusServer, beside: Forwarder
) -> None:
    bus.stop()
    beside.start()
    async with (
        listening(cloud.endpoint("rule"), EVERYTHING) as rule,
        listening(mosquitto.endpoint("console"), STATUS) as console,
        producing(mosquitto) as capture,
    ):
        await until(lambda: len(beside.events("mqtt_connected")) >= 3, "all is connected", 120)
        events = some(50)
        await committed(capture, events)
        await until(lambda: ids_of(events, "/inspection") <= set(rule.ids), "IoT Core goes on", 120)
        await until(lambda: "event bus" in str(console.last(STATUS).get("uplink")), "it is told", 120)
        told = await told_state(console, "online")
        assert _waiting(told) >= len(ids_of(events, "/engine"))

        bus.start()
        await until(lambda: ids_of(events, "/engine") == set(bus.ids), "the bus gets them", 120)
        await until(lambda: _waiting(console.last(STATUS)) == 0, "nothing is left", 120)
    assert len(bus.ids) == len(set(bus.ids))


async def test_a_bus_that_says_nothing_holds_neither_iot_core_nor_the_end(
    mosquitto: Broker, cloud: Cloud, bus: EventBusServer, beside: Forwarder
) -> None:
    bus.hang = True
    beside.environment["FORWARDER_EVENT_BUS_KINDS"] = "all"
    beside.start()
    async with listening(cloud.endpoint("rule"), EVERYTHING) as rule, producing(mosquitto) as capture:
        await until(lambda: len(beside.events("mqtt_connected")) >= 3, "all is connected", 120)
        first, second = some(20), some(20, first=20)
        await committed(capture, first)
        await until(lambda: bus.requests, "the bus is asked", 120)
        await committed(capture, second)
        await until(
            lambda: ids_of([*first, *second], "/inspection") <= set(rule.ids), "IoT Core goes on", 120
        )

        assert beside.end(10) == 0
    assert "Traceback" not in beside.told()


def test_wrong_settings_of_the_bus_and_the_nucleus_are_named(beside: Forwarder) -> None:
    wrong = [
        ({"FORWARDER_AWS_REGION": ""}, "FORWARDER_AWS_REGION must be set: FORWARDER_EVENT_BUS"),
        ({"FORWARDER_CREDENTIALS_HOST": ""}, "FORWARDER_CREDENTIALS_HOST must be set"),
        (
            {"FORWARDER_CREDENTIALS_HOST": "", "FORWARDER_ROLE_ALIAS": ""},
            "FORWARDER_CREDENTIALS_HOST and FORWARDER_ROLE_ALIAS must be set, or AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ),
        ({"FORWARDER_EVENT_BUS": "a bus"}, "FORWARDER_EVENT_BUS: "),
        ({"FORWARDER_EVENT_BUS_KINDS": "some"}, "FORWARDER_EVENT_BUS_KINDS: "),
        ({"FORWARDER_UPLINK": "greengrass_ipc"}, "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT is not set"),
        ({"FORWARDER_RESEND_WINDOW_S": "0"}, "FORWARDER_RESEND_WINDOW_S: "),
    ]  # fmt: skip
    right = dict(beside.environment)
    for change, said in wrong:
        beside.environment = {**right, **change}
        beside.output.unlink(missing_ok=True)
        beside.start()
        assert beside.process.wait(120) == 2
        assert beside.told().startswith(said), beside.told()


# --- through the nucleus --------------------------------------------------------------------------------------------


@pytest.fixture
def through(mosquitto: Broker, tmp_path: Path) -> Iterator[Forwarder]:
    """A forwarder whose uplink is the nucleus; not started."""
    made = Forwarder(tmp_path, mosquitto.port, FORWARDER_UPLINK="greengrass_ipc")
    yield made
    made.kill()


def events_of(published: Sequence[Published]) -> list[str]:
    told = [json.loads(one.payload) for one in published]
    return [event["id"] for one in told for event in one.get("events", [one])]


async def test_through_the_nucleus_nothing_is_lost_while_its_window_is_open(
    mosquitto: Broker, through: Forwarder, tmp_path: Path
) -> None:
    """Forwarder and nucleus are killed in turn; each time the nucleus forgets all that it took."""
    with NucleusIpc(tmp_path / "ipc.socket", tokens={TOKEN}) as nucleus:
        through.environment |= {**nucleus.environment(TOKEN), "FORWARDER_RESEND_WINDOW_S": "600"}
        through.start()
        events = some(200)
        async with (
            listening(mosquitto.endpoint("console"), STATUS) as console,
            producing(mosquitto) as capture,
        ):
            for part in range(4):
                wait_for(lambda part=part: len(through.events("uplink_connected")) > part, "connected", 120)
                await committed(capture, events[part::4])
                await until(lambda: len(nucleus.published) > 0, "the nucleus took some", 120)
                if part % 2:
                    through.kill()
                    through.start()
                else:
                    nucleus.stop()
                    nucleus.forget()
                    nucleus.start()
            nucleus.stop()
            nucleus.forget()
            nucleus.start()
            ids = {event_id for _, (event_id, _) in events}
            await until(lambda: ids <= set(events_of(nucleus.published)), "all are there at the end", 120)

            told = await told_state(
                console, "online", holds=lambda told: told["uplink"]["handed_over"] == len(ids)
            )
            assert "may lose it; sent again for 600 s" in told["uplink"]["promise"]
        assert through.end(10) == 0
    assert "Traceback" not in through.told()


async def test_past_its_window_the_nucleus_may_lose_events_and_the_control_shows_it(
    mosquitto: Broker, through: Forwarder, tmp_path: Path
) -> None:
    """The documented limit: what is inside the window comes again, what is past it is gone."""
    with NucleusIpc(tmp_path / "ipc.socket", tokens={TOKEN}) as nucleus:
        through.environment |= {**nucleus.environment(TOKEN), "FORWARDER_RESEND_WINDOW_S": "15"}
        through.start()
        async with (
            listening(mosquitto.endpoint("console"), STATUS) as console,
            producing(mosquitto) as capture,
        ):
            wait_for(lambda: through.events("uplink_connected"), "connected", 120)
            # Fifteen seconds: on a busy machine the test has to be back before the window of the young ones has passed.
            old, young = some(10), some(10, first=10)
            await committed(capture, old)
            await until(lambda: _waiting(console.last(STATUS)) == 0, "past the window", 120)
            await committed(capture, young)
            ids = {event_id for _, (event_id, _) in young}
            await until(lambda: ids <= set(events_of(nucleus.published)), "the nucleus took them", 120)
            nucleus.stop()
            nucleus.forget()
            nucleus.start()

            await until(
                lambda: ids <= set(events_of(nucleus.published)), "inside the window: sent again", 120
            )
            await until(lambda: _waiting(console.last(STATUS)) == 0, "and let go", 120)
    assert not {event_id for _, (event_id, _) in old} & set(events_of(nucleus.published)), "past it: lost"


async def test_through_the_nucleus_with_the_bus_each_event_is_in_one_of_the_two(
    mosquitto: Broker, through: Forwarder, bus: EventBusServer, tmp_path: Path
) -> None:
    with (
        NucleusIpc(tmp_path / "ipc.socket", tokens={TOKEN}) as nucleus,
        CredentialServer(token="of-the-exchange") as exchange,
    ):
        through.environment |= {
            **nucleus.environment(TOKEN), **exchange.environment(), "FORWARDER_RESEND_WINDOW_S": "1",
            "FORWARDER_EVENT_BUS": "linewatch-test", "FORWARDER_AWS_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL_EVENTBRIDGE": bus.url,
        }  # fmt: skip
        through.start()
        events = some(40)
        async with (
            listening(mosquitto.endpoint("console"), STATUS) as console,
            producing(mosquitto) as capture,
        ):
            wait_for(lambda: through.events("uplink_connected"), "connected", 120)
            await committed(capture, events)
            await until(lambda: _waiting(console.last(STATUS)) == 0, "all are delivered", 120)
    assert set(events_of(nucleus.published)) == ids_of(events, "/inspection")
    assert set(bus.ids) == ids_of(events, "/engine")
    assert exchange.asked
