# SPDX-License-Identifier: Apache-2.0
"""The durable streams in AWS IoT Greengrass Stream Manager.

Each line has two message streams, `predictions-line-{lineId}` for routine events and `…-alarms`; the device has
`events-device`. Stream Manager holds the messages (frames.py), the ledger (ledger.py) what became of them, and the
uplink stays ours: Stream Manager has no export to IoT Core.

Guarantee: `append` returns when Stream Manager has flushed every message (flush_on_write) and the ledger has its rows.
A producer that was not told sends again; by then the event is known, because in each new session what lies above the
ledger's mark is read and taken in first. One event may lie there twice: when its request timed out, and Stream Manager
carried it out only after we had looked. The second one is not delivered while the first waits, nor after it, within the
last SETTLED_KEPT events; beyond them the cloud drops it by the same id.

Full: Stream Manager frees whole segments, oldest first, whether they were delivered or not. Routine events go that way
(`shed_good`, `overwrite_oldest`), and are counted once their sequence numbers are gone. What must not go, alarms and
with `reject` everything, is refused here before it could: `_make_sure_of_room`.
"""

import asyncio
import dataclasses
import functools
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from stream_manager.data import Message
from stream_manager.exceptions import ResourceNotFoundException, StreamManagerException

from linewatch_forwarder.streams.frames import NoFrame, framed, unframed
from linewatch_forwarder.streams.ledger import Account, Ledger, Placed, Waiting, open_ledger
from linewatch_forwarder.streams.message_streams import (
    ALARMS,
    DEVICE_STREAM,
    MessageStreams,
    message_stream_of,
)
from linewatch_forwarder.streams.port import DeadLetter, StreamsUnavailable
from linewatch_forwarder.streams.sdk import Session
from linewatch_runtime.events import new_event_id
from linewatch_runtime.lifecycle import in_daemon_thread
from linewatch_runtime.records import (
    DropReport,
    Record,
    SpoolFull,
    Stored,
    StreamLimit,
    StreamState,
    WhenFull,
)

log = logging.getLogger(__name__)

MESSAGE_OVERHEAD = 128
"""Bytes counted for each message beside its frame. How many Stream Manager counts is not documented: what it says that a
stream holds is compared with our count, and the larger one is believed."""

RESERVED_SEGMENTS = 2
"""Of a stream, kept free of what must not go: the segment that is freed next holds up to one segment of what was
delivered before the oldest waiting event, and the segment in hand is rounded up to a whole one."""

KEPT_OF_UNREADABLE = 8 * 1024
"""Bytes kept for a person of a message that is no frame."""

UNREADABLE_REST_S = 60.0
"""How long a message is left alone that Stream Manager has and can't read."""

LOOKS = 3
"""How often `next` looks again when what waits is no longer there."""

Answer = TypeVar("Answer")


class StreamManagerStreams:
    """DurableStreams over Stream Manager and a ledger."""

    def __init__(
        self, session: Session, open_ledger: Callable[[], Ledger], limit: StreamLimit, segment_bytes: int
    ) -> None:
        """Opens the ledger; Stream Manager may be away.

        Raises:
            SpoolDamaged: the ledger can't be read.
        """
        self._session = session
        self._streams = MessageStreams(session, limit.max_bytes, segment_bytes)
        self._limit = limit
        self._kept_bytes = limit.max_bytes - RESERVED_SEGMENTS * segment_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        try:
            self._ledger = self._thread.submit(open_ledger).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._ledger_trouble = ""
        self._turn = asyncio.Lock()  # one conversation with Stream Manager at a time
        self._looked = 0
        self._made: set[str] = set()
        self._weights: dict[str, float] = {}
        self._unreadable: dict[str, float] = {}

    @property
    def trouble(self) -> str:
        """Why Stream Manager can't be asked, or the ledger be written."""
        return self._session.trouble or self._ledger_trouble

    async def append(self, records: Sequence[Record]) -> int:
        """One message for each record, each flushed; a group that fails in the middle leaves a prefix, which is known."""
        async with self._turn:
            if not await self._keep(self._ledger.unknown, records):
                return 0
            await self._look()  # first: what an append left of which nobody knows the end is known after it
            groups: dict[str, list[Record]] = {}
            for record in await self._keep(self._ledger.unknown, records):
                groups.setdefault(message_stream_of(record.stream, alarm=record.alarm), []).append(record)
            frames = {name: [framed(one) for one in group] for name, group in groups.items()}
            for name, messages in frames.items():
                await self._make_sure_of_room(name, messages)
            return sum([await self._append(name, groups[name], frames[name]) for name in groups])

    async def next(
        self, limit: int, *, except_streams: Collection[str] = (), except_ids: Collection[str] = ()
    ) -> list[Stored]:
        """By class, then position, from the ledger; the events themselves from Stream Manager."""
        async with self._turn:
            for _ in range(LOOKS):
                await self._look()
                now = time.monotonic()
                self._unreadable = {name: until for name, until in self._unreadable.items() if until > now}
                skipped = {*except_ids, *self._unreadable}
                waiting = await self._keep(self._ledger.oldest, limit, except_streams, skipped)
                stored = await self._stored(waiting)
                if stored is not None:
                    return stored
            raise StreamsUnavailable("what waits changes in Stream Manager faster than it can be read")

    async def settle(self, event_ids: Sequence[str]) -> None:
        """In the ledger alone."""
        await self._keep(self._ledger.settle, event_ids)

    async def bury(self, record: Record, reason: str, *, once: bool = False) -> bool:
        """In the ledger, event and all."""
        return await self._keep(functools.partial(self._ledger.bury, once=once), record, reason)

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """From the ledger."""
        return await self._keep(self._ledger.dead_letters, limit)

    async def replay(self, numbers: Collection[int]) -> int:
        """In the ledger, which holds them until the cloud has them."""
        return await self._keep(self._ledger.replay, numbers)

    async def expire(self) -> int:
        """By the ledger's clock, which no wall clock moves; also looks for what Stream Manager has freed."""
        expired = await self._keep(self._ledger.expire)
        try:
            async with self._turn:
                await self._look()
                for name, account in (await self._keep(self._ledger.accounts)).items():
                    if account.span:
                        await self._reconcile(name)
        except StreamsUnavailable as error:
            log.debug("streams_not_looked_at", extra={"reason": str(error)})
        return expired

    async def streams(self) -> list[StreamState]:
        """From the ledger; a line's two message streams as one."""
        states = await self._keep(self._ledger.streams, self._limit.max_bytes)
        return [
            one if one.name == DEVICE_STREAM else dataclasses.replace(one, max_bytes=2 * one.max_bytes)
            for one in states
        ]

    async def take_unreported_drops(self, make: DropReport) -> int:
        """Counter and event in one transaction of the ledger, which holds these events itself."""
        return await self._keep(self._ledger.take_unreported_drops, make)

    async def discard(self) -> None:
        """Deletes our message streams, or a later return to Stream Manager would deliver them all again."""
        async with self._turn:
            for name in await self._ask(self._streams.names):
                await self._ask(functools.partial(self._streams.delete, name))

    async def next_epoch(self) -> int:
        """Kept in the ledger."""
        return await self._keep(self._ledger.next_epoch)

    def close(self) -> None:
        """Closes the ledger; what Stream Manager is asked now is not waited for."""
        self._session.close()
        self._thread.submit(self._ledger.close).result()
        self._thread.shutdown()

    # --- in ------------------------------------------------------------------------------------------------------------

    async def _append(self, name: str, records: list[Record], messages: list[bytes]) -> int:
        if name not in self._made:
            await self._ask(lambda: self._streams.make(name))
            self._made.add(name)
        # An append that is cancelled or fails is looked for before anything else is asked.
        looked, self._looked = self._looked, 0
        appended = await self._ask(lambda: self._streams.append(name, messages))
        accounted = (await self._keep(self._ledger.accounts)).get(name, Account()).accounted
        if appended.sequences and appended.sequences[0] <= accounted:
            await self._begin_anew(name)  # takes these in, too: the producer sends again, and they are known
            raise StreamsUnavailable(
                f"{name} in Stream Manager was made anew, or is older than this device's ledger"
            )
        new = await self._keep(self._ledger.place, [
            Placed(record.event_id, record.stream, record.alarm, name, sequence, len(message) + MESSAGE_OVERHEAD)
            for record, message, sequence in zip(records, messages, appended.sequences, strict=False)
        ])  # fmt: skip
        if isinstance(appended.error, ResourceNotFoundException):
            raise StreamsUnavailable(f"{name} was deleted from Stream Manager") from appended.error
        if isinstance(appended.error, StreamsUnavailable):
            raise appended.error
        self._looked = looked
        if appended.error:
            raise appended.error
        if not self._is_kept(name) and (await self._account(name)).span > self._kept_bytes:
            await self._reconcile(name)
        return new

    async def _make_sure_of_room(self, name: str, messages: list[bytes]) -> None:
        """Raises SpoolFull before an append could free a segment with a waiting event that must not go.

        Stream Manager frees the oldest segment while what it holds and the new message exceed the maximum. It comes to
        the segment of our oldest waiting event only when less than one segment lies before that event in its segment,
        so: span + new + 1 segment <= maximum keeps it; a second segment is kept for what we don't see.
        """
        if not self._is_kept(name):
            return
        size = sum(len(message) + MESSAGE_OVERHEAD for message in messages)
        account = await self._account(name)
        if account.span + size > self._kept_bytes // 4:
            await self._reconcile(name)
            account = await self._account(name)
        if (account.span + size) * self._weights.get(name, 1.0) > self._kept_bytes:
            raise SpoolFull(
                name.removesuffix(ALARMS),
                f"{account.span} of the {self._kept_bytes} bytes that {name} may keep in Stream Manager wait for the cloud",
            )

    def _is_kept(self, name: str) -> bool:
        """Whether nothing of this message stream may be overwritten before it is delivered."""
        policy = self._limit.when_full
        alarms = name.endswith(ALARMS) or name == DEVICE_STREAM
        return policy is WhenFull.REJECT or (alarms and policy is WhenFull.SHED_GOOD)

    # --- out -----------------------------------------------------------------------------------------------------------

    async def _stored(self, waiting: list[Waiting]) -> list[Stored] | None:
        """The events that wait here; None: something was not as the ledger says, and was put right. Look again."""
        wanted = {(one.message_stream, one.sequence): one.size for one in waiting if one.record is None}
        found, unreadable = await self._ask(lambda: self._streams.fetch(wanted)) if wanted else ({}, set())
        gone = {name for name, sequence in wanted.keys() - found.keys() - unreadable}
        for name in gone:
            await self._reconcile(name)
        if gone:
            return None
        stored = []
        for one in waiting:
            place = (one.message_stream, one.sequence)
            if place in unreadable:
                self._unreadable[one.event_id] = time.monotonic() + UNREADABLE_REST_S
                continue
            try:
                record = one.record or unframed(found[place])
            except NoFrame as error:
                kept = Record(one.event_id, one.stream, "", found[place][:KEPT_OF_UNREADABLE], one.alarm)
                await self._keep(self._ledger.bury, kept, f"damaged in Stream Manager: {error}")
                log.error("event_buried", extra={"event_id": one.event_id, "reason": str(error)})
                continue
            if record.event_id != one.event_id:
                await self._begin_anew(one.message_stream)
                return None
            stored.append(Stored(one.position, record, one.age_s))
        return stored if stored or not waiting else None

    # --- the ledger and Stream Manager, brought together -----------------------------------------------------------------

    async def _look(self) -> None:
        """In a new session, and after an append whose end is unknown: takes in what lies above the ledger's marks."""
        if self._looked == await self._ask(self._session.open):
            return
        generation = self._session.generation
        self._made.clear()
        names = await self._ask(self._streams.names)
        for name in sorted(names | (await self._keep(self._ledger.accounts)).keys()):
            await self._reconcile(name)
        self._looked = generation

    async def _reconcile(self, name: str) -> None:
        """Counts what a message stream has lost, and takes in what it has and the ledger does not know."""
        extent = await self._ask(lambda: self._streams.extent(name))
        account = await self._account(name)
        if extent is None or extent.newest < account.accounted:
            if account.accounted >= 0:
                await self._begin_anew(name)
            return
        by_size = (
            "shed_good"
            if self._limit.when_full is WhenFull.SHED_GOOD and not self._is_kept(name)
            else "overwritten"
        )
        lost = await self._keep(self._ledger.lose, name, extent.oldest, by_size, self._kept_bytes)
        if lost:
            log.warning("stream_lost_events", extra={"stream": name, "lost": lost, "oldest": extent.oldest})
        if extent.newest > account.accounted:
            first = max(extent.oldest, account.accounted + 1)
            messages = await self._ask(lambda: list(self._streams.read_all(name, first, extent.newest)))
            new = await self._take_in(name, messages)
            log.info("stream_taken_in", extra={"stream": name, "messages": len(messages), "new": new})
            account = await self._account(name)
        held = extent.newest - extent.oldest + 1
        if account.bytes and account.accounted >= 0 and held > 0:
            counted = account.bytes / (account.accounted + 1)
            self._weights[name] = max(1.0, extent.total_bytes / held / counted)

    async def _begin_anew(self, name: str) -> None:
        """The store is another one than the ledger knows, or an older one: begins with what it holds."""
        extent = await self._ask(lambda: self._streams.extent(name))
        messages: list[Message] = []
        if extent is not None:
            messages = await self._ask(
                lambda: list(self._streams.read_all(name, extent.oldest, extent.newest))
            )
        else:
            self._made.discard(name)
        lost = await self._keep(self._ledger.replace, name, list(self._placed(name, messages)))
        log.error("stream_begun_anew", extra={"stream": name, "lost": lost, "messages": len(messages)})

    async def _take_in(self, name: str, messages: list[Message]) -> int:
        return await self._keep(self._ledger.place, list(self._placed(name, messages)))

    def _placed(self, name: str, messages: Iterable[Message]) -> Iterable[Placed]:
        for message in messages:
            size = len(message.payload) + MESSAGE_OVERHEAD
            try:
                record = unframed(message.payload)
            except NoFrame:  # `next` buries it, with the reason
                record = Record(
                    new_event_id(), name.removesuffix(ALARMS), "", b"", alarm=name.endswith(ALARMS)
                )
            yield Placed(record.event_id, record.stream, record.alarm, name, message.sequence_number, size)

    async def _account(self, name: str) -> Account:
        return (await self._keep(self._ledger.accounts)).get(name, Account())

    async def _keep(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Runs in the ledger's thread, one at a time. A disk that fails is no reason to end: it is tried again."""
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._thread, lambda: function(*arguments))
        except sqlite3.Error as error:
            self._ledger_trouble = (
                f"the ledger can't be read or written: {error}; a restart puts a damaged one aside"
            )
            raise StreamsUnavailable(self._ledger_trouble) from error
        self._ledger_trouble = ""
        return answer

    async def _ask(self, function: Callable[[], Answer]) -> Answer:
        """Runs in a thread of its own: what hangs there holds neither the event loop nor the process's end."""
        answers: list[Answer] = []
        try:
            await in_daemon_thread(lambda: answers.append(function()))
        except StreamManagerException as error:
            raise StreamsUnavailable(f"Stream Manager: {type(error).__name__}: {error}") from error
        return answers.pop()


def open_streams(
    path: Path, session: Session, limit: StreamLimit, segment_bytes: int, file_max_bytes: int
) -> StreamManagerStreams:
    """The streams with their ledger at `path`. Raises SpoolDamaged: there can't be a ledger."""
    return StreamManagerStreams(
        session, lambda: open_ledger(path, limit, file_max_bytes), limit, segment_bytes
    )
