# SPDX-License-Identifier: Apache-2.0
"""The uplink to AWS IoT Core: MQTT 5 over mutual TLS.

The reason code of each acknowledgement is read: from 0x80 it is a refusal, and 0x10 is a success code for a message
that no rule and nobody else took, which is a loss.

A batch that is refused for what is in it is taken apart: its events go alone in the next turns, and only the culprit is
refused. A cloud that ends the connection with a code that blames a publish does not say which: then one publish at a
time goes out until it is known.
"""

import asyncio
from collections.abc import Sequence

from linewatch_forwarder.uplinks.batches import Limits, Publish, turn
from linewatch_forwarder.uplinks.certificates import Certificates
from linewatch_forwarder.uplinks.port import Outcome
from linewatch_runtime.mqtt import Connection, Message, MqttError, NobodySubscribed, NotConnected, Refused
from linewatch_runtime.records import Record

NEVER = frozenset({0x90, 0x95, 0x99})
"""Reason codes that no second try changes: topic name invalid, packet too large, payload format invalid (MQTT 5, 3.4)."""

NOT_AUTHORIZED = 0x87
"""By the policy. IoT Core names it for PUBACK and for DISCONNECT."""

OF_A_PUBLISH = NEVER | {0x81, 0x82, NOT_AUTHORIZED}
"""Codes of a connection's end that blame a publish; 0x81 and 0x82 are malformed packet and protocol error (MQTT 5,
3.14.2.1). mosquitto 2.0.11 answers a payload over its message_size_limit with what paho can't read: that is 0x82, too."""

OF_THE_CONNECTION = frozenset({0x97})
"""Refusals that concern all topics: quota exceeded."""

PROOFS = 3
"""Connections that one event has to end, on its way alone, before it counts as refused."""

DEFAULT_LIMITS = Limits(most_events=40, largest_bytes=32 * 1024)
"""Why these: docs/decisions/0023."""

_HEAD_BYTES = 512
"""Of a batch's packet beside its payload, at most: a topic has 256 bytes, the prefix of Basic Ingest 150 more."""


class IotCore:
    """Publishes events on the topics they came on, several at once on a batch topic."""

    session = 0
    resend_window_s = 0.0
    held: frozenset[str] = frozenset()

    def __init__(
        self, connection: Connection, limits: Limits = DEFAULT_LIMITS, ingest_rule: str = "",
        certificates: Certificates | None = None,
    ) -> None:  # fmt: skip
        """Publishes on a connection.

        Args:
            connection: its TLS is `certificates`, where they are to be watched.
            limits: of one publish.
            ingest_rule: the rule that Basic Ingest hands every event to, past the message broker; empty: none.
            certificates: whenever they are renewed, so is the session.
        """
        self._connection = connection
        self._certificates = certificates
        if certificates:
            connection.on_connected.append(certificates.accepted)
        self._in_hand = asyncio.Lock()
        self._limits = limits
        self._prefix = f"$aws/rules/{ingest_rule}/" if ingest_rule else ""
        # Of the events that a turn chooses from at most: what is out of sight is forgotten, and found out again.
        self._alone: set[str] = set()
        self._suspects: dict[str, int] = {}
        """Event id -> how many connections it ended while it alone was on its way."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a session."""
        return self._connection.connected.is_set()

    @property
    def trouble(self) -> str:
        """Why there is none; what the certificates have to do with it too."""
        told = self._connection.trouble
        return "; ".join(filter(None, (told, self.certificate_trouble))) if told else ""

    @property
    def twin(self) -> str:
        """Says that another process uses our client id; empty where nothing looks like it."""
        return self._connection.twin

    @property
    def certificate_trouble(self) -> str:
        """What a person should do about the certificate files; empty where nothing is to do."""
        return self._certificates.trouble if self._certificates else ""

    @property
    def certificate_days(self) -> float | None:
        """Until the certificate expires; below 0 it has."""
        return self._certificates.days_left if self._certificates else None

    @property
    def messages(self) -> asyncio.Queue[Message]:
        """What comes down on the topics that the connection subscribes to; empty where it subscribes to none.

        Subscribe with `Subscriptions(topics, optional=True)`: a cloud that refuses that must not end the uplink.
        """
        return self._connection.messages

    async def run(self) -> None:
        """Keeps the session, and begins a new one when the certificates were renewed."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._connection.run(), name="uplink connection")
            if self._certificates:
                tasks.create_task(self._certificates.watch(self._renew), name="certificates")

    async def _renew(self) -> None:
        async with self._in_hand:  # what is on its way comes to its end first
            self._connection.renew()

    async def ready(self) -> None:
        """Returns when there is a connection."""
        await self._connection.connected.wait()

    async def send(self, records: Sequence[Record]) -> Outcome:
        """Puts the first publish of each (stream, class) on its way and reads every acknowledgement."""
        in_sight = {one.event_id for one in records}
        self._alone &= in_sight
        self._suspects = {name: count for name, count in self._suspects.items() if name in in_sight}
        publishes = turn(records, self._limits_now(), self._alone)
        if self._suspects:
            publishes = [max(publishes, key=lambda one: self._suspects.get(one.event_ids[0], -1))]
        async with self._in_hand:
            answers = await asyncio.gather(*(self._publish(one) for one in publishes), return_exceptions=True)
        outcome = Outcome(
            publishes=len(publishes), sent_bytes=sum(len(one.topic) + len(one.payload) for one in publishes)
        )
        for publish, answer in zip(publishes, answers, strict=True):
            self._judge(publish, answer, outcome, is_alone=len(publishes) == 1)
        return outcome

    async def _publish(self, one: Publish) -> None:
        await self._connection.publish(
            self._prefix + one.topic, one.payload, needs_subscriber=True, content_type="application/json"
        )

    def _limits_now(self) -> Limits:
        """What the cloud announced for this session counts too; a single event is judged by itself."""
        if not self._connection.largest_packet:
            return self._limits
        largest = self._connection.largest_packet - _HEAD_BYTES
        return Limits(self._limits.most_events, min(self._limits.largest_bytes, largest))

    def _judge(
        self, publish: Publish, answer: BaseException | None, outcome: Outcome, *, is_alone: bool
    ) -> None:
        if answer is None:
            outcome.accepted += publish.event_ids
            self._acquit(publish)
        elif isinstance(answer, Refused) and answer.code in NEVER:
            self._acquit(publish)
            if publish.is_batch:
                self._alone.update(publish.event_ids)
            else:
                outcome.refused.append((publish.records[0], str(answer)))
        elif _concerns_topic(answer):
            self._acquit(publish)
            outcome.troubled.setdefault(publish.stream, _told(answer))
        elif isinstance(answer, NotConnected) and answer.code in OF_A_PUBLISH:
            outcome.trouble = outcome.trouble or _told(answer)
            self._suspect(publish, answer, outcome, is_alone=is_alone)
        elif isinstance(answer, MqttError):
            outcome.trouble = outcome.trouble or _told(answer)
        else:
            raise answer

    def _acquit(self, publish: Publish) -> None:
        for event_id in publish.event_ids:
            self._suspects.pop(event_id, None)

    def _suspect(self, publish: Publish, answer: NotConnected, outcome: Outcome, *, is_alone: bool) -> None:
        """Notes that the connection ended, for a publish, while this one was on its way."""
        event_id = publish.event_ids[0]
        if publish.is_batch or not is_alone:
            self._alone.update(publish.event_ids)
            self._suspects |= dict.fromkeys(publish.event_ids, 0)
        elif answer.code == NOT_AUTHORIZED:
            self._acquit(publish)
            outcome.trouble = ""  # it is this stream's alone
            outcome.troubled[publish.stream] = _told(answer)
        elif (ended := self._suspects.get(event_id, 0) + 1) < PROOFS:
            self._suspects[event_id] = ended
        else:
            self._acquit(publish)
            outcome.refused.append((publish.records[0], f"it ended {ended} connections: {answer}"))


def _concerns_topic(answer: BaseException) -> bool:
    """By policy, or because no rule takes it: other topics may pass."""
    if isinstance(answer, Refused):
        return answer.code not in OF_THE_CONNECTION
    return isinstance(answer, NobodySubscribed)


def _told(answer: BaseException) -> str:
    return f"{type(answer).__name__}: {answer}"
