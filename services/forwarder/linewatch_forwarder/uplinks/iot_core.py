# SPDX-License-Identifier: Apache-2.0
"""The uplink to AWS IoT Core: MQTT 5 over mutual TLS.

The reason code of each acknowledgement is read: from 0x80 it is a refusal, and 0x10 is a success code for a message
that no rule and nobody else took, which is a loss.
"""

import asyncio
from collections.abc import Sequence

from linewatch_forwarder.uplinks.port import Outcome
from linewatch_runtime.mqtt import Connection, Message, MqttError, NobodySubscribed, Refused
from linewatch_runtime.spool import Record

NEVER = frozenset({0x90, 0x95, 0x99})
"""Reason codes that no second try changes: topic name invalid, packet too large, payload format invalid (MQTT 5, 3.4)."""

OF_THE_CONNECTION = frozenset({0x97})
"""Refusals that concern all topics: quota exceeded."""


class IotCore:
    """Publishes events on the topics they came on."""

    session = 0
    resend_window_s = 0.0

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def is_connected(self) -> bool:
        """Whether there is a session."""
        return self._connection.connected.is_set()

    @property
    def trouble(self) -> str:
        """Why there is none."""
        return self._connection.trouble

    @property
    def messages(self) -> asyncio.Queue[Message]:
        """What comes down on the topics that the connection subscribes to; empty where it subscribes to none.

        Subscribe with `Subscriptions(topics, optional=True)`: a cloud that refuses that must not end the uplink.
        """
        return self._connection.messages

    async def run(self) -> None:
        """Keeps the session."""
        await self._connection.run()

    async def ready(self) -> None:
        """Returns when there is a connection."""
        await self._connection.connected.wait()

    async def send(self, records: Sequence[Record]) -> Outcome:
        """Publishes the records, handed over in order on one connection, and reads every acknowledgement."""
        answers = await asyncio.gather(
            *(self._connection.publish(one.topic, one.payload, needs_subscriber=True) for one in records),
            return_exceptions=True,
        )
        outcome = Outcome(publishes=len(records), sent_bytes=sum(len(one.payload) for one in records))
        for record, answer in zip(records, answers, strict=True):
            if answer is None:
                outcome.accepted.append(record.event_id)
            elif isinstance(answer, Refused) and answer.code in NEVER:
                outcome.refused.append((record, str(answer)))
            elif _concerns_topic(answer):
                outcome.troubled.setdefault(record.stream, _told(answer))
            elif isinstance(answer, MqttError):
                outcome.trouble = outcome.trouble or _told(answer)
            else:
                raise answer
        return outcome


def _concerns_topic(answer: BaseException) -> bool:
    """By policy, or because no rule takes it: other topics may pass."""
    if isinstance(answer, Refused):
        return answer.code not in OF_THE_CONNECTION
    return isinstance(answer, NobodySubscribed)


def _told(answer: BaseException) -> str:
    return f"{type(answer).__name__}: {answer}"
