# SPDX-License-Identifier: Apache-2.0
"""Which policy holds (DynamoDB `policies`): versions that never change, and the name of the current one.

No item: the one that the release brings holds. Who puts a version puts it, makes it the current one and writes the
record of it in one transaction; a version is put once, and once more only with the same content. The transaction asks
that the version which its author saw still holds: of two who put at once, the second is refused.
"""

import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from linewatch.records import following
from work_orders.policy_data import PolicyData, load
from work_orders.policy_reading import PolicyError, parse
from work_orders.records import Records

CACHE_S = 60.0
"""Seconds after which every function follows a new policy."""

MAX_CONFLICTS = 20
CHAIN = "policy"

# An item of DynamoDB holds 400 KB; a policy is read at every cold start.
MOST_BYTES = 200_000

log = Logger(child=True)


class PolicyConflictError(Exception):
    """This version exists with another content, or somebody else put a policy meanwhile."""


class Policies:
    """The table `policies`."""

    def __init__(
        self, dynamodb: Any, table: str, records: Records, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._records = records
        self._clock = clock
        self._data = load()
        self._good_until = float("-inf")

    def current(self) -> PolicyData:
        """The policy that holds, at most CACHE_S old.

        One that this release does not understand changes nothing: what held before goes on, and the log says so.
        """
        if self._clock() >= self._good_until:
            try:
                self._data = self.stored() or load()
            # No reason to stop every event.
            except PolicyError as error:
                extra = {"why": str(error), "goes_on_with": self._data.version}
                log.error("policy_not_understood", extra=extra)
            self._good_until = self._clock() + CACHE_S
        return self._data

    def stored(self) -> PolicyData | None:
        """The policy that somebody put; None where nobody did. Raises PolicyError: this release does not understand it."""
        document = self.document(None)
        return None if document is None else parse(document)

    def document(self, version: str | None) -> dict[str, Any] | None:
        """A version as it was put, the current one for None; None where none was put.

        Raises:
            PolicyError: the current version is not there, or a hand spoilt it.
        """
        pointer = self._get("current") if version is None else {"version": version}
        if pointer is None:
            return None
        try:
            item = self._get(f"version/{pointer['version']}")
            found: dict[str, Any] | None = json.loads(item["document"]) if item else None
        # No JSON, or an item that lacks its fields.
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PolicyError(
                f"policies: what is stored is no policy ({type(error).__name__}: {error}); put one"
            ) from error
        if item is None and version is None:
            raise PolicyError(
                f"policies: the current version {pointer['version']} is not there; put it again"
            )
        return found

    def held(self) -> str | None:
        """The version that was made the current one last; None where none was put, or the item is spoilt."""
        version = (self._get("current") or {}).get("version")
        return None if version is None else str(version)

    def put(self, document: Mapping[str, Any], by: str, at: str, over: str | None) -> PolicyData:
        """Makes the document the current policy, where the one of `over` (as `held` told it) still is, or this one already.

        Raises:
            PolicyError: it is none.
            PolicyConflictError: its version exists with another content, or somebody put another one meanwhile.
        """
        data = parse(document)
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        if len(text.encode()) > MOST_BYTES:
            raise PolicyError(f"policy: {len(text.encode())} bytes are more than {MOST_BYTES}")
        stored = {
            "name": f"version/{data.version}",
            "digest": data.digest,
            "document": text,
            "at": at,
            "by": by,
        }
        named = {"#name": "name"}
        version = {
            "TableName": self._table,
            "Item": stored,
            "ConditionExpression": "attribute_not_exists(#name) OR digest = :digest",
            "ExpressionAttributeNames": named,
            "ExpressionAttributeValues": {":digest": data.digest},
        }
        # A version's content never changes, so the version alone says that nothing was put that nobody looked at. That it
        # is this one already: the answer to a first try was lost.
        current = {
            "TableName": self._table,
            "Item": {"name": "current", "version": data.version},
            "ConditionExpression": "#version = :own OR "
            + ("attribute_not_exists(#version)" if over is None else "#version = :over"),
            "ExpressionAttributeNames": {"#version": "version"},
            "ExpressionAttributeValues": {":own": data.version} | ({} if over is None else {":over": over}),
        }
        for _ in range(MAX_CONFLICTS):
            detail = {"version": data.version, "digest": data.digest}
            entry = following(self._records.last(CHAIN), CHAIN, at, "put", by, detail)
            try:
                self._dynamodb.transact_write_items(
                    TransactItems=[{"Put": version}, {"Put": current}, {"Put": self._records.put(entry)}]
                )
            except ClientError as error:
                reasons = [reason.get("Code") for reason in error.response.get("CancellationReasons", [])]
                if reasons[:1] == ["ConditionalCheckFailed"]:
                    raise PolicyConflictError(
                        f"version {data.version} exists with another content; give this one a version of its own"
                    ) from error
                if reasons[1:2] == ["ConditionalCheckFailed"]:
                    raise PolicyConflictError(
                        f"somebody put version {self.held()} meanwhile: look at it and put again"
                    ) from error
                if not reasons:
                    raise
                time.sleep(random.uniform(0, 0.1))  # noqa: S311 - jitter, no secret
            else:
                self._good_until = float("-inf")
                return data
        raise PolicyConflictError("others kept putting policies; try again")

    def _get(self, name: str) -> dict[str, Any] | None:
        answer = self._dynamodb.get_item(TableName=self._table, Key={"name": name}, ConsistentRead=True)
        item: dict[str, Any] | None = answer.get("Item")
        return item
