# SPDX-License-Identifier: Apache-2.0
"""Several uplinks as one: which event goes where, and when all that have to take it have taken it.

Guarantee: an event is told as accepted only after each of its sinks accepted it. A sink that has it is not sent it again
while another one is waited for; a kill forgets that, and the repeat carries the same id.
Order: each sink gets events in the order in which they are offered, and no younger ones while it has some in hand.
Trouble: a sink in trouble rests, with a backoff of its own, and the others go on. What can't go on now is `held`: the flow
looks past it, up to MOST_HELD events. Then what has several sinks waits, too, and the trouble says so.
No standstill: what can go is offered oldest first and enters the room in that order, younger ones that were in it before
or not. So once every sink takes, the first event of each class is never kept out by one that has to wait behind it.
"""

import asyncio
import itertools
from collections.abc import Coroutine, Sequence

from linewatch_forwarder.uplinks.port import Outcome
from linewatch_forwarder.uplinks.sinks import ACCEPTED, HANDED_OVER, Sink
from linewatch_runtime.records import Record

MOST_HELD = 5_000
"""Events that the flow looks past. Half of them may be routine, so that alarms have room when those have none."""

TURN_S = 0.25
"""How long a turn waits for its sinks. One that takes longer goes on beside the next turns."""

REST_S = 1.0
"""How long a turn lasts in which nothing can go. Each one reads all that is held from the disk."""


class Routes:
    """An uplink of several sinks. The first is the main one: it tells whether the cloud is reached, and its requests are
    what the pace counts.
    """

    def __init__(self, sinks: Sequence[Sink], most_held: int = MOST_HELD) -> None:
        self._sinks = sinks
        self._main = sinks[0]
        self._most_held = most_held
        self._room: dict[str, list[Sink]] = {}  # by event id: where it has to go
        self._spared: set[str] = set()

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
        return self._held({sink for sink in self._sinks if sink.is_soon_free})

    def _held(self, soon_free: set[Sink]) -> set[str]:
        return {
            event_id
            for event_id, sinks in self._room.items()
            if (missing := _missing(event_id, sinks))
            and not any(one in soon_free and not one.is_busy_with(event_id) for one in missing)
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
        for sink in self._sinks:  # what a session lost is held no more
            sink.look_at_session()

    async def send(self, records: Sequence[Record]) -> Outcome:
        """Begins what can go, and returns when a sink has answered, after TURN_S at the latest."""
        outcome, session = Outcome(took=set()), self.session
        self._end_answered(outcome)
        told = set(
            outcome.answered
        )  # by an answer that came since these were chosen: what has all is sent to none again
        routed = [
            (one, [sink for sink in self._sinks if sink.wants(one)])
            for one in records
            if one.event_id not in told
        ]
        offered = {one.event_id for one in records}
        # Looked at once: a rest that ends between two looks would let younger ones go before those that it kept waiting.
        soon_free = {sink for sink in self._sinks if sink.is_soon_free}
        free = [sink for sink in self._sinks if sink in soon_free and not sink.sending]
        # A sink that has become free since these were chosen has older ones to take first: the next turn offers them.
        late = {
            sink
            for name, sinks in self._room.items()
            if name not in offered
            for sink in _missing(name, sinks)
        }
        held = self._held(soon_free)
        # What was held when these were chosen, and since then is not, keeps its place for this turn: else as many younger
        # ones would take it. The next turn offers it, or it has left the streams.
        self._spared = {
            name
            for name, sinks in self._room.items()
            if name not in offered and name not in held and _missing(name, sinks)
        } - self._spared
        has_changed = self._hold(routed, (held - offered) | self._spared)
        for sink in free:
            if sink not in late:
                self._begin(sink, routed, outcome)
        if sending := [sink.sending for sink in self._sinks if sink.sending]:
            await asyncio.wait(sending, timeout=TURN_S, return_when=asyncio.FIRST_COMPLETED)
            self._end_answered(outcome)
        self._tell(routed, outcome)
        if not (sending or has_changed or outcome.accepted or outcome.handed_over or outcome.refused):
            # All that was offered has to wait and can't be held: the turn is a rest, or the flow would run hot.
            await _first([sink.becomes_free() for sink in self._sinks if not sink.is_free], REST_S)
        if session != self.session:
            # The flow would count them to the session that is there now.
            outcome.handed_over.clear()
        return outcome

    def _begin(self, sink: Sink, routed: Sequence[tuple[Record, list[Sink]]], outcome: Outcome) -> None:
        share: list[Record] = []
        behind: set[tuple[str, bool]] = set()
        for record, sinks in routed:
            if sink not in sinks or record.event_id in sink.has or record.stream in outcome.troubled:
                continue
            # Half taken is only what can be held until the other half is; and nothing of its class goes past it.
            if len(sinks) > 1 and record.event_id not in self._room:
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
            in_hand = sink.in_hand
            answer = sink.end()
            outcome.troubled |= {name: f"{sink.name}: {reason}" for name, reason in answer.troubled.items()}
            if sink is self._main:
                outcome.publishes += answer.publishes
                outcome.sent_bytes += answer.sent_bytes
                # Streams' troubles are the main sink's, so what another one took ends none.
                took = {in_hand[event_id].stream for event_id in answer.answered}
                outcome.took = took | (outcome.took or set())
            self._tell(
                [(one, [it for it in self._sinks if it.wants(one)]) for one in in_hand.values()], outcome
            )

    def _tell(self, routed: Sequence[tuple[Record, list[Sink]]], outcome: Outcome) -> None:
        """Puts into the outcome what all of its sinks have answered, and forgets it."""
        for sink in self._sinks:
            sink.look_at_session()
        for record, sinks in routed:
            if not sinks or any(record.event_id not in sink.has for sink in sinks):
                continue
            answers = {sink.name: sink.has.pop(record.event_id) for sink in sinks}
            self._room.pop(record.event_id, None)
            never = [reason for reason in answers.values() if reason not in {ACCEPTED, HANDED_OVER}]
            if never:
                outcome.refused.append((record, "; ".join(never)))
            elif HANDED_OVER in answers.values():
                outcome.handed_over.append(record.event_id)
            else:
                outcome.accepted.append(record.event_id)

    def _hold(self, routed: Sequence[tuple[Record, list[Sink]]], held: set[str]) -> bool:
        """Fills the room: what is held, then what is offered, oldest first. Returns whether others are in it than before."""
        before = self._room
        # What could have been offered and was not may have left the streams: it must not fill the room for ever.
        self._room = {event_id: sinks for event_id, sinks in before.items() if event_id in held}
        for record, sinks in routed:
            # Younger ones first only because they were in it would bar the way of older ones that came back, for which
            # they have to wait. What has to leave keeps its answers.
            if _missing(record.event_id, sinks) and not self._is_full(alarm=record.alarm):
                self._room[record.event_id] = sinks
        for sink in self._sinks:
            # Forgetting costs a repeat at most, so age decides.
            for event_id in list(itertools.islice(sink.has, max(0, len(sink.has) - 2 * self._most_held))):
                del sink.has[event_id]
        return self._room.keys() != before.keys()

    def _is_full(self, *, alarm: bool) -> bool:
        return len(self._room) >= (self._most_held if alarm else self._most_held // 2)


def _missing(event_id: str, sinks: Sequence[Sink]) -> list[Sink]:
    """Which of an event's sinks have not answered."""
    return [sink for sink in sinks if event_id not in sink.has]


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
