# SPDX-License-Identifier: Apache-2.0
"""THE FLOW out: oldest -> uplink -> settled | buried | tried again.

Guarantee: an event leaves the spool only after the cloud has accepted it, or has said that it never will. What was on
its way when the process died is sent again; the cloud drops the repeat by the event id.
Order: alarms before routine events, each in the order of arrival. A batch is sent in order, and a batch that meets a
failure ends there: nothing behind the failed event overtakes it, but for what was already on its way.
"""

import asyncio
import logging
import random
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from linewatch_runtime.lifecycle import wait_until
from linewatch_runtime.spool import Record, SpoolFull, SpoolWorker

log = logging.getLogger(__name__)

BATCH = 50
"""Events on their way at once. A fresh alarm waits for one batch at most."""

LONGEST_BACKOFF_S = 30.0


@dataclass(slots=True)
class Outcome:
    """What became of a batch. Events in neither list are tried again; `trouble` says why."""

    accepted: list[str] = field(default_factory=list)
    refused: list[tuple[Record, str]] = field(default_factory=list)
    trouble: str = ""


class Uplink(Protocol):
    """The way to the cloud."""

    def ready(self) -> Coroutine[None, None, object]:
        """Returns when there is a connection."""

    async def send(self, records: Sequence[Record]) -> Outcome:
        """Sends the records in order. Never raises for what the network or the cloud does."""


class Delivery:
    """Drains the spool into the uplink."""

    def __init__(self, worker: SpoolWorker, uplink: Uplink, rate: float) -> None:
        """`rate`: events per second at most."""
        self._worker = worker
        self._uplink = uplink
        self._rate = rate
        self._stored = asyncio.Event()
        self.trouble = ""
        """Why the last batch was not accepted whole; empty when it was."""

    def wake(self) -> None:
        """Says that the spool has something new."""
        self._stored.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Delivers until `stop`; then returns at the end of the batch in hand."""
        failures = 0
        while not stop.is_set():
            await _first(self._uplink.ready(), stop.wait())
            if stop.is_set():
                return
            started = time.monotonic()
            stored = await self._worker.run(self._worker.spool.oldest, BATCH)
            if not stored:
                self._stored.clear()
                await _first(self._stored.wait(), stop.wait(), seconds=1.0)
                continue
            outcome = await self._uplink.send([one.record for one in stored])
            await self._settle(outcome)
            failures = failures + 1 if outcome.trouble else 0
            self.trouble = outcome.trouble
            pace = len(stored) / self._rate - (time.monotonic() - started)
            longest = min(LONGEST_BACKOFF_S, 0.5 * 2 ** min(failures, 10))  # 2**1024 would be no float
            wait = random.uniform(0, longest) if failures else pace  # noqa: S311
            if wait > 0:
                await wait_until(stop, wait)

    async def _settle(self, outcome: Outcome) -> None:
        try:
            await self._worker.run(self._worker.spool.settle, outcome.accepted)
            for record, reason in outcome.refused:
                await self._worker.run(self._worker.spool.bury, record, reason)
                log.error("event_buried", extra={"event_id": record.event_id, "reason": reason})
        except SpoolFull as error:
            # The disk is full to the last page. The events stay, are sent again, and the cloud drops the repeats.
            outcome.trouble = error.detail
            log.error("settle_failed", extra={"reason": error.detail})
            return
        if outcome.trouble and outcome.trouble != self.trouble:
            log.warning("delivery_troubled", extra={"reason": outcome.trouble})


async def _first(*waits: Coroutine[None, None, object], seconds: float | None = None) -> None:
    """Returns when the first of the waits returns, after `seconds` at the latest; the others are cancelled."""
    tasks = [asyncio.create_task(wait, name="wait") for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
