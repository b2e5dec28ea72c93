# SPDX-License-Identifier: Apache-2.0
"""One uplink among several: which events it has to take, what it has in hand, what it answered, and when it rests."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from linewatch_forwarder.rests import backoff_s
from linewatch_forwarder.uplinks.port import Outcome, Uplink
from linewatch_runtime.records import Record

log = logging.getLogger(__name__)

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
    """It shares its topic with other events. What can't be read counts as one: the bus refuses it and says why, where
    an error here would end the flow at every start.
    """
    if not record.topic.endswith("/inspection"):
        return False
    try:
        return bool(json.loads(record.payload).get("type") == "InferenceCompleted")
    except (ValueError, AttributeError, RecursionError):
        return True
