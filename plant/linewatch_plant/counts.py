# SPDX-License-Identifier: Apache-2.0
"""Counts the parts, events and orders at every hop, from what each hop keeps on its own disk.

The counts of capture and forwarder are rows that changed in the same transaction as the fact they count, so they hold
after any kill. docs/architecture.md defines each.
"""

import contextlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LINES = "predictions-"
"""Prefix of the streams that hold the lines' events; the device's own are in `events-device`."""


PARTS = ("sent", "judged", "not_inspected", "skipped")
EVENTS = ("published", "stored", "delivered", "enriched")
WORK_ORDERS = ("created", "suppressed", "awaiting_approval", "rejected", "in_erp", "doubled")


def _zeros(names: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(names, 0)


@dataclass(slots=True)
class Counts:
    """One look at the whole plant; parts, events and work_orders are those of build/demo.json.

    Attributes:
        judged: parts with a verdict, by station.
        backlog: events that wait for the cloud.
        unplaced: work orders that are decided and not in the ERP yet.
        dead_letters: messages in the cloud that wait for a person.
    """

    parts: dict[str, int] = field(default_factory=lambda: _zeros(PARTS))
    judged: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=lambda: _zeros(EVENTS))
    work_orders: dict[str, int] = field(default_factory=lambda: _zeros(WORK_ORDERS))
    backlog: int = 0
    unplaced: int = 0
    dead_letters: int = 0

    def on_their_way(self) -> bool:
        """Whether waiting can still change something: an event is not at its last hop, or an order not in the ERP."""
        orders, recorded = self.work_orders, self.parts["judged"] + self.parts["not_inspected"]
        return bool(
            self.backlog
            or self.unplaced
            or len(set(self.events.values())) > 1
            or self.events["published"] < recorded
            or orders["created"] != orders["in_erp"]
        )

    def disagreements(self) -> list[str]:
        """What does not add up, in words; empty when every hop agrees."""
        parts, events, orders = self.parts, self.events, self.work_orders
        told = []
        recorded = parts["judged"] + parts["not_inspected"]
        if parts["sent"] != recorded + parts["skipped"]:
            told.append(f"{parts['sent']} parts were sent, {recorded + parts['skipped']} are accounted for")
        told += [f"{station} judged no part" for station, judged in self.judged.items() if not judged]
        # One event for each part, and at most one more for each part that was skipped.
        if not recorded <= events["published"] <= recorded + parts["skipped"]:
            told.append(
                f"{recorded} parts were judged or not inspected, {events['published']} events published"
            )
        for earlier, later in itertools.pairwise(EVENTS):
            if events[earlier] != events[later]:
                told.append(f"{events[earlier]} events {earlier}, {events[later]} {later}")
        if orders["created"] != orders["in_erp"]:
            told.append(f"{orders['created']} work orders created, {orders['in_erp']} in the ERP")
        for count, what in (
            (orders["doubled"], "work orders doubled"),
            (self.unplaced, "work orders decided and not in the ERP"),
            (self.dead_letters, "messages in the cloud's dead-letter queues"),
        ):
            if count:
                told.append(f"{count} {what}")
        return told


def read_counts(path: Path) -> dict[tuple[str, str], int]:
    """(stream, name) -> value of a spool's file; stream "" holds the service's own counts. Empty before it exists."""
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        try:
            return {
                (stream, name): value
                for stream, name, value in db.execute("SELECT stream, name, value FROM counts")
            }
        except sqlite3.OperationalError:  # being made this moment
            return {}


def read_backlog(path: Path) -> int:
    """Events waiting in a spool's file."""
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        try:
            return int(db.execute("SELECT coalesce(sum(events), 0) FROM streams").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def edge_counts(capture_spools: Mapping[str, Path], forwarder_spool: Path) -> Counts:
    """What the device knows: parts, and events up to `delivered`. The captures' files go by station."""
    counts = Counts()
    for station, path in capture_spools.items():
        own = read_counts(path)
        counts.judged[station] = own.get(("", "judged"), 0)
        for name in counts.parts:
            counts.parts[name] += own.get(("", name), 0)
        counts.events["published"] += sum(
            value for (stream, name), value in own.items() if stream and name == "stored"
        )
    for (stream, name), value in read_counts(forwarder_spool).items():
        if stream.startswith(LINES) and name in {"stored", "settled"}:
            counts.events["stored" if name == "stored" else "delivered"] += value
    counts.backlog = read_backlog(forwarder_spool)
    return counts


def doubled(orders: Sequence[Mapping[str, Any]]) -> int:
    """Orders in the ERP beyond the first with the same reference, or the same (asset, failure mode, episode)."""
    surplus = 0
    for keys in (("external_reference",), ("asset_id", "failure_mode", "episode")):
        seen = Counter(tuple(order.get(key) for key in keys) for order in orders)
        surplus = max(surplus, sum(count - 1 for count in seen.values()))
    return surplus


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
