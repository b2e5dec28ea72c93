# SPDX-License-Identifier: Apache-2.0
"""What is announced about an order and when, its words, and that each kind comes once. Pure but for the last part."""

import json
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from work_orders.announcing import EXPIRED, SUBJECT, Due, due, facts_of, subject, text_for_people
from work_orders.order_items import WorkOrder, from_item, text_of
from work_orders.policy_data import Approval, PolicyData, load
from work_orders.quiet_hours import DAYS, QuietHours

NOW = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)
DOCUMENT = {
    "asset_name": "Kompressor Süd", "location": "hall A", "line": "line-1", "criticality": "A", "risk": 0.65,
    "failure_type": "High-pressure compressor degradation", "priority": "medium", "needed": 4, "observations": 5,
    "thresholds": {
        "automatic": {"on": 0.8, "inclusive": False, "off": 0.7}, "approval": {"on": 0.5, "inclusive": True, "off": 0.4},
    },
    "time_to_failure": {"p10": 30, "p50": 43, "p90": 57, "unit": "cycle", "hours": {"p10": 1.9, "p50": 2.7, "p90": 3.6}},
}  # fmt: skip


def policy(approval: Approval = Approval(24.0, 168.0, "reject"), **changes: Any) -> PolicyData:  # noqa: B008
    return replace(load(), **{"approval": approval, "quiet_hours": (), **changes})


def order(document: dict[str, Any] = DOCUMENT, **item: Any) -> WorkOrder:
    return from_item({
        "reference": "lw-0123456789abcdef", "status": "awaiting_approval", "asset_id": "ENGINE-1",
        "failure_mode": "hpc-degradation", "band": "approval", "document": json.dumps(document), "attempts": 0,
        "lease_until": 0, "shadow": "pending", "created_at": text_of(NOW.timestamp()), "episode": 1,
        "last_tried_at": "", **item,
    })  # fmt: skip


def at(hours: float = 0.0) -> float:
    return (NOW + timedelta(hours=hours)).timestamp()


def announced(one: WorkOrder, what: Due) -> WorkOrder:
    return from_item({**one.item, **what.marks})


def test_a_new_order_is_announced_then_reminded_as_often_as_the_policy_says() -> None:
    waits = order()
    told = []
    for hour in range(200):
        what = due(waits, policy(), at(hour))
        if what is not None:
            told.append((hour, what.kind))
            waits = announced(waits, what)

    # Not at hour 168 and later: the deadline is there, and what comes next is the expiry.
    assert told == [(0, "waiting"), *((24 * n, "reminder") for n in range(1, 7))]


def test_the_deadline_that_was_announced_holds_whatever_the_policy_says_later() -> None:
    what = due(order(), policy(), at())
    assert what is not None

    waits = announced(order(), what)

    assert waits.expires_approval_at == text_of(at(168))
    assert waits.item["on_expiry"] == "reject"
    kept = due(order(), policy(Approval(24.0, 168.0, "keep")), at())
    assert kept is not None
    assert kept.marks["expires_approval_at"] == ""


def test_in_the_pilot_no_order_is_made_because_nobody_decided() -> None:
    creating = policy(Approval(24.0, 168.0, "create"))

    in_pilot = due(order({**DOCUMENT, "pilot": True}), creating, at())
    afterwards = due(order({**DOCUMENT, "pilot": False}), creating, at())

    assert in_pilot is not None
    assert afterwards is not None
    assert (in_pilot.marks["on_expiry"], in_pilot.marks["expires_approval_at"]) == ("keep", "")
    assert afterwards.marks["on_expiry"] == "create"


def test_an_escalation_is_announced_once_each_and_before_a_reminder() -> None:
    step = {
        "at": text_of(at(1)),
        "band": "approval",
        "priority": "high",
        "risk": 0.78,
        "why": "worse",
        "event_id": "e",
    }
    waits = announced(order(), due(order(), policy(), at()) or pytest.fail("not due"))
    worse = from_item({**waits.item, "escalations": json.dumps([step]), "priority": "high"})

    first = due(worse, policy(), at(30))
    assert first is not None
    assert first.kind == "escalated"
    after = due(announced(worse, first), policy(), at(30))
    assert after is not None
    assert after.kind == "reminder"
    # Two that came before anybody was told are one announcement of the order as it is.
    fresh = due(from_item({**order().item, "escalations": json.dumps([step, step])}), policy(), at())
    assert fresh is not None
    assert (fresh.kind, fresh.marks["escalations_announced"]) == ("waiting", 2)


def test_quiet_hours_hold_what_can_wait_and_nothing_else() -> None:
    night = QuietHours(frozenset(DAYS), time(22), time(6), ZoneInfo("UTC"), 0.9)
    data = policy(quiet_hours=(night,))

    assert due(order(), data, at()) is None
    morning = due(order(), data, at(7.6))
    assert morning is not None
    assert morning.kind == "waiting"
    urgent = due(order({**DOCUMENT, "risk": 0.92}), data, at())
    assert urgent is not None


def test_an_expiry_is_announced_once_and_a_persons_decision_never_as_one() -> None:
    ended = order(
        status="rejected", decided_by="policy", reason=f"{EXPIRED} 168 hours", announced_at=text_of(at())
    )
    what = due(ended, policy(), at(169))
    assert what is not None
    assert what.kind == "expired"
    assert due(announced(ended, what), policy(), at(170)) is None
    by_person = order(status="rejected", decided_by="M. Keller", reason="loose", announced_at=text_of(at()))
    by_band = order(status="creating", decided_by="policy", reason="the automatic band was crossed")
    assert due(by_person, policy(), at(169)) is None
    assert due(by_band, policy(), at(169)) is None


def words(
    one: WorkOrder, what: Due | None = None, url: str = "https://console.example"
) -> tuple[dict[str, Any], str]:
    facts = facts_of(one, what or due(one, policy(), at()) or pytest.fail("not due"), policy(), url, "prod")
    return facts, text_for_people(facts)


def test_a_supervisor_reads_on_a_phone_what_how_bad_how_long_what_to_do_and_until_when() -> None:
    facts, text = words(order())

    assert subject(facts) == "Approve? risk 0.65, Kompressor Sud: High-pressure compressor degradation"
    assert text.splitlines() == [
        "Kompressor Süd (ENGINE-1), hall A, line-1, criticality A",
        "High-pressure compressor degradation",
        "",
        "Risk 0.65 (medium), by 4 of 5 parts. Bands: approval from 0.50; automatic above 0.80",
        "Time to failure: 2.7 hours (1.9 to 3.6)",
        "What to do: Plan a borescope inspection of the high-pressure compressor within 30 cycles",
        "",
        "Approve, merge or reject: https://console.example/#/orders/lw-0123456789abcdef",
        "If nobody decides until 2026-11-27 22:30 UTC, it is rejected.",
    ]


def test_an_order_of_before_does_not_say_whether_its_threshold_itself_counts() -> None:
    _, text = words(order(DOCUMENT | {"thresholds": {"automatic": {"on": 0.8, "off": 0.7}}}))

    assert "Bands: automatic from 0.80" in text


def test_the_page_for_supervisors_shows_the_mail_as_it_is() -> None:
    facts, text = words(order())

    page = (Path(__file__).parents[2] / "docs/approving.md").read_text()

    assert f"```\n{subject(facts)}\n\n{text}\n```" in page


def test_without_a_console_address_the_order_is_named() -> None:
    facts, text = words(order(), url="")

    assert facts["link"] is None
    assert "the console, order lw-0123456789abcdef" in text


@given(
    name=st.text(max_size=400),
    values=st.fixed_dictionaries({}, optional={
        "failure_type": st.text(max_size=400) | st.none(), "location": st.text(max_size=50) | st.none(),
        "time_to_failure": st.none() | st.just({}) | st.fixed_dictionaries({"p50": st.floats(0, 1e6)}),
        "thresholds": st.none() | st.just({}), "criticality": st.none() | st.text(max_size=3),
    }),
    kind=st.sampled_from(["waiting", "reminder", "escalated", "expired"]),
    status=st.sampled_from(["awaiting_approval", "created", "rejected"]),
)  # fmt: skip
def test_any_names_make_one_ascii_subject_and_a_text_without_control_characters(
    name: str, values: dict[str, Any], kind: Any, status: str
) -> None:
    one = order({**DOCUMENT, "asset_name": name, **values}, status=status)
    facts, text = words(one, Due(kind, {}))

    line = subject(facts)
    assert line.isascii()
    assert line.isprintable()
    assert 0 < len(line) <= SUBJECT
    assert all(letter.isprintable() for letter in text.replace("\n", ""))
    assert len(text) < 4_000
    json.dumps(facts)
