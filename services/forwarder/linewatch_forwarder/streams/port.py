# SPDX-License-Identifier: Apache-2.0
"""The port to the forwarder's durable memory: one stream for each line, and one for the device's own events.

Two implementations keep it, and one suite tests both (tests/test_streams.py): streams/embedded.py over the spool, and
streams/stream_manager.py over AWS IoT Greengrass Stream Manager.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from linewatch_runtime.records import DropReport, Record, Stored, StreamState


class StreamsUnavailable(Exception):
    """The memory can't be asked now, as Stream Manager while it restarts. Hold what you have and try again."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that can never be delivered, kept for a person.

    Attributes:
        number: its name in commands; higher is younger.
        reason: what the cloud, or the forwarder, found wrong with it.
    """

    number: int
    record: Record
    reason: str


class DurableStreams(Protocol):
    """Every method may raise StreamsUnavailable; those that write may raise SpoolFull, and have then changed nothing."""

    @property
    def trouble(self) -> str:
        """Why the memory can't be asked now, for people; empty while it can."""

    async def append(self, records: Sequence[Record]) -> int:
        """Puts records of one stream on disk, all or none; they are safe when it returns.

        Returns how many were new; the others were known by their event id.
        """

    async def next(
        self, limit: int, *, except_streams: Collection[str] = (), except_ids: Collection[str] = ()
    ) -> list[Stored]:
        """The next events to deliver: alarms first, each class of a stream in the order of arrival."""

    async def settle(self, event_ids: Sequence[str]) -> None:
        """Lets events go that the cloud has: the checkpoint. After a restart they do not come again."""

    async def bury(self, record: Record, reason: str, *, once: bool = False) -> bool:
        """Puts an event aside that can never be delivered; it need not have been stored before.

        Returns whether it was put aside: with `once` not what is here, or has left not long ago.
        """

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """What was buried, youngest first."""

    async def replay(self, numbers: Collection[int]) -> int:
        """Puts dead letters back to be delivered, behind what waits. Returns how many; unknown numbers are passed over."""

    async def expire(self) -> int:
        """Drops what is older than its stream's age. Returns how many."""

    async def streams(self) -> list[StreamState]:
        """Every stream that was ever used, by name."""

    async def take_unreported_drops(self, make: DropReport) -> int:
        """Turns drops that the cloud was not told of into one event for each (stream, reason). Returns how many."""

    async def next_epoch(self) -> int:
        """A number above that of every earlier start."""

    async def discard(self) -> None:
        """Frees what lies outside of the state directory, once nothing waits there and another kind took over."""

    def close(self) -> None:
        """Ends what was asked, then closes. Nothing may be asked afterwards."""
