# SPDX-License-Identifier: Apache-2.0
"""What a person threw away of the dead letters, on record: who, why, and the digest of what it was."""

import hashlib
from collections.abc import Mapping
from typing import Any

from dead_letters.explaining import Explanation

CHAIN = "dead-letters"
"""Of the records. It has no day of deletion: people write it, one entry for each letter."""

LONGEST_REASON = 500


class ReasonError(ValueError):
    """The reason can't go on record; the message says why."""


def reason_of(text: str) -> str:
    """The reason as it goes on record. Raises ReasonError."""
    reason = text.strip()
    if not reason:
        raise ReasonError("must say why; it goes on record")
    if len(reason) > LONGEST_REASON:
        raise ReasonError(f"has {len(reason)} characters; at most {LONGEST_REASON} go on record")
    if not reason.isprintable():
        raise ReasonError("must be one line of characters that can be seen")
    return reason


def detail(one: Explanation, reason: str) -> Mapping[str, Any]:
    """The entry's detail; `body` is the digest by which a saved letter is known again."""
    letter = one.letter
    body = letter.body.encode(errors="replace")
    return {
        "queue": letter.queue,
        "id": letter.message_id,
        "event_id": letter.event_id,
        "since": letter.at,
        "code": letter.code,
        "why": one.was,
        "body": "sha256:" + hashlib.sha256(body).hexdigest(),
        "reason": reason,
    }
