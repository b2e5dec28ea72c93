# SPDX-License-Identifier: Apache-2.0
"""Many items at once: BatchGetItem may answer with a part of what it was asked for, and says which part it left."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOST_KEYS = 100
"""Of one BatchGetItem (AWS)."""

MOST_ROUNDS = 10
"""Answers that may leave something out, about five seconds in all; the last pauses are a second long."""


class BatchLeftOutError(Exception):
    """DynamoDB kept leaving items out: what is there is not known."""


def get_all(
    dynamodb: Any,
    table: str,
    keys: Sequence[Mapping[str, Any]],
    *,
    pause: Callable[[float], None] | None = None,
) -> list[dict[str, Any]]:
    """Every item that is there, consistent, in any order; one that is not among them does not exist.

    Raises:
        BatchLeftOutError: after MOST_ROUNDS answers something was still left out.
    """
    found: list[dict[str, Any]] = []
    for at in range(0, len(keys), MOST_KEYS):
        asked: Mapping[str, Any] = {table: {"Keys": list(keys[at : at + MOST_KEYS]), "ConsistentRead": True}}
        for number in range(MOST_ROUNDS):
            answer = dynamodb.batch_get_item(RequestItems=asked)
            found += answer["Responses"].get(table, [])
            asked = answer.get("UnprocessedKeys") or {}
            if not asked:
                break
            (pause or time.sleep)(random.uniform(0, min(1.0, 0.05 * 2.0**number)))  # noqa: S311 - jitter, no secret
        else:
            raise BatchLeftOutError(f"{table}: items were left out {MOST_ROUNDS} times; try again")
    return found
