# SPDX-License-Identifier: Apache-2.0
"""The policy's promises, without a cloud."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from work_orders import policy
from work_orders.policy import (
    Band,
    Decision,
    Latch,
    Observation,
    Position,
    Risk,
    Rule,
    decide,
    last_places,
    risks,
)
from work_orders.policy_data import load
from work_orders.states import StationState, add

DATA = load()
MACHINE, PRODUCT = DATA.rules["machine"], DATA.rules["product"]
MODE = "hpc-degradation"
OPEN = Latch()


def part(
    sequence: int, weight: float | None, epoch: int = 1, mode: str = MODE, taken_at: float | None = None
) -> Observation:
    failure_mode = mode if weight else None
    return Observation(Position(epoch, sequence), f"event-{epoch}-{sequence}", taken_at, failure_mode, weight)


def series(*weights: float | None, first: int = 1, epoch: int = 1) -> list[Observation]:
    return [part(first + i, weight, epoch) for i, weight in enumerate(weights)]


def machine(observations: list[Observation], latch: Latch = OPEN) -> Decision:
    return decide(observations, MODE, MACHINE, latch)


@pytest.mark.parametrize(
    ("weights", "band"),
    [
        ((0.9, 0.9, 0.9, 0.9), "automatic"),
        ((0.9, 0.9, 0.9), None),
        ((0.9, 0.9, 0.1, 0.9, 0.9), "automatic"),
        ((0.9, 0.9, 0.1, 0.1, 0.9, 0.9), None),
        ((0.8, 0.8, 0.8, 0.8, 0.8), "approval"),
        ((0.5, 0.5, 0.5, 0.5), "approval"),
        ((0.49, 0.49, 0.49, 0.49, 0.49), None),
        ((0.9, 0.9, None, None, 0.9, 0.9), "automatic"),
        ((None, None, None, None, None, None), None),
    ],
)
def test_four_of_five_raise_and_parts_not_judged_take_no_place(
    weights: tuple[float, ...], band: str | None
) -> None:
    assert machine(series(*weights)).band == band


def test_a_gap_counts_as_a_good_part() -> None:
    alarms = [part(sequence, 0.95) for sequence in (1, 3, 5, 7, 9)]

    assert machine(alarms).band is None
    assert machine([*alarms, part(2, 0.95)]).band == "automatic"


def test_a_gap_behind_bad_parts_does_not_help_to_raise() -> None:
    bad = [part(sequence, 1.0) for sequence in range(1, 7)]
    with_gap = [*bad, *(part(sequence, 0.0) for sequence in (8, 9))]

    known_good = decide([*with_gap, part(7, 0.0)], MODE, PRODUCT, OPEN)
    not_judged = decide([*with_gap, part(7, None)], MODE, PRODUCT, OPEN)

    assert decide(with_gap, MODE, PRODUCT, OPEN).crossed <= known_good.crossed & not_judged.crossed


def test_a_window_does_not_span_a_restart() -> None:
    assert machine([*series(0.9, 0.9), *series(0.9, 0.9, epoch=2)]).band is None


def test_another_failure_mode_does_not_count() -> None:
    mixed = [part(i, 0.95, mode=MODE if i % 2 else "fan-degradation") for i in range(1, 9)]

    assert machine(mixed).band is None


def test_a_few_bad_parts_are_not_a_bad_stringer() -> None:
    three_in_ten = series(*[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0] * 2)
    six_in_ten = series(*[1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0] * 2)

    assert decide(three_in_ten, MODE, PRODUCT, OPEN).band is None
    assert decide(six_in_ten, MODE, PRODUCT, OPEN).band == "approval"
    assert decide(series(*[1.0] * 14), MODE, PRODUCT, OPEN).band == "automatic"
    assert decide(series(*[0.5] * 20), MODE, PRODUCT, OPEN).band == "approval"


def test_after_a_close_only_parts_behind_it_count() -> None:
    alarms = series(*[0.95] * 8)

    assert machine(alarms, Latch(floor=Position(1, 8))).band is None
    assert machine(alarms, Latch(floor=Position(1, 5))).band is None
    assert machine(alarms, Latch(floor=Position(1, 4))).band == "automatic"


def test_a_late_part_from_before_the_repair_does_not_count() -> None:
    late = [replace(o, taken_at=100.0 + o.position.sequence) for o in series(*[0.95] * 8)]

    assert machine(late, Latch(closed_at=200.0)).band is None
    assert machine(late, Latch(closed_at=100.0)).band == "automatic"


def test_a_rejected_band_stays_silent_until_cleared_and_a_stronger_one_does_not() -> None:
    rejected = Latch(band="approval")

    assert machine(series(*[0.6] * 10), rejected).band is None
    assert machine(series(*[0.95] * 4), rejected).band == "automatic"
    assert machine(series(*[0.6] * 3, *[0.3] * 4), rejected).cleared_at is None
    assert machine(series(*[0.6] * 3, *[0.3] * 5), rejected).cleared_at == Position(1, 8)


def test_what_is_unknown_does_not_clear() -> None:
    quiet = [part(sequence, 0.1) for sequence in (1, 2, 3, 5, 6, 7)]

    assert machine(quiet, Latch(band="approval")).cleared_at is None
    assert machine([*quiet, part(4, 0.1)], Latch(band="approval")).cleared_at == Position(1, 5)


weights = st.one_of(st.none(), st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.8, 0.85, 0.95, 1.0]))
histories = st.lists(weights, min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(
    histories,
    st.lists(weights, max_size=20),
    st.randoms(use_true_random=False),
    st.sampled_from(["machine", "product"]),
)
def test_arrival_order_and_repeats_change_nothing(
    first: list[float | None], second: list[float | None], chance: object, kind: str
) -> None:
    rule = DATA.rules[kind]
    parts = [*series(*first), *series(*second, epoch=2)]
    arrivals = [*parts, *chance.choices(parts, k=len(parts))]  # type: ignore[attr-defined]
    chance.shuffle(arrivals)  # type: ignore[attr-defined]
    in_order = after(parts, rule)

    shuffled = after(arrivals, rule)

    assert shuffled == in_order
    assert decide(shuffled.observations, MODE, rule, OPEN) == decide(parts, MODE, rule, OPEN)


@settings(max_examples=100, deadline=None)
@given(histories, st.randoms(use_true_random=False), st.sampled_from(["machine", "product"]))
def test_more_knowledge_never_takes_a_crossing_back(
    history: list[float | None], chance: object, kind: str
) -> None:
    parts = series(*history)
    chance.shuffle(parts)  # type: ignore[attr-defined]
    crossed: frozenset[str] = frozenset()
    for known in range(1, len(parts) + 1):
        decision = decide(parts[:known], MODE, DATA.rules[kind], OPEN)
        assert decision.crossed >= crossed
        crossed = decision.crossed


@settings(max_examples=10, deadline=None)
@given(st.lists(weights, min_size=100, max_size=200))
def test_the_state_is_bounded(history: list[float | None]) -> None:
    state = after(series(*history), MACHINE)

    assert len(state.observations) == DATA.remember
    assert state.last == Position(1, len(history))


def after(arrivals: list[Observation], rule: object) -> StationState:
    state = StationState("asset", "station", 0, (), {})
    for observation in arrivals:
        state = add(state, observation, rule, DATA.remember, {})  # type: ignore[arg-type]
    return state


BANDS = (Band("automatic", 0.8, False, 0.7), Band("approval", 0.5, True, 0.4))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    observations = draw(st.integers(1, 6))
    needed = draw(st.integers(1, observations))
    return Rule(BANDS, observations, needed, draw(st.integers(1, 6)), draw(st.integers(1, 10)))


@st.composite
def series_with_gaps(draw: st.DrawFn) -> list[Observation]:
    """Parts of one station, gaps from none to longer than any rule's memory, some not judged."""
    sequence, parts = draw(st.integers(0, 3)), []
    for step in draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 5, 14, 17, 40]), min_size=1, max_size=40)):
        sequence += step
        parts.append(part(sequence, draw(weights)))
    return parts


def every_place(run: list[Observation], mode: str, window: int, *_: int, **__: int) -> list[Risk]:
    """The plain form of `risks`: each missing place by itself."""
    known = {observation.position.sequence: observation for observation in run}
    first = min(known)
    lows, highs = [0.0] * window, [0.0 if first == 1 else 1.0] * window
    places = []
    for sequence in range(first, max(known) + 1):
        seen = known.get(sequence)
        if seen is not None and seen.weight is None:
            continue
        low = seen.weight if seen is not None and seen.failure_mode == mode and seen.weight else 0.0
        lows, highs = [*lows[1:], low], [*highs[1:], 1.0 if seen is None else low]
        event_id = seen.event_id if seen else None
        position = Position(run[0].position.epoch, sequence)
        places.append(Risk(position, event_id, sum(lows) / window, sum(highs) / window))
    return places


@settings(max_examples=500, deadline=None)
@given(series_with_gaps(), rules(), st.sampled_from([None, "approval", "automatic"]), st.integers(1, 25))
def test_a_gaps_ends_say_what_the_whole_gap_says(
    parts: list[Observation], rule: Rule, rejected: str | None, most: int
) -> None:
    latch = Latch(band=rejected)
    short = decide(parts, MODE, rule, latch), last_places(parts, MODE, rule, latch, most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "risks", every_place)
        whole = decide(parts, MODE, rule, latch), last_places(parts, MODE, rule, latch, most)

    assert short == whole


def test_a_jump_of_the_sequence_costs_a_bounded_number_of_places() -> None:
    rule = PRODUCT
    for jump in (10_000, 2**60):
        parts = [*series(1.0, 1.0, 1.0, 1.0), part(jump, 1.0), part(2 * jump, 1.0)]

        places = risks(parts, MODE, rule.window, rule.telling_gap, tail=20)

        assert len(places) <= len(parts) + 2 * (rule.telling_gap + 20)
        assert places[-1].position.sequence == 2 * jump
        assert decide(parts, MODE, rule, OPEN).band is None
        shown = last_places(parts, MODE, rule, OPEN, 20)
        assert [place.position.sequence for place in shown] == list(range(2 * jump - 19, 2 * jump + 1))


def test_every_word_of_the_policy_data_is_there() -> None:
    for words in (*DATA.failure_modes.values(), DATA.unlisted):
        assert words.failure_type
        assert all(words.action(risk) for risk in (0.0, 0.5, 0.8, 1.0))
    assert [DATA.severity_word(risk) for risk in (0.95, 0.85, 0.75, 0.5)] == [
        "urgent",
        "high",
        "medium",
        "low",
    ]
