# SPDX-License-Identifier: Apache-2.0
"""PutEvents, entry by entry, by boto3 against a server that checks each request with the service's own model."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from brokers import STATION, inspection
from event_bus_server import MOST_BYTES, EventBusServer

from linewatch.v1 import event_pb2
from linewatch_forwarder.uplinks import event_bus
from linewatch_forwarder.uplinks.event_bus import EventBus, client_maker
from linewatch_plant.ministack_process import REGION, end, launched
from linewatch_runtime.events import DEVICE_LINE, Place, envelope, new_event_id, origin
from linewatch_runtime.records import Record

pytestmark = pytest.mark.anyio

ENGINE = Place("plant-1", DEVICE_LINE, "inference")


def engine_event(sequence: int, kind: str = "EngineStarted", message: str = "") -> Record:
    event_id = new_event_id()
    data = event_pb2.Engine(origin=origin(ENGINE, 1, sequence), service_version="1", message=message)
    payload = envelope(event_id, kind, ENGINE, data)
    return Record(event_id, "events-device", ENGINE.topic("engine"), payload, alarm=True)


def completed(sequence: int, result: str = "OK") -> Record:
    event_id, payload = inspection(sequence, result)
    return Record(event_id, "predictions-line-1", STATION.topic("inspection"), payload, alarm=result != "OK")


@pytest.fixture
def server() -> Iterator[EventBusServer]:
    with EventBusServer() as made:
        yield made
        assert made.wrong == []


def maker(url: str) -> Callable[[], Any]:
    """Makes clients as the service does, but for where they go."""

    def session() -> Any:
        return _At(url)

    return client_maker(session)


class _At:
    def __init__(self, url: str) -> None:
        self._url = url

    def client(self, service: str, **more: Any) -> Any:
        session = boto3.Session("AKIDTEST", "secret", region_name="eu-central-1")
        return session.client(service, endpoint_url=self._url, **more)


@pytest.fixture
def bus(server: EventBusServer) -> EventBus:
    return EventBus("linewatch-test", maker(server.url))


async def test_an_event_arrives_as_it_is_with_its_type_and_its_time(
    bus: EventBus, server: EventBusServer
) -> None:
    record = engine_event(1, "ModelLoadError", "Maß → naïve")

    outcome = await bus.send([record])

    ((entry,),) = server.calls
    event = json.loads(record.payload)
    assert outcome.accepted == [record.event_id]
    assert entry["Detail"].encode() == record.payload, "the bytes are the same at every hop"
    assert (entry["EventBusName"], entry["Source"], entry["DetailType"]) == (
        "linewatch-test", "edge.ai.inference", "ModelLoadError",
    )  # fmt: skip
    told = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(entry["Time"]))
    assert event["time"].startswith(told)


@pytest.mark.parametrize("payload", [
    '{"id": "a", "type": "EngineStarted"}'.encode("utf-16"), '{"id": "a", "type": "EngineStarted"}'.encode("utf-16-le"),
    b'\xef\xbb\xbf{"id": "a", "type": "EngineStarted"}', b'{"id": "a", "type": "\xed\xa0\x80"}', b'{"id": "a", "time": 7}',
    b'{"id": "a", "type": "\\ud800", "time": "2026-11-21T10:00:00"}',
    b'{"id": "a", "time": "0001-01-01T00:00:00+14:00"}', b'{"id": "a", "time": "9999-12-31T23:59:59-14:00"}',
    b'{"id": "a", "time": "0001-01-01T00:00:00Z"}', b'{"id": "a", "time": "9999-12-31T23:59:59.999Z"}',
])  # fmt: skip
async def test_what_the_intake_takes_for_an_event_ends_no_flow(
    bus: EventBus, server: EventBusServer, payload: bytes
) -> None:
    outcome = await bus.send([Record("a", "events-device", ENGINE.topic("engine"), payload, alarm=True)])

    assert (outcome.accepted, server.ids) == (["a"], ["a"])


async def test_calls_keep_to_ten_entries_and_the_order(bus: EventBus, server: EventBusServer) -> None:
    records = [engine_event(number) for number in range(25)]

    outcome = await bus.send(records)

    assert [len(call) for call in server.calls] == [10, 10, 5]
    assert outcome.accepted == server.ids == [one.event_id for one in records]
    assert outcome.publishes == 3


async def test_calls_keep_to_their_bytes(bus: EventBus, server: EventBusServer) -> None:
    records = [engine_event(number, message="x" * 100_000) for number in range(6)]

    outcome = await bus.send(records)

    assert len(outcome.accepted) == 6
    assert [len(call) for call in server.calls] == [2, 2, 2]
    assert outcome.sent_bytes > 600_000


async def test_an_entry_that_is_throttled_is_tried_again_and_nothing_goes_past_it(
    bus: EventBus, server: EventBusServer
) -> None:
    records = [engine_event(number) for number in range(15)]
    server.judge = lambda one: "ThrottlingException" if records[3].event_id in one["Detail"] else ""

    outcome = await bus.send(records)

    assert outcome.accepted == [one.event_id for one in (*records[:3], *records[4:10])]
    assert outcome.refused == []
    assert "ThrottlingException" in outcome.trouble
    assert bus.trouble == outcome.trouble
    assert len(server.calls) == 1

    server.judge = lambda _: ""
    again = await bus.send([one for one in records if one.event_id not in outcome.accepted])
    assert (again.trouble, bus.trouble) == ("", "")
    assert sorted(server.ids) == sorted(one.event_id for one in records)


@pytest.mark.parametrize(
    "code", ["InternalFailure", "ServiceUnavailable", "SomethingNew", "NotAuthorizedForSourceException"]
)
async def test_an_entry_is_lost_by_no_code_that_may_pass(
    bus: EventBus, server: EventBusServer, code: str
) -> None:
    server.judge = lambda _: code

    outcome = await bus.send([engine_event(1)])

    assert (outcome.accepted, outcome.refused) == ([], [])
    assert code in outcome.trouble


async def test_a_malformed_entry_is_refused_alone(bus: EventBus, server: EventBusServer) -> None:
    records = [engine_event(number) for number in range(3)]
    server.judge = lambda one: "MalformedDetail" if records[1].event_id in one["Detail"] else ""

    outcome = await bus.send(records)

    assert outcome.accepted == [records[0].event_id, records[2].event_id]
    assert outcome.refused == [(records[1], "event bus: MalformedDetail: told by the test")]
    assert outcome.trouble == ""


async def test_a_call_that_is_refused_for_one_entry_refuses_only_that_one(
    bus: EventBus, server: EventBusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Larger than the stream would let in, so that nobody but the bus says so; the client's own count is switched off.
    monkeypatch.setattr(event_bus, "MOST_BYTES", 10 * MOST_BYTES)
    records = [engine_event(1), engine_event(2, message="x" * MOST_BYTES), engine_event(3)]

    outcome = await bus.send(records)

    assert outcome.accepted == server.ids == [records[0].event_id, records[2].event_id]
    ((refused, reason),) = outcome.refused
    assert refused is records[1]
    assert "over the limit" in reason
    assert outcome.trouble == ""


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ((400, "AccessDeniedException"), "the role must allow events:PutEvents on linewatch-test"),
        ((400, "ResourceNotFoundException"), "FORWARDER_EVENT_BUS must name a bus"),
        ((400, "InvalidSignatureException"), "set this device's clock"),
        ((400, "ThrottlingException"), "ThrottlingException"),
        ((500, "InternalException"), "InternalException"),
        ((403, "ExpiredTokenException"), "ExpiredTokenException"),
    ],
)
async def test_a_call_that_fails_is_trouble_with_its_remedy(
    bus: EventBus, server: EventBusServer, refusal: tuple[int, str], told: str
) -> None:
    server.refuse = refusal

    outcome = await bus.send([engine_event(number) for number in range(12)])

    assert (outcome.accepted, outcome.refused) == ([], [])
    assert told in outcome.trouble
    assert server.requests == 1, "who backs off is the flow, not the client"


async def test_a_bus_that_is_away_or_silent_is_trouble_within_the_timeout(
    bus: EventBus, server: EventBusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(event_bus, "READ_TIMEOUT_S", 0.3)
        server.hang = True
        silent = EventBus("linewatch-test", maker(server.url))
        assert "ReadTimeout" in (await silent.send([engine_event(1)])).trouble
        server.hang = False
    server.stop()

    assert "EndpointConnectionError" in (await bus.send([engine_event(2)])).trouble

    server.start()
    record = engine_event(3)
    assert (await bus.send([record])).accepted == [record.event_id]


async def test_credentials_that_are_not_there_yet_are_trouble_and_asked_for_again(
    server: EventBusServer,
) -> None:
    tries: list[int] = []

    def make() -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("the token exchange service is away")
        return maker(server.url)()

    bus = EventBus("linewatch-test", make)
    assert "token exchange" in (await bus.send([engine_event(1)])).trouble

    assert len((await bus.send([engine_event(2)])).accepted) == 1


async def test_the_stand_in_cloud_takes_what_we_send(tmp_path: Path) -> None:
    """ministack speaks for itself: another server than ours, with a rule behind the bus."""
    process, http_port, _ = launched(tmp_path, enforce_policies=False)
    try:
        url = f"http://127.0.0.1:{http_port}"
        session = boto3.Session("test", "test", region_name=REGION)
        events, sqs = (session.client(one, endpoint_url=url) for one in ("events", "sqs"))
        events.create_event_bus(Name="linewatch-test")
        queue = sqs.create_queue(QueueName="heard")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        pattern = json.dumps({"source": ["edge.ai.inference"], "detail-type": ["EngineStarted"]})
        events.put_rule(Name="engine", EventBusName="linewatch-test", EventPattern=pattern)
        events.put_targets(Rule="engine", EventBusName="linewatch-test", Targets=[{"Id": "1", "Arn": arn}])
        records = [engine_event(1), engine_event(2, "EngineShutdown")]

        outcome = await EventBus("linewatch-test", maker(url)).send(records)

        heard = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10, MaxNumberOfMessages=10)["Messages"]
    finally:
        end(process)
    assert outcome.accepted == [one.event_id for one in records]
    (message,) = heard
    assert json.loads(message["Body"])["detail"] == json.loads(records[0].payload)
