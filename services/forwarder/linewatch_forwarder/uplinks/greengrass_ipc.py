# SPDX-License-Identifier: Apache-2.0
"""The uplink through the Greengrass nucleus: PublishToIoTCore over its IPC, in its session with IoT Core.

Weaker than a connection of our own: success means that the nucleus's spooler took a message, not that IoT Core has it.
By default that spooler is memory. So what it took is kept here for the resend window (handed_over.py), and sent again when
this connection ends before that: then the nucleus may have restarted, and forgotten. Lost is what a nucleus forgets, or
gives up, that it took longer ago than the window (docs/decisions/0025).
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Any

from linewatch_forwarder.uplinks.batches import Limits, Publish, turn
from linewatch_forwarder.uplinks.port import Outcome
from linewatch_runtime.nucleus_ipc import NucleusGone, NucleusIpc, answer, told
from linewatch_runtime.records import Record

log = logging.getLogger(__name__)

AT_LEAST_ONCE = "1"

LIMITS = Limits(most_events=10, largest_bytes=6_000)
"""Nucleus lite reads a message into 10,000 bytes, in which the payload stands in base64 beside the topic."""

PROOFS = 3
"""Connections that one event has to end, alone on its way and larger than LIMITS, before it counts as refused."""

LONGEST_BACKOFF_S = 15.0
SOUND_SESSION_S = 10.0


class GreengrassIpc:
    """Keeps a session with the nucleus and publishes in it."""

    held: frozenset[str] = frozenset()

    def __init__(self, ipc: NucleusIpc, resend_window_s: float) -> None:
        self._ipc = ipc
        self.resend_window_s = resend_window_s
        self.session = 0
        self._client: Any = None
        self._connected = asyncio.Event()
        self._over: asyncio.Future[None] | None = None
        self._trouble = ""
        # Of the events that a turn chooses from at most: what is out of sight is forgotten, and found out again.
        self._alone: set[str] = set()
        self._ended: dict[str, int] = {}
        """Event id -> how many connections ended while it, a large one, was on its way."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a session with the nucleus. Whether that has one with IoT Core it tells nobody."""
        return self._connected.is_set()

    @property
    def trouble(self) -> str:
        """Why there is none."""
        return self._trouble

    async def run(self) -> None:
        """One session after the other: the client never reconnects, so each has a new one."""
        attempt = 0
        while True:
            begun = time.monotonic()
            try:
                await self._session()
            except Exception as error:  # noqa: BLE001 - the client's errors have no common class, and none may end us
                reason = told(error)
                if reason != self._trouble:
                    log.warning("uplink_lost", extra={"socket": self._ipc.socket, "reason": reason})
                self._trouble = reason
            attempt = 0 if time.monotonic() - begun > SOUND_SESSION_S else min(attempt + 1, 8)
            await asyncio.sleep(random.uniform(0.1, min(LONGEST_BACKOFF_S, 0.5 * 2**attempt)))  # noqa: S311

    async def _session(self) -> None:
        """One connection. Raises when it ends, or can't begin."""
        over = asyncio.get_running_loop().create_future()
        self._over = over
        try:
            client = await self._ipc.connect(lambda reason: self._end(over, reason))
        except BaseException:
            over.cancel()
            raise
        try:
            if not over.done():
                self._client, self._trouble = client, ""
                self._connected.set()
                log.info("uplink_connected", extra={"socket": self._ipc.socket})
            await over
        finally:
            self._connected.clear()
            self._client = None
            client.close(executor_wait=False)

    def _end(self, over: "asyncio.Future[None]", reason: NucleusGone) -> None:
        """That session is over: from here on what it took counts as lost. A connection may tell so long after it was left."""
        if not over.done():
            self.session += 1
            self._connected.clear()
            self._client = None
            over.set_exception(reason)

    async def ready(self) -> None:
        """Returns when there is a session with the nucleus."""
        await self._connected.wait()

    async def send(self, records: Sequence[Record]) -> Outcome:
        """Hands over the first publish of each (stream, class), in order on one connection."""
        session, client, over = self.session, self._client, self._over
        if client is None or over is None:
            return Outcome(trouble=self.trouble or "the nucleus is not reached")
        in_sight = {one.event_id for one in records}
        self._alone &= in_sight
        self._ended = {name: count for name, count in self._ended.items() if name in in_sight}
        publishes = turn(records, LIMITS, self._alone)
        if self._ended:
            publishes = [max(publishes, key=lambda one: self._ended.get(one.event_ids[0], -1))]
        answers = await asyncio.gather(*(_publish(client, one) for one in publishes), return_exceptions=True)
        outcome = Outcome(
            publishes=len(publishes), sent_bytes=sum(len(one.topic) + len(one.payload) for one in publishes)
        )
        for publish, given in zip(publishes, answers, strict=True):
            self._judge(publish, given, outcome, is_alone=len(publishes) == 1)
        if any(isinstance(given, TimeoutError) for given in answers):
            # A client whose answer may still come is not asked again.
            self._end(over, NucleusGone(told(TimeoutError())))
        if session != self.session:
            # The flow would count them to the session that is there now.
            outcome.handed_over.clear()
        return outcome

    def _judge(
        self, publish: Publish, given: BaseException | None, outcome: Outcome, *, is_alone: bool
    ) -> None:
        from awsiot.greengrasscoreipc.model import InvalidArgumentsError, ServiceError, UnauthorizedError

        if given is None:
            outcome.handed_over += publish.event_ids
            self._acquit(publish)
        elif isinstance(given, UnauthorizedError):
            outcome.troubled[publish.stream] = (
                f"the nucleus does not let this component publish {publish.topic}; accessControl of its configuration"
                f" must allow aws.greengrass#PublishToIoTCore on it, under aws.greengrass.ipc.mqttproxy ({given.message})"
            )
        elif isinstance(given, InvalidArgumentsError) and publish.is_batch:
            self._alone.update(publish.event_ids)
        elif isinstance(given, InvalidArgumentsError):
            outcome.refused.append((publish.records[0], f"the nucleus: {given.message}"))
            self._acquit(publish)
        elif isinstance(given, ServiceError):
            reason = f"the nucleus: {given.message}"
            if _is_large(publish):
                # It may be for its size: that must not hold the others.
                outcome.troubled.setdefault(publish.stream, reason)
            else:
                outcome.trouble = outcome.trouble or reason
        elif isinstance(given, Exception):
            outcome.trouble = outcome.trouble or f"the nucleus: {told(given)}"
            if _is_large(publish) and not isinstance(given, TimeoutError):
                self._blame(publish, outcome, is_alone=is_alone)
        else:
            raise given

    def _acquit(self, publish: Publish) -> None:
        for event_id in publish.event_ids:
            self._ended.pop(event_id, None)

    def _blame(self, publish: Publish, outcome: Outcome, *, is_alone: bool) -> None:
        """Notes that the connection ended while a large event was on its way."""
        (event_id,) = publish.event_ids
        ended = self._ended.get(event_id, 0) + is_alone
        self._ended[event_id] = ended
        if ended >= PROOFS:
            self._acquit(publish)
            outcome.refused.append((
                publish.records[0],
                f"it ended {ended} connections to the nucleus: {len(publish.payload)} bytes; nucleus lite takes about 7,000",
            ))  # fmt: skip


def _is_large(publish: Publish) -> bool:
    """Alone and larger than what both nuclei are known to take."""
    return len(publish.payload) > LIMITS.largest_bytes


async def _publish(client: Any, one: Publish) -> None:
    await answer(
        client.publish_to_iot_core_async(topic_name=one.topic, qos=AT_LEAST_ONCE, payload=one.payload)
    )
