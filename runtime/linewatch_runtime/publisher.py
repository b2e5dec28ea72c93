# SPDX-License-Identifier: Apache-2.0
"""Moves events from a producer's spool to the forwarder, over a broker that may lose everything.

Guarantee: an event leaves the spool only when the forwarder says on topic `committed` that it is on its disk. The
broker's own acknowledgement comes before the broker's disk and is worth nothing here (10 of 10 acknowledged messages
were lost in a kill of mosquitto with its defaults). What is not committed after RESEND_AFTER_S is published again;
the event id makes the repeat harmless. What the broker can never take is buried, with the reason, once that is known
(suspects.py), and holds up nothing. A full or broken disk ends nothing: what can't be settled is sent again.
"""

import asyncio
import json
import logging
import random
import sqlite3
import time

from linewatch_runtime.lifecycle import wait_until
from linewatch_runtime.mqtt import Connection, MqttError, NobodySubscribed, NotConnected, Refused
from linewatch_runtime.spool import SpoolFull, SpoolWorker, Stored
from linewatch_runtime.suspects import OF_A_PACKET, Suspects

log = logging.getLogger(__name__)

PUBLISH_WINDOW = 200
"""Events published and not yet committed. Repeats after a kill are at most this many."""

RESEND_AFTER_S = 2.0
IDLE_S = 0.25
LONGEST_BACKOFF_S = 8.0


class Publisher:
    """One producer's way out. `connection` must subscribe to the producer's `committed` topic."""

    def __init__(self, worker: SpoolWorker, connection: Connection) -> None:
        self._worker = worker
        self._connection = connection
        self._in_flight: dict[str, float] = {}
        self._suspects = Suspects()
        self._appended = asyncio.Event()
        self._is_heard = False
        connection.on_connected.append(self._begin)

    def wake(self) -> None:
        """Says that the spool has something new; without it the publisher looks every IDLE_S."""
        self._appended.set()

    @property
    def in_flight(self) -> int:
        """Events published and not yet committed."""
        return len(self._in_flight)

    async def run(self) -> None:
        """Publishes and settles until it is cancelled. Whatever was on its way then is published at the next start."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish(), name="publish")
            tasks.create_task(self._settle(), name="settle")

    def _begin(self) -> None:
        """A new session: nothing is on its way any more, and who listens has to be found out again."""
        self._in_flight.clear()
        self._is_heard = False

    async def _publish(self) -> None:
        failures, told = 0, set[str]()
        while True:
            await self._connection.connected.wait()
            try:
                due = self._due(await self._worker.run(self._next))
            except (SpoolFull, sqlite3.Error) as error:
                log.error("spool_unreadable", extra={"reason": str(error)})
                await asyncio.sleep(RESEND_AFTER_S)
                continue
            if not due:
                self._appended.clear()
                await wait_until(self._appended, IDLE_S)
                continue
            if not self._is_heard:
                # The forwarder may subscribe while a window passes: what it did not hear would come behind what it heard.
                due = due[:1]
            # Concurrent, but handed to the client in order: the broker keeps the order of one connection.
            answers = await asyncio.gather(*(self._send(stored) for stored in due))
            # Before anything is waited for: a session that begins meanwhile has to find it out again.
            self._is_heard = not any(isinstance(one, (NobodySubscribed, NotConnected)) for one in answers)
            await self._judge(due, answers)
            reasons = {str(answer) for answer in answers if answer is not None}
            for reason in sorted(reasons - told):
                log.warning("publish_failed", extra={"reason": reason})
            # Once for each reason, until a round goes through: a broker that refuses us refuses every event.
            failures, told = (failures + 1, told | reasons) if reasons else (0, set())
            if failures:
                longest = min(LONGEST_BACKOFF_S, IDLE_S * 2 ** min(failures, 10))
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311

    def _next(self) -> list[Stored]:
        return self._worker.spool.oldest(PUBLISH_WINDOW, by_class=False)

    def _due(self, rows: list[Stored]) -> list[Stored]:
        now = time.monotonic()
        self._suspects.forget({row.record.event_id for row in rows})
        return self._suspects.choose([
            row
            for row in rows
            if now - self._in_flight.get(row.record.event_id, -RESEND_AFTER_S) >= RESEND_AFTER_S
        ])  # fmt: skip

    async def _judge(self, sent: list[Stored], answers: list[MqttError | None]) -> None:
        """Puts aside what the broker can never take, or it would be tried for ever, and hold up all the others."""
        pairs = list(zip(sent, answers, strict=True))
        self._suspects.passed(
            row.record.event_id for row, answer in pairs if not isinstance(answer, NotConnected)
        )
        broken = {row.record.event_id: answer for row, answer in pairs if isinstance(answer, NotConnected)}
        code = max((answer.code for answer in broken.values()), default=0)
        culprit = self._suspects.broke(broken, code) if broken else ""
        for row, answer in pairs:
            refused = isinstance(answer, Refused) and answer.code in OF_A_PACKET
            if not refused and row.record.event_id != culprit:
                continue
            reason = str(answer) if refused else f"the broker ends each connection for it: {answer}"
            log.error("event_buried", extra={"event_id": row.record.event_id, "reason": reason})
            try:
                await self._worker.run(self._worker.spool.bury, row.record, reason)
            except (SpoolFull, sqlite3.Error) as error:
                log.error("bury_failed", extra={"reason": str(error)})  # found out again, then buried again

    async def _send(self, stored: Stored) -> MqttError | None:
        """Why the broker did not take it; None when it did."""
        record = stored.record
        self._in_flight[record.event_id] = time.monotonic()
        try:
            # Without a subscriber the message is gone: told now it is sent again in its order, not 2 s behind younger ones.
            await self._connection.publish(record.topic, record.payload, needs_subscriber=True)
        except MqttError as error:
            self._in_flight.pop(record.event_id, None)
            return error
        return None

    async def _settle(self) -> None:
        trouble = ""
        while True:
            messages = [await self._connection.messages.get()]
            while not self._connection.messages.empty():
                messages.append(self._connection.messages.get_nowait())
            event_ids = [event_id for message in messages for event_id in _committed(message.payload)]
            try:
                await self._worker.run(self._worker.spool.settle, event_ids)
            except (SpoolFull, sqlite3.Error) as error:
                # The events stay and are sent again; the forwarder commits the repeat again.
                if str(error) != trouble:
                    log.error("settle_failed", extra={"reason": str(error)})
                trouble = str(error)
                continue
            trouble = ""
            for event_id in event_ids:
                self._in_flight.pop(event_id, None)
            self._appended.set()


def _committed(payload: bytes) -> list[str]:
    """The event ids of a `committed` message. Anything else on that topic is logged and settles nothing."""
    try:
        ids = json.loads(payload)["event_ids"]
        return [event_id for event_id in ids if isinstance(event_id, str) and event_id.isascii()]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("committed_unreadable", extra={"reason": repr(error)})
        return []
