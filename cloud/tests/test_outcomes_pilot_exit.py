# SPDX-License-Identifier: Apache-2.0
"""What the pilot's exit says, about whom, and what it proposes."""

import json
import random
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from outcome_makers import escape, order, rejected

from outcomes import pilot_exit
from outcomes.outcome import Outcome
from outcomes.proposal import NothingToProposeError, merged, propose
from work_orders.policy_data import PATH, load
from work_orders.policy_reading import PolicyError, parse

ROOT = Path(__file__).resolve().parents[2]
POLICY = json.loads(PATH.read_text())
WINDOW: dict[str, Any] = {
    "first_day": date(2026, 9, 1),
    "last_day": date(2026, 11, 21),
    "kept_from": date(2021, 12, 1),
}


def report(outcomes: list[Outcome], by: str = "all", risk: float = 0.1, **other: Any) -> dict[str, Any]:
    given = {"risk": risk, "confidence": 0.95, "by": by, "beginning": "since"} | WINDOW | other
    return pilot_exit.report(outcomes, load(), **given)


def only(outcomes: list[Outcome], **other: Any) -> dict[str, Any]:
    (group,) = report(outcomes, **other)["groups"]
    return dict(group)


def good(count: int, risk: float = 0.85, **other: Any) -> list[Outcome]:
    return [order("confirmed", risk, **other) for _ in range(count)]


def test_fifty_one_good_orders_justify_the_present_band_and_fifty_need_one_more() -> None:
    few, enough = only(good(50)), only(good(51))

    assert (few["verdict"], few["confirmed_needed"], few["threshold"]) == ("not_enough_outcomes", 1, None)
    assert "1 more, all of them right, would justify it" in few["sentence"]
    assert (enough["verdict"], enough["is_present_justified"]) == ("justified", True)
    assert only(few_and_one := [*good(50), *good(few["confirmed_needed"])])["verdict"] == "justified", (
        few_and_one
    )


def test_a_bad_pilot_is_not_justified() -> None:
    group = only([order("no_fault" if n % 3 == 0 else "confirmed") for n in range(90)])

    assert (group["verdict"], group["threshold"]) == ("not_justified", None)
    assert "30 of 90 orders were wrong, more than the stated 10 %" in group["sentence"]


def test_a_stricter_threshold_than_the_present_one_may_be_justified_alone() -> None:
    outcomes = [*good(150, 0.97), *(order("no_fault", 0.83) for _ in range(60))]

    group = only(outcomes)

    assert (group["verdict"], group["threshold"], group["is_present_justified"]) == ("justified", 0.85, False)
    assert "Not so at the present 0.8" in group["sentence"]


def test_a_looser_one_goes_as_far_down_as_the_orders_were_right() -> None:
    outcomes = [*good(120, 0.9), *good(80, 0.72), *(order("no_fault", 0.61) for _ in range(60))]

    group = only(outcomes)

    assert group["threshold"] == 0.65
    assert group["share_automatic"] == pytest.approx(200 / 260, abs=1e-4)


def test_other_faults_are_judged_and_no_false_alarms() -> None:
    assert only([order("other_fault") for _ in range(60)])["verdict"] == "justified"


def test_what_a_person_rejected_counts_as_wrong_and_an_expired_approval_only_in_the_worst_case() -> None:
    by_person = only([*good(55), *(rejected(risk=0.85) for _ in range(10))])
    by_time = only([*good(55), *(rejected("policy", risk=0.85) for _ in range(10))])

    assert (by_person["verdict"], by_person["orders"]["rejected"]) == ("not_justified", 10)
    assert (by_time["verdict"], by_time["orders"]["expired"]) == ("justified", 10)
    assert by_time["worst_case"] == {"verdict": "not_justified", "threshold": None}


def test_orders_without_a_finding_are_told_and_counted_as_wrong_in_the_worst_case() -> None:
    shown = report([*good(60), *(order("unstated") for _ in range(15))])

    assert shown["groups"][0]["verdict"] == "justified"
    assert shown["groups"][0]["worst_case"]["verdict"] == "not_justified"
    assert any("15 orders expired or ended without a finding" in note for note in shown["notes"])


def test_with_a_new_model_the_counting_begins_anew() -> None:
    old = [order(model_version="0.9.0", model_digest="sha256:0", day="2026-09-10") for _ in range(50)]

    shown = report([*old, *good(10)])

    assert shown["left_out"]["other_models"] == 50
    assert shown["groups"][0]["orders"]["judged"] == 10
    assert "sha256:1" in shown["population"]


def test_orders_whose_risk_was_not_kept_are_left_out_and_counted() -> None:
    shown = report([*good(5), order(highest_risk=None), escape()])

    assert shown["left_out"]["without_risk"] == 1
    assert shown["groups"][0]["orders"]["judged"] == 5


def test_an_asset_whose_criticality_has_its_own_band_follows_that_one() -> None:
    # The policy creates orders of criticality C above 0.9 only, whatever the band of the others.
    in_between = [order("no_fault", 0.87, criticality="C") for _ in range(30)]

    together, (c,) = only([*good(55), *in_between]), report(in_between, "criticality")["groups"]

    assert together["verdict"] == "justified"
    assert next(one for one in together["candidates"] if one["is_present"])["orders"] == 55
    assert next(one for one in c["candidates"] if one["is_present"])["threshold"] == 0.9


def test_groups_share_the_confidence() -> None:
    modes = ["hpc-degradation", "fan-degradation", "cell-crack", "cell-inactive-area"]
    outcomes = [one for mode in modes for one in good(51, failure_mode=mode)]

    shown = report(outcomes, "failure_mode")

    assert [group["verdict"] for group in shown["groups"]] == ["not_enough_outcomes"] * 4
    assert only(outcomes)["verdict"] == "justified"
    assert any("all 4 groups together" in note for note in shown["notes"])


def test_two_halves_that_differ_are_told() -> None:
    early = [order(day="2026-09-10") for _ in range(40)]
    late = [order("no_fault" if n < 12 else "confirmed", day="2026-11-10") for n in range(40)]

    assert only(early + late)["drift"]["is_doubtful"]
    assert not only(early + [order(day="2026-11-10") for _ in range(40)])["drift"]["is_doubtful"]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("risk", 0.0),
        ("risk", 0.7),
        ("risk", float("nan")),
        ("confidence", 1.0),
        ("confidence", 0.2),
        ("by", "asset"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        report([], **{name: wrong})


def test_no_outcome_at_all_says_how_many_are_needed() -> None:
    assert (only([])["verdict"], only([])["confirmed_needed"]) == ("not_enough_outcomes", 51)


def test_a_window_that_begins_on_a_day_that_stays_holds_for_every_look() -> None:
    of_model = {"beginning": "model", "first_day": date(2021, 12, 1)}
    older = order("no_fault", day="2024-03-05")

    stated, whole = report(good(51)), report([older, *good(75)], **of_model)

    assert (stated["holds_for"], stated["first_day"]) == ("every_look", "2026-09-01")
    assert (whole["holds_for"], whole["first_day"]) == ("every_look", "2024-03-05")
    assert "however often" in stated["notes"][0]
    assert "new model version" in whole["notes"][0]
    assert report([], **of_model)["holds_for"] == "every_look"


@pytest.mark.parametrize(
    ("window", "why"),
    [
        ({"beginning": "months"}, "so many months ago"),
        ({"left_out": 1}, "more outcomes than one report reads"),
        ({"kept_from": date(2026, 9, 2)}, "forgotten"),
        # The first that is there may not be the first that there was.
        ({"beginning": "model", "first_day": date(2026, 10, 20)}, "forgotten"),
    ],
)
def test_a_window_that_moves_says_that_it_holds_for_one_look(window: dict[str, Any], why: str) -> None:
    shown = report(good(51), **window)

    assert shown["holds_for"] == "one_look"
    assert why in shown["notes"][0]
    assert "one look" in shown["groups"][0]["sentence"]
    assert "one look" not in only(good(51))["sentence"]


def test_the_proposal_is_a_patch_that_the_policy_takes() -> None:
    shown = report([*good(120, 0.9), *good(80, 0.72), *(order("no_fault", 0.61) for _ in range(60))])

    patch = propose(shown, POLICY)

    data = parse(merged(POLICY, patch))
    automatic = data.rules["machine"].bands[0]
    assert (data.version, automatic.on, automatic.off) == ("2.1.0", 0.65, 0.55)
    assert data.pilot == load().pilot
    assert set(patch) == {"version", "bands"}


def test_the_proposal_by_criticality_changes_that_one_alone() -> None:
    shown = report(good(150, 0.97, criticality="C") + good(3, 0.85), "criticality")

    patch = propose(shown, POLICY)

    assert patch["criticality"] == {"C": {"automatic": {"on": 0.55, "off": 0.45}}}
    data = parse(merged(POLICY, patch))
    assert data.rule("machine", "C").bands[0].on == 0.55
    assert data.rule("machine", "A").bands[0].on == 0.8


def test_any_threshold_that_can_be_proposed_makes_a_policy() -> None:
    shown = report(good(200, 0.97))
    for threshold in (one["threshold"] for one in shown["groups"][0]["candidates"] if not one["is_present"]):
        shown["groups"][0]["threshold"] = threshold
        assert parse(merged(POLICY, propose(shown, POLICY))).rules["machine"].bands[0].on == threshold


def test_where_nothing_is_justified_nothing_is_proposed() -> None:
    with pytest.raises(NothingToProposeError, match="not justified"):
        propose(report([order("no_fault") for _ in range(50)]), POLICY)
    with pytest.raises(ValueError, match=r"^by: "):
        propose(report(good(200), "failure_mode"), POLICY)


def test_a_policy_that_would_contradict_itself_is_not_proposed() -> None:
    narrow = {**POLICY, "criticality": {"B": {"approval": {"on": 0.75, "off": 0.6}}}}
    shown = report([*good(120, 0.9), *good(80, 0.72)])

    with pytest.raises(PolicyError, match="B"):
        propose(shown, narrow)


def test_the_numbers_of_a_report_are_those_of_its_orders() -> None:
    chance = random.Random(11)
    outcomes = [order(chance.choice(["confirmed", "no_fault"]), chance.uniform(0.5, 1)) for _ in range(80)]
    for one in only(outcomes)["candidates"]:
        above = [o for o in outcomes if o.highest_risk is not None and o.highest_risk > one["threshold"]]
        assert (one["orders"], one["wrong"]) == (len(above), sum(o.finding == "no_fault" for o in above))


def test_the_page_shows_the_shape_that_is_served() -> None:
    page = (ROOT / "docs/accuracy.md").read_text()
    told = json.loads(re.search(r"### `GET /pilot-exit.*?```json\n(.*?)```", page, re.S)[1])  # type: ignore[index]
    served = report(good(51))

    assert set(told) == {*served, "generated_at"}
    assert set(told["groups"][0]) == set(served["groups"][0])
    assert set(told["groups"][0]["candidates"][0]) == set(served["groups"][0]["candidates"][0])
    for name in ("orders", "worst_case", "drift"):
        assert set(told["groups"][0][name]) == set(served["groups"][0][name]), name
    assert set(told["left_out"]) == set(served["left_out"])
