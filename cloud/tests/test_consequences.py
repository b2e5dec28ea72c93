# SPDX-License-Identifier: Apache-2.0
"""What a crossed band leads to, through real tables and a real ERP: at once, later, asked; and what a worse case changes."""

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloud_line import Line

from api import views
from linewatch_plant.erp_simulator import ErpClient
from work_orders.announcing import Due, facts_of
from work_orders.observing import Desk, observe, settle
from work_orders.order_items import WorkOrder
from work_orders.placing import payload
from work_orders.policy_data import PATH
from work_orders.policy_reading import parse
from work_orders.sweep import sweep
from work_orders.wiring import desk_of


@pytest.fixture(scope="session")
def desk(environment: dict[str, str]) -> Desk:
    return desk_of({**environment, "LEASE_S": "1", "PILOT_MODE": "policy"})


@dataclass(slots=True)
class Case:
    """One machine, what it says, and the order that comes of it."""

    line: Line
    desk: Desk
    erp: ErpClient

    def with_policy(self, **changes: Any) -> "Case":
        document = {**json.loads(PATH.read_text()), "pilot": {"is_on": False}, **changes}
        data = parse(document)
        return replace(
            self, desk=replace(self.desk, data=data, pilot=data.pilot.holds(datetime.now(UTC).date()))
        )

    def says(self, *severities: float) -> WorkOrder | None:
        key = {"station_key": f"plant-1/{self.line.line}/station-1"}
        table = self.line.cloud.outputs
        asset = self.desk.dynamodb.get_item(TableName=table["AssetsTable"], Key=key)["Item"]
        for severity in severities:
            event = self.line.severity(severity)
            item = {"event_id": event["id"], "event": json.dumps(event)}
            self.desk.dynamodb.put_item(TableName=table["EventsTable"], Item=item)
            observe({"event": event, "asset": asset}, self.desk)
        return self.order()

    def order(self) -> WorkOrder | None:
        episode = self.desk.episodes.get(self.line.asset_id, "hpc-degradation")
        return self.desk.orders.get(episode.reference) if episode.number else None

    def recorded(self) -> list[str]:
        order = self.order()
        assert order is not None
        return [entry.what for entry in self.desk.records.of(order.reference)]

    def in_erp(self) -> list[dict[str, Any]]:
        return [order for order in self.erp.orders() if order["asset_id"] == self.line.asset_id]


@pytest.fixture
def case(machine: Line, desk: Desk, erp: ErpClient) -> Case:
    return Case(machine, desk, erp)


def quiet_now(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    since, until = now - timedelta(hours=2), now + timedelta(hours=2)
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    return {"days": days, "from": f"{since:%H:%M}", "to": f"{until:%H:%M}", "time_zone": "UTC", **changes}


def test_in_quiet_hours_the_order_is_reserved_and_waits_for_their_end(case: Case) -> None:
    quiet = case.with_policy(quiet_hours=[quiet_now()])

    order = quiet.says(0.85, 0.85, 0.85, 0.85)

    assert order is not None
    assert order.status == "creating"
    assert 3600 < order.hold_until - time.time() <= 2 * 3600
    sweep(quiet.desk)
    assert quiet.in_erp() == []
    assert "held for quiet hours until" in quiet.desk.records.of(order.reference)[0].detail


def test_what_gets_urgent_meanwhile_waits_for_nothing(case: Case) -> None:
    quiet = case.with_policy(quiet_hours=[quiet_now()])
    quiet.says(0.85, 0.85, 0.85, 0.85)

    order = quiet.says(0.95, 0.95, 0.95, 0.95)

    assert order is not None
    assert (order.status, order.hold_until, order.priority) == ("created", 0, "urgent")
    assert len(quiet.in_erp()) == 1
    assert {"released", "escalated", "created"} <= set(quiet.recorded())


def test_above_the_rate_limit_a_person_is_asked_and_nothing_is_dropped(case: Case) -> None:
    order = case.with_policy(rate_limit={"orders": 0, "hours": 24}).says(0.9, 0.9, 0.9, 0.9)

    assert order is not None
    assert (order.status, order.band) == ("awaiting_approval", "automatic")
    assert "rate limit" in case.desk.records.of(order.reference)[0].detail


def test_what_was_asked_in_the_pilot_stays_with_the_person_when_the_pilot_ends(case: Case) -> None:
    today = datetime.now(UTC).date()
    # Not today: at midnight it would be over before the parts are there.
    yesterday, tomorrow = ((today + timedelta(days=days)).isoformat() for days in (-1, 1))
    case.with_policy(pilot={"is_on": True, "until": tomorrow}).says(0.9, 0.9, 0.9, 0.9)

    order = case.with_policy(pilot={"is_on": True, "until": yesterday}).says(0.9, 0.9)

    assert order is not None
    assert order.status == "awaiting_approval"


def test_after_the_pilots_last_day_the_automatic_band_creates(case: Case) -> None:
    yesterday = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    order = case.with_policy(pilot={"is_on": True, "until": yesterday}).says(0.9, 0.9, 0.9, 0.9)

    assert order is not None
    assert order.status == "created"


def test_a_stronger_band_confirms_what_awaited_approval(case: Case) -> None:
    case = case.with_policy()
    asked = case.says(0.6, 0.6, 0.6, 0.6)
    order = case.says(0.85, 0.85, 0.85, 0.85)

    assert asked is not None
    assert order is not None
    assert (asked.status, asked.band, asked.priority) == ("awaiting_approval", "approval", "low")
    assert (order.status, order.band, order.priority) == ("created", "automatic", "high")
    assert order.document["raised_in"] == "approval", "the band goes up, what raised it stays"
    assert len(case.in_erp()) == 1


def test_a_worse_severity_tells_the_erp_once_and_never_falls(case: Case) -> None:
    case = case.with_policy()
    before = case.says(0.82, 0.82, 0.82, 0.82)
    assert before is not None
    assert (before.status, before.priority) == ("created", "high")

    case.says(0.95, 0.95, 0.95, 0.95, 0.95, 0.95)
    sweep(case.desk)
    after = case.says(0.85, 0.85, 0.85, 0.85)

    assert after is not None
    assert (after.priority, len(after.escalations)) == ("urgent", 1)
    assert after.escalations[0]["risk"] == pytest.approx(0.95)
    [order] = case.in_erp()
    assert sum("Severity rose" in json.dumps(note) for note in order["notes"]) == 1


def test_a_worse_case_has_the_action_for_its_risk_wherever_it_is_told(case: Case) -> None:
    """The mail said one action; page, ERP and records went on with that of the opening."""
    words = json.loads(PATH.read_text())["failure_modes"]
    case = case.with_policy()
    before = case.says(0.65, 0.65, 0.65, 0.65)
    assert before is not None
    mild, [strong] = (
        before.recommended_action,
        {case.desk.data.failure_mode("hpc-degradation").action(risk) for risk in (0.95, 0.99)},
    )
    assert mild != strong
    assert strong in json.dumps(words["hpc-degradation"])

    # Approved as it was raised; the ERP's order learns by a note what is to be done now.
    placed = case.desk.orders.confirm(before.reference, "M. Keller", "")
    assert placed is not None
    settle(placed, case.desk)
    case.says(0.95, 0.95, 0.95, 0.95)
    sweep(case.desk)

    after = case.order()
    assert after is not None
    [order] = case.in_erp()
    assert order["recommended_action"] == mild
    assert any(strong in json.dumps(note) for note in order["notes"])
    shown = views.work_order(after)
    assert (shown["recommended_action"], shown["severity"]) == (strong, 0.95)
    assert shown["time_to_failure"]["p50"] == pytest.approx(125 * 0.05)
    assert payload(after)["recommended_action"] == strong
    assert payload(after)["time_to_failure"] == after.time_to_failure
    told = facts_of(after, Due("escalated", {}), case.desk.data, "", "")
    assert (told["recommended_action"], told["time_to_failure"]) == (strong, shown["time_to_failure"])
    recorded = [
        json.loads(one.detail) for one in case.desk.records.of(after.reference) if one.what == "escalated"
    ]
    assert (recorded[-1]["recommended_action"], recorded[-1]["severity"]) == (strong, 0.95)


def test_one_spike_changes_nothing(case: Case) -> None:
    case = case.with_policy()
    order = case.says(0.82, 0.82, 0.82, 0.82, 0.99, 0.82)

    assert order is not None
    assert (order.priority, len(order.escalations)) == ("high", 0)


def test_criticality_c_asks_where_others_create(case: Case) -> None:
    case = case.with_policy()
    table, key = (
        case.line.cloud.outputs["AssetsTable"],
        {"station_key": f"plant-1/{case.line.line}/station-1"},
    )
    case.desk.dynamodb.update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET criticality = :c",
        ExpressionAttributeValues={":c": "C"},
    )

    order = case.says(0.85, 0.85, 0.85, 0.85)

    assert order is not None
    assert (order.status, order.band) == ("awaiting_approval", "approval")
    assert order.document["thresholds"]["automatic"] == {"on": 0.9, "inclusive": False, "off": 0.8}
    assert order.document["thresholds"]["approval"]["inclusive"] is True
    assert [place["over"] for place in order.document["persistence"]] == [True] * 4
