# SPDX-License-Identifier: Apache-2.0
"""What would have been ordered: parts that were seen, replayed against a policy that was not theirs. Pure.

The same functions decide as live. What a replay can't know is assumed and said: every order that would have been asked
for is approved, and a technician closes each `closed_after_s` after it was opened.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge
from typing import Any, Literal

from work_orders.consequence import consequence
from work_orders.episodes import Episode
from work_orders.observed import Part, to_observation
from work_orders.policy import Latch, Observation, Position, Rule, decide
from work_orders.policy_data import PolicyData

What = Literal["created", "held", "asked"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A part as the table `events` has it: when it reached the cloud, seconds since 1970, and at which station."""

    at: float
    # site/line/station, the key of the asset registry.
    station: str
    part: Part


@dataclass(frozen=True, slots=True)
class WouldBe:
    """An order that this policy would have opened."""

    at: float
    asset_id: str
    failure_mode: str
    episode: int
    band: str
    what: What
    why: str
    risk: float
    # Severity word at its opening, and the worst that it rose to.
    priority: str
    worst: str
    event_ids: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "at": self.at, "asset_id": self.asset_id, "failure_mode": self.failure_mode, "episode": self.episode,
            "band": self.band, "what": self.what, "why": self.why, "risk": round(self.risk, 4),
            "priority": self.priority, "worst": self.worst, "event_ids": list(self.event_ids),
        }  # fmt: skip


@dataclass(slots=True)
class Replay:
    """What came of it."""

    policy: PolicyData
    parts: int = 0
    # Parts of stations that no asset is known for, or of a kind that the policy has no rule for.
    unknown: int = 0
    orders: list[WouldBe] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Orders by what would have become of them, and how many rose above the severity that they began with."""
        what = Counter(order.what for order in self.orders)
        return {
            **{name: what[name] for name in ("created", "held", "asked")},
            "escalated": sum(order.worst != order.priority for order in self.orders),
        }


class Replayer:
    """Takes parts one by one, so that a month of them never lies in memory. `assets` by station key."""

    def __init__(
        self,
        assets: Mapping[str, Mapping[str, Any]],
        policy: PolicyData,
        *,
        closed_after_s: float,
        pilot: bool,
    ) -> None:
        self._assets = assets
        self._closed_after_s = closed_after_s
        self._pilot = pilot
        self._replay = Replay(policy)
        self._desks: dict[str, _AssetReplay] = {}

    def take(self, seen: Seen) -> None:
        """The next part, in the order of arrival. Raises nothing: what can't be judged is counted."""
        self._replay.parts += 1
        asset = self._assets.get(seen.station)
        if asset is None or asset.get("kind") not in self._replay.policy.rules:
            self._replay.unknown += 1
            return
        made = _AssetReplay(self._replay.policy, self._closed_after_s, self._pilot)
        self._desks.setdefault(str(asset["asset_id"]), made).take(seen, asset)

    def result(self) -> Replay:
        """What came of all that was taken."""
        orders = (order for desk in self._desks.values() for order in desk.orders)
        self._replay.orders = sorted(orders, key=lambda order: order.at)
        return self._replay


def replay(
    seen: Iterable[Seen], assets: Mapping[str, Mapping[str, Any]], policy: PolicyData,
    *, closed_after_s: float, pilot: bool,
) -> Replay:  # fmt: skip
    """All of `seen`, in the order of arrival, against one policy."""
    replayer = Replayer(assets, policy, closed_after_s=closed_after_s, pilot=pilot)
    for one in seen:
        replayer.take(one)
    return replayer.result()


@dataclass(slots=True)
class _AssetReplay:
    """One asset's memory: its stations' windows, its episodes, and the orders so far."""

    policy: PolicyData
    closed_after_s: float
    pilot: bool
    stations: dict[str, list[Observation]] = field(default_factory=dict)
    episodes: dict[str, Episode] = field(default_factory=dict)
    # Failure mode -> place of its open order in `orders`.
    open_orders: dict[str, int] = field(default_factory=dict)
    orders: list[WouldBe] = field(default_factory=list)

    def take(self, seen: Seen, asset: Mapping[str, Any]) -> None:
        observation = to_observation(seen.part, asset, self.policy)
        window = self.stations.setdefault(seen.station, [])
        if any(known.position == observation.position for known in window):
            return
        insort(window, observation, key=lambda known: known.position)
        del window[: -self.policy.remember]
        self._close_due(seen.at)
        rule = self.policy.rule(asset["kind"], asset.get("criticality"))
        for failure_mode in {known.failure_mode for known in window if known.failure_mode}:
            episode = self.episodes.get(failure_mode) or Episode(str(asset["asset_id"]), failure_mode)
            if not _can_cross(window, failure_mode, rule):
                continue
            decision = decide(window, failure_mode, rule, episode.latch(seen.station))
            if decision.band is None:
                continue
            if episode.is_open:
                self._rise(failure_mode, decision.risk)
                continue
            openings = [at for other in self.episodes.values() for at in other.opened_at]
            meant = consequence(decision, self.policy, seen.at, openings, pilot=self.pilot)
            opened = episode.opened(seen.at)
            self.episodes[failure_mode] = opened
            self.open_orders[failure_mode] = len(self.orders)
            word = self.policy.severity_word(decision.risk)
            what: What = "asked" if meant.what == "ask" else "held" if meant.hold_until else "created"
            self.orders.append(
                WouldBe(
                    seen.at, opened.asset_id, failure_mode, opened.number, decision.band, what, meant.why,
                    decision.risk, word, word, decision.event_ids,
                )
            )  # fmt: skip

    def _rise(self, failure_mode: str, risk: float) -> None:
        place = self.open_orders[failure_mode]
        word = self.policy.severity_word(risk)
        if self.policy.is_worse(word, self.orders[place].worst):
            self.orders[place] = replace(self.orders[place], worst=word)

    def _close_due(self, now: float) -> None:
        for failure_mode, episode in self.episodes.items():
            if episode.is_open and now >= episode.opened_at[-1] + self.closed_after_s:
                latches = {
                    station: Latch(floor=window[-1].position if window else Position(0, 0))
                    for station, window in self.stations.items()
                }
                self.episodes[failure_mode] = episode.closed(latches)


def _can_cross(window: Sequence[Observation], failure_mode: str, rule: Rule) -> bool:
    """False only where no band can be crossed, whatever the order: what makes a month of good parts cheap to replay."""
    weakest = min(band.on for band in rule.bands)
    weights = [known.weight or 0.0 for known in window if known.failure_mode == failure_mode]
    if rule.window == 1:
        return sum(weight >= weakest for weight in weights) >= rule.needed
    # No mean over `window` places is above the sum of all that there is.
    return sum(weights) / rule.window >= weakest - 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """Orders of two replays beside each other."""

    both: Sequence[tuple[WouldBe, WouldBe]]
    only_first: Sequence[WouldBe]
    only_second: Sequence[WouldBe]


def difference(first: Replay, second: Replay) -> Difference:
    """Pairs the orders by asset, failure mode and episode number within the replay."""
    by_key = {(order.asset_id, order.failure_mode, order.episode): order for order in second.orders}
    both, only_first = [], []
    for order in first.orders:
        twin = by_key.pop((order.asset_id, order.failure_mode, order.episode), None)
        if twin is None:
            only_first.append(order)
        else:
            both.append((order, twin))
    return Difference(both, only_first, list(by_key.values()))


def in_order(streams: Iterable[Iterable[Seen]]) -> Iterator[Seen]:
    """Several stations' parts, each in its own order, as one series in the order of arrival."""
    return merge(*streams, key=lambda seen: seen.at)
