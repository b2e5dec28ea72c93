# SPDX-License-Identifier: Apache-2.0
"""What parts since the end of an order ask for, where no further part comes: the machine stands still.

An end is known to us later than it was (outcomes/polling.py), and what the station said in between is remembered, but was
suppressed by the order's open episode. Each order that ends is due for the sweep until this is done; what is then asked for
goes the way of every event (observing.follow), where one of those who try opens the order.
"""

from aws_lambda_powertools import Logger

from work_orders.episodes import Episode
from work_orders.observing import Desk, EventsForgottenError, follow
from work_orders.orders import WorkOrder
from work_orders.placing import TryLaterError
from work_orders.states import StationState

log = Logger(child=True)


def open_next(ended: WorkOrder, desk: Desk) -> None:
    """Looks at every station of its asset, and of those of the orders that were merged into it. Repeats change nothing.

    Raises:
        AssetUnusableError: the registry's row of a station can't be used; the sweep comes again.
        NotReservedError, ContendedError, BatchLeftOutError: an order could not be opened; the sweep comes again.
    """
    if desk.assets is None:
        return
    for asset_id in sorted({ended.asset_id, *(one.asset_id for one in desk.orders.get_many(ended.merged))}):
        for state in desk.states.of_asset(asset_id):
            # Read anew for each: the station before may have opened one.
            episodes = desk.episodes.of_asset(asset_id)
            if not _says_more(state, episodes):
                continue
            asset = desk.assets.get(state.station)
            if asset is None or asset.asset_id != asset_id:
                continue  # the station watches another asset by now
            try:
                follow(state, asset.card(), episodes, desk)
            except TryLaterError as error:
                # It is open; the sweep finds it among those that are `creating`.
                log.warning("opened_not_placed_yet", extra={"reference": ended.reference, "why": str(error)})
            except EventsForgottenError as error:
                log.warning(
                    "events_forgotten_since_end", extra={"reference": ended.reference, "why": str(error)}
                )


def _says_more(state: StationState, episodes: dict[str, Episode]) -> bool:
    """Whether a part that counts speaks of a failure mode whose episode is closed."""
    return any(
        episode.latch(state.station).admits(seen)
        for seen in state.observations
        if (episode := episodes.get(seen.failure_mode or "")) is not None and not episode.is_open
    )
