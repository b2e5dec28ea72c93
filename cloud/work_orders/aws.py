# SPDX-License-Identifier: Apache-2.0
"""How every function of ours calls AWS."""

import random
from typing import Any

import boto3
from botocore.config import Config

# A Lambda has seconds, not the minutes that botocore would wait.
SHORT = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "max_attempts": 4})

# What a device sees of an order waits for the sweep: it may cost its order three seconds and no second try.
SHADOW = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 1})

# Who is told about an order is told by the clock, where SNS is silent now: four seconds, and no second try.
ANNOUNCE = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 1})

MOST_CONFLICTS = 6
"""Tries of one write upon an item that a transaction holds at that moment, about a second and a half in all."""


def dynamodb() -> Any:
    """The client that takes and gives Python's own values, and waits a moment for an item that a transaction holds."""
    client = boto3.resource("dynamodb", config=SHORT).meta.client
    # Before botocore's own handler, which takes this answer for final.
    client.meta.events.register_first("needs-retry.dynamodb", _again_s)
    return client


def _again_s(response: Any = None, attempts: int = 1, **_: Any) -> float | None:
    """Seconds until a single write is tried again that met a transaction; nothing was written. None: not our affair.

    DynamoDB answers TransactionConflictException to PutItem and UpdateItem; botocore's retries know only
    TransactionInProgressException. Transactions themselves are tried again in order_table.py.
    """
    code = response[1].get("Error", {}).get("Code") if response else None
    if code != "TransactionConflictException" or attempts >= MOST_CONFLICTS:
        return None
    return random.uniform(0, 0.05 * 2.0 ** (attempts - 1))  # noqa: S311 - jitter, no secret
