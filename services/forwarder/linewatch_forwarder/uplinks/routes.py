# SPDX-License-Identifier: Apache-2.0
"""Several uplinks as one: which event goes where, and when all that have to take it have taken it.

Guarantee: an event is told as accepted only after each of its sinks accepted it. A sink that has it is not sent it again
while another one is waited for; a kill forgets that, and the repeat carries the same id.
Order: each sink gets events in the order in which they are offered, and no younger ones while it has some in hand.
Trouble: a sink in trouble rests, with a backoff of its own, and the others go on. What can't go on now is `held`: the flow
looks past it, up to MOST_HELD events. Then what has several sinks waits, too, and the trouble says so.
"""

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from linewatch_forwarder.rests import backoff_s
from linewatch_forwarder.uplinks.port import Outcome, Uplink
from linewatch_runtime.records import Record

log = logging.getLogger(__name__)

MOST_HELD = 5_000
"""Events that the flow looks past. Half of them may be routine, so that alarms have room when those have none."""

TURN_S = 0.25
"""How long a turn waits for its sinks. One that takes longer goes on beside the next turns."""

SLOW_S = 2.0
"""A sink that has not answered after so long takes nothing for now: the flow looks past what waits for it."""

ACCEPTED, HANDED_OVER = "", "handed over"


@dataclass(eq=False, slots=True)
class Sink:
    """One uplink among others.

    Attributes:
        name: for people, in what troubles it.
        wants: whether an event has to go there.
        has: its answers to events that another sink still has to take, by event id: ACCEPTED, HANDED_OVER, or why it
            never will.
        in_hand: what it is being sent, by event id.
    """

    name: str
    uplink: Uplink
    wants: Callable[[Record], bool]
    has: dict[str, str] = field(default_factory=dict)
    in_hand: dict[str, Record] = field(default_factory=dict)
    sending: "asyncio.Task[Outcome] | None" = None
    began_at: float = 0.0
    session: int = 0
    began_in: int = 0
    failures: int = 0
    rests_until: float = 0.0
    reason: str = ""

    @property
    def is_free(self) -> bool:
        """Whether it can be sent something now."""
        return self.sending is None and time.monotonic() >= self.rests_until and self.uplink.is_connected

    @property
    def is_soon_free(self) -> bool:
        """Whether waiting for it is better than looking past what it has to take."""
        if self.sending is None:
            return self.is_free
        return self.sending.done() or time.monotonic() < self.began_at + SLOW_S

    def is_busy_with(self, event_id: str) -> bool:
        """Whether it is being sent this event now. With an answer that nobody has seen yet it is not: the event has to
        be offered for that, and the flow may have no other.
        """
        return self.sending is not None and not self.sending.done() and event_id in self.in_hand

    @property
    def trouble(self) -> str:
        """Why it takes nothing now, for people."""
        reason = self.uplink.trouble or self.reason
        return f"{self.name}: {reason}" if reason else ""

    def begin(self, records: list[Record]) -> None:
        """Sends in a task of its own."""
        self.in_hand, self.began_in = {one.event_id: one for one in records}, self.uplink.session
        self.began_at = time.monotonic()
        self.sending = asyncio.create_task(self.uplink.send(records), name=f"send to {self.name}")

    def end(self) -> Outcome:
        """What became of it; keeps the answers, and rests after trouble."""
        assert self.sending is not None
        outcome, self.sending, self.in_hand = self.sending.result(), None, {}
        self.has |= dict.fromkeys(outcome.accepted, ACCEPTED)
        self.has |= {record.event_id: reason for record, reason in outcome.refused}
        if self.began_in == self.uplink.session:
            self.has |= dict.fromkeys(outcome.handed_over, HANDED_OVER)
        if outcome.trouble and outcome.trouble != self.reason:
            log.warning("sink_troubled", extra={"sink": self.name, "reason": outcome.trouble})
        elif self.reason and not outcome.trouble:
            log.info("sink_takes", extra={"sink": self.name})
        self.reason = outcome.trouble
        self.failures = min(self.failures + 1, 20) if outcome.trouble else 0
        self.rests_until = time.monotonic() + backoff_s(self.failures) if outcome.trouble else 0.0
        return outcome

    def look_at_session(self) -> None:
        """Forgets what a session took that is gone: it may have lost it."""
        if self.session != self.uplink.session:
            self.session = self.uplink.session
            self.has = {name: answer for name, answer in self.has.items() if answer != HANDED_OVER}

    async def becomes_free(self) -> None:
        """Returns when there is something to begin or to end."""
        if self.sending:
            await asyncio.wait({self.sending})
            return
        await asyncio.sleep(self.rests_until - time.monotonic())
        await self.uplink.ready()


def is_for_iot_core(record: Record) -> bool:
    """All but engine events: the cloud announces those that it gets on the bus, and they must not be there twice."""
    return not _is_engine_event(record)


def is_for_bus(*, everything: bool) -> Callable[[Record], bool]:
    """Engine events; with `everything` each InferenceCompleted too."""

    def wants(record: Record) -> bool:
        return _is_engine_event(record) or (everything and _is_completed_inspection(record))

    return wants


def _is_engine_event(record: Record) -> bool:
    """A fact about the inference engine, by its topic."""
    return record.topic.endswith("/engine")


def _is_completed_inspection(record: Record) -> bool:
    """It shares its topic with other events."""
    return (
        record.topic.endswith("/inspection")
        and json.loads(record.payload).get("type") == "InferenceCompleted"
    )


class Routes:
    """An uplink of several sinks. The first is the main one: it tells whether the cloud is reached, and its requests are
    what the pace counts.
    """

    def __init__(self, sinks: Sequence[Sink], most_held: int = MOST_HELD) -> None:
        self._sinks = sinks
        self._main = sinks[0]
        self._most_held = most_held
        self._waiting: dict[str, list[Sink]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether the main sink is, and takes something."""
        return self._main.uplink.is_connected and not self._main.reason

    @property
    def trouble(self) -> str:
        """Of every sink that has some."""
        told = "; ".join(sink.trouble for sink in self._sinks if sink.trouble)
        full = "so many events wait for it that others wait behind them" if self._is_full(alarm=False) else ""
        return f"{told}; {full}" if told and full else told

    @property
    def session(self) -> int:
        """Rises with each sink's."""
        return sum(sink.uplink.session for sink in self._sinks)

    @property
    def resend_window_s(self) -> float:
        """The longest."""
        return max(sink.uplink.resend_window_s for sink in self._sinks)

    @property
    def held(self) -> set[str]:
        """What is in hand, and what waits for sinks that take nothing now."""
        soon = {sink.name for sink in self._sinks if sink.is_soon_free}
        return {
            event_id
            for event_id, sinks in self._waiting.items()
            if not any(one.name in soon and not one.is_busy_with(event_id) for one in sinks)
        }

    async def run(self) -> None:
        """Keeps every sink's session."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for sink in self._sinks:
                    tasks.create_task(sink.uplink.run(), name=f"uplink {sink.name}")
        finally:
            for sink in self._sinks:
                if sink.sending:
                    sink.sending.cancel()

    async def ready(self) -> None:
        """Returns when a sink can be sent something, or has answered."""
        if not any(sink.is_free for sink in self._sinks):
            await _first([sink.becomes_free() for sink in self._sinks])

    async def send(self, records: Sequence[Record]) -> Outcome:
        """Begins what can go, and returns when a sink has answered, after TURN_S at the latest."""
        outcome = Outcome()
        routed = [(one, [sink for sink in self._sinks if sink.wants(one)]) for one in records]
        self._end_answered(outcome)
        offered = {one.event_id for one in records}
        # A sink that has become free since these were chosen has older ones to take first: the next turn offers them.
        late = {
            id(sink)
            for name, sinks in self._waiting.items()
            if name not in offered
            for sink in sinks
            if sink.is_free
        }
        has_changed = self._hold(routed, self.held)
        for sink in self._sinks:
            if sink.is_free and id(sink) not in late:
                self._begin(sink, routed, outcome)
        if sending := [sink.sending for sink in self._sinks if sink.sending]:
            await asyncio.wait(sending, timeout=TURN_S, return_when=asyncio.FIRST_COMPLETED)
            self._end_answered(outcome)
        self._tell(routed, outcome)
        if not (sending or has_changed or outcome.accepted or outcome.handed_over or outcome.refused):
            # All that was offered has to wait and can't be held: the turn is a rest, or the flow would run hot.
            await _first([sink.becomes_free() for sink in self._sinks if not sink.is_free], TURN_S)
        return outcome

    def _begin(self, sink: Sink, routed: Sequence[tuple[Record, list[Sink]]], outcome: Outcome) -> None:
        share: list[Record] = []
        behind: set[tuple[str, bool]] = set()
        for record, sinks in routed:
            if sink not in sinks or record.event_id in sink.has or record.stream in outcome.troubled:
                continue
            # Half taken is only what can be held until the other half is; and nothing of its class goes past it.
            if len(sinks) > 1 and record.event_id not in self._waiting:
                behind.add((record.stream, record.alarm))
            if (record.stream, record.alarm) not in behind:
                share.append(record)
        if share:
            sink.begin(share)

    def _end_answered(self, outcome: Outcome) -> None:
        """Takes over the answers that are there."""
        for sink in self._sinks:
            if sink.sending is None or not sink.sending.done():
                continue
            in_hand = sink.in_hand.values()
            answer = sink.end()
            outcome.troubled |= {name: f"{sink.name}: {reason}" for name, reason in answer.troubled.items()}
            if sink is self._main:
                outcome.publishes += answer.publishes
                outcome.sent_bytes += answer.sent_bytes
            self._tell([(one, [it for it in self._sinks if it.wants(one)]) for one in in_hand], outcome)

    def _tell(self, routed: Sequence[tuple[Record, list[Sink]]], outcome: Outcome) -> None:
        """Puts into the outcome what all of its sinks have answered, and forgets it."""
        for sink in self._sinks:
            sink.look_at_session()
        for record, sinks in routed:
            if not sinks or any(record.event_id not in sink.has for sink in sinks):
                continue
            answers = {sink.name: sink.has.pop(record.event_id) for sink in sinks}
            self._waiting.pop(record.event_id, None)
            never = [reason for reason in answers.values() if reason not in {ACCEPTED, HANDED_OVER}]
            if never:
                outcome.refused.append((record, "; ".join(never)))
            elif HANDED_OVER in answers.values():
                outcome.handed_over.append(record.event_id)
            else:
                outcome.accepted.append(record.event_id)

    def _hold(self, routed: Sequence[tuple[Record, list[Sink]]], held: set[str]) -> bool:
        """Notes for which sinks each event waits. Returns whether other events wait than before."""
        before = self._waiting
        # What could have been offered and was not may have left the streams: it must not fill the room for ever.
        self._waiting = {event_id: sinks for event_id, sinks in before.items() if event_id in held}
        for in_room_already in (True, False):
            for record, sinks in routed:
                if (record.event_id in before) is not in_room_already:
                    continue
                missing = [sink for sink in sinks if record.event_id not in sink.has]
                if missing and (in_room_already or not self._is_full(alarm=record.alarm)):
                    self._waiting[record.event_id] = missing
        for sink in self._sinks:
            # Forgetting costs a repeat at most, so age decides.
            for event_id in list(itertools.islice(sink.has, max(0, len(sink.has) - 2 * self._most_held))):
                del sink.has[event_id]
        return self._waiting.keys() != before.keys()

    def _is_full(self, *, alarm: bool) -> bool:
        return len(self._waiting) >= (self._most_held if alarm else self._most_held // 2)


async def _first(waits: Sequence[Coroutine[None, None, None]], timeout_s: float | None = None) -> None:
    """Returns when the first of them does, after `timeout_s` at the latest; the others are cancelled."""
    if not waits:
        await asyncio.sleep(timeout_s or 0.0)
        return
    tasks = [asyncio.create_task(wait, name="sink") for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
