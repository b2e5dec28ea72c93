# SPDX-License-Identifier: Apache-2.0
"""The policy's memory: the last observations of each station (DynamoDB `policy_state`).

One item per (asset, station), because one part speaks for every failure mode of its asset at once. An item is written
only over the version that was read; who loses reads again. A repeated event finds its place taken and changes nothing.
What comes too late to count is logged and counted in the table `counters`.
"""

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from work_orders.policy import Latch, Observation, Position, Rule, decide

# With ten Lambdas on one station a writer loses a few rounds; more means that something else is wrong.
MAX_CONFLICTS = 30

log = Logger(child=True)


class StateConflictError(Exception):
    """Too many writers on one station; the message is delivered again."""


@dataclass(frozen=True, slots=True)
class StationState:
    """What the policy remembers of one station."""

    asset_id: str
    station: str
    version: int
    # By position, oldest first.
    observations: tuple[Observation, ...]
    # Distinct events at which a band was crossed, by failure mode.
    crossed: Mapping[str, int]

    @property
    def last(self) -> Position:
        """The newest place in the sequence that was seen."""
        return self.observations[-1].position if self.observations else Position(0, 0)


def add(
    state: StationState, observation: Observation, rule: Rule, remember: int, latches: Mapping[str, Latch]
) -> StationState:
    """The state with one more observation; the same state when the place is taken or too old. Pure."""
    if any(seen.position == observation.position for seen in state.observations):
        return state
    grown = sorted((*state.observations, observation), key=lambda seen: seen.position)
    if len(grown) > remember and grown[0] is observation:
        return state
    crossed = dict(state.crossed)
    for failure_mode in {seen.failure_mode for seen in grown if seen.failure_mode}:
        latch = latches.get(failure_mode, Latch())
        before = decide(state.observations, failure_mode, rule, latch).crossed
        after = decide(grown, failure_mode, rule, latch).crossed
        if after - before:
            crossed[failure_mode] = crossed.get(failure_mode, 0) + len(after - before)
    return StationState(state.asset_id, state.station, state.version, tuple(grown[-remember:]), crossed)


class StationStates:
    """The table `policy_state`."""

    def __init__(self, dynamodb: Any, table: str, counters_table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._counters_table = counters_table

    def of_asset(self, asset_id: str) -> list[StationState]:
        """Every station that watches the asset, consistent; more than the 1 MB of one answer too."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="asset_id = :asset",
            ExpressionAttributeValues={":asset": asset_id},
            ConsistentRead=True,
        )
        return [_from_item(item) for page in pages for item in page["Items"]]

    def record(
        self,
        asset_id: str,
        station: str,
        observation: Observation,
        rule: Rule,
        remember: int,
        latches: Mapping[str, Latch],
    ) -> StationState:
        """Adds the observation and returns the state that was stored.

        Raises:
            StateConflictError: others kept winning.
        """
        for _ in range(MAX_CONFLICTS):
            state = self._get(asset_id, station)
            grown = add(state, observation, rule, remember, latches)
            if grown is state:
                if observation.event_id not in (seen.event_id for seen in state.observations):
                    self._too_old(state, observation)
                return state
            try:
                self._put(grown)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
                time.sleep(random.uniform(0, 0.05))  # noqa: S311 - jitter, no secret
            else:
                return grown
        raise StateConflictError(f"{asset_id} {station}: {MAX_CONFLICTS} conflicts")

    def _too_old(self, state: StationState, observation: Observation) -> None:
        """A repeat of a part that is forgotten already can't be told from a new one, and is told and counted too."""
        remembered = [state.observations[0].position, state.last]
        log.warning(
            "observation_too_old",
            extra={
                "event_id": observation.event_id,
                "station": state.station,
                "position": [observation.position.epoch, observation.position.sequence],
                "remembered": [[place.epoch, place.sequence] for place in remembered],
            },
        )
        self._dynamodb.update_item(
            TableName=self._counters_table,
            Key={"name": "too_late"},
            UpdateExpression="ADD too_late :one",
            ExpressionAttributeValues={":one": 1},
        )

    def _get(self, asset_id: str, station: str) -> StationState:
        answer = self._dynamodb.get_item(
            TableName=self._table, Key={"asset_id": asset_id, "station": station}, ConsistentRead=True
        )
        if "Item" not in answer:
            return StationState(asset_id, station, 0, (), {})
        return _from_item(answer["Item"])

    def _put(self, state: StationState) -> None:
        self._dynamodb.put_item(
            TableName=self._table,
            Item={
                "asset_id": state.asset_id,
                "station": state.station,
                "version": state.version + 1,
                "observations": json.dumps(
                    [_to_row(seen) for seen in state.observations], separators=(",", ":")
                ),
                "crossed": dict(state.crossed),
                # When the station was last heard; the function `watch` misses those that fall silent.
                "updated_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            },
            ConditionExpression="attribute_not_exists(asset_id) OR version = :read",
            ExpressionAttributeValues={":read": state.version},
        )


def _to_row(seen: Observation) -> list[Any]:
    place = seen.position
    return [place.epoch, place.sequence, seen.event_id, seen.taken_at, seen.failure_mode, seen.weight]


def _from_item(item: Mapping[str, Any]) -> StationState:
    observations = tuple(
        Observation(Position(epoch, sequence), event_id, taken_at, failure_mode, weight)
        for epoch, sequence, event_id, taken_at, failure_mode, weight in json.loads(item["observations"])
    )
    crossed = {failure_mode: int(count) for failure_mode, count in item["crossed"].items()}
    return StationState(item["asset_id"], item["station"], int(item["version"]), observations, crossed)
