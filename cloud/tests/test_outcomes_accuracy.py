# SPDX-License-Identifier: Apache-2.0
"""Which orders are in which share, and what is said where nothing can be known."""

import json
import random
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outcome_makers import escape, order, rejected
from scipy import stats

from outcomes import accuracy
from outcomes.outcome import Outcome, from_item, to_item

ROOT = Path(__file__).resolve().parents[2]
WINDOW: dict[str, Any] = {"first_day": date(2026, 9, 1), "last_day": date(2026, 11, 21)}
OPEN = {"awaiting_approval": 3, "creating": 0, "parked": 1, "created": 5}


def report(outcomes: list[Outcome], by: str = "", per: str = "month", **other: Any) -> dict[str, Any]:
    return accuracy.report(outcomes, OPEN, **(WINDOW | {"by": by, "per": per} | other))


def test_a_share_is_of_the_judged_orders_alone() -> None:
    findings = ["confirmed"] * 6 + ["other_fault"] + ["no_fault"] * 3 + ["unstated"] * 4

    total = report([*map(order, findings), rejected(), rejected("policy")])["total"]

    assert (total["orders"], total["judged"], total["unstated"]) == (14, 10, 4)
    wilson = stats.binomtest(6, 10).proportion_ci(0.95, method="wilson")
    assert total["precision"] == {"value": 0.6, "low": round(wilson.low, 4), "high": round(wilson.high, 4)}
    assert total["overkill"]["value"] == 0.3


@pytest.mark.parametrize(
    ("outcomes", "why"),
    [
        ([], "no order ended"),
        ([order("unstated")], "no ended order has a finding yet"),
        ([rejected()], "no order ended"),
    ],
)
def test_without_a_finding_there_is_no_share_and_a_reason(outcomes: list[Outcome], why: str) -> None:
    total = report(outcomes)["total"]

    assert (total["precision"], total["overkill"], total["why_not"]) == (None, None, why)


def test_recall_is_unknown_until_somebody_reports_an_escape_and_then_only_bounded() -> None:
    confirmed = [order() for _ in range(9)]

    silent, told = report(confirmed), report([*confirmed, escape()])

    assert silent["total"]["recall_at_most"] is None
    assert "nobody reported" in silent["total"]["recall_why_not"]
    assert told["total"]["recall_at_most"]["value"] == 0.9
    assert told["total"]["precision"]["value"] == 1.0
    assert any("at most" in note for note in told["notes"])


def test_an_escape_belongs_to_no_model_and_to_its_failure_mode() -> None:
    outcomes = [order(), escape(failure_mode="fan-degradation")]

    (by_model,) = report(outcomes, "model")["groups"]
    by_mode = {group["group"]: group for group in report(outcomes, "failure_mode")["groups"]}

    assert (by_model["escapes"], by_model["recall_at_most"]) == (None, None)
    assert "names no model" in by_model["recall_why_not"]
    assert (by_mode["fan-degradation"]["escapes"], by_mode["fan-degradation"]["orders"]) == (1, 0)
    assert by_mode["hpc-degradation"]["escapes"] == 0


def test_groups_and_periods_add_up_to_the_total() -> None:
    chance = random.Random(5)
    outcomes = [
        order(
            chance.choice(["confirmed", "no_fault", "other_fault", "unstated"]),
            day=f"2026-{chance.randint(9, 11):02}-{chance.randint(1, 20):02}",
            model_version=chance.choice(["1.0.0", "1.1.0"]),
            line=chance.choice(["line-1", "line-2", "line-3"]),
        )
        for _ in range(300)
    ]
    for by in ("model", "line", "failure_mode"):
        for per in ("month", "week"):
            shown = report(outcomes, by, per)
            for count in ("orders", "judged", *accuracy.JUDGED, "unstated"):
                assert sum(row[count] for row in shown["groups"]) == shown["total"][count]
                assert sum(row[count] for row in shown["trend"]) == shown["total"][count]


def test_a_trend_shows_empty_periods_too() -> None:
    shown = report([order(day="2026-09-30"), order(day="2026-11-02")])

    assert [(row["period"], row["orders"]) for row in shown["trend"]] == [
        ("2026-09", 1), ("2026-10", 0), ("2026-11", 1),
    ]  # fmt: skip
    weeks = [row["period"] for row in report([], per="week")["trend"]]
    assert (weeks[0], weeks[-1], len(weeks)) == ("2026-W36", "2026-W47", 12)


def test_the_reliability_diagram_counts_each_judged_order_once() -> None:
    outcomes = [order("confirmed" if n % 4 else "no_fault", risk=0.5 + n / 100) for n in range(50)]

    shown = report([*outcomes, order("unstated"), order(risk=None)])["reliability"]

    assert shown["orders"] == sum(row["orders"] for row in shown["bins"]) == 50
    assert all(row["from"] <= row["mean_risk"] <= row["to"] for row in shown["bins"])
    by_hand = sum(row["orders"] / 50 * abs(row["mean_risk"] - row["share"]["value"]) for row in shown["bins"])
    assert shown["ece"] == pytest.approx(by_hand, abs=1e-3)


def test_a_calibrated_risk_has_a_small_error_and_an_optimistic_one_a_large() -> None:
    chance = random.Random(2)
    risks = [chance.random() for _ in range(4000)]
    honest = [order("confirmed" if chance.random() < risk else "no_fault", risk=risk) for risk in risks]
    optimist = [order("confirmed" if chance.random() < risk / 2 else "no_fault", risk=risk) for risk in risks]

    assert report(honest)["reliability"]["ece"] < 0.03
    assert report(optimist)["reliability"]["ece"] == pytest.approx(0.25, abs=0.03)


def test_a_few_orders_have_a_diagram_and_no_calibration_error() -> None:
    shown = report([order() for _ in range(29)])["reliability"]

    assert shown["ece"] is None
    assert shown["why_not"].startswith("29 judged orders")
    assert len(shown["bins"]) == 1


def test_a_risk_of_one_is_in_the_last_bin() -> None:
    (row,) = report([order(risk=1.0)])["reliability"]["bins"]

    assert (row["from"], row["to"]) == (0.9, 1.0)


def test_decisions_tell_what_each_person_approved_and_what_was_found() -> None:
    outcomes = [
        order(),
        order("no_fault"),
        order("unstated"),
        rejected(),
        rejected("policy"),
        order(approved_by="policy"),
    ]

    rows = {row["by"]: row for row in report(outcomes)["decisions"]}

    assert rows["M. Keller"] == {
        "by": "M. Keller", "approved": 3, "rejected": 1, "judged": 2, "confirmed": 1, "other_fault": 0, "no_fault": 1,
    }  # fmt: skip
    assert (rows["policy"]["approved"], rows["policy"]["rejected"]) == (1, 1)


def test_many_groups_are_bounded_and_told() -> None:
    shown = report([order(line=f"line-{n}") for n in range(60)], "line")

    assert (len(shown["groups"]), shown["left_out"]["groups"]) == (50, 10)


@pytest.mark.parametrize("wrong", [{"by": "asset"}, {"per": "day"}])
def test_a_wrong_parameter_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        report([], **wrong)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["confirmed", "other_fault", "no_fault", "unstated"]), max_size=40))
def test_every_share_lies_in_its_interval(findings: list[str]) -> None:
    shown = report([order(finding) for finding in findings], "model")
    for row in [shown["total"], *shown["groups"], *shown["trend"]]:
        for share in (row["precision"], row["overkill"]):
            assert share is None or 0 <= share["low"] <= share["value"] <= share["high"] <= 1


def test_an_outcome_survives_the_table() -> None:
    for one in (order(), rejected(), escape(), order(corrected_at="2026-11-12T00:00:00.000Z", risk=0.0)):
        item = to_item(one)
        assert from_item({**item, "expires_at": 1, "of_a_newer_release": "x"}) == one
        assert not any(isinstance(value, float) for value in item.values())


def shape(value: Any) -> Any:
    """Names and kinds of a JSON value; what is null or missing in one has every kind."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_the_page_shows_the_shape_that_is_served() -> None:
    page = (ROOT / "docs/accuracy.md").read_text()
    told = json.loads(re.search(r"### `GET /accuracy.*?```json\n(.*?)```", page, re.S)[1])  # type: ignore[index]
    served = report([order() for _ in range(40)] + [escape()], "model")

    assert set(told) == {*served, "generated_at"}
    for name in ("total", "reliability", "open", "left_out"):
        assert set(told[name]) == set(served[name]), name
    assert set(told["reliability"]["bins"][0]) == set(served["reliability"]["bins"][0])
    assert set(told["decisions"][0]) == set(served["decisions"][0])
    assert shape(told["total"]["precision"]) == shape(served["total"]["precision"])
