# SPDX-License-Identifier: Apache-2.0
"""What goes out in one turn: at most one publish of each (stream, class), with one event or with several. Pure.

One publish at a time is what keeps the order: of two that are on their way together the first may fail and the second
be accepted. Several events in one publish is what makes that fast: a turn carries as many as wait, up to the limits.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from linewatch_forwarder.payloads import json_object
from linewatch_runtime.records import Record

BATCH_KIND = "batch"

_OPEN, _BETWEEN, _CLOSE = b'{"events":[', b",", b"]}"
"""An object around the list: of a list AWS documents no rule SQL that passes it (docs/decisions/0023)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one publish may carry, and how much a turn.

    Attributes:
        most_events: in one publish.
        largest_bytes: of one publish's payload, and of all of a turn together: a fresh alarm waits for that.
    """

    most_events: int
    largest_bytes: int


@dataclass(frozen=True, slots=True)
class Publish:
    """One request to the cloud, and the events in it."""

    topic: str
    payload: bytes
    records: tuple[Record, ...]

    @property
    def stream(self) -> str:
        """Of all its events."""
        return self.records[0].stream

    @property
    def event_ids(self) -> list[str]:
        """In the order of the events."""
        return [one.event_id for one in self.records]

    @property
    def is_batch(self) -> bool:
        """Whether it carries several events."""
        return len(self.records) > 1


def turn(records: Sequence[Record], limits: Limits, alone: Collection[str] = ()) -> list[Publish]:
    """The publishes of one turn, in the order of their first events.

    Args:
        records: in the order of delivery. What does not fit into the first publish of its (stream, class) is left out.
        limits: for a batch and for the turn. A single event may be larger, alone in its turn; whether the cloud takes it
            is for the cloud to say.
        alone: ids of events that must share a publish with no other.
    """
    groups: dict[tuple[str, bool], list[Record]] = {}
    for record in records:
        groups.setdefault((record.stream, record.alarm), []).append(record)
    publishes: list[Publish] = []
    size = 0
    for group in groups.values():
        publish = _first_publish(group, limits, alone)
        size += len(publish.payload)
        if publishes and size > limits.largest_bytes:
            break  # the first one always goes; as its events leave, the others' come to the front
        publishes.append(publish)
    return publishes


def _first_publish(group: Sequence[Record], limits: Limits, alone: Collection[str]) -> Publish:
    first, topic = group[0], _batch_topic(group[0])
    taken, size = [first], len(_OPEN) + len(first.payload) + len(_CLOSE)
    for record in group[1:] if topic and first.event_id not in alone else ():
        size += len(_BETWEEN) + len(record.payload)
        fits = len(taken) < limits.most_events and size <= limits.largest_bytes
        if not fits or record.event_id in alone or _batch_topic(record) != topic:
            break
        taken.append(record)
    if topic is None or len(taken) == 1:
        return Publish(first.topic, first.payload, (first,))
    return Publish(topic, _OPEN + _BETWEEN.join(one.payload for one in taken) + _CLOSE, tuple(taken))


def _batch_topic(record: Record) -> str | None:
    """Where a batch with this event goes; None for one that can share no publish: odd topic, or no UTF-8 JSON object."""
    parts = record.topic.split("/")
    if len(parts) != 6 or parts[:2] != ["linewatch", "v1"]:
        return None
    # Arrival takes nothing else now. What an older release stored may be: it would make the whole batch unreadable, and
    # the cloud acknowledges a batch before its rule reads it.
    try:
        json_object(record.payload)
    except ValueError:
        return None
    return batch_topic(parts[2], parts[3])


def batch_topic(site: str, line: str) -> str:
    """Where a line's batches go."""
    return f"linewatch/v1/{site}/{line}/forwarder/{BATCH_KIND}"
