# SPDX-License-Identifier: Apache-2.0
"""How an event travels inside a Stream Manager message: a frame that tells its version and proves its bytes.

    magic "LW" | version, 1 byte | CRC-32 of the rest, 4 bytes big-endian | CBOR map

The map's keys: id, stream, topic, alarm, payload (the event as it travels). A reader of version 1 passes over keys that
it does not know; a change that it could not read makes a new version.
"""

import struct
import zlib

import cbor2

from linewatch_runtime.records import Record

MAGIC = b"LW"
VERSION = 1
_HEAD = struct.Struct(">2sBI")


class NoFrame(Exception):
    """The bytes are not what a forwarder wrote: damaged, of a newer version, or somebody else's."""


def framed(record: Record) -> bytes:
    """The message that holds this record."""
    body = cbor2.dumps(
        {
            "id": record.event_id,
            "stream": record.stream,
            "topic": record.topic,
            "alarm": record.alarm,
            "payload": record.payload,
        }
    )
    return _HEAD.pack(MAGIC, VERSION, zlib.crc32(body)) + body


def unframed(message: bytes) -> Record:
    """The record in a message. Raises NoFrame."""
    if len(message) < _HEAD.size or message[:2] != MAGIC:
        raise NoFrame("it does not begin as a forwarder's message")
    _, version, crc = _HEAD.unpack_from(message)
    if version != VERSION:
        raise NoFrame(f"its version is {version}; this forwarder reads {VERSION}")
    body = message[_HEAD.size :]
    if zlib.crc32(body) != crc:
        raise NoFrame("its checksum is wrong")
    try:
        found = cbor2.loads(body)
        return Record(
            str(found["id"]), str(found["stream"]), str(found["topic"]), bytes(found["payload"]), bool(found["alarm"])
        )  # fmt: skip
    except (cbor2.CBORDecodeError, KeyError, TypeError, ValueError) as error:
        raise NoFrame(f"its body can't be read: {error!r}") from error
