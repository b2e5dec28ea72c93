# SPDX-License-Identifier: Apache-2.0
"""The episodes that end with an order: its own, and those of the orders that were merged into it."""

from collections.abc import Callable

from aws_lambda_powertools import Logger

from work_orders.episodes import Episode
from work_orders.observing import Desk
from work_orders.orders import WorkOrder
from work_orders.policy import Latch, Position
from work_orders.states import StationState

log = Logger(child=True)


def closed_episodes(order: WorkOrder, desk: Desk, latch: Callable[[StationState], Latch]) -> list[Episode]:
    """What `orders.close` and `orders.reject` are given, of the merged orders that are there. `latch`: what was decided for one station's alarms."""
    merged = desk.orders.get_many(order.merged)
    if len(merged) < len(order.merged):
        gone = sorted({*order.merged} - {one.reference for one in merged})
        # Their episodes are freed by the next alarm (observing.py); the others must not wait for them.
        log.error("merged_orders_gone", extra={"reference": order.reference, "gone": gone})
    orders = [order, *merged]
    return [
        desk.episodes.get(one.asset_id, one.failure_mode).closed(
            {state.station: latch(state) for state in desk.states.of_asset(one.asset_id)}
        )
        for one in orders
    ]


def after_rejecting(order: WorkOrder) -> Callable[[StationState], Latch]:
    """The rejected band stays silent until the risk has cleared."""
    return lambda state: Latch(floor=state.last, band=order.band)


def after_expiring() -> Callable[[StationState], Latch]:
    """Nobody said no, so no band is silent: only what was seen before is not counted twice."""
    return lambda state: Latch(floor=state.last)


def after_closing(closed_at: float) -> Callable[[StationState], Latch]:
    """Only parts taken after the technician was there, seconds since 1970, can open the next episode."""
    return lambda state: Latch(floor=state.last, closed_at=closed_at)


def after_ending(ended_at: float) -> Callable[[StationState], Latch]:
    """As `after_closing`, told later: what was seen since the technician was done counts, where its time is known."""

    def latch(state: StationState) -> Latch:
        if not state.observations:
            return Latch(floor=state.last, closed_at=ended_at)
        before = [
            seen.position for seen in state.observations if seen.taken_at is None or seen.taken_at <= ended_at
        ]
        first = state.observations[0].position
        floor = max(before) if before else Position(first.epoch, first.sequence - 1)
        return Latch(floor=floor, closed_at=ended_at)

    return latch
