# SPDX-License-Identifier: Apache-2.0
"""A policy document is read strictly: what contradicts itself is refused with its place and what to do."""

import contextlib
import copy
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from work_orders.consequence import consequence
from work_orders.policy import Decision
from work_orders.policy_data import PATH, PolicyData, load
from work_orders.policy_place import MOST_TOLD
from work_orders.policy_reading import PolicyError, parse
from work_orders.quiet_hours import LONGEST, quiet_until

Change = Callable[[dict[str, Any]], object]
BUNDLED: dict[str, Any] = json.loads(PATH.read_text())
NIGHT = {
    "days": ["mon", "tue", "wed", "thu", "fri"],
    "from": "22:00",
    "to": "06:00",
    "time_zone": "Europe/Berlin",
}


def changed(change: Change) -> dict[str, Any]:
    document = copy.deepcopy(BUNDLED)
    change(document)
    return document


def policy(**parts: Any) -> PolicyData:
    return parse({**copy.deepcopy(BUNDLED), **parts})


CONTRADICTIONS: dict[str, tuple[Change, str]] = {
    "unknown key": (lambda d: d.update(bandz=[]), "policy: unknown key 'bandz'"),
    "missing key": (lambda d: d.pop("needed"), "policy: needed is missing"),
    "version": (lambda d: d.update(version="two"), "version: must be a version such as 2.1.0"),
    "off over on": (lambda d: d["bands"][0].update(off=0.9), "bands[0]: off (0.9) must be under on (0.8)"),
    "bands cross": (lambda d: d["bands"][1].update(on=0.85), "bands: automatic (on 0.8, off 0.7) must lie above"),
    "off values cross": (lambda d: d["bands"][0].update(off=0.3), "bands: automatic (on 0.8, off 0.3) must lie above"),
    "band swapped": (lambda d: d["bands"].reverse(), "bands: must be automatic and approval, in this order"),
    "band unknown": (lambda d: d["bands"][0].update(name="panic"), "bands[0].name: must be one of automatic, approval"),
    "over one": (lambda d: d["bands"][0].update(on=1.5), "bands[0].on: must be a number from 0 to 1"),
    "not a number": (lambda d: d["bands"][0].update(on=float("nan")), "bands[0].on: must be a number"),
    "true is no number": (lambda d: d.update(needed=True), "needed: must be a whole number from 1 to 5"),
    "needs more than it sees": (lambda d: d.update(needed=6), "needed: must be a whole number from 1 to 5, got 6"),
    "forgets too early": (lambda d: d.update(remember=10), "remember: must be at least 15"),
    "remembers too much": (lambda d: d.update(remember=10_000), "remember: must be a whole number from 1 to 1000"),
    "criticality": (lambda d: d["criticality"].update(D={}), "criticality.D: is no criticality; known: A, B, C"),
    "criticality crosses": (
        lambda d: d["criticality"].update(A={"automatic": {"on": 0.4, "off": 0.3}}), "criticality.A: automatic (on 0.4",
    ),
    "pilot ends but is off": (
        lambda d: d.update(pilot={"is_on": False, "until": "2026-12-31"}), "pilot.until: says when a pilot ends that",
    ),
    "pilot's end": (lambda d: d.update(pilot={"is_on": True, "until": "soon"}), "pilot.until: must be a day such as"),
    "quiet zone": (
        lambda d: d.update(quiet_hours=[{**NIGHT, "time_zone": "Europe/Nowhere"}]), "quiet_hours[0].time_zone: must be",
    ),
    "quiet time": (lambda d: d.update(quiet_hours=[{**NIGHT, "from": "25:00"}]), "quiet_hours[0].from: must be a time"),
    "quiet day": (
        lambda d: d.update(quiet_hours=[{**NIGHT, "days": ["monday"]}]), "quiet_hours[0].days[0]: must be one of mon",
    ),
    "quiet for ever": (
        lambda d: d.update(quiet_hours=[{**NIGHT, "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
                                         "from": "06:00", "to": "06:00"}]),
        "quiet_hours: cover the whole week",
    ),
    "limit": (lambda d: d.update(rate_limit={"orders": 51, "hours": 24}), "rate_limit.orders: must be a whole number"),
    "reminds after its end": (
        lambda d: d["approval"].update(remind_after_hours=80), "approval.remind_after_hours: (80.0) must be under",
    ),
    "expiry": (lambda d: d["approval"].update(on_expiry="panic"), "approval.on_expiry: must be one of reject, create"),
    "words": (lambda d: d["severity_words"].pop(), "severity_words: must end with at_least 0"),
    "words ascend": (lambda d: d["severity_words"].reverse(), "severity_words: must end with at_least 0"),
    "words turned round": (
        lambda d: d.update(severity_words=[{"at_least": 0.9, "word": "low"}, {"at_least": 0, "word": "urgent"}]),
        "severity_words: must each be there once, in this order: urgent, high, medium, low",
    ),
    "a word twice": (
        lambda d: d["severity_words"][1].update(word="urgent"), "severity_words: must each be there once, in this order",
    ),
    "clears never": (
        lambda d: d["bands"][1].update(off=0.0), "bands[1]: off must be over 0: no risk is under 0, and a rejected band",
    ),
    "clears never for a criticality": (
        lambda d: d["criticality"].update(B={"approval": {"on": 0.4, "off": 0}}), "criticality.B.approval: off must be",
    ),
    "crosses never": (lambda d: d["bands"][0].update(on=1.0), "bands[0]: on must be under 1, or on_inclusive true"),
    "crosses never for a criticality": (
        lambda d: d["criticality"]["C"]["automatic"].update(on=1), "criticality.C.automatic: on must be under 1, or",
    ),
    "a good part is the worst": (
        lambda d: d["risk"]["product"]["weights"].update(NG=0.0, OK=1.0),
        "risk.product.weights: must not rise from NG over REVIEW to OK, got NG 0.0, REVIEW 0.5, OK 1.0",
    ),
    "a doubt is worse than a defect": (
        lambda d: d["risk"]["product"]["weights"].update(NG=0.6, REVIEW=0.7), "risk.product.weights: must not rise from",
    ),
    "nothing weighs": (
        lambda d: d["risk"]["product"]["weights"].update(NG=0, REVIEW=0, OK=0),
        "risk.product.weights: NG (0.0) must reach the weakest band (on 0.5)",
    ),
    "defects reach no band": (
        lambda d: d["risk"]["product"]["weights"].update(NG=0.49, REVIEW=0.2),
        "risk.product.weights: NG (0.49) must reach the weakest band (on 0.5)",
    ),
    "defects reach no band of a criticality": (
        lambda d: d.update(
            criticality={"A": {"approval": {"on": 0.75, "off": 0.4}}},
            risk={**d["risk"], "product": {"window": 10, "weights": {"NG": 0.7, "REVIEW": 0.2, "OK": 0}}},
        ),
        "risk.product.weights: NG (0.7) must reach the weakest band (on 0.75)",
    ),
    "half a character": (
        lambda d: d["failure_modes"]["cell-crack"].update(failure_type="a\ud800"),
        "failure_modes.cell-crack.failure_type: holds half of a surrogate pair in 'a\\ud800'",
    ),
    "half a character in a name": (
        lambda d: d["failure_modes"].update({"\udfff": d["unlisted_failure_mode"]}),
        "failure_modes: the key '\\udfff' holds half of a surrogate pair",
    ),
    "action": (
        lambda d: d["failure_modes"]["cell-crack"].update(actions=[]), "failure_modes.cell-crack.actions: must end with",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_refused_with_its_place(name: str) -> None:
    change, message = CONTRADICTIONS[name]
    with pytest.raises(PolicyError) as caught:
        parse(changed(change))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_refusal_can_be_sent_and_logged(name: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(changed(CONTRADICTIONS[name][0]))
    assert str(caught.value).encode()


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, one in inner for path in paths(one, (*at, key)))]


APART = (
    "unknown key", "version", "off over on", "needs more than it sees", "remembers too much", "criticality",
    "clears never for a criticality", "crosses never for a criticality", "a doubt is worse than a defect",
    "pilot ends but is off", "quiet zone", "limit", "reminds after its end", "words turned round", "half a character",
    "half a character in a name",
)  # fmt: skip
"""Contradictions in places of their own: none spoils what another one is held against."""


def refusal(document: Any) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse(document)
    return str(caught.value).split("\n")


def test_all_that_is_wrong_is_told_at_once_a_line_each() -> None:
    document = copy.deepcopy(BUNDLED)
    for name in APART:
        CONTRADICTIONS[name][0](document)

    told = refusal(document)

    for name in APART:
        assert [line for line in told if line.startswith(CONTRADICTIONS[name][1])], (name, told)
    assert len(told) == len(APART), told


@pytest.mark.parametrize("first", APART)
def test_of_two_contradictions_both_are_told(first: str) -> None:
    for second in APART:
        if first == second:
            continue
        document = copy.deepcopy(BUNDLED)
        CONTRADICTIONS[first][0](document)
        CONTRADICTIONS[second][0](document)

        told = refusal(document)

        assert len(told) == 2, (second, told)
        assert {name for name in (first, second) for line in told if line.startswith(CONTRADICTIONS[name][1])} == {
            first, second,
        }  # fmt: skip


def test_one_wrong_value_is_told_once_and_nothing_that_only_follows_from_it() -> None:
    for path in paths(BUNDLED):
        document = copy.deepcopy(BUNDLED)
        parent: Any = document
        for key in path[:-1]:
            parent = parent[key]
        if not path or isinstance(parent[path[-1]], dict | list):
            continue
        # Nothing in a policy whose value is no object may be one.
        parent[path[-1]] = {"no": "value"}

        told = refusal(document)

        place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")
        assert [line.partition(":")[0] for line in told] == [place], told


def test_every_missing_key_is_told_and_nothing_that_only_follows_from_it() -> None:
    assert [line.partition(" is missing")[0] for line in refusal({})] == [
        f"policy: {name}"
        for name in (
            "version", "risk", "observations", "needed", "clear_after", "remember", "bands", "severity_words",
            "failure_modes", "unlisted_failure_mode",
        )
    ]  # fmt: skip


def test_a_refusal_of_a_hostile_document_has_an_end() -> None:
    words = {f"{'x' * 500}{n}": {"failure_type": "y" * 5_000, "actions": 3} for n in range(500)}

    told = refusal({**BUNDLED, "failure_modes": words})

    assert len(told) == MOST_TOLD + 1
    assert told[-1].startswith("policy: more is wrong")
    assert max(map(len, told)) < 1_000


def test_a_name_with_a_lines_end_is_no_line_of_its_own() -> None:
    told = refusal(changed(lambda d: d["failure_modes"].update({"a\nbands: all well": 3})))

    assert told == ["'failure_modes.a\\nbands: all well': must be an object"]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["bands"][0].update(on=1, on_inclusive=True),
        lambda d: d["bands"][1].update(off=0.01),
        lambda d: d["risk"]["product"]["weights"].update(NG=0.5, REVIEW=0.5, OK=0.5),
        lambda d: d.update(
            severity_words=[{"at_least": 0.8, "word": "high"}, {"at_least": 0, "word": "low"}]
        ),
    ],
)
def test_the_edge_of_a_rule_is_inside(change: Change) -> None:
    assert parse(changed(change)).digest != load().digest


@pytest.mark.parametrize("document", [None, [], "policy", 3, {}])
def test_what_is_no_object_is_no_policy(document: object) -> None:
    with pytest.raises(PolicyError):
        parse(document)


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from([path for path in paths(BUNDLED) if path]), junk=JUNK)
def test_whatever_stands_in_a_place_is_read_or_refused_by_name(path: tuple[Any, ...], junk: Any) -> None:
    document = copy.deepcopy(BUNDLED)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = junk
    with contextlib.suppress(PolicyError):
        # Whatever else it raised would stop every function that reads a policy.
        assert parse(document).digest != load().digest or document == BUNDLED


def test_the_digest_tells_contents_apart_not_layouts() -> None:
    assert parse(json.loads(json.dumps(BUNDLED, indent=8, sort_keys=True))).digest == load().digest
    assert policy(needed=3).digest != load().digest


def test_criticality_has_bands_of_its_own() -> None:
    data = policy(criticality={"C": {"automatic": {"on": 0.9, "off": 0.8}}})

    assert [band.on for band in data.rule("machine", "C").bands] == [0.9, 0.5]
    for other in ("A", "B", None, "unknown"):
        assert [band.on for band in data.rule("machine", other).bands] == [0.8, 0.5]


@pytest.mark.parametrize(
    ("pilot", "day", "holds"),
    [
        ({"is_on": True, "until": "2026-12-31"}, date(2026, 12, 31), True),
        ({"is_on": True, "until": "2026-12-31"}, date(2027, 1, 1), False),
        ({"is_on": True, "until": None}, date(2100, 1, 1), True),
        ({"is_on": False}, date(2026, 1, 1), False),
    ],
)
def test_the_pilot_ends_after_its_last_day(pilot: dict[str, Any], day: date, holds: bool) -> None:
    assert policy(pilot=pilot).pilot.holds(day) is holds


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("moment", "risk", "ends"),
    [
        ("2026-11-23T20:59:59Z", 0.85, None),  # Monday 21:59 in Berlin
        ("2026-11-23T21:00:00Z", 0.85, "2026-11-24T05:00:00+00:00"),
        ("2026-11-24T04:59:59Z", 0.85, "2026-11-24T05:00:00+00:00"),
        ("2026-11-24T05:00:00Z", 0.85, None),
        ("2026-11-23T23:00:00Z", 0.9, None),  # urgent: waits for nothing
        (
            "2026-11-28T04:00:00Z",
            0.85,
            "2026-11-28T05:00:00+00:00",
        ),  # Saturday morning is still Friday's night
        ("2026-11-28T22:00:00Z", 0.85, None),  # Saturday night has none
        ("2026-10-26T00:30:00Z", 0.85, None),  # the night to Monday, clocks just set back
        ("2026-03-27T22:00:00Z", 0.85, "2026-03-28T05:00:00+00:00"),
    ],
)
def test_quiet_hours_follow_the_plants_clock(moment: str, risk: float, ends: str | None) -> None:
    until = quiet_until(policy(quiet_hours=[NIGHT]).quiet_hours, at(moment), risk)
    assert until == (at(ends) if ends else None)


def test_windows_without_a_gap_are_one_and_a_summer_night_is_shorter() -> None:
    weekend = {"days": ["fri"], "from": "22:00", "to": "06:00", "time_zone": "Europe/Berlin"}
    saturday = {"days": ["sat"], "from": "06:00", "to": "06:00", "time_zone": "Europe/Berlin"}
    data = policy(quiet_hours=[weekend, saturday])

    # Friday night, then Saturday until Sunday 06:00; on 2026-03-29 the clocks go forward: 04:00 UTC, not 05:00.
    assert quiet_until(data.quiet_hours, at("2026-03-27T22:00:00Z"), 0.5) == at("2026-03-29T04:00:00Z")


EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def window(since: str, until: str, zone: str = "UTC", days: list[str] = EVERY_DAY) -> dict[str, Any]:
    return {"days": days, "from": since, "to": until, "time_zone": zone}


def test_twenty_windows_of_an_hour_are_one_of_twenty() -> None:
    hours = [window(f"{hour:02}:00", f"{hour + 1:02}:00") for hour in range(20)]
    data = policy(quiet_hours=hours)

    assert quiet_until(data.quiet_hours, at("2026-06-01T00:10:00Z"), 0.5) == at("2026-06-01T20:00:00Z")


@pytest.mark.parametrize("order", [1, -1])
def test_two_time_zones_that_leave_no_minute_of_a_winters_week_are_refused(order: int) -> None:
    # Twelve hours apart in the southern winter alone: in its summer an hour of each day is free.
    windows = [window("00:00", "12:00"), window("00:00", "12:00", "Pacific/Auckland")][::order]

    with pytest.raises(PolicyError, match="quiet_hours: cover the whole week"):
        policy(quiet_hours=windows)

    policy(quiet_hours=[windows[0], {**windows[1], "to": "11:30", "from": "00:30"}])


half_hours = st.sampled_from([f"{hour:02}:{minute}" for hour in range(24) for minute in ("00", "30")])
quiet_windows = st.builds(
    window,
    half_hours,
    half_hours,
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland", "Asia/Kolkata"]),
    st.lists(st.sampled_from(EVERY_DAY), min_size=1, max_size=7, unique=True),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(quiet_windows, min_size=1, max_size=20),
    st.sampled_from(["2026-01-05", "2026-03-08", "2026-03-29", "2026-04-05", "2026-10-25", "2026-11-01"]),
    st.integers(0, 95),
)
def test_quiet_hours_end_at_the_first_moment_outside_of_every_window(
    windows: list[dict[str, Any]], day: str, half: int
) -> None:
    try:
        data = policy(quiet_hours=windows)
    except PolicyError:
        return
    moment = at(f"{day}T00:00:00Z") + timedelta(minutes=30 * half)
    outside = moment
    while any(one.end(outside) for one in data.quiet_hours) and outside < moment + LONGEST:
        outside += timedelta(minutes=30)

    ends = quiet_until(data.quiet_hours, moment, 0.5)

    assert (ends or moment) == outside or min(ends or moment, outside) >= moment + LONGEST


def decided(band: str, sustained: float = 0.85) -> Decision:
    return Decision(band, sustained, ("e",), frozenset("e"), None)


NOW = at("2026-11-23T23:00:00Z").timestamp()


@pytest.mark.parametrize(
    ("band", "sustained", "pilot", "openings", "what", "held"),
    [
        ("automatic", 0.85, False, 0, "create", 6 * 3600),
        ("automatic", 0.95, False, 0, "create", 0),
        ("approval", 0.6, False, 0, "ask", 0),
        ("automatic", 0.95, True, 0, "ask", 0),
        ("automatic", 0.95, False, 2, "ask", 0),
        ("automatic", 0.95, False, 1, "create", 0),
    ],
)
def test_nothing_is_dropped_it_is_created_held_or_asked(
    band: str, sustained: float, pilot: bool, openings: int, what: str, held: float
) -> None:
    data = policy(quiet_hours=[NIGHT], rate_limit={"orders": 2, "hours": 24})
    old = [NOW - timedelta(hours=25).total_seconds()] * 5

    meant = consequence(decided(band, sustained), data, NOW, [*old, *[NOW - 60.0] * openings], pilot=pilot)

    assert meant.what == what
    assert meant.hold_until == (NOW + held if held else 0)
    assert meant.why
