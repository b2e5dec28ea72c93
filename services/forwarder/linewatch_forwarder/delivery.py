# SPDX-License-Identifier: Apache-2.0
"""THE FLOW out: oldest -> uplink -> settled | buried | tried again.

Guarantee: an event leaves the streams only after the cloud has accepted it, or has said that it never will. What was on
its way when the process died is sent again; the cloud drops the repeat by the event id. An uplink whose success is not
delivery keeps its events here for its resend window (handed_over.py).
Order: alarms before routine events, each class of a stream in the order of arrival. A turn puts at most one publish of
each (stream, class) on its way and waits for its answer, so that an event is accepted only after all that came before
it in its class of its stream, but for what is buried; a repeat may come after younger ones. A fresh alarm waits for the
turn in hand and for the pace, for no backlog.
Trouble: a stream whose events the cloud refuses for now rests, with a backoff of its own, and the others go on. Trouble
of the connection rests all. What the cloud has answered and the disk can't note now is owed: it is noted before anything
else is sent, however long the disk stays full, and no repeat of it goes out meanwhile.
"""

import asyncio
import logging
import math
import time
from collections.abc import Coroutine, Sequence

from linewatch_forwarder.clock import THIS_DEVICE, DeviceClock
from linewatch_forwarder.handed_over import HandedOver
from linewatch_forwarder.pace import Pace
from linewatch_forwarder.rests import Rests, backoff_s
from linewatch_forwarder.streams.port import DurableStreams, StreamsUnavailable
from linewatch_forwarder.uplinks.port import Outcome, Uplink
from linewatch_runtime.lifecycle import wait_until
from linewatch_runtime.records import SpoolFull, Stored

log = logging.getLogger(__name__)

LOOK_AHEAD = 200
"""Events that one turn chooses from."""

SETTLE_AGAIN_S = 1.0
"""How long a disk is left alone that did not take an answer: five seconds after there is room everything flows again."""

IDLE_S = 1.0
"""How long nothing to do lasts at most, where nobody says that there is something new."""


class Delivery:
    """Drains the streams into the uplink."""

    def __init__(
        self, streams: DurableStreams, uplink: Uplink, rate: float, clock: DeviceClock = THIS_DEVICE,
        bytes_per_s: float = 512 * 1024,
    ) -> None:  # fmt: skip
        """`rate`: publishes per second at most; `bytes_per_s`: their payloads' bytes."""
        self._streams = streams
        self._uplink = uplink
        self._clock = clock
        self._pace = Pace(rate, bytes_per_s)
        self._stored = asyncio.Event()
        self._trouble = ""
        self._owed = Outcome()
        self._unsettled = ""
        self._rests = Rests()
        self._handed_over = HandedOver(uplink.resend_window_s)
        self._unavailable = False
        self._is_idle = False
        self._idle_until = -math.inf

    @property
    def behind_s(self) -> float:
        """Seconds for which events that may go have not all been sent; 0 while there are none."""
        return 0.0 if self._is_idle else time.monotonic() - self._idle_until

    @property
    def trouble(self) -> str:
        """Why something is not accepted now, for people; empty when all is."""
        return self.stopped or "; ".join(f"{name}: {why}" for name, why in self._rests.reasons.items())

    @property
    def stopped(self) -> str:
        """Why nothing at all is accepted now; empty when something may be."""
        return self._unsettled or self._trouble

    def troubled(self, stream: str) -> str:
        """Why this stream's events are refused for now; empty when they are not."""
        return self._rests.reasons.get(stream, "")

    @property
    def handed_over(self) -> int:
        """Events that somebody took and that are kept here until the resend window has passed."""
        return len(self._handed_over.event_ids)

    def wake(self) -> None:
        """Says that there is something new."""
        self._stored.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Delivers until `stop`; then returns at the end of the turn in hand."""
        failures = 0
        while not stop.is_set():
            if self._owed.answered and not await self._settle_owed():
                await wait_until(stop, SETTLE_AGAIN_S)
                continue
            await _first(self._uplink.ready(), stop.wait())
            if stop.is_set():
                return
            begun = time.monotonic()
            await self._settle_ripe()
            stored = await self._next()
            if not stored:
                self._stored.clear()
                self._is_idle = self._handed_over.room > 0
                await _first(self._stored.wait(), stop.wait(), seconds=IDLE_S)
                if self._is_idle:
                    self._is_idle, self._idle_until = False, time.monotonic()
                continue
            outcome = await self._uplink.send([self._clock.corrected(one.record) for one in stored])
            await self._settle(outcome)
            self._rests.note(outcome, _took(outcome, stored))
            failures = failures + 1 if outcome.trouble else 0
            self._trouble = outcome.trouble
            paid_s = self._pace.spend(begun, outcome.publishes, outcome.sent_bytes)
            await wait_until(stop, max(paid_s, backoff_s(failures) if failures else 0.0))

    async def _next(self) -> list[Stored]:
        """What the next turn chooses from: without the streams that rest, what was handed over and what is held."""
        resting = self._rests.resting
        limit = min(LOOK_AHEAD, self._handed_over.room)
        if limit <= 0:
            return []
        try:
            stored = await self._streams.next(
                limit, except_streams=resting, except_ids={*self._handed_over.event_ids, *self._uplink.held}
            )
        except StreamsUnavailable as error:
            if (
                not self._unavailable
            ):  # once an outage: it is asked every second, and the status tells all along
                log.error("streams_unavailable", extra={"reason": str(error)})
            self._unavailable = True
            return []
        if self._unavailable:
            log.warning("streams_available")
        self._unavailable = False
        if len(stored) < limit:  # all that is there
            self._rests.keep({*resting, *(one.record.stream for one in stored)})
        return stored

    async def _settle(self, outcome: Outcome) -> None:
        self._handed_over.take(outcome.handed_over, self._uplink.session)
        self._owed = Outcome(accepted=[*outcome.accepted], refused=[*outcome.refused])
        if not await self._settle_owed():
            log.error("settle_failed", extra={"reason": self._unsettled})
        elif outcome.trouble and outcome.trouble != self._trouble:
            log.warning("delivery_troubled", extra={"reason": outcome.trouble})

    async def _settle_owed(self) -> bool:
        """Whether the disk has taken all that the cloud has answered. A process that ends before it has sends that again."""
        owed = self._owed
        try:
            await self._streams.settle(owed.accepted)
            owed.accepted.clear()
            while owed.refused:
                record, reason = owed.refused[0]
                await self._streams.bury(record, reason)
                log.error("event_buried", extra={"event_id": record.event_id, "reason": reason})
                del owed.refused[0]
        except (SpoolFull, StreamsUnavailable) as error:  # as a disk that is full to the last page
            self._unsettled = str(error)
            return False
        self._unsettled = ""
        return True

    async def _settle_ripe(self) -> None:
        """Lets go what was handed over and can't be lost any more; what an earlier session took is due again."""
        if self._handed_over.forget_other_than(self._uplink.session):
            log.warning("handed_over_again", extra={"reason": "the session that had taken them is gone"})
        if not (ripe := self._handed_over.ripe()):
            return
        try:
            await self._streams.settle(ripe)
        except (SpoolFull, StreamsUnavailable) as error:
            log.error("settle_failed", extra={"reason": str(error)})  # next turn again
            return
        self._handed_over.let_go(ripe)


def _took(outcome: Outcome, stored: Sequence[Stored]) -> set[str]:
    """Streams of which something was answered. One that was offered and did not go in this turn is in the trouble it was."""
    if outcome.took is not None:
        return outcome.took
    answered = set(outcome.answered)
    return {one.record.stream for one in stored if one.record.event_id in answered}


async def _first(*waits: Coroutine[None, None, object], seconds: float | None = None) -> None:
    """Returns when the first of the waits returns, after `seconds` at the latest; the others are cancelled."""
    tasks = [asyncio.create_task(wait, name="wait") for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
