# SPDX-License-Identifier: Apache-2.0
"""Turns what came over MQTT into a record for the spool, or says why it can't be one."""

import json
from dataclasses import dataclass

from linewatch_runtime.events import Place, new_event_id, stream_of
from linewatch_runtime.mqtt import Message
from linewatch_runtime.spool import Record

LARGEST_PAYLOAD = 128 * 1024
"""IoT Core's limit for one publish, bytes."""

LONGEST_ID = 64

KEPT_OF_UNREADABLE = 8 * 1024
"""Bytes of a message that is no event, kept for a person; whole ones could fill the disk."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message, understood as far as it can be.

    Attributes:
        place: where it came from, by its topic; its producer listens there for `committed`.
        reason: why it can never be delivered; empty for a good event.
    """

    place: Place
    record: Record
    reason: str = ""


def arrival(message: Message) -> Arrival:
    """The message as a record. Never raises: what is no event is an arrival with a reason, to be buried."""
    parts = message.topic.split("/")
    place = Place(*parts[-4:-1]) if len(parts) >= 4 else Place("unknown", "unknown", "unknown")
    stream = stream_of(place.line)
    try:
        event = json.loads(message.payload)
        event_id, kind = event["id"], str(event["type"])
        # Printable ASCII: an id of other types could collide, and a lone surrogate can't be stored.
        if not (isinstance(event_id, str) and event_id.isascii() and event_id.isprintable()):
            raise ValueError("its id is no text of printable ASCII characters")
        if not 0 < len(event_id) <= LONGEST_ID:
            raise ValueError(f"its id has {len(event_id)} characters, 1 to {LONGEST_ID} are allowed")
        # What the cloud would take for poison stays here, where somebody sees it: IoT Core refuses no payload.
        if event["specversion"] != "1.0" or not isinstance(event["data"], dict):
            raise ValueError("it is no CloudEvent of specversion 1.0 with an object as data")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        payload = message.payload[:KEPT_OF_UNREADABLE]
        unknown = Record(new_event_id(), stream, message.topic, payload, alarm=True)
        return Arrival(place, unknown, f"no CloudEvents object: {error!r}")
    if len(message.payload) > LARGEST_PAYLOAD:
        large = Record(event_id, stream, message.topic, message.payload[:KEPT_OF_UNREADABLE], alarm=True)
        return Arrival(place, large, f"{len(message.payload)} bytes; {LARGEST_PAYLOAD} can be published")
    return Arrival(place, Record(event_id, stream, message.topic, message.payload, _is_alarm(kind, event)))


def _is_alarm(kind: str, event: dict[str, object]) -> bool:
    """Routine is only a part that was judged OK; whatever can't be read as that is an alarm."""
    data = event.get("data")
    verdict = data.get("verdict") if isinstance(data, dict) else None
    result = verdict.get("result") if isinstance(verdict, dict) else None
    return not (kind == "InferenceCompleted" and result == "OK")
