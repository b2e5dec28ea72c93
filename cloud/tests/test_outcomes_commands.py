# SPDX-License-Identifier: Apache-2.0
"""`linewatch accuracy`, `linewatch pilot-exit`, their reports and escapes, over real tables."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cloud_line import Line
from operators import Operator, operator_of
from outcome_makers import escape, order

from linewatch_plant.standin_cloud import StandinCloud
from outcomes import escapes, reports, store
from outcomes.outcome import to_item
from outcomes.store import Outcomes
from outcomes.wiring import outcomes_of
from work_orders.observing import Desk
from work_orders.order_items import text_of
from work_orders.policy_data import load
from work_orders.wiring import desk_of

NOW = datetime.now(UTC)
TODAY = NOW.date().isoformat()
# Months of a window that holds TODAY: another one may have begun since this file was read.
THIS_MONTH = 2


@pytest.fixture(scope="session")
def desk(environment: dict[str, str]) -> Desk:
    return desk_of(environment)


@pytest.fixture
def outcomes(environment: dict[str, str]) -> Iterator[Outcomes]:
    """An empty table of outcomes."""
    _clear(environment)
    yield outcomes_of(environment)
    _clear(environment)


def _clear(environment: dict[str, str]) -> None:
    dynamodb, table = desk_of(environment).dynamodb, environment["OUTCOMES_TABLE"]
    for page in dynamodb.get_paginator("scan").paginate(TableName=table):
        for item in page["Items"]:
            dynamodb.delete_item(TableName=table, Key={"month": item["month"], "id": item["id"]})


@pytest.fixture
def operator(cloud: StandinCloud, tmp_path: Path) -> Operator:
    return operator_of(cloud, tmp_path)


def put(outcomes: Outcomes, *judged: Any) -> None:
    for one in judged:
        assert outcomes.add({**to_item(one), "expires_at": 2**31})


def good(count: int, risk: float = 0.9) -> list[Any]:
    # Opened after whatever other tests open: the newest order tells which model is in service.
    return [order(risk=risk, day=TODAY, opened_at="2999-01-01T00:00:00.000Z") for _ in range(count)]


def test_reports_read_the_window_and_nothing_else(outcomes: Outcomes) -> None:
    old = (NOW - timedelta(days=200)).date().isoformat()
    put(outcomes, *good(3), order("no_fault", day=TODAY), order(day=old), escape(day=TODAY))

    near, far = (
        reports.accuracy(outcomes, months=THIS_MONTH),
        reports.accuracy(outcomes, months="12", by="line"),
    )

    assert (near["total"]["judged"], near["total"]["confirmed"], near["total"]["escapes"]) == (4, 3, 1)
    assert far["total"]["judged"] == 5
    assert [group["group"] for group in far["groups"]] == ["plant-1/line-1"]
    assert near["generated_at"].endswith("Z")
    assert json.loads(json.dumps(near)) == near


def test_an_order_that_the_supervisor_rejects_is_in_the_pilots_exit(
    machine: Line, outcomes: Outcomes, cloud: StandinCloud, eventually: Any
) -> None:
    before = reports.pilot_exit(outcomes, load())["groups"][0]["orders"]["rejected"]
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    waiting = eventually(lambda: machine.order("awaiting_approval"), "the order")
    body = {"by": "M. Keller", "reason": "sensor was loose"}
    assert cloud.api("POST", f"/work-orders/{waiting['reference']}/reject", body).status_code == 200

    def rejected() -> bool:
        shown = reports.pilot_exit(outcomes, load())
        row = {row["by"]: row for row in reports.accuracy(outcomes)["decisions"]}
        return shown["groups"][0]["orders"]["rejected"] == before + 1 and row["M. Keller"]["rejected"] >= 1

    eventually(rejected, "the rejection")


@pytest.fixture
def rejected_at(
    machine: Line, cloud: StandinCloud, desk: Desk, environment: dict[str, str], eventually: Any
) -> Iterator[Callable[..., None]]:
    """Puts a rejected order of the machine that was opened and decided at these times."""
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    waiting = eventually(lambda: machine.order("awaiting_approval"), "the order")
    body = {"by": "M. Keller", "reason": "sensor was loose"}
    assert cloud.api("POST", f"/work-orders/{waiting['reference']}/reject", body).status_code == 200
    table, made = environment["WORK_ORDERS_TABLE"], []
    item = eventually(lambda: desk.orders.get(waiting["reference"]), "the order").item

    def put_rejected(created_at: datetime, decided_at: datetime, by: str) -> None:
        made.append(reference := f"{waiting['reference']}-{len(made)}")
        times = {"created_at": text_of(created_at.timestamp()), "decided_at": text_of(decided_at.timestamp())}
        copy = {**item, **times, "reference": reference, "decided_by": by}
        desk.dynamodb.put_item(TableName=table, Item=copy)

    yield put_rejected
    for reference in made:
        desk.dynamodb.delete_item(TableName=table, Key={"reference": reference})


def rejections(outcomes: Outcomes, by: str, **window: Any) -> int:
    rows = {row["by"]: row["rejected"] for row in reports.accuracy(outcomes, now=NOW, **window)["decisions"]}
    return rows.get(by, 0)


def test_an_order_counts_on_the_day_of_its_rejection_whenever_it_was_opened(
    outcomes: Outcomes, rejected_at: Callable[..., None]
) -> None:
    first = datetime.combine(reports.first_day_of(1, NOW.date()), datetime.min.time(), UTC)
    before, inside = first - timedelta(days=40), first + timedelta(hours=1)
    rejected_at(before, inside, "R. Waits")
    rejected_at(before, first - timedelta(hours=1), "R. Early")

    assert rejections(outcomes, "R. Waits", months=1) == 1
    assert rejections(outcomes, "R. Early", months=1) == 0
    assert rejections(outcomes, "R. Early", months=3) == 1
    stated = reports.pilot_exit(outcomes, load(), since=first.date())["groups"][0]["orders"]["rejected"]
    earlier = reports.pilot_exit(outcomes, load(), since=before.date())["groups"][0]["orders"]["rejected"]
    assert earlier > stated > 0


def test_too_many_rejections_leave_out_the_oldest_and_say_so(
    outcomes: Outcomes, rejected_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = datetime(2999, 1, 1, tzinfo=UTC)
    for day in range(3):
        rejected_at(later + timedelta(days=day), NOW, f"R. {day}")
    monkeypatch.setattr(store, "MAX_OUTCOMES", 2)

    shown, told = reports.accuracy(outcomes, months=THIS_MONTH), reports.pilot_exit(outcomes, load())

    assert [rejections(outcomes, f"R. {day}") for day in range(3)] == [0, 1, 1]
    assert shown["left_out"]["outcomes"] >= 1
    assert any("too many" in note for note in shown["notes"])
    assert (told["left_out"]["outcomes"] >= 1, told["holds_for"]) == (True, "one_look")


def test_too_many_outcomes_leave_out_the_oldest_and_say_so(
    outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_OUTCOMES", 5)
    # Other files of this account leave rejected orders behind; of more than MAX_OUTCOMES the rest is left out too.
    theirs = reports.accuracy(outcomes, months=3, now=NOW)["left_out"]["outcomes"]
    early = (NOW.replace(day=1) - timedelta(days=1)).date().isoformat()
    earlier = f"{reports.first_day_of(3, NOW.date()).isoformat()[:7]}-15"
    put(outcomes, *good(4), *(order("no_fault", day=early) for _ in range(6)))
    put(outcomes, *(order("no_fault", day=earlier) for _ in range(2)))

    shown = reports.accuracy(outcomes, months=3, now=NOW)

    left_out = shown["left_out"]["outcomes"] - theirs
    assert (shown["total"]["orders"], shown["total"]["confirmed"], left_out) == (5, 4, 7)
    assert any("too many" in note for note in shown["notes"])


def test_the_pilots_exit_counts_from_the_models_first_order_and_a_moving_window_says_what_it_costs(
    outcomes: Outcomes, operator: Operator
) -> None:
    old = reports.first_day_of(12, NOW.date()).isoformat()
    # Of the same model, and what a window of six months forgets.
    put(outcomes, *good(60), *(order("no_fault", 0.9, day=old) for _ in range(12)))

    whole = reports.pilot_exit(outcomes, load())
    moving = json.loads(operator.run("pilot-exit", "test", "--risk", "0.1", "--months", "6", "--json").stdout)
    stated = json.loads(operator.run("pilot-exit", "test", "--risk", "0.1", "--since", old, "--json").stdout)
    plain = operator.run("pilot-exit", "test", "--risk", "0.1")

    def told(shown: dict[str, Any]) -> tuple[Any, ...]:
        return shown["holds_for"], shown["groups"][0]["verdict"], shown["groups"][0]["orders"]["no_fault"]

    assert told(whole) == ("every_look", "not_justified", 12)
    assert whole["first_day"] == old
    assert told(moving) == ("one_look", "justified", 0)
    assert told(stated) == ("every_look", "not_justified", 12)
    assert "however often somebody looks" in plain.stderr
    short = reports.pilot_exit(outcomes, load(), since=old, order_days=90)
    assert short["holds_for"] == "one_look", "outcomes of that day are forgotten"
    for wrong in (
        {"since": old, "months": 6},
        {"since": "soon"},
        {"since": "1999-01-01"},
        {"since": "2999-01-01"},
    ):
        with pytest.raises(ValueError, match=r"^since: "):
            reports.pilot_exit(outcomes, load(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("months", "0"),
        ("months", "61"),
        ("months", "1.5"),
        ("months", "nan"),
        ("months", "many"),
        ("by", "x"),
        ("per", "x"),
    ],
)
def test_a_wrong_parameter_of_a_report_is_named(outcomes: Outcomes, name: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        reports.accuracy(outcomes, **{name: wrong})


def test_the_windows_months_are_calendar_months() -> None:
    day = datetime(2026, 1, 31, tzinfo=UTC).date()

    assert [reports.first_day_of(n, day).isoformat() for n in (1, 2, 13)] == [
        "2026-01-01",
        "2025-12-01",
        "2025-01-01",
    ]


def test_accuracy_is_told_in_tables_and_as_json(operator: Operator, outcomes: Outcomes) -> None:
    put(outcomes, *good(24), order("no_fault", day=TODAY), *(order("unstated", day=TODAY) for _ in range(2)))

    plain = operator.run("accuracy", "test", "--by", "model")
    told = json.loads(operator.run("accuracy", "test", "--by", "model", "--json").stdout)

    assert plain.exit_code == 0, plain.stderr
    assert "turbofan 1.0.0" in plain.stdout
    assert "96 % (80 to 99)" in plain.stdout
    assert "Recall is not known: no escape was reported" in plain.stderr
    assert "2 of 27 ended orders have no finding" in plain.stderr
    assert told["total"]["precision"] == {"value": 0.96, "low": 0.8046, "high": 0.9929}


def test_an_empty_environment_has_a_report(operator: Operator, outcomes: Outcomes) -> None:
    plain = operator.run("accuracy", "test")

    assert plain.exit_code == 0, plain.stderr
    assert "No precision: no order ended." in plain.stderr


def test_the_pilots_exit_is_told_and_its_proposal_passes_the_policys_check(
    operator: Operator, outcomes: Outcomes, tmp_path: Path
) -> None:
    put(outcomes, *good(60), *good(60, 0.72))
    file = tmp_path / "policy.json"

    told = operator.run("pilot-exit", "test", "--risk", "0.1", "--propose", file)

    assert told.exit_code == 0, told.stderr
    assert "0.8 (now)" in told.stdout
    assert "Creating orders without asking above risk" in told.stderr
    checked = operator.run("policy", "check", file)
    assert checked.exit_code == 0, checked.stderr
    document = json.loads(file.read_text())
    assert document["bands"][0]["on"] < 0.72
    assert json.loads(operator.run("pilot-exit", "test", "--risk", "0.1", "--json").stdout)["risk"] == 0.1


def test_a_pilot_with_too_few_outcomes_says_how_many_more_and_proposes_nothing(
    operator: Operator, outcomes: Outcomes, tmp_path: Path
) -> None:
    put(outcomes, *good(20))
    file = tmp_path / "policy.json"

    plain = operator.run("pilot-exit", "test", "--risk", "0.1")
    refused = operator.run("pilot-exit", "test", "--risk", "0.1", "--propose", file)

    assert (plain.exit_code, refused.exit_code, file.exists()) == (0, 3, False)
    assert "31 more, all of them right, would justify it" in plain.stderr
    assert "no other band is justified" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--risk", "0.9"), "--risk: must be above 0"),
        (("--risk", "0.1", "--confidence", "1"), "--confidence: must be"),
        (
            ("--risk", "0.1", "--by", "failure_mode", "--propose", "x.json"),
            "--by: a policy has no bands by failure mode",
        ),
    ],
)
def test_wrong_arguments_name_the_option(
    operator: Operator, outcomes: Outcomes, arguments: tuple[str, ...], why: str
) -> None:
    told = operator.run("pilot-exit", "test", *arguments)

    assert told.exit_code == 2
    assert why in told.stderr


# -- escapes


def found(**other: Any) -> dict[str, Any]:
    report = {
        "asset_id": "ENGINE-7",
        "failure_mode": "hpc-degradation",
        "found_at": NOW.isoformat(),
        "note": "crack",
    }
    return report | other


def record(desk: Desk, outcomes: Outcomes, body: dict[str, Any]) -> dict[str, Any]:
    return escapes.record(desk, outcomes, body, by="M. Keller", order_days=3650)


def test_an_escape_is_counted_once_however_often_it_is_reported(desk: Desk, outcomes: Outcomes) -> None:
    first, second = record(desk, outcomes, found()), record(desk, outcomes, found(note="as told before"))

    assert first["reference"] == second["reference"]
    assert reports.accuracy(outcomes, months=THIS_MONTH)["total"]["escapes"] == 1
    assert first["is_asset_known"] is False


def test_the_same_moment_in_another_time_zone_is_the_same_escape(desk: Desk, outcomes: Outcomes) -> None:
    west = NOW.astimezone(tz=datetime.fromisoformat("2026-01-01T00:00:00-05:00").tzinfo).isoformat()

    assert (
        record(desk, outcomes, found())["reference"]
        == record(desk, outcomes, found(found_at=west))["reference"]
    )


def test_a_fault_that_an_open_order_points_at_is_no_escape(
    machine: Line, desk: Desk, outcomes: Outcomes, eventually: Any
) -> None:
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    waiting = eventually(lambda: machine.order("awaiting_approval"), "the order")

    with pytest.raises(escapes.OrderPointsAtItError) as refused:
        record(desk, outcomes, found(asset_id=machine.asset_id))

    assert refused.value.reference == waiting["reference"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("asset_id", ""), ("asset_id", None), ("asset_id", "x" * 129), ("asset_id", "a\nb"), ("asset_id", ["a"]),
        ("failure_mode", "<script>"), ("found_at", "yesterday"), ("found_at", 5), ("found_at", None),
        ("found_at", "2026-11-21T10:00:00"), ("found_at", "1999-01-01T00:00:00Z"),
        ("found_at", "2999-01-01T00:00:00Z"), ("note", "x" * 1001), ("note", {"a": 1}), ("extra", "x"),
    ],
)  # fmt: skip
def test_a_bad_report_names_its_field(desk: Desk, outcomes: Outcomes, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        record(desk, outcomes, found(**{field: value}))

    assert reports.accuracy(outcomes, months=12)["total"]["escapes"] == 0
