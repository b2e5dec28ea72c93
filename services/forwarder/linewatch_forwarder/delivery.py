# SPDX-License-Identifier: Apache-2.0
"""THE FLOW out: oldest -> uplink -> settled | buried | tried again.

Guarantee: an event leaves the spool only after the cloud has accepted it, or has said that it never will. What was on
its way when the process died is sent again; the cloud drops the repeat by the event id.
Order: alarms before routine events, each in the order of arrival; held within (line, class). A batch is handed over in
order, all at once: behind an event that fails, those of the same batch may still be accepted. None of a later one.
Trouble: a stream whose events the cloud refuses for now rests, with a backoff of its own, and the others go on. Trouble
of the connection rests all.
"""

import asyncio
import logging
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass

from linewatch_forwarder.clock import THIS_DEVICE, DeviceClock
from linewatch_forwarder.streams.port import DurableStreams, StreamsUnavailable
from linewatch_forwarder.uplinks.port import Outcome, Uplink
from linewatch_runtime.lifecycle import wait_until
from linewatch_runtime.records import SpoolFull, Stored

log = logging.getLogger(__name__)

BATCH = 50
"""Events on their way at once. A fresh alarm waits for one batch at most."""

LONGEST_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class _Rest:
    """A stream that is left alone until `until`, on the monotonic clock."""

    failures: int
    until: float
    reason: str


class Delivery:
    """Drains the streams into the uplink."""

    def __init__(
        self, streams: DurableStreams, uplink: Uplink, rate: float, clock: DeviceClock = THIS_DEVICE
    ) -> None:
        """`rate`: events per second at most."""
        self._clock = clock
        self._streams = streams
        self._uplink = uplink
        self._rate = rate
        self._stored = asyncio.Event()
        self._trouble = ""
        self._rests: dict[str, _Rest] = {}

    @property
    def trouble(self) -> str:
        """Why something is not accepted now, for people; empty when all is."""
        return self._trouble or "; ".join(f"{name}: {rest.reason}" for name, rest in self._rests.items())

    @property
    def stopped(self) -> str:
        """Why nothing at all is accepted now; empty when something may be."""
        return self._trouble

    def troubled(self, stream: str) -> str:
        """Why this stream's events are refused for now; empty when they are not."""
        return self._rests[stream].reason if stream in self._rests else ""

    def wake(self) -> None:
        """Says that there is something new."""
        self._stored.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Delivers until `stop`; then returns at the end of the batch in hand."""
        failures = 0
        while not stop.is_set():
            await _first(self._uplink.ready(), stop.wait())
            if stop.is_set():
                return
            started = time.monotonic()
            stored = await self._next()
            if not stored:
                self._stored.clear()
                await _first(self._stored.wait(), stop.wait(), seconds=1.0)
                continue
            records = [self._clock.corrected(one.record) for one in stored]
            outcome = await self._uplink.send(records)
            await self._settle(outcome)
            self._rest(outcome, {one.record.stream for one in stored})
            failures = failures + 1 if outcome.trouble else 0
            self._trouble = outcome.trouble
            pace = len(stored) / self._rate - (time.monotonic() - started)
            wait = _backoff_s(failures) if failures else pace
            if wait > 0:
                await wait_until(stop, wait)

    async def _next(self) -> list[Stored]:
        """The next batch, without the streams that rest."""
        now = time.monotonic()
        resting = [name for name, rest in self._rests.items() if rest.until > now]
        try:
            stored = await self._streams.next(BATCH, except_streams=resting)
        except StreamsUnavailable as error:
            log.error("streams_unavailable", extra={"reason": str(error)})
            return []
        if (
            len(stored) < BATCH
        ):  # all that is there: a stream that is due and has nothing left is in no trouble
            kept = {*resting, *(one.record.stream for one in stored)}
            self._rests = {name: rest for name, rest in self._rests.items() if name in kept}
        return stored

    def _rest(self, outcome: Outcome, sent: set[str]) -> None:
        """Lets the streams in trouble rest, and forgets the trouble of those that were accepted whole."""
        for name, reason in outcome.troubled.items():
            before = self._rests.get(name)
            if before is None or before.reason != reason:
                log.warning("stream_troubled", extra={"stream": name, "reason": reason})
            failures = before.failures + 1 if before else 1
            self._rests[name] = _Rest(failures, time.monotonic() + _backoff_s(failures), reason)
        if not outcome.trouble:
            for name in sent - outcome.troubled.keys():
                if self._rests.pop(name, None):
                    log.info("stream_delivers", extra={"stream": name})

    async def _settle(self, outcome: Outcome) -> None:
        try:
            await self._streams.settle(outcome.accepted)
            for record, reason in outcome.refused:
                await self._streams.bury(record, reason)
                log.error("event_buried", extra={"event_id": record.event_id, "reason": reason})
        except (SpoolFull, StreamsUnavailable) as error:
            # As a disk that is full to the last page. The events stay, are sent again, and the cloud drops the repeats.
            outcome.trouble = str(error)
            log.error("settle_failed", extra={"reason": str(error)})
            return
        if outcome.trouble and outcome.trouble != self._trouble:
            log.warning("delivery_troubled", extra={"reason": outcome.trouble})


def _backoff_s(failures: int) -> float:
    """Full jitter."""
    longest = min(LONGEST_BACKOFF_S, 0.5 * 2 ** min(failures, 10))  # 2**1024 would be no float
    return random.uniform(0, longest)  # noqa: S311


async def _first(*waits: Coroutine[None, None, object], seconds: float | None = None) -> None:
    """Returns when the first of the waits returns, after `seconds` at the latest; the others are cancelled."""
    tasks = [asyncio.create_task(wait, name="wait") for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
