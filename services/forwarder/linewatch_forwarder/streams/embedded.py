# SPDX-License-Identifier: Apache-2.0
"""The embedded durable streams: one spool file (linewatch_runtime.spool), which keeps the guarantees."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from linewatch_forwarder.streams.port import DeadLetter, StreamsUnavailable
from linewatch_runtime.records import DropReport, Record, SpoolTrouble, Stored, StreamState
from linewatch_runtime.spool import SpoolWorker

Result = TypeVar("Result")


class EmbeddedStreams:
    """DurableStreams over a spool and its one thread."""

    def __init__(self, worker: SpoolWorker) -> None:
        self._worker = worker
        self._spool = worker.spool
        self._troubles: dict[str, str] = {}  # by what was asked; three at most

    @property
    def trouble(self) -> str:
        """Why the spool can't be read: of each question the last answer counts."""
        return next(iter(self._troubles.values()), "")

    async def append(self, records: Sequence[Record]) -> int:
        """One transaction, one fsync."""
        return await self._worker.run(self._spool.append, records)

    async def next(
        self, limit: int, *, except_streams: Collection[str] = (), except_ids: Collection[str] = ()
    ) -> list[Stored]:
        """By class, then position."""
        oldest = functools.partial(
            self._spool.oldest, limit + len(except_ids), except_streams=list(except_streams)
        )
        stored = await self._read("next", oldest)
        return [one for one in stored if one.record.event_id not in except_ids][:limit]

    async def settle(self, event_ids: Sequence[str]) -> None:
        """One transaction."""
        await self._worker.run(self._spool.settle, event_ids)

    async def bury(self, record: Record, reason: str, *, once: bool = False) -> bool:
        """Into the same file."""
        return await self._worker.run(functools.partial(self._spool.bury, once=once), record, reason)

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """From the same file."""
        buried = await self._read("dead_letters", self._spool.buried, limit)
        return [DeadLetter(number, record, reason) for number, record, reason in buried]

    async def replay(self, numbers: Collection[int]) -> int:
        """One transaction."""
        replayed: int = await self._worker.run(self._spool.replay, numbers)
        return replayed

    async def expire(self) -> int:
        """By the spool clock, which no wall clock moves."""
        expired = 0
        while some := await self._worker.run(
            self._spool.expire
        ):  # some at a time: others are served in between
            expired += some
        return expired

    async def streams(self) -> list[StreamState]:
        """From counts that change with the rows."""
        return await self._read("streams", self._spool.streams)

    async def take_unreported_drops(self, make: DropReport) -> int:
        """Counter and event in one transaction."""
        return await self._worker.run(self._spool.take_unreported_drops, make)

    async def next_epoch(self) -> int:
        """Kept in the file."""
        return await self._worker.run(self._spool.next_epoch)

    async def _read(self, question: str, function: Callable[..., Result], *arguments: object) -> Result:
        try:
            answer = await self._worker.run(function, *arguments)
        except SpoolTrouble as error:
            self._troubles[question] = error.detail or "the spool can't be read"
            raise StreamsUnavailable(error.detail) from error
        self._troubles.pop(question, None)
        return answer

    async def discard(self) -> None:
        """Nothing does."""

    def close(self) -> None:
        """Closes the file."""
        self._worker.close()
