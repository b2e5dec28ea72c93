# SPDX-License-Identifier: Apache-2.0
"""Events as they travel: a CloudEvents 1.0 JSON object around a message of linewatch/v1/event.proto."""

import json
import time
from dataclasses import dataclass

import uuid6
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from linewatch.v1 import event_pb2
from linewatch_runtime.clocks import boot_id, clock_synchronised, since_boot

DATA_SCHEMA = "linewatch/v1/event.proto"
DEVICE_LINE = "device"
"""The line of what belongs to the device and to no line; no real line may be called so."""

MAX_EVENT_BYTES = 5 * 1024
"""Of an event on its way to the cloud."""

MINTED_EVENT_BYTES = MAX_EVENT_BYTES - 64
"""Of an event when it is made: the forwarder may add origin.corrected_at, 43 bytes."""

EventData = event_pb2.Inspection | event_pb2.PartsSkipped | event_pb2.EventsDropped | event_pb2.Engine


@dataclass(frozen=True, slots=True)
class Place:
    """A site, a line and a station: where an event comes from."""

    site: str
    line: str
    station: str

    def topic(self, kind: str) -> str:
        """The topic of this place; kind is inspection, engine, status or committed."""
        return f"linewatch/v1/{self.site}/{self.line}/{self.station}/{kind}"

    @property
    def source(self) -> str:
        """The CloudEvents source."""
        return f"/linewatch/v1/{self.site}/{self.line}/{self.station}"


def stream_of(line: str) -> str:
    """The stream that holds a line's events: `predictions-line-{line}`, or `events-device` for the device's own.

    A line's own "line-" is not said twice: line-1 has predictions-line-1.
    """
    return "events-device" if line == DEVICE_LINE else f"predictions-line-{line.removeprefix('line-')}"


def new_event_id() -> str:
    """A UUIDv7: unique, and its first 48 bits are the milliseconds since 1970, so ids sort roughly by time."""
    return str(uuid6.uuid7())


def origin(place: Place, epoch: int, sequence: int, age_s: float = 0.0) -> event_pb2.Origin:
    """Where and when; `age_s`: seconds, on a monotonic clock, since what the event tells of was taken.

    All clocks are read here and now, synchronised first: a wall clock that is set in between is then called not
    synchronised, and the forwarder corrects it. The other way round a wrong time would be called a right one.
    """
    clock = event_pb2.Clock(boot_id=boot_id(), monotonic_s=since_boot() - age_s)
    synchronised = clock_synchronised()
    if synchronised is not None:
        clock.synchronised = synchronised
    stamp = Timestamp()
    stamp.FromMilliseconds(round((time.time() - age_s) * 1000))
    return event_pb2.Origin(
        site=place.site, line=place.line, station=place.station, epoch=epoch, sequence=sequence,
        taken_at=stamp, clock=clock,
    )  # fmt: skip


def envelope(
    event_id: str, kind: str, place: Place, data: EventData, *, subject: str = "", traceparent: str = ""
) -> bytes:
    """The event as JSON bytes. `kind` is the CloudEvents type, such as "InferenceCompleted".

    `data` is a message of event.proto with an `origin`.
    """
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": place.source,
        "type": kind,
        "time": data.origin.taken_at.ToJsonString(),
        "datacontenttype": "application/json",
        "dataschema": DATA_SCHEMA,
        "data": json_format.MessageToDict(data, preserving_proto_field_name=True),
    }
    if subject:
        event["subject"] = subject
    if traceparent:
        event["traceparent"] = traceparent
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
