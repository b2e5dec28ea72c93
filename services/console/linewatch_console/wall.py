# SPDX-License-Identifier: Apache-2.0
"""The line wall's memory: what each station did last. Bounded in every direction, gone at a restart.

An event may come twice (capture sends again until the forwarder has it) and late; it is counted once, by its id, and an
older one never replaces a newer one on the tile.
"""

import statistics
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from linewatch_console.inspection import Dropped, Part, Skipped
from linewatch_console.statuses import CaptureStatus

MOST_STATIONS = 64
STRIP_PARTS = 60
TREND_WINDOWS = 120
LATENCY_PARTS = 100
REMEMBERED_IDS = 4000
RATE_WINDOW_S = 60.0
SHORTEST_RATE_S = 5.0
"""Below this a rate would be a guess."""


class Station:
    """One station of a line."""

    def __init__(self, line: str, station: str, now: float) -> None:
        self.line = line
        self.station = station
        self.kind = "camera"
        self.status: CaptureStatus | None = None
        self.last: Part | None = None
        self.counts: Counter[str] = Counter()
        self.since = now
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._strip: deque[dict[str, Any]] = deque(maxlen=STRIP_PARTS)
        self._trend: deque[dict[str, Any]] = deque(maxlen=TREND_WINDOWS)
        self._new: deque[dict[str, Any]] = deque(maxlen=TREND_WINDOWS)
        self._latencies: deque[float] = deque(maxlen=LATENCY_PARTS)
        self._arrivals: deque[float] = deque(maxlen=6000)

    def take(self, part: Part, now: float) -> bool:
        """Counts a part; False when it was counted before."""
        if part.event_id in self._seen:
            return False
        self._seen[part.event_id] = None
        if len(self._seen) > REMEMBERED_IDS:
            self._seen.popitem(last=False)
        if part.time_to_failure or part.window:
            self.kind = "sensor"
        self.counts[part.result] += 1
        self._arrivals.append(now)
        if part.frame_to_verdict_s is not None:
            self._latencies.append(part.frame_to_verdict_s)
        point = _point(part)
        self._strip.append(point)
        self._trend.append(point)
        self._new.append(point)
        if self.last is None or _is_newer(part, self.last):
            self.last = part
        return True

    def rate_per_minute(self, now: float) -> float | None:
        """Parts per minute over the last minute; None while it is too early to say."""
        watched_s = now - self.since
        if watched_s < SHORTEST_RATE_S:
            return None
        while self._arrivals and self._arrivals[0] < now - RATE_WINDOW_S:
            self._arrivals.popleft()
        return round(len(self._arrivals) * 60 / min(RATE_WINDOW_S, watched_s), 1)

    def head(self, now: float) -> dict[str, Any]:
        """The tile without its history."""
        return {
            "key": f"{self.line}/{self.station}",
            "line": self.line,
            "station": self.station,
            "kind": self.kind,
            "status": self.status.model_dump() if self.status else None,
            "counts": {
                name: self.counts[name]
                for name in ("OK", "NG", "REVIEW", "NOT_INSPECTED", "skipped", "dropped")
            },
            "rate_per_minute": self.rate_per_minute(now),
            "latency_p50_ms": _milliseconds(self._latencies),
            "last": self._shown(),
        }

    def history(self) -> list[dict[str, Any]]:
        """What the strip and the trend show, oldest first."""
        self._new.clear()
        return list(self._trend if self.kind == "sensor" else self._strip)

    def take_new(self) -> list[dict[str, Any]]:
        """What came since the last call."""
        points = list(self._new)
        self._new.clear()
        return points

    def _shown(self) -> dict[str, Any] | None:
        """The last part, with a picture: its own evidence, else the station's latest.

        The latest may already be the next part's, so nothing is marked on it.
        """
        if self.last is None:
            return None
        shown = asdict(self.last)
        if self.kind == "camera" and not shown["frame"]:
            shown["frame"] = f"/evidence/latest/{self.line}/{self.station}.jpg?part={self.last.event_id}"
            shown["heatmap"], shown["regions"] = "", []
        return shown


class Wall:
    """Every station that was heard of. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.stations: dict[tuple[str, str], Station] = {}
        self.changed: set[tuple[str, str]] = set()
        self._rates: dict[tuple[str, str], float | None] = {}

    def take(self, line: str, station: str, event: Part | Skipped | Dropped) -> bool:
        """Puts an event on its station's tile; False when it changes nothing."""
        tile = self._tile(line, station)
        if tile is None:
            return False
        if isinstance(event, Part):
            if not tile.take(event, self._clock()):
                return False
        elif isinstance(event, Skipped):
            tile.counts["skipped"] += event.count
        else:
            tile.counts["dropped"] += event.count
        self.changed.add((line, station))
        return True

    def take_status(self, line: str, station: str, status: CaptureStatus) -> None:
        """Puts capture's own word on the tile."""
        tile = self._tile(line, station)
        if tile is not None and tile.status != status:
            tile.status = status
            self.changed.add((line, station))

    def snapshot(self) -> list[dict[str, Any]]:
        """Every tile with its history, by line and station."""
        now = self._clock()
        return [tile.head(now) | {"history": tile.history()} for _, tile in sorted(self.stations.items())]

    def take_changes(self) -> list[dict[str, Any]]:
        """Each tile that changed since the last call, with what came since. A rate that fell counts as a change."""
        now = self._clock()
        for key, tile in self.stations.items():
            if self._rates.get(key) != tile.rate_per_minute(now):
                self.changed.add(key)
        changes = []
        for key in sorted(self.changed):
            tile = self.stations[key]
            head = tile.head(now)
            self._rates[key] = head["rate_per_minute"]
            changes.append(head | {"new": tile.take_new()})
        self.changed.clear()
        return changes

    def _tile(self, line: str, station: str) -> Station | None:
        tile = self.stations.get((line, station))
        if tile is None and len(self.stations) < MOST_STATIONS:
            tile = self.stations[line, station] = Station(line, station, self._clock())
            self.changed.add((line, station))
        return tile


def _point(part: Part) -> dict[str, Any]:
    """One bar of the strip and one point of the trend. `unit` changes when a machine is replaced."""
    interval = part.time_to_failure or {}
    return {
        "result": part.result,
        "part_id": part.part_id,
        "unit": part.part_id.rpartition(" cycle ")[0],
        "severity": part.severity,
        "score": part.score,
        "p10": interval.get("p10"),
        "p50": interval.get("p50"),
        "p90": interval.get("p90"),
        "beyond": interval.get("beyond_horizon", False),
    }


def _is_newer(part: Part, than: Part) -> bool:
    """By the producer's own count, which a clock jump can't turn; by time only where a new disk began that count anew."""
    if part.epoch == than.epoch:
        return part.sequence > than.sequence
    return part.epoch > than.epoch or part.taken_at > than.taken_at


def _milliseconds(seconds: deque[float]) -> float | None:
    return round(statistics.median(seconds) * 1000, 1) if seconds else None
