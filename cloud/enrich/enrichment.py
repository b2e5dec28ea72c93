# SPDX-License-Identifier: Apache-2.0
"""From the body of a queue message to events that can be trusted. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from dead_letters.poison import PoisonError
from enrich import contract, strict_json
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
_ID = re.compile(rf"[!-~]{{1,{MAX_EVENT_ID}}}")

MAX_EVENTS = 100
"""In one message: twice what a forwarder may put into one. Each that is poison costs a call."""

LARGEST_EVENT = 64 * 1024
"""Bytes of JSON in ASCII, as it is stored and passed on: the contract allows 5 KB on the wire, SQS 256 KB with the asset."""

_SCHEMA = re.compile(r"linewatch/v([0-9]{1,9})/event\.proto")

KEEP = timedelta(days=400)
"""For how long the cloud keeps an event, where nobody says otherwise (parameter EventDays)."""


@dataclass(frozen=True, slots=True)
class Event:
    """One CloudEvent whose `data` has been read as its message."""

    event_id: str
    type: str
    # The CloudEvent as it came; `data` in canonical proto3 JSON, with the fields that only a later release knows.
    document: Mapping[str, Any]
    message: Message
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
    def is_of_a_station(self) -> bool:
        """It takes a place in a station's sequence, so that the station should have an asset."""
        return MESSAGES[self.type] in (event_pb2.Inspection, event_pb2.PartsSkipped)

    @property
    def station_key(self) -> str:
        """Key of the asset registry."""
        return f"{self.site}/{self.line}/{self.station}"


def read(body: str, now: datetime | None = None, keep: timedelta = KEEP) -> list[Event | PoisonError]:
    """The events of one message, each by itself: what is wrong with one is no fault of the others.

    A message is a CloudEvent, a list of them, or an object with such a list as `events`. Never raises.
    """
    try:
        document = strict_json.parse(body)
        is_batch = isinstance(document, dict) and "specversion" not in document
        if is_batch and isinstance(document.get("events"), list):
            document = document["events"]
        if not isinstance(document, list):
            return [_event_or_poison(document, body, now or datetime.now(UTC), keep)]
        if len(document) > MAX_EVENTS:
            raise PoisonError("too_many", f"{len(document)} events in one message; {MAX_EVENTS} are taken")
    except PoisonError as error:
        return [PoisonError(error.code, error.why, body=body)]
    # A dead letter holds one event, as it was written.
    return [_event_or_poison(entry, None, now or datetime.now(UTC), keep) for entry in document]


def _event_or_poison(document: Any, body: str | None, now: datetime, keep: timedelta) -> Event | PoisonError:
    try:
        return _event(document, now, keep)
    except PoisonError as error:
        event_id = document.get("id") if isinstance(document, dict) else None
        told = event_id if isinstance(event_id, str) else ""
        return PoisonError(error.code, error.why, told, _text(document) if body is None else body)


def _text(document: Any) -> str:
    try:
        return json.dumps(document, separators=(",", ":"))
    except RecursionError:
        return ""


def _event(document: Any, now: datetime, keep: timedelta) -> Event:
    # Before every other look at it, whose cost grows with its size.
    if len(text := _text(document)) > LARGEST_EVENT:
        raise PoisonError("too_large", f"the event has {len(text)} bytes; {LARGEST_EVENT} are taken")
    strict_json.check(document)
    _check_attributes(document)
    kind = document["type"]
    message = MESSAGES[kind]()
    contract.check_shape(document.get("data", {}), message.DESCRIPTOR)
    try:
        json_format.ParseDict(document.get("data", {}), message, ignore_unknown_fields=True)
    except (json_format.ParseError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise PoisonError("bad_data", f"data is no {type(message).DESCRIPTOR.full_name}: {error}") from error
    contract.check(kind, message, now, keep)
    data = json_format.MessageToDict(message, preserving_proto_field_name=True)
    origin = message.origin  # type: ignore[attr-defined]
    return Event(
        event_id=document["id"],
        type=kind,
        document={**document, "data": contract.kept(document.get("data"), data, message)},
        message=message,
        site=origin.site,
        line=origin.line,
        station=origin.station,
        epoch=origin.epoch,
        sequence=origin.sequence,
    )


def _check_attributes(document: Any) -> None:
    if not isinstance(document, dict) or document.get("specversion") != "1.0":
        raise PoisonError("not_a_cloudevent", "it is no CloudEvent of specversion 1.0")
    event_id, kind, schema = document.get("id"), document.get("type"), document.get("dataschema")
    if not isinstance(event_id, str) or not _ID.fullmatch(event_id):
        raise PoisonError("bad_id", f"id is no text of 1 to {MAX_EVENT_ID} visible ASCII characters")
    if not isinstance(document.get("source"), str) or not document["source"]:
        raise PoisonError("not_a_cloudevent", "source is missing or no text")
    for name in ("time", "subject", "datacontenttype"):
        if not isinstance(document.get(name, ""), str):
            raise PoisonError("not_a_cloudevent", f"{name} is no text")
    # Before the type: a later major version may have types that this release has never heard of.
    if schema is not None:
        found = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
        if found is None:
            raise PoisonError("unknown_schema", f"dataschema {schema!r} is not linewatch/v1/event.proto")
        if int(found[1]) != 1:
            why = (
                f"dataschema {schema} is of version {found[1]} of the contract; this release reads version 1"
            )
            raise PoisonError("future_schema", why)
    if not isinstance(kind, str) or kind not in MESSAGES:
        raise PoisonError("unknown_type", f"type {kind!r} is none of {', '.join(MESSAGES)}")
