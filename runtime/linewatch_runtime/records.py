# SPDX-License-Identifier: Apache-2.0
"""The words of the spool: what goes in, what comes out, how much it may hold, and who loses when it is full."""

import enum
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

ROW_OVERHEAD = 400
"""Bytes counted per row beside its payload: id, topic, indexes, space that a page can't use. Measured, for payloads of
600 to 1,500 bytes: test_spool.py::test_file_stays_near_its_count."""


class WhenFull(enum.StrEnum):
    """Who loses when a stream is full."""

    REJECT = "reject"
    SHED_GOOD = "shed_good"
    OVERWRITE_OLDEST = "overwrite_oldest"


class SpoolFull(Exception):
    """No room in the stream, or on the disk. Nothing of the batch was stored; hold it and try again."""

    def __init__(self, stream: str, detail: str) -> None:
        super().__init__(f"{stream}: {detail}" if stream else detail)
        self.stream = stream
        self.detail = detail


class SpoolTrouble(SpoolFull):
    """The disk or the file failed, and nothing of the call was done: hold what you have and try again, as with a full
    stream. A damaged file has been salvaged when this is told, or will be at a later try.
    """


class SpoolDamaged(Exception):
    """The file can't be used as a spool, and could not be replaced by a salvaged one either."""


class VolumeFull(SpoolDamaged):
    """The file can't be opened now because its volume has no room. It is sound as far as anybody can tell: try again."""


@dataclass(frozen=True, slots=True)
class StreamLimit:
    """How much one stream may hold."""

    max_bytes: int = 10 * 1024 * 1024
    max_age_s: float = 7 * 24 * 3600.0
    when_full: WhenFull = WhenFull.REJECT


@dataclass(frozen=True, slots=True)
class Record:
    """An event on its way in. `payload` is what travels; `alarm` is its class."""

    event_id: str
    stream: str
    topic: str
    payload: bytes
    alarm: bool = False

    @property
    def size(self) -> int:
        """Bytes counted against the stream's limit."""
        return len(self.payload) + ROW_OVERHEAD

    @property
    def crc(self) -> int:
        """CRC-32 of all of it; kept in the row, so that damage on the disk never travels."""
        head = f"{self.event_id}\0{self.stream}\0{self.topic}\0{self.alarm:d}\0".encode()
        return zlib.crc32(self.payload, zlib.crc32(head))


@dataclass(frozen=True, slots=True)
class Stored:
    """An event in the spool."""

    position: int
    record: Record
    age_s: float


@dataclass(frozen=True, slots=True)
class StreamState:
    """Fill and history of one stream. `dropped` maps a reason to a count."""

    name: str
    events: int
    bytes: int
    max_bytes: int
    oldest_age_s: float
    stored: int
    settled: int
    buried: int
    dropped: Mapping[str, int]


class DropReport(Protocol):
    """Makes the event that tells upstream of `count` drops from `stream` for `reason`."""

    def __call__(self, stream: str, reason: str, count: int) -> Record:
        """The event to store."""
