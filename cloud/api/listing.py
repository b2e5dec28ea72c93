# SPDX-License-Identifier: Apache-2.0
"""Which orders a list shows: by status or all, newest first, a page at a time; or those of one asset.

A page ends with a token: where the next one begins. The index may lag by a moment, so what has moved on since is left
out of a page, and a page may be shorter than its limit while more follow: only a missing token says that it was the last.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from api.errors import BadRequestError
from work_orders.episodes import reference as reference_of
from work_orders.observing import Desk
from work_orders.orders import WorkOrder

# An asset's orders are found without an index, by their number; one that failed more often shows its latest.
MOST_OF_ASSET = 200

LONGEST_TOKEN = 400
_KEY = re.compile(r"([0-9TZ:.+-]{10,40})\n([\w-]{1,80})", re.ASCII)

Key = tuple[str, str]
"""When the order was made and its reference: newest first is by descending key."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some orders, and where the next page begins; "" after the last one."""

    orders: Sequence[WorkOrder]
    next: str


def page(desk: Desk, status: str | None, limit: int, token: str) -> Page:
    """Orders of one status, or of all."""
    references = desk.orders.references(status, limit, _read(token) if token else None)
    found = desk.orders.get_many(references)
    is_more = len(references) == limit and bool(found)
    return Page(
        [order for order in found if status in (None, order.status)],
        _token(key_of(found[-1])) if is_more else "",
    )


def page_of_asset(desk: Desk, asset_id: str, status: str | None, limit: int, token: str) -> Page:
    """Orders of one asset, of one status or of all."""
    after = _read(token) if token else None
    found = [
        order
        for order in of_asset(desk, asset_id)
        if status in (None, order.status) and (after is None or key_of(order) < after)
    ]
    shown = found[:limit]
    return Page(shown, _token(key_of(shown[-1])) if len(found) > limit else "")


def of_asset(desk: Desk, asset_id: str, most: int = MOST_OF_ASSET) -> list[WorkOrder]:
    """An asset's latest orders, newest first: its episodes are numbered, and a reference follows from the number."""
    references = [
        reference_of(asset_id, failure_mode, number)
        for failure_mode, episode in desk.episodes.of_asset(asset_id).items()
        for number in range(max(1, episode.number - most + 1), episode.number + 1)
    ]
    return sorted(desk.orders.get_many(references), key=key_of, reverse=True)[:most]


def key_of(order: WorkOrder) -> Key:
    """Where the order stands in a list."""
    return order.item["created_at"], order.reference


def _token(key: Key) -> str:
    return base64.urlsafe_b64encode("\n".join(key).encode()).decode()


def _read(token: str) -> Key:
    try:
        text = base64.b64decode(token[:LONGEST_TOKEN], altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    found = _KEY.fullmatch(text)
    if found is None:
        raise BadRequestError("next", "is no token that a page ended with")
    return found[1], found[2]
