# SPDX-License-Identifier: Apache-2.0
"""THE FLOW of an enriched event: remember the part, ask the policy, see to the order it asks for.

Driven by levels, not edges: as long as the state says that a band is crossed, every event of the station (and every
repeat) makes sure that the order exists. So a crash between any two lines is healed by the next delivery.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import ClientError

from assets.registry import Registry
from erp.port import Erp, ErpUnavailableError
from work_orders.announcing import SILENT, Announcer
from work_orders.batches import get_all
from work_orders.consequence import consequence
from work_orders.document import SHOWN_PLACES, describe, seen_in
from work_orders.episodes import Episode, Episodes
from work_orders.metrics import metrics
from work_orders.observed import part_of, to_observation
from work_orders.order_escalating import Rise
from work_orders.order_items import ENDED, MOST_MERGED
from work_orders.orders import WorkOrder, WorkOrders
from work_orders.placing import Patience, place
from work_orders.policies import Policies
from work_orders.policy import Decision, Latch, Rule, decide, last_places
from work_orders.policy_data import PolicyData
from work_orders.records import Records
from work_orders.shadow import DeviceShadow
from work_orders.states import StationState, StationStates
from work_orders.telling import is_due, tell

log = Logger(child=True)


class Events:
    """Reads the table `events`."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def get(self, event_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The CloudEvents in the order asked for, without those that are not there. Raises BatchLeftOutError.

        One that is not there by this read was forgotten after EventDays: enrich stores an event before it sends it on.
        """
        keys = [{"event_id": event_id} for event_id in dict.fromkeys(event_ids)]
        items = get_all(self._dynamodb, self._table, keys)
        found = {item["event_id"]: json.loads(item["event"]) for item in items}
        return [found[event_id] for event_id in event_ids if event_id in found]


class NotReservedError(Exception):
    """A band is crossed and there is no order for it yet: come again."""


class EventsForgottenError(NotReservedError):
    """None of the events that crossed it is known any more: there is nothing that an order could say."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything that the work-orders flow works with."""

    # The policy that holds; wiring.desk() keeps it fresh.
    data: PolicyData
    policies: Policies
    records: Records
    dynamodb: Any
    patience: Patience
    pilot: bool
    events: Events
    states: StationStates
    episodes: Episodes
    orders: WorkOrders
    erp: Erp
    shadow: DeviceShadow
    # Seconds since 1970.
    clock: Callable[[], float] = time.time
    announcer: Announcer = SILENT
    # The asset registry; None in functions that end no order.
    assets: Registry | None = None


def observe(enriched: Mapping[str, Any], desk: Desk) -> None:
    """Takes one enriched event to its consequences.

    Raises:
        TryLaterError: the order exists, was tried and could not be placed yet.
        StateConflictError: too many writers on one station.
        NotReservedError, ContendedError, BatchLeftOutError: the order could not be opened; nothing is written.
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
    rule = desk.data.rule(asset["kind"], asset.get("criticality"))
    episodes = desk.episodes.of_asset(asset["asset_id"])
    latches = {failure_mode: episode.latch(station) for failure_mode, episode in episodes.items()}
    observation = to_observation(part_of(event), asset, desk.data)
    state = desk.states.record(asset["asset_id"], station, observation, rule, desk.data.remember, latches)
    follow(state, asset, episodes, desk)


def follow(
    state: StationState, asset: Mapping[str, Any], episodes: Mapping[str, Episode], desk: Desk
) -> None:
    """Does what the station's parts ask for, for each failure mode. `episodes`: the asset's, by failure mode.

    Raises what `observe` raises.
    """
    rule = desk.data.rule(asset["kind"], asset.get("criticality"))
    openings = [at for episode in episodes.values() for at in episode.opened_at]
    for failure_mode in sorted({seen.failure_mode for seen in state.observations if seen.failure_mode}):
        episode = episodes.get(failure_mode, Episode(asset["asset_id"], failure_mode))
        _follow(Case(state, asset, rule, openings), episode, desk)


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of a station and its asset at one look."""

    state: StationState
    asset: Mapping[str, Any]
    rule: Rule
    # When any episode of the asset was opened, seconds since 1970.
    openings: Sequence[float]
    # The station's own order, where that was merged into the one that is being looked at.
    merged: WorkOrder | None = None


def _follow(case: Case, episode: Episode, desk: Desk) -> None:
    state = case.state
    decision = decide(state.observations, episode.failure_mode, case.rule, episode.latch(state.station))
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
        decision = decide(state.observations, episode.failure_mode, case.rule, quiet)
    if decision.band is None:
        return
    order = _reserved(case, episode, decision, desk)
    if order is None:
        _free(episode, state.station, desk)
        _follow(case, desk.episodes.get(episode.asset_id, episode.failure_mode), desk)
        return
    if order.status in ENDED:
        now = desk.episodes.get(episode.asset_id, episode.failure_mode)
        if now.version != episode.version:
            # It ended while the part was remembered, and whoever ended it has not seen that part: it may open the next.
            _follow(case, now, desk)
            return
    order, case = _taken_in(order, case, desk)
    settle(_raised(order, case, decision, desk), desk)


def _free(episode: Episode, station: str, desk: Desk) -> None:
    """Closes an episode whose order is not there any more, so that the next one opens: an alarm is never passed over.

    Releases before 0.3 gave a merged order its day of deletion while its case went on. What was taken before the episode
    opened was that order's; what came since counts.
    """
    current = desk.episodes.get(episode.asset_id, episode.failure_mode)
    if not current.is_open or desk.orders.get(current.reference) is not None:
        return  # somebody else was faster
    log.error(
        "order_of_open_episode_gone",
        extra={"reference": current.reference, "asset_id": current.asset_id},
    )
    since = current.opened_at[-1] if current.opened_at else 0.0
    latches = {
        one: replace(current.latch(one), closed_at=max(current.latch(one).closed_at, since))
        for one in {*current.latches, station}
    }
    try:
        desk.episodes.store(current.closed(latches))
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise  # else somebody else freed it


def _taken_in(order: WorkOrder, case: Case, desk: Desk) -> tuple[WorkOrder, Case]:
    """The order that the merged one's case goes on in, whose asset's openings count then; else these."""
    merged = order
    # Merging names only what is open, so that it goes round in no circle; and MOST_MERGED bounds it.
    for _ in range(MOST_MERGED):
        into = desk.orders.get(order.merged_into) if order.merged_into else None
        if into is None:
            break
        desk.orders.keep_in_another(order)
        order = into
    if order is merged:
        return order, case
    openings = [at for episode in desk.episodes.of_asset(order.asset_id).values() for at in episode.opened_at]
    return order, replace(case, openings=openings, merged=merged)


def _raised(order: WorkOrder, case: Case, decision: Decision, desk: Desk) -> WorkOrder:
    """The open order, after what a stronger band or a higher severity changes about it. Nothing ever falls."""
    assert decision.band is not None
    order = desk.orders.reached(order, decision.risk, [band.on for band in case.rule.bands])
    names = [band.name for band in case.rule.bands]
    is_stronger = names.index(decision.band) < names.index(order.band) if order.band in names else False
    word = desk.data.severity_word(decision.risk)
    others = _without_own(case.openings, order)
    meant = consequence(decision, desk.data, desk.clock(), others, pilot=desk.pilot)
    # What a person was asked for another reason, as the pilot or the rate limit, stays with the person.
    if (
        order.status == "awaiting_approval"
        and is_stronger
        and meant.what == "create"
        and not meant.hold_until
    ):
        why = f"the {decision.band} band was crossed"
        if case.merged:
            why += f" by {case.merged.asset_id} ({case.merged.reference}, merged into this)"
        order = desk.orders.confirm(order.reference, "policy", why, decision.band) or order
    if order.hold_until and meant.what == "create" and not meant.hold_until:
        order = (
            desk.orders.release(order, "policy", f"risk {decision.risk:.2f} waits for no quiet hours")
            or order
        )
    if is_stronger or desk.data.is_worse(word, order.priority):
        band = decision.band if is_stronger else order.band
        priority = word if desk.data.is_worse(word, order.priority) else order.priority
        rise = Rise(
            band=band, priority=priority, risk=round(decision.risk, 4), why=_why(decision, case),
            at_event=decision.event_ids[-1],
            recommended_action=desk.data.failure_mode(order.failure_mode).action(decision.risk),
            # Of a merged order's asset they are no facts about this one.
            seen={} if case.merged else seen_in(desk.events.get(decision.event_ids)),
        )  # fmt: skip
        risen = desk.orders.escalate(order, rise)
        order = risen or order
    return order


def _without_own(openings: Sequence[float], order: WorkOrder) -> list[float]:
    """The asset's openings but for the order's own, which the rate limit counts only against orders after it."""
    opened = datetime.fromisoformat(str(order.item["created_at"])).timestamp()
    left = list(openings)
    # Episodes keep whole seconds.
    if own := [at for at in left if abs(at - opened) <= 1]:
        left.remove(own[0])
    return left


def _why(decision: Decision, case: Case) -> str:
    reached = f"{case.rule.needed} of {case.rule.observations} at {decision.risk:.2f} or above"
    merged = case.merged
    return f"{merged.reference} ({merged.asset_id}, merged into this): {reached}" if merged else reached


def _reserved(case: Case, episode: Episode, decision: Decision, desk: Desk) -> WorkOrder | None:
    """The order of the open episode; opened now where the episode is not.

    Raises:
        NotReservedError: there is none, and nobody else has opened one.
    """
    assert decision.band is not None
    if not episode.is_open:
        events = desk.events.get(decision.event_ids)
        if missing := len(decision.event_ids) - len(events):
            # Those that a slow station sent more than EventDays ago; the order tells what is left, by its digests.
            log.warning("events_forgotten", extra={"asset_id": episode.asset_id, "missing": missing})
        if events:
            meant = consequence(decision, desk.data, desk.clock(), case.openings, pilot=desk.pilot)
            places = last_places(
                case.state.observations, episode.failure_mode, case.rule,
                episode.latch(case.state.station), SHOWN_PLACES,
            )  # fmt: skip
            document = describe(
                case.asset,
                episode.failure_mode,
                decision,
                events,
                desk.data,
                case.rule,
                places,
                pilot=desk.pilot,
            )
            status = "creating" if meant.what == "create" else "awaiting_approval"
            opened = desk.orders.open(
                episode, status, decision.band, document, hold_until=meant.hold_until, why=meant.why
            )
            if opened is not None:
                metrics.add_metric("OrdersReserved", MetricUnit.Count, 1)
                log.info(
                    "order_reserved",
                    extra={"reference": opened.reference, "status": status, "why": meant.why},
                )
                return opened
        episode = desk.episodes.get(episode.asset_id, episode.failure_mode)
        if not episode.is_open:
            # A crossed band is never passed over: the queue brings the event again, and what holds then is decided upon.
            error = NotReservedError if events else EventsForgottenError
            raise error(f"{episode.asset_id} {episode.failure_mode}: crossed, and no order was opened")
    return desk.orders.get(episode.reference)


def asked_in_pilot(order: WorkOrder, desk: Desk) -> WorkOrder:
    """The order; in a pilot that was switched on while it was held, a person is asked when the hold ends."""
    if not desk.pilot or not order.is_held or order.hold_until > desk.clock():
        return order
    asked = desk.orders.ask(order, "pilot: every order awaits approval, and its hold has ended")
    return asked or desk.orders.get(order.reference) or order


def settle(order: WorkOrder, desk: Desk) -> WorkOrder:
    """Places the order if it is due, tells the ERP what is pending, and shows it in the device shadow.

    Raises:
        TryLaterError: not placed yet.
    """
    order = asked_in_pilot(order, desk)
    current: WorkOrder | None = order
    # A parked one too, where its pause is over: a person had it replayed, or its station speaks before the sweep comes.
    is_due_again = order.status == "parked" and order.due_at <= desk.orders.now_text()
    if order.status == "creating" or is_due_again:
        current = place(order.reference, desk.orders, desk.erp, desk.patience)
    if current is not None and is_due(current, desk.orders.now_text()):
        with suppress(ErpUnavailableError):  # the sweep comes back for it
            current = tell(current.reference, desk.orders, desk.erp, desk.patience) or current
    if current is not None and current.shadow == "pending":
        desk.shadow.show(current, desk.orders)
    if current is not None:
        current = desk.announcer.announce(current, desk.orders, desk.data, desk.clock())
    return current or order
