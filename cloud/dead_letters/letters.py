# SPDX-License-Identifier: Apache-2.0
"""The cloud's dead letters, read and put back. SQS has no look without a receive: what is looked at is hidden for a moment.

Guarantee: a letter is deleted only after SQS has its copy in the queue that it goes back to. Whoever is killed between the
two leaves the letter and the copy; the event counts once by its id. One that is discarded is on record before it goes.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

from botocore.exceptions import ClientError

from dead_letters.burying import AT, CODE, EVENT_ID, WHY

HIDE_S = 120
"""For how long a letter that is looked at stays hidden from others; as long after a kill."""

KNOWN_AGAIN = 20
"""Looks that find only what was seen before, in a run of many minutes, until it is over."""

IN_ONE = 10
"""What one receive gives at most."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `code` and `why` are empty where the queue's own redrive brought it, after its receives."""

    # "inspections", "enriched", "rules" or "lifecycle".
    queue: str
    message_id: str
    receipt: str
    body: str
    # RFC 3339, since when it lies there.
    at: str
    code: str = ""
    why: str = ""
    event_id: str = ""
    # What EventBridge told of an event it could not deliver: ERROR_CODE, ERROR_MESSAGE.
    told: Mapping[str, str] = field(default_factory=dict)

    def is_called(self, name: str) -> bool:
        """By its message id, the beginning of it, or the id of its event."""
        return self.event_id == name or (len(name) >= 8 and self.message_id.startswith(name))


class Drawer:
    """One dead-letter queue, for one command: letters that came later than it are left alone."""

    def __init__(self, sqs: Any, queue: str, url: str, hide_s: int = HIDE_S) -> None:
        self.queue = queue
        self._sqs = sqs
        self._url = url
        self._hide_s = hide_s
        self._hidden: dict[str, str] = {}
        # By the queue's clock, as of the first look.
        self._until = 0.0
        self._replayed: set[str] = set()

    def __enter__(self) -> Self:
        """Letters that are taken out stay hidden until the end, so that none is taken twice."""
        return self

    def __exit__(self, *_: object) -> None:
        """Shows again what was not replayed."""
        for receipt in self._hidden.values():
            try:
                self._sqs.change_message_visibility(
                    QueueUrl=self._url, ReceiptHandle=receipt, VisibilityTimeout=0
                )
            except ClientError as error:
                # What was hidden for too long shows itself.
                if "AccessDenied" in error.response["Error"]["Code"]:
                    raise

    def __iter__(self) -> Iterator[Letter]:
        """Each letter once, in the queue's order, which is none."""
        known_again = 0
        while known_again < KNOWN_AGAIN and (found := self._receive()):
            news = [message for message in found if message["MessageId"] not in self._hidden]
            known_again = 0 if news else known_again + 1
            for message in found:
                self._hidden[message["MessageId"]] = message["ReceiptHandle"]
            for message in news:
                if self._was_there(message):
                    yield letter_of(self.queue, message)

    def waiting(self) -> int:
        """About how many lie there."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=names)["Attributes"]
        return sum(int(told.get(name, "0")) for name in names)

    def replay(self, letter: Letter, send: Callable[[], None]) -> None:
        """Sends it where it goes, then deletes it: never the other way round."""
        send()
        self._replayed.add(_digest(letter.body))
        self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=letter.receipt)
        self._hidden.pop(letter.message_id, None)

    def discard(self, letter: Letter, record: Callable[[], object]) -> None:
        """Puts it on record, then deletes it: never the other way round. Who is killed in between leaves the letter."""
        record()
        self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=letter.receipt)
        self._hidden.pop(letter.message_id, None)

    def _was_there(self, message: Mapping[str, Any]) -> bool:
        """When the command began. The queue's clock is told in whole seconds; within one a replayed letter is known again."""
        sent = _sent(message)
        return sent <= self._until or (
            sent <= self._until + 1 and _digest(message["Body"]) not in self._replayed
        )

    def _receive(self) -> list[dict[str, Any]]:
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=IN_ONE,
            VisibilityTimeout=self._hide_s,
            # Long polling asks every server of the queue; a short one may find none where there are some.
            WaitTimeSeconds=1,
            AttributeNames=["SentTimestamp"],
            MessageAttributeNames=["All"],
        )
        if not self._until:
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            now = parsedate_to_datetime(date) if date else datetime.now(UTC)
            self._until = now.timestamp()
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode(errors="replace")).hexdigest()


def _sent(message: Mapping[str, Any]) -> float:
    return int(message["Attributes"]["SentTimestamp"]) / 1000


def letter_of(queue: str, message: Mapping[str, Any]) -> Letter:
    """A received message as a letter."""
    told = {name: one.get("StringValue", "") for name, one in message.get("MessageAttributes", {}).items()}
    sent = datetime.fromtimestamp(_sent(message), UTC)
    return Letter(
        queue,
        message["MessageId"],
        message["ReceiptHandle"],
        message["Body"],
        told.get(AT) or sent.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        told.get(CODE, ""),
        told.get(WHY, ""),
        told.get(EVENT_ID, ""),
        {name: value for name, value in told.items() if not name.startswith("linewatch.")},
    )
