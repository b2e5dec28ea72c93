# SPDX-License-Identifier: Apache-2.0
"""Escapes: faults that somebody found and no order pointed at. Only reported ones are known."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from outcomes.outcome import escape, to_item
from outcomes.store import Outcomes
from work_orders.observing import Desk
from work_orders.order_items import MOST_MERGED

FIELDS = ("asset_id", "failure_mode", "found_at", "note")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,127}")
MAX_NOTE = 1_000
OLDEST = timedelta(days=366)
# Two clocks of people.
FUTURE = timedelta(minutes=5)
DAY_S = 86_400.0


class OrderPointsAtItError(Exception):
    """An open order is about this fault: its finding is `confirmed`, and it is no escape."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"order {reference} points at it: close that one as confirmed")
        self.reference = reference


def record(
    desk: Desk,
    outcomes: Outcomes,
    body: Mapping[str, Any],
    *,
    by: str,
    order_days: float,
    asset: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Stores the report; the same report again is the same escape. `asset`: its card, where the registry knows it.

    Raises:
        ValueError: "<field>: why".
        OrderPointsAtItError: it is none.
    """
    now = now or datetime.now(UTC)
    if unknown := sorted(set(body) - set(FIELDS)):
        raise ValueError(f"{unknown[0]}: unknown; known: {', '.join(FIELDS)}")
    asset_id, failure_mode = _name(body, "asset_id"), _name(body, "failure_mode")
    found_at, note = _found_at(body, now), _note(body)
    episode = desk.episodes.get(asset_id, failure_mode)
    if episode.is_open:
        raise OrderPointsAtItError(_to_close(episode.reference, desk))
    place = {name: str((asset or {}).get(name) or "") for name in ("site", "line", "station", "criticality")}
    found = escape(asset_id, failure_mode, found_at, "console", **place)
    expires_at = int(now.timestamp() + order_days * DAY_S)
    said = {"note": note, "by": by, "recorded_at": _text(now)}
    outcomes.add(
        {**to_item(found), **{name: text for name, text in said.items() if text}, "expires_at": expires_at}
    )
    return {
        "reference": found.reference, "asset_id": asset_id, "failure_mode": failure_mode, "found_at": found_at,
        "is_asset_known": asset is not None, **said,
    }  # fmt: skip


def _to_close(reference: str, desk: Desk) -> str:
    """The order itself, or the one that it was merged into at last: only that one can be closed."""
    for _ in range(MOST_MERGED):
        order = desk.orders.get(reference)
        if order is None or not order.merged_into:
            break
        reference = order.merged_into
    return reference


def _name(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not _ID.fullmatch(value := value.strip()):
        raise ValueError(f"{field}: must be a text of 1 to 128 letters, digits, spaces and . _ : / -")
    return value


def _found_at(body: Mapping[str, Any], now: datetime) -> str:
    """RFC 3339 with its offset, not in the future and within a year; as UTC with milliseconds."""
    value = body.get("found_at")
    try:
        found = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(
            f"found_at: must be a time such as 2026-11-21T15:00:00Z, got {value!r:.60}"
        ) from error
    if found.tzinfo is None:
        raise ValueError("found_at: lacks its offset; write 2026-11-21T15:00:00Z or …+01:00")
    if not now - OLDEST <= found <= now + FUTURE:
        raise ValueError(f"found_at: must lie within the last {OLDEST.days} days, got {found.isoformat()}")
    return _text(found.astimezone(UTC))


def _note(body: Mapping[str, Any]) -> str:
    value = body.get("note") or ""
    if not isinstance(value, str) or len(value) > MAX_NOTE:
        raise ValueError(f"note: must be a text of at most {MAX_NOTE} characters")
    return value.strip()


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
