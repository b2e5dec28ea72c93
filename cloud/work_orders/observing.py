# SPDX-License-Identifier: Apache-2.0
"""THE FLOW of an enriched event: remember the part, ask the policy, see to the order it asks for.

Driven by levels, not edges: as long as the state says that a band is crossed, every event of the station (and every
repeat) makes sure that the order exists. So a crash between any two lines is healed by the next delivery.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from work_orders.document import describe
from work_orders.episodes import Episode, Episodes
from work_orders.erp import Erp
from work_orders.observed import observed_at
from work_orders.orders import WorkOrder, WorkOrders
from work_orders.placing import Patience, place
from work_orders.policy import Decision, Latch, Observation, Position, Rule, decide
from work_orders.policy_data import PolicyData
from work_orders.shadow import DeviceShadow
from work_orders.states import StationState, StationStates

log = Logger(child=True)


class Events:
    """Reads the table `events`."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def get(self, event_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The CloudEvents in the order asked for, without those that are not there."""
        answer = self._dynamodb.batch_get_item(
            RequestItems={
                self._table: {
                    "Keys": [{"event_id": event_id} for event_id in event_ids],
                    "ConsistentRead": True,
                }
            }
        )
        found = {item["event_id"]: json.loads(item["event"]) for item in answer["Responses"][self._table]}
        return [found[event_id] for event_id in event_ids if event_id in found]


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything that the work-orders flow works with."""

    data: PolicyData
    dynamodb: Any
    patience: Patience
    pilot: bool
    events: Events
    states: StationStates
    episodes: Episodes
    orders: WorkOrders
    erp: Erp
    shadow: DeviceShadow


def observe(enriched: Mapping[str, Any], desk: Desk) -> None:
    """Takes one enriched event to its consequences.

    Raises:
        TryLaterError: the order exists, was tried and could not be placed yet.
        StateConflictError: too many writers on one station.
    """
    event, asset = enriched["event"], enriched["asset"]
    if "origin" not in event["data"] or event["type"] not in (
        "InferenceCompleted",
        "InferenceError",
        "PartsSkipped",
    ):
        return
    if asset is None:
        log.warning("unknown_asset", extra={"event_id": event["id"], "source": event["source"]})
        return
    origin = event["data"]["origin"]
    station = f"{origin['site']}/{origin['line']}/{origin['station']}"
    rule = desk.data.rules[asset["kind"]]
    episodes = desk.episodes.of_asset(asset["asset_id"])
    latches = {failure_mode: episode.latch(station) for failure_mode, episode in episodes.items()}
    observation = to_observation(event, asset, desk.data)
    state = desk.states.record(asset["asset_id"], station, observation, rule, desk.data.remember, latches)
    for failure_mode in sorted({seen.failure_mode for seen in state.observations if seen.failure_mode}):
        episode = episodes.get(failure_mode, Episode(asset["asset_id"], failure_mode))
        _follow(state, episode, asset, rule, desk)


def to_observation(event: Mapping[str, Any], asset: Mapping[str, Any], data: PolicyData) -> Observation:
    """The part as the policy sees it; without weight when it was not judged."""
    body = event["data"]
    origin, verdict = body["origin"], body.get("verdict")
    position = Position(int(origin.get("epoch", 0)), int(origin.get("sequence", 0)))
    # Only the time of a clock that was right may be compared with the moment a person closed an order.
    known = observed_at(origin)
    taken_at = datetime.fromisoformat(known).timestamp() if known else None
    if not verdict:
        return Observation(position, event["id"], taken_at, None, None)
    label, result = verdict.get("label", ""), verdict.get("result", "")
    failure_mode = asset["failure_modes"].get(label) or verdict.get("failure_mode") or None
    if asset["kind"] == "machine":
        weight = float(verdict.get("severity", 0.0))
    else:
        weight = data.weights.get(result, 0.0)
        failure_mode = failure_mode if weight else None
    return Observation(position, event["id"], taken_at, failure_mode, min(1.0, max(0.0, weight)))


def _follow(state: StationState, episode: Episode, asset: Mapping[str, Any], rule: Rule, desk: Desk) -> None:
    decision = decide(state.observations, episode.failure_mode, rule, episode.latch(state.station))
    if decision.cleared_at is not None and not episode.is_open:
        # The rejected alarm has gone; from here on it may be raised again.
        quiet = Latch(floor=decision.cleared_at)
        freed = replace(episode, latches={**episode.latches, state.station: quiet})
        try:
            desk.episodes.store(freed)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return  # somebody else moved the episode on; the next event looks again
        episode = desk.episodes.get(episode.asset_id, episode.failure_mode)
        decision = decide(state.observations, episode.failure_mode, rule, quiet)
    if decision.band is None:
        return
    order = _reserved(episode, decision, asset, desk)
    if order is None:
        return
    if order.status == "awaiting_approval" and decision.band == "automatic" and not desk.pilot:
        order = (
            desk.orders.confirm(order.reference, "policy", "the automatic band was crossed", "automatic")
            or order
        )
    settle(order, desk)


def _reserved(episode: Episode, decision: Decision, asset: Mapping[str, Any], desk: Desk) -> WorkOrder | None:
    assert decision.band is not None
    if not episode.is_open:
        events = desk.events.get(decision.event_ids)
        if events:
            document = describe(asset, episode.failure_mode, decision, events, desk.data, pilot=desk.pilot)
            is_automatic = decision.band == "automatic" and not desk.pilot
            status = "creating" if is_automatic else "awaiting_approval"
            opened = desk.orders.open(episode, status, decision.band, document)
            if opened is not None:
                log.info("order_reserved", extra={"reference": opened.reference, "status": status})
                return opened
        episode = desk.episodes.get(episode.asset_id, episode.failure_mode)
    return desk.orders.get(episode.reference) if episode.is_open else None


def settle(order: WorkOrder, desk: Desk) -> WorkOrder:
    """Places the order if it is due and shows it in the device shadow. Raises TryLaterError."""
    current: WorkOrder | None = order
    if order.status == "creating":
        current = place(order.reference, desk.orders, desk.erp, desk.patience)
    if current is not None and current.shadow == "pending":
        desk.shadow.show(current, desk.orders)
    return current or order
