# SPDX-License-Identifier: Apache-2.0
"""The sink that the fault tests count with: one that miscounts would make all of them blind."""

import json

import pytest
from brokers import STATION, Broker, connected, inspection, until
from faults.sink import sinking

from linewatch.v1 import event_pb2
from linewatch_runtime.events import envelope, new_event_id, origin, stream_of

pytestmark = [pytest.mark.faults, pytest.mark.anyio]


async def test_single_events_and_batches_of_either_form_are_counted_once_each(mosquitto: Broker) -> None:
    made = [inspection(number, "NG" if number == 3 else "OK") for number in range(1, 7)]
    ids, events = [one[0] for one in made], [json.loads(one[1]) for one in made]
    async with sinking(mosquitto.endpoint("sink")) as sink, connected(mosquitto.endpoint("cloud")) as cloud:
        await cloud.publish(STATION.topic("inspection"), json.dumps(events[0]).encode())
        await cloud.publish(STATION.topic("batch"), json.dumps(events[1:3]).encode())
        await cloud.publish(STATION.topic("batch"), json.dumps({"events": events[3:5]}).encode())
        await cloud.publish(STATION.topic("inspection"), json.dumps(events[0]).encode())
        await until(lambda: len(sink.arrivals) == 6, "all are heard")

    assert (sink.publishes, sink.repeats) == (4, 1)
    assert list(sink.first) == ids[:5]
    assert sink.lacks(ids) == {ids[5]}
    assert [one.alarm for one in sink.first.values()] == [False, False, True, False, False]


async def test_event_that_comes_after_a_younger_one_of_its_class_is_out_of_order(mosquitto: Broker) -> None:
    async with sinking(mosquitto.endpoint("sink")) as sink, connected(mosquitto.endpoint("cloud")) as cloud:
        for number, result in ((1, "OK"), (3, "OK"), (2, "NG"), (2, "OK"), (4, "OK")):
            await cloud.publish(STATION.topic("inspection"), inspection(number, result)[1])
        await until(lambda: len(sink.arrivals) == 5, "all are heard")

    assert [(one.number[1], one.alarm) for one in sink.out_of_order()] == [(2, False)]


async def test_told_drop_counts_once_however_often_it_comes(mosquitto: Broker) -> None:
    data = event_pb2.EventsDropped(
        origin=origin(STATION, 1, 1), stream=stream_of("line-1"), count=7, reason="shed_good"
    )
    event = envelope(new_event_id(), "EventsDropped", STATION, data)
    async with sinking(mosquitto.endpoint("sink")) as sink, connected(mosquitto.endpoint("cloud")) as cloud:
        for _ in range(2):
            await cloud.publish(STATION.topic("inspection"), event)
        await until(lambda: len(sink.arrivals) == 2, "both are heard")

    assert sink.dropped() == {("predictions-line-1", "shed_good"): 7}
