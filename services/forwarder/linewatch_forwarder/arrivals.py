# SPDX-License-Identifier: Apache-2.0
"""Turns what came over MQTT into a record for the spool, or says why it can't be one."""

import hashlib
from dataclasses import dataclass

from linewatch_forwarder.payloads import json_object
from linewatch_forwarder.uplinks.batches import batch_topic
from linewatch_runtime.events import Place, stream_of
from linewatch_runtime.mqtt import Message
from linewatch_runtime.spool import Record

LARGEST_PAYLOAD = 128 * 1024
"""IoT Core's limit for one publish, bytes."""

LONGEST_TOPIC = 256
"""IoT Core's limit, bytes of UTF-8; the three segments of Basic Ingest in front of a topic do not count."""

LONGEST_ID = 64

KEPT_OF_UNREADABLE = 8 * 1024
"""Bytes of a message that is no event, kept for a person; whole ones could fill the disk."""

_NOWHERE = "unknown"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message, understood as far as it can be.

    Attributes:
        place: where it came from, by its topic; its producer listens there for `committed`.
        record: the event; of what is none, the dead letter.
        told_id: by which its producer knows it; empty where that can't be read.
        reason: why it can never be delivered; empty for a good event.
    """

    place: Place
    record: Record
    told_id: str
    reason: str = ""


def arrival(message: Message) -> Arrival:
    """The message as a record. Never raises: what is no event is an arrival with a reason, to be buried."""
    parts = message.topic.split("/")
    place = Place(*parts[-4:-1]) if len(parts) >= 4 else Place(_NOWHERE, _NOWHERE, _NOWHERE)
    event_id = ""
    try:
        event = json_object(message.payload)
        event_id = _id(event)
        kind = str(event["type"])
        # What the cloud would take for poison stays here, where somebody sees it: IoT Core refuses no payload.
        if event["specversion"] != "1.0" or not isinstance(event["data"], dict):
            raise ValueError("it is no CloudEvent of specversion 1.0 with an object as data")
    except (ValueError, KeyError) as error:
        return _poison(message, place, event_id, f"no CloudEvents object: {error!r}")
    if len(message.payload) > LARGEST_PAYLOAD:
        too_large = f"{len(message.payload)} bytes; {LARGEST_PAYLOAD} can be published"
        return _poison(message, place, event_id, too_large)
    if _is_too_long(message.topic) or _is_too_long(batch_topic(place.site, place.line)):
        return _poison(
            message, place, event_id, f"its topic, alone or of a batch, is over {LONGEST_TOPIC} bytes"
        )
    record = Record(event_id, stream_of(place.line), message.topic, message.payload, _is_alarm(kind, event))
    return Arrival(place, record, event_id)


def _id(event: dict[str, object]) -> str:
    event_id = event["id"]
    # Printable ASCII: an id of other types could collide, and a lone surrogate can't be stored.
    if not (isinstance(event_id, str) and event_id.isascii() and event_id.isprintable()):
        raise ValueError("its id is no text of printable ASCII characters")
    if not 0 < len(event_id) <= LONGEST_ID:
        raise ValueError(f"its id has {len(event_id)} characters, 1 to {LONGEST_ID} are allowed")
    return event_id


def _poison(message: Message, place: Place, event_id: str, reason: str) -> Arrival:
    """A dead letter, under an id made of the whole message: the same one is kept once however often it comes, and
    what is stored, or will be, under the id that it claims is another.
    """
    topic = message.topic.encode(errors="replace")
    digest = hashlib.sha256(len(topic).to_bytes(4) + topic + message.payload).hexdigest()[:32]
    # A name of 65,000 bytes would stay in the counts for ever.
    line = _NOWHERE if _is_too_long(message.topic) else place.line
    payload = message.payload[:KEPT_OF_UNREADABLE]
    # A topic is cut so that it is still too long: judged again, before a replay, the letter stays one.
    letter = Record(
        f"poison-{digest}", stream_of(line), message.topic[: LONGEST_TOPIC + 1], payload, alarm=True
    )
    return Arrival(place, letter, event_id, f"{reason} (id {event_id})" if event_id else reason)


def _is_too_long(topic: str) -> bool:
    return len(topic.encode(errors="replace")) > LONGEST_TOPIC


def _is_alarm(kind: str, event: dict[str, object]) -> bool:
    """Routine is only a part that was judged OK; whatever can't be read as that is an alarm."""
    data = event.get("data")
    verdict = data.get("verdict") if isinstance(data, dict) else None
    result = verdict.get("result") if isinstance(verdict, dict) else None
    return not (kind == "InferenceCompleted" and result == "OK")
