# SPDX-License-Identifier: Apache-2.0
"""Work orders for people to look at: pages of them, and one with what a decision needs."""

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools import Logger

from api import listing, views
from api.dossier import gather, to_json
from api.errors import NotFoundError
from api.policies import bundled
from api.request import MAX_NAME, Request, checked
from api.similar import similar
from api.standing import standing
from api.summaries import asset_of
from api.why import why
from erp.port import ErpError
from erp.text import Anchor
from work_orders.observing import Desk
from work_orders.order_items import STATUSES, WorkOrder, history_of
from work_orders.records import to_item

log = Logger(child=True)

MOST, USUAL = 200, 50
BOOLEANS = ("true", "false")
# Of the 2,048 bytes that DynamoDB takes as a key; ours have 19.
LONGEST_REFERENCE = 80
# Entries of a chain in one answer: as many as an order's chain has, and no more than Lambda can answer with (6 MB, of
# which JSON's escapes may take half).
MOST_ENTRIES, MOST_BYTES, ENTRY_BYTES = 1_100, 2_500_000, 400


def page(request: Request, desk: Desk) -> tuple[int, Any]:
    """Orders, newest first; `next` asks for those that follow, null after the last."""
    limit = request.whole("limit", USUAL, 1, MOST)
    status = request.choice("status", STATUSES) or None
    token = request.query.get("next", "")
    asset_id = checked("asset_id", request.query.get("asset_id", ""), is_needed=False, most=MAX_NAME)
    found = (
        listing.page_of_asset(desk, asset_id, status, limit, token)
        if asset_id
        else listing.page(desk, status, limit, token)
    )
    approval = desk.data.approval
    return 200, {
        "work_orders": [views.work_order(order, approval) for order in found.orders],
        "next": found.next or None,
    }


def detail(request: Request, desk: Desk) -> tuple[int, Any]:
    """One order with what a decision needs."""
    return 200, detailed(order_of(request, desk), desk)


def detailed(order: WorkOrder, desk: Desk) -> dict[str, Any]:
    """The order with its history, the facts it was opened with, its asset, and earlier orders like it."""
    entries = desk.records.of(order.reference)
    station = "/".join(str(order.document.get(name)) for name in ("site", "line", "station"))
    return {
        **views.work_order(order, desk.data.approval),
        **views.facts(order),
        "history": history_of(entries) if entries else order.item.get("history", []),
        "asset": views.asset(asset_of(station, desk), order),
        "similar": similar(order, desk),
        # Where it stands, why, what was tried, what happens next.
        "standing": asdict(standing(order, desk.clock())),
    }


def explained(request: Request, desk: Desk) -> tuple[int, Any]:
    """Why the order exists.

    ?erp=true asks the ERP what its order bears of ours. ?stored=true adds what was stored, as `linewatch verify
    --file` reads it.
    """
    order = order_of(request, desk)
    dossier = gather(order, desk.orders, desk.records, desk.events, desk.policies, bundled())
    anchor = _anchor(order, desk) if request.choice("erp", BOOLEANS) == "true" else None
    stored = {"stored": to_json(dossier, anchor)} if request.choice("stored", BOOLEANS) == "true" else {}
    return 200, {**why(dossier, anchor), **stored}


def _anchor(order: WorkOrder, desk: Desk) -> Anchor | None:
    """What the ERP's order bears; None where it is not there or does not tell: the answer then says that it was not asked."""
    if not order.erp_id:
        return None
    try:
        found = desk.erp.anchor(order.erp_id)
    except ErpError as error:
        log.warning("erp_not_asked", extra={"reference": order.reference, "why": str(error)})
        return None
    return found if found.tells(order.reference) else None


def chain(request: Request, desk: Desk) -> tuple[int, Any]:
    """Entries of one chain as they are stored, from number `from` on; `next` is the number to go on with, or null."""
    first, limit = request.whole("from", 0, 0, 10**9), request.whole("limit", MOST_ENTRIES, 1, MOST_ENTRIES)
    entries = desk.records.of(checked("chain", request.place["chain"], most=MAX_NAME))
    shown: list[dict[str, Any]] = []
    size = 0
    for entry in entries[first : first + limit]:
        size += len(entry.detail.encode()) + ENTRY_BYTES
        if shown and size > MOST_BYTES:
            break
        shown.append(to_item(entry))
    return 200, {
        "chain": request.place["chain"],
        "entries": shown,
        "next": first + len(shown) if len(entries) > first + len(shown) else None,
    }


def order_of(request: Request, desk: Desk) -> WorkOrder:
    """The order that the path names. Raises NotFoundError."""
    reference = request.place["reference"]
    order = desk.orders.get(reference) if len(reference) <= LONGEST_REFERENCE else None
    if order is None:
        raise NotFoundError("no such work order")
    return order
