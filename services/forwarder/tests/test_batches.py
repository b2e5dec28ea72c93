# SPDX-License-Identifier: Apache-2.0
"""What goes out in one turn, without a network."""

import json

import pytest
from brokers import STATION, inspection

from linewatch_forwarder.uplinks.batches import Limits, turn
from linewatch_forwarder.uplinks.iot_core import DEFAULT_LIMITS
from linewatch_forwarder.uplinks.settings import UplinkSettings
from linewatch_runtime.events import Place
from linewatch_runtime.records import Record

ROOMY = Limits(most_events=1000, largest_bytes=128 * 1024)


def record(sequence: int, line: str = "line-1", *, alarm: bool = False, station: str = "station-1") -> Record:
    place = Place("plant-1", line, station)
    event_id, payload = inspection(sequence, "NG" if alarm else "OK", place)
    return Record(event_id, f"predictions-{line}", place.topic("inspection"), payload, alarm=alarm)


def test_lone_event_keeps_its_own_topic_and_its_bytes() -> None:
    one = record(1)

    (publish,) = turn([one], ROOMY)

    assert (publish.topic, publish.payload, publish.records) == (one.topic, one.payload, (one,))


def test_events_of_one_line_and_class_share_a_publish_in_order_whatever_their_stations() -> None:
    events = [record(number, station=f"station-{number % 3}") for number in range(10)]

    (publish,) = turn(events, ROOMY)

    assert publish.topic == "linewatch/v1/plant-1/line-1/forwarder/batch"
    assert json.loads(publish.payload) == {"events": [json.loads(one.payload) for one in events]}
    assert publish.event_ids == [one.event_id for one in events]


def test_publish_mixes_neither_streams_nor_classes() -> None:
    events = [record(number, f"line-{number % 2}", alarm=number < 6) for number in range(12)]

    publishes = turn(events, ROOMY)

    assert len(publishes) == 4
    for publish in publishes:
        assert len({(one.stream, one.alarm) for one in publish.records}) == 1
    assert [one for publish in publishes for one in publish.records] != events, "they were mixed"
    assert {one.event_id for publish in publishes for one in publish.records} == {
        one.event_id for one in events
    }


def test_turn_of_many_lines_is_no_larger_than_a_batch_and_every_line_has_its_turn() -> None:
    """32 KiB of each of 16 lines took longer at 64 kbit/s than an acknowledgement is waited for: nothing ever passed."""
    waiting = [record(number, f"line-{number % 16}") for number in range(800)]
    limits, seen = Limits(40, 32 * 1024), set()
    for _ in range(16):
        publishes = turn(waiting[:200], limits)
        assert sum(len(one.payload) for one in publishes) <= limits.largest_bytes
        gone = {event_id for one in publishes for event_id in one.event_ids}
        seen |= {one.stream for one in publishes}
        waiting = [one for one in waiting if one.event_id not in gone]
    assert len(seen) == 16


@pytest.mark.parametrize("most", [1, 2, 7])
def test_number_of_events_is_kept_and_the_rest_waits(most: int) -> None:
    events = [record(number) for number in range(10)]

    (publish,) = turn(events, Limits(most, 128 * 1024))

    assert list(publish.records) == events[:most]


def test_bytes_are_kept_to_the_last_one() -> None:
    events = [record(number) for number in range(10)]
    size = len(b'{"events":[]}') + sum(len(one.payload) for one in events[:4]) + 3
    for limit, fits in ((size, 4), (size - 1, 3)):
        (publish,) = turn(events, Limits(100, limit))
        assert len(publish.records) == fits
        assert len(publish.payload) <= limit


def test_event_that_is_larger_than_a_batch_goes_alone_and_holds_its_place() -> None:
    events = [
        record(1),
        Record("big", "predictions-line-1", STATION.topic("inspection"), b"{" + b" " * 5000),
        record(3),
    ]
    limits = Limits(100, 4000)

    assert [one.event_ids for one in turn(events, limits)] == [[events[0].event_id]]
    assert [one.event_ids for one in turn(events[1:], limits)] == [["big"]]


@pytest.mark.parametrize(
    ("topic", "payload"),
    [("elsewhere/inspection", b"{}"), (STATION.topic("inspection"), '{"id":"a"}'.encode("utf-16-le")),
     (STATION.topic("inspection"), b"\xef\xbb\xbf{}"), (STATION.topic("inspection"), b'{"x":NaN}'),
     (STATION.topic("inspection"), b'{"x":"\xed\xa0\x80"}'), (STATION.topic("inspection"), b"{no json}"),
     (STATION.topic("inspection"), b'{"x":' + b"[" * 980 + b"]" * 980 + b"}")],
)  # fmt: skip
def test_what_can_share_no_publish_goes_alone_in_its_turn(topic: str, payload: bytes) -> None:
    odd = Record("odd", "predictions-line-1", topic, payload)
    events = [record(1), record(2), odd, record(4), record(5)]

    assert [list(one.records) for one in turn(events, ROOMY)] == [events[:2]]
    assert [list(one.records) for one in turn(events[2:], ROOMY)] == [[odd]]
    assert turn(events[2:], ROOMY)[0].topic == topic


def test_event_that_must_be_alone_is() -> None:
    events = [record(number) for number in range(5)]

    assert [list(one.records) for one in turn(events, ROOMY, {events[0].event_id})] == [events[:1]]
    assert [list(one.records) for one in turn(events, ROOMY, {events[2].event_id})] == [events[:2]]


def test_defaults_are_those_of_the_settings() -> None:
    fields = UplinkSettings.model_fields
    assert Limits(fields["batch_max_events"].default, fields["batch_max_bytes"].default) == DEFAULT_LIMITS
