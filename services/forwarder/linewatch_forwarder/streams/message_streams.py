# SPDX-License-Identifier: Apache-2.0
"""Our message streams in Stream Manager: their names and definitions, and how they are written and read.

Every method blocks, one request after the other, and raises StreamsUnavailable when an answer is missing.

Of what Stream Manager does with a stream, this is built on (SDK 1.1.2 and the developer guide): sequence numbers rise by
one and are never used twice; a read that begins below the oldest number begins there; data is freed by whole segments,
oldest first, when the size or the age is reached, whether it was read or not.
"""

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stream_manager.data import (
    Message,
    MessageStreamDefinition,
    MessageStreamInfo,
    Persistence,
    ReadMessagesOptions,
    StrategyOnFull,
)
from stream_manager.exceptions import (
    InvalidRequestException,
    MessageStoreReadErrorException,
    NotEnoughMessagesException,
    ResourceNotFoundException,
    StreamManagerException,
)

from linewatch_forwarder.streams.port import StreamsUnavailable
from linewatch_forwarder.streams.sdk import Session
from linewatch_runtime.records import SpoolFull

log = logging.getLogger(__name__)

DEVICE_STREAM = "events-device"
ALARMS = "-alarms"
_STREAM = re.compile(r"predictions-line-[A-Za-z0-9_-]{1,64}")
_MESSAGE_STREAM = re.compile(rf"{_STREAM.pattern}|{DEVICE_STREAM}")

NO_TTL_MS = 9_223_372_036_854
"""The longest that Stream Manager takes, 292 years. Its ages are by the wall clock, which jumps by decades on a device
without a battery; ours (Ledger.expire) are not. What has expired is overwritten like all else."""

GROUP_S = 10.0
"""For the appends of one group in all; what is left of it then is the producer's to send again."""

READ_AT_ONCE = 500
READ_BYTES = 4 * 1024 * 1024

NEAR = 16
"""Messages that are read although nobody asked for them, rather than to read twice."""


def message_stream_of(stream: str, *, alarm: bool) -> str:
    """Where Stream Manager holds a stream's events. Raises SpoolFull for a line whose name it could not keep apart."""
    if stream == DEVICE_STREAM:
        return stream
    if not _STREAM.fullmatch(stream) or stream.endswith(ALARMS):
        raise SpoolFull(
            stream[:100],
            "the line's name can name no stream in Stream Manager; take 1 to 64 letters of ASCII, digits, _ and -,"
            f" not ending in {ALARMS}",
        )
    return stream + ALARMS if alarm else stream


@dataclass(frozen=True, slots=True)
class Extent:
    """What a message stream holds: sequence numbers from `oldest` to `newest`; newest below oldest: nothing."""

    oldest: int
    newest: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Appended:
    """How far a group got: sequence numbers in order, and why it ended early, if it did."""

    sequences: list[int]
    error: SpoolFull | StreamsUnavailable | ResourceNotFoundException | None


class MessageStreams:
    """Ours, through a session."""

    def __init__(self, session: Session, max_bytes: int, segment_bytes: int) -> None:
        self._session = session
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes

    def names(self) -> set[str]:
        """Ours among all that Stream Manager has."""
        return {
            name for name in self._session.call(lambda client: client.list_streams()) if _MESSAGE_STREAM.fullmatch(name)
        }  # fmt: skip

    def definition(self, name: str) -> MessageStreamDefinition:
        """How a stream of ours is to be."""
        return MessageStreamDefinition(
            name=name,
            max_size=self._max_bytes,
            stream_segment_size=self._segment_bytes,
            time_to_live_millis=NO_TTL_MS,
            strategy_on_full=StrategyOnFull.OverwriteOldestData,
            persistence=Persistence.File,
            # Without it Stream Manager answers before the disk has the message, and a power cut takes it.
            flush_on_write=True,
        )

    def make(self, name: str) -> None:
        """Makes a stream, or makes the one that is there as it is to be, as far as it can be changed."""
        wanted = self.definition(name)
        try:
            self._session.call(lambda client: client.create_message_stream(wanted))
            log.info("message_stream_made", extra={"stream": name})
            return
        except InvalidRequestException as error:
            found = self._describe(name)
            if found is None:
                raise StreamsUnavailable(f"Stream Manager does not make {name}: {error}") from error
        if _told(found.definition) == _told(wanted):
            return
        try:
            self._session.call(lambda client: client.update_message_stream(wanted))
            log.info("message_stream_changed", extra={"stream": name, "to": _told(wanted)})
        except StreamManagerException as error:  # not allowed, failed, or a server that is too old to know it
            # Used as it is: events come first, and a smaller size or memory persistence is for a person to judge.
            log.error("message_stream_differs", extra={
                "stream": name, "is": _told(found.definition), "wanted": _told(wanted), "reason": str(error),
                "remedy": "let it drain, stop the forwarder, delete this stream in Stream Manager, start the forwarder",
            })  # fmt: skip

    def delete(self, name: str) -> None:
        """Deletes a stream with all that it holds."""
        with contextlib.suppress(ResourceNotFoundException):
            self._session.call(lambda client: client.delete_message_stream(name))

    def extent(self, name: str) -> Extent | None:
        """What a stream holds now; None: there is no such stream."""
        found = self._describe(name)
        if found is None:
            return None
        status = found.storage_status
        oldest, newest = status.oldest_sequence_number, status.newest_sequence_number
        if newest is None or newest < 0:
            return Extent(0, -1, 0)
        return Extent(oldest or 0, newest, status.total_bytes or 0)

    def append(self, name: str, messages: Sequence[bytes]) -> Appended:
        """Appends in order until one fails; a message whose sequence number is returned is on disk."""
        sequences: list[int] = []
        deadline = time.monotonic() + GROUP_S
        for message in messages:
            try:
                if time.monotonic() > deadline:
                    raise StreamsUnavailable(
                        f"Stream Manager took {GROUP_S:g} s for {len(sequences)} appends"
                    )
                sequences.append(self._append(name, message))
            except ResourceNotFoundException as error:
                return Appended(sequences, error)
            except StreamsUnavailable as error:
                return Appended(sequences, error)
            except StreamManagerException as error:  # full, too large, out of memory: it answers, and says no
                return Appended(
                    sequences, SpoolFull(name, f"Stream Manager: {type(error).__name__}: {error}")
                )
        return Appended(sequences, None)

    def read(self, name: str, first: int, count: int = READ_AT_ONCE) -> list[Message]:
        """Up to `count` messages from `first`, or from the oldest after it; none: there are none from there on.

        Raises:
            MessageStoreReadErrorException: Stream Manager can't read its own file.
        """
        options = ReadMessagesOptions(first, 1, count, 0)
        try:
            found: list[Message] = self._session.call(lambda client: client.read_messages(name, options))
        except NotEnoughMessagesException:
            return []
        return found

    def read_all(
        self, name: str, first: int, last: int, unreadable: set[tuple[str, int]] | None = None
    ) -> Iterator[Message]:
        """Every message that is there from `first` to `last`.

        What Stream Manager has and can't read is passed over, told in the log, and put into `unreadable`.
        """
        alone_to = first - 1  # up to here one by one: the others are not to wait for what can't be read
        while first <= last:
            count = 1 if first <= alone_to else min(READ_AT_ONCE, last - first + 1)
            try:
                found = self.read(name, first, count)
            except MessageStoreReadErrorException as error:
                if count > 1:
                    alone_to = first + count - 1
                    continue
                log.error(
                    "message_unreadable", extra={"stream": name, "sequence": first, "reason": str(error)}
                )
                if unreadable is not None:
                    unreadable.add((name, first))
                first += 1
                continue
            if not found:
                return
            yield from (one for one in found if one.sequence_number <= last)
            first = found[-1].sequence_number + 1

    def fetch(
        self, wanted: Mapping[tuple[str, int], int]
    ) -> tuple[dict[tuple[str, int], bytes], set[tuple[str, int]]]:
        """The messages at (name, sequence number), given with their sizes.

        Returns:
            What was found, and what Stream Manager has and can't read; what is in neither is gone.
        """
        found: dict[tuple[str, int], bytes] = {}
        unreadable: set[tuple[str, int]] = set()
        for name, sequences in _runs(wanted):
            with contextlib.suppress(ResourceNotFoundException):
                for one in self.read_all(name, sequences[0], sequences[-1], unreadable):
                    found[name, one.sequence_number] = one.payload
        return found, unreadable

    def _append(self, name: str, message: bytes) -> int:
        sequence: int = self._session.call(lambda client: client.append_message(name, message))
        return sequence

    def _describe(self, name: str) -> MessageStreamInfo | None:
        try:
            return self._session.call(lambda client: client.describe_message_stream(name))
        except ResourceNotFoundException:
            return None


def _told(definition: MessageStreamDefinition) -> dict[str, object]:
    """What we decide of a definition, for comparison and for people."""
    strategy, persistence = definition.strategy_on_full, definition.persistence
    return {
        "max_size": definition.max_size,
        "stream_segment_size": definition.stream_segment_size,
        "time_to_live_millis": definition.time_to_live_millis,
        "strategy_on_full": strategy.name if strategy else None,
        "persistence": persistence.name if persistence else Persistence.File.name,
        "flush_on_write": bool(definition.flush_on_write),
    }


def _runs(wanted: Mapping[tuple[str, int], int]) -> Iterator[tuple[str, list[int]]]:
    """Sequence numbers of one stream that are read together: near each other, and within READ_BYTES."""
    run: list[int] = []
    run_name, size = "", 0
    for (name, sequence), bytes_ in sorted(wanted.items()):
        if run and (name != run_name or sequence - run[-1] > NEAR or size + bytes_ > READ_BYTES):
            yield run_name, run
            run, size = [], 0
        run_name = name
        run.append(sequence)
        size += bytes_
    if run:
        yield run_name, run
