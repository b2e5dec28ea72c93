# SPDX-License-Identifier: Apache-2.0
"""From the body of a queue message to events that can be trusted. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from linewatch.v1 import event_pb2

# Which message a CloudEvents type carries in `data`; event.proto says so.
MESSAGES: Mapping[str, type[Message]] = {
    "InferenceCompleted": event_pb2.Inspection,
    "InferenceError": event_pb2.Inspection,
    "PartsSkipped": event_pb2.PartsSkipped,
    "EventsDropped": event_pb2.EventsDropped,
    "EngineStarted": event_pb2.Engine,
    "EngineShutdown": event_pb2.Engine,
    "EngineError": event_pb2.Engine,
    "ModelLoadSuccess": event_pb2.Engine,
    "ModelLoadError": event_pb2.Engine,
}

# DynamoDB takes 2 KB in a key; ours are UUIDs.
MAX_EVENT_ID = 128


class PoisonError(Exception):
    """A message that no repeat will make readable; it names what is wrong."""


@dataclass(frozen=True, slots=True)
class Event:
    """One CloudEvent whose `data` has been read as its message."""

    event_id: str
    type: str
    # The CloudEvent as it came, unknown attributes included; `data` in canonical proto3 JSON, unknown fields left out.
    document: Mapping[str, Any]
    site: str
    line: str
    station: str
    epoch: int
    sequence: int

    @property
    def is_engine(self) -> bool:
        """A fact about the inference engine, not about a part."""
        return MESSAGES[self.type] is event_pb2.Engine

    @property
    def station_key(self) -> str:
        """Key of the asset registry."""
        return f"{self.site}/{self.line}/{self.station}"


def read(body: str) -> list[Event | PoisonError]:
    """The events of one message, each by itself: what is wrong with one is no fault of the others.

    A message is a CloudEvent, a list of them, or an object with such a list as `events`. Poison is: not JSON, not a
    CloudEvent 1.0, an unknown type, or data that is not that type's message.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        return [PoisonError(f"body is not JSON: {error}")]
    if (
        isinstance(document, dict)
        and "specversion" not in document
        and isinstance(document.get("events"), list)
    ):
        document = document["events"]
    return [_event_or_poison(entry) for entry in (document if isinstance(document, list) else [document])]


def _event_or_poison(document: Any) -> Event | PoisonError:
    try:
        return _event(document)
    except PoisonError as error:
        return error


def _event(document: Any) -> Event:
    if not isinstance(document, dict) or document.get("specversion") != "1.0":
        raise PoisonError("not a CloudEvent of specversion 1.0")
    event_id, kind = document.get("id"), document.get("type")
    if not isinstance(event_id, str) or not 0 < len(event_id) <= MAX_EVENT_ID:
        raise PoisonError(f"id is no string of 1 to {MAX_EVENT_ID} characters")
    if not isinstance(kind, str) or kind not in MESSAGES:
        raise PoisonError(f"unknown type {kind!r}")
    message = MESSAGES[kind]()
    try:
        json_format.ParseDict(document.get("data") or {}, message, ignore_unknown_fields=True)
    except (json_format.ParseError, TypeError, AttributeError, ValueError) as error:
        raise PoisonError(f"data is no {type(message).DESCRIPTOR.full_name}: {error}") from error
    origin = message.origin  # type: ignore[attr-defined]
    if not (origin.site and origin.line and origin.station):
        raise PoisonError("data.origin lacks site, line or station")
    data = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return Event(
        event_id=event_id,
        type=kind,
        document={**document, "data": data},
        site=origin.site,
        line=origin.line,
        station=origin.station,
        epoch=origin.epoch,
        sequence=origin.sequence,
    )


def asset_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of the asset registry as the enriched event carries it."""
    return {name: value for name, value in item.items() if name != "station_key"}
