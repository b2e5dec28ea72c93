# SPDX-License-Identifier: Apache-2.0
"""When a series of observations asks for a work order. Pure; the numbers are data (policy.json).

What is unknown never raises and never clears: a gap in the sequence counts as a part without a defect when an alarm is
raised, and as a defective one when it is cleared. More knowledge can so only add crossings, and the order in which
events arrive changes nothing: alarms may overtake good parts by hours.

A part that could not be judged takes no place in a window. A window never spans a restart (epoch): how many parts the
old epoch still holds can't be known. Proved by: cloud/tests/test_policy.py
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Place of a part in its station's sequence."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Observation:
    """One part as the policy sees it."""

    position: Position
    event_id: str
    # Seconds since 1970 by the device's clock; None unless that clock is known to be synchronised.
    taken_at: float | None
    # Failure mode that the part points at; None for a good part.
    failure_mode: str | None
    # How bad, 0..1: a machine's severity, or a product's weight. None: not judged.
    weight: float | None


@dataclass(frozen=True, slots=True)
class Band:
    """A range of risk with its own consequence; `on` raises it, under `off` it clears."""

    name: str
    on: float
    on_inclusive: bool
    off: float

    def holds(self, risk: float) -> bool:
        """Whether this risk counts towards raising."""
        return risk >= self.on if self.on_inclusive else risk > self.on


@dataclass(frozen=True, slots=True)
class Rule:
    """`needed` of `observations` over a band's `on` raise; `clear_after` in a row under its `off` clear."""

    # Strongest first.
    bands: tuple[Band, ...]
    observations: int
    needed: int
    clear_after: int
    # Parts over which the risk is averaged; 1 = each observation is its own risk.
    window: int

    @property
    def telling_gap(self) -> int:
        """Unknown places that are as good as any number: the means forget what was before, then the counts do."""
        return self.window + max(self.observations, self.clear_after)


@dataclass(frozen=True, slots=True)
class Latch:
    """What people already decided: nothing up to `floor` or taken before `closed_at` counts again; a rejected band
    and those below it stay silent until the risk has cleared.
    """

    floor: Position = Position(0, 0)
    closed_at: float = 0.0
    band: str | None = None

    def admits(self, observation: Observation) -> bool:
        """Whether the observation is news after the last decision."""
        new = observation.position > self.floor
        return new and (observation.taken_at is None or observation.taken_at > self.closed_at)


@dataclass(frozen=True, slots=True)
class Risk:
    """Bounds of the risk at one place: `low` takes what is unknown as good, `high` as bad."""

    position: Position
    event_id: str | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The strongest band that was crossed, None if none was; and by what."""

    band: str | None
    # Highest risk that `needed` of `observations` reached together, 0..1: one spike alone does not raise it.
    risk: float
    # Event ids over the band in the last window that crossed, oldest first.
    event_ids: tuple[str, ...]
    # Events at which any band was crossed.
    crossed: frozenset[str]
    # Where the latched band cleared first; None when it did not or nothing is latched.
    cleared_at: Position | None


def risks(run: Sequence[Observation], failure_mode: str, window: int, head: int, tail: int = 0) -> list[Risk]:
    """The risk at each place of one epoch, parts that were not judged left out.

    Of a gap only the first `head` places and the last `tail` are there: a sequence may jump by 2^32, and after `window`
    unknown places every further one is the same but for its number. At most `len(run) * (head + tail + 1)` places.
    """
    known = {observation.position.sequence: observation for observation in run}
    epoch, first = run[0].position.epoch, min(known)
    places: list[Risk] = []
    lows, highs = [0.0] * window, [0.0 if first == 1 else 1.0] * window
    for sequence in _sequences(sorted(known), head, tail):
        seen = known.get(sequence)
        if seen is not None and seen.weight is None:
            continue
        low = seen.weight if seen is not None and seen.failure_mode == failure_mode and seen.weight else 0.0
        lows = [*lows[1:], low]
        highs = [*highs[1:], 1.0 if seen is None else low]
        places.append(
            Risk(
                Position(epoch, sequence),
                seen.event_id if seen else None,
                sum(lows) / window,
                sum(highs) / window,
            )
        )
    return places


def _sequences(known: Sequence[int], head: int, tail: int) -> Iterator[int]:
    """The known numbers, ascending, and the ends of the gaps between them."""
    for before, here in pairwise([known[0] - 1, *known]):
        resumed = min(before + 1 + head, here)
        yield from range(before + 1, resumed)
        yield from range(max(resumed, here - tail), here)
        yield here


def decide(observations: Iterable[Observation], failure_mode: str, rule: Rule, latch: Latch) -> Decision:
    """What the observations of one station ask for, for one failure mode."""
    admitted = sorted((o for o in observations if latch.admits(o)), key=lambda o: o.position)
    runs = [
        risks(list(run), failure_mode, rule.window, rule.telling_gap)
        for _, run in groupby(admitted, key=lambda o: o.position.epoch)
    ]
    names = [band.name for band in rule.bands]
    audible = rule.bands if latch.band is None else rule.bands[: names.index(latch.band)]
    chosen: str | None = None
    risk = 0.0
    event_ids: tuple[str, ...] = ()
    crossed = set[str]()
    for band in audible:
        for places in runs:
            for last, place in enumerate(places):
                recent = places[max(0, last + 1 - rule.observations) : last + 1]
                # A gap is never over, even where the parts before it keep the mean high: it may turn out to be a
                # part that was not judged and takes no place at all.
                over = [p for p in recent if p.event_id and band.holds(p.low)]
                if place not in over or len(over) < rule.needed:
                    continue
                ids = tuple(p.event_id for p in over if p.event_id)
                crossed.add(ids[-1])
                if chosen in (None, band.name):
                    chosen, event_ids = band.name, ids
                    risk = max(risk, sorted((p.low for p in over), reverse=True)[rule.needed - 1])
    return Decision(chosen, risk, event_ids, frozenset(crossed), _cleared_at(runs, rule, latch))


def last_places(
    observations: Iterable[Observation], failure_mode: str, rule: Rule, latch: Latch, most: int
) -> list[Risk]:
    """The newest places of the newest epoch, oldest first: what a person is shown of the persistence."""
    admitted = sorted((o for o in observations if latch.admits(o)), key=lambda o: o.position)
    run = [o for o in admitted if o.position.epoch == admitted[-1].position.epoch] if admitted else []
    return risks(run, failure_mode, rule.window, rule.telling_gap, tail=most)[-most:] if run else []


def _cleared_at(runs: Sequence[Sequence[Risk]], rule: Rule, latch: Latch) -> Position | None:
    for band in rule.bands:
        if band.name != latch.band:
            continue
        for places in runs:
            under = 0
            for place in places:
                under = under + 1 if place.high < band.off else 0
                if under == rule.clear_after:
                    return place.position
    return None
