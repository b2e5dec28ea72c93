# SPDX-License-Identifier: Apache-2.0
"""Puts poison among the dead letters with its reason, where the operator looks.

The queue's own redrive keeps the body alone, after five receives. So what is known to be poison is sent there by us, at
once, with the reason as message attributes; what fails for reasons of its own still goes the queue's way.

Guarantee: the message that poison came in is deleted only after the dead letter is in its queue. Who is killed between the
two leaves a second copy, which a replay makes harmless: an event id counts once.
"""

from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from dead_letters.poison import PoisonError, plain

CODE, WHY, EVENT_ID, AT = "linewatch.code", "linewatch.why", "linewatch.event_id", "linewatch.at"
"""Names of the message attributes; all are strings."""

LARGEST = 256 * 1024
"""Bytes of a message. AWS has allowed more since 2025, by a setting of the queue."""

TOO_LONG = frozenset({"InvalidParameterValue", "InvalidMessageContents", "MessageTooLong"})


class CantBuryError(Exception):
    """The letter does not fit into its queue with the reason; the redrive policy takes the message as it is."""


def bury(sqs: Any, queue_url: str, body: str, poison: PoisonError, now: datetime | None = None) -> None:
    """Sends the body to the dead-letter queue, with why.

    Raises:
        CantBuryError: body and reason together are larger than a message may be, or hold what SQS takes for no text.
    """
    at = (now or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = {CODE: poison.code, WHY: poison.why, AT: at, EVENT_ID: plain(poison.event_id, 128)}
    # AWS counts names, types and values of attributes to the message.
    if (
        len(body.encode(errors="replace")) + sum(len(name) + len(value) + 6 for name, value in told.items())
        > LARGEST
    ):
        raise CantBuryError(f"the letter and its reason have more than {LARGEST} bytes")
    try:
        sqs.send_message(
            QueueUrl=queue_url,
            MessageBody=body,
            # An attribute may not be empty.
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in told.items() if value
            },
        )
    except ClientError as error:
        if error.response["Error"]["Code"].rpartition(".")[2] in TOO_LONG:
            raise CantBuryError(str(error)) from error
        raise
