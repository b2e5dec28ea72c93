# SPDX-License-Identifier: Apache-2.0
"""What the pages say and leave out: each test is a sentence that was wrong, or was missing, when somebody looked."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import scene
from console_stand_in import work_order
from playwright.sync_api import Locator, Page, expect
from supervisors import Open, Plant

FRAME, WINDOW, CREATED = scene.WAITING_FRAME, scene.WAITING_WINDOW, scene.CREATED
CLOSED = "lw-0d31aa01"


def rows(page: Page) -> list[str | None]:
    return [row.get_attribute("data-reference") for row in page.locator(".row").all()]


def test_an_order_of_before_the_records_is_not_said_to_be_tampered_with(opened: Open, plant: Plant) -> None:
    """Release 0.2.0 kept a history and no chain: the API answers verified false, fault null."""
    page = opened("Vera Viewer")
    history = {
        "number": None,
        "at": scene.at(48),
        "what": "approved",
        "by": "M. Keller",
        "text": "approved by M. Keller: seen",
    }
    told = {
        "reference": CLOSED, "verified": False, "fault": None, "faults": [], "not_checked": [], "head": "", "left_out": 0, "parts": [],
        "entries": [history | {"detail": {}, "digest": "", "previous": ""}],
        "policy": {"version": None, "digest": None, "is_known": False, "document": None},
        "erp": {"id": "WO-10184", "status": "closed", "record_digest": None, "calls": []},
    }  # fmt: skip
    page.route("**/why", lambda route: route.fulfill(json=told))
    page.evaluate("(hash) => { location.hash = hash; }", f"#/orders/{CLOSED}/why")

    badge = page.locator(".verdict-badge")
    expect(badge).to_contain_text("No records cover it")
    expect(badge).to_have_class(re.compile(r"\bnone\b"))
    expect(badge).not_to_have_attribute("role", "alert")
    expect(page.locator(".timeline")).to_contain_text("approved by M. Keller: seen")
    expect(page.locator(".why")).not_to_contain_text("null")

    told |= {"fault": {"where": CLOSED, "number": None, "why": "its records are gone"}}
    page.reload()
    expect(page.locator(".verdict-badge.ng")).to_contain_text("its records are gone")


@pytest.fixture
def line(publish: Callable[[str, Any], None]) -> None:
    """Both services' statuses, and a machine."""
    for topic, status in scene.statuses().items():
        publish(topic, status)
    publish(scene.MACHINE_TOPIC, scene.window_event(1, 0.4, 90))


def test_in_the_pilot_nothing_is_said_to_create_an_order(opened: Open, plant: Plant, line: None) -> None:
    plant.cloud.pilot = True
    plant.cloud.orders[CREATED] |= {"pilot": True, "status": "awaiting_approval", "erp_id": None}
    page = opened("Anna Approver")
    expect(page.locator(".tile .trend-label").first).to_have_text("awaits approval: pilot")

    page.evaluate("(hash) => { location.hash = hash; }", f"#/orders/{CREATED}")
    expect(page.locator(".risk-number")).to_contain_text("asks a person, as all do in the pilot")
    expect(page.locator(".risk-scale")).to_contain_text("0.80 asks too")
    expect(page.locator(".risk-panel")).not_to_contain_text("creates")

    plant.cloud.pilot = False
    page.evaluate("location.hash = '#/'")
    expect(page.locator(".tile .trend-label").first).to_have_text("makes an order")


def test_no_escapes_are_told_of_a_model_for_none_names_one(opened: Open, plant: Plant) -> None:
    for group in plant.cloud.reports["accuracy"]["groups"]:
        group |= {"escapes": None}
    page = opened("Vera Viewer", "#/accuracy")

    expect(page.locator(".intervals li").first).to_contain_text("overkill")
    expect(page.locator(".intervals")).not_to_contain_text("escape")
    page.get_by_role("button", name="As tables").click()
    expect(page.get_by_role("table").nth(1)).to_contain_text("turbofan 1.0.0")
    expect(page.locator("#view")).not_to_contain_text("null")


def test_other_faults_are_told_of_each_person(opened: Open, plant: Plant) -> None:
    plant.cloud.reports["accuracy"]["decisions"] = [
        {"by": "M. Keller", "approved": 31, "rejected": 6, "judged": 28, "confirmed": 25, "other_fault": 1, "no_fault": 2}
    ]  # fmt: skip
    page = opened("Vera Viewer", "#/accuracy")

    table = page.get_by_role("table", name="Decisions by person")
    expect(table.get_by_role("columnheader")).to_have_text(
        ["Who", "Approved", "Rejected", "Judged", "Confirmed", "Other fault", "No fault"]
    )
    expect(table.locator("tbody tr").first.locator("td, th")).to_have_text(
        ["M. Keller", "31", "6", "28", "25", "1", "2"]
    )


def test_thresholds_without_an_order_say_nothing_but_the_one_that_holds(opened: Open, plant: Plant) -> None:
    [group] = plant.cloud.reports["pilot-exit"]["groups"]
    for one in group["candidates"]:
        if one["threshold"] in {0.9, 0.8}:
            one |= {"orders": 0, "wrong": 0, "share": None, "upper": 1.0, "is_certified": False}
    page = opened("Vera Viewer", "#/accuracy")

    chips = page.locator(".candidates li")
    expect(chips).to_have_count(4)
    expect(chips.filter(has_text="now")).to_contain_text("no orders yet")
    expect(page.locator(".candidates")).not_to_contain_text("of 0")
    expect(page.locator(".candidates")).not_to_contain_text("100.0")


def test_queue_is_by_priority_then_by_age_and_shows_it(opened: Open, plant: Plant) -> None:
    """Whatever expires first: an urgent one of now stands above a low one of yesterday."""
    given = (("urgent", 0.2, -70), ("low", 40, -1), ("high", 1, -60), ("high", 5, -65))
    for place, (priority, hours, expires) in enumerate(given):
        approval = {"expires_at": scene.at(expires), "on_expiry": "reject"}
        plant.cloud.add(work_order(f"lw-p{place}", priority=priority, created_at=scene.at(hours), approval=approval))  # fmt: skip
    page = opened("Vera Viewer", "#/orders")
    page.get_by_role("button", name=re.compile("^Awaiting")).click()

    expect(page.locator(".row")).to_have_count(6)
    assert rows(page) == ["lw-p0", "lw-p3", WINDOW, "lw-p2", FRAME, "lw-p1"]
    expect(page.locator(".row").nth(0).locator(".chip.priority")).to_have_text("Urgent")
    expect(page.locator(".row").nth(1).locator(".chip.priority")).to_have_text("High priority")
    expect(page.locator(".row").nth(5).locator(".chip.priority")).to_have_text("Low priority")
    page.evaluate("location.hash = '#/'")
    expect(page.locator(".order").first).to_have_attribute("data-reference", "lw-p0")
    expect(page.locator(".order").first.locator(".chip.priority")).to_have_text("Urgent")


def test_closed_order_says_who_closed_it(opened: Open, plant: Plant) -> None:
    plant.cloud.orders[CLOSED] |= {
        "decided_by": "M. Keller", "decided_at": scene.at(500), "closed_by": "R. Amsler", "closed_at": scene.at(400), "note": "pad replaced",
        "erp_id": None,
    }  # fmt: skip
    page = opened("Vera Viewer", f"#/orders/{CLOSED}")

    expect(page.locator(".order-strip")).to_contain_text(re.compile("Decided by M. Keller"))
    expect(page.locator(".order-strip")).to_contain_text(re.compile("Closed by R. Amsler.*: pad replaced"))
    page.evaluate("location.hash = '#/orders'")
    expect(page.locator(f".row[data-reference='{CLOSED}']")).to_contain_text("by R. Amsler")


def test_rejecting_says_that_a_stronger_band_speaks_up(opened: Open, plant: Plant) -> None:
    plant.cloud.add(work_order("lw-top", band="automatic", pilot=True, risk=0.9))
    page = opened("Anna Approver")
    dialog = page.locator("dialog[open]")

    page.locator(f".order[data-reference='{FRAME}']").get_by_role("button", name="Reject").click()
    expect(dialog).to_contain_text("after it went away and came back; if it gets worse, into a stronger band, that speaks up at once.")  # fmt: skip
    page.keyboard.press("Escape")
    page.locator(".order[data-reference='lw-top']").get_by_role("button", name="Reject").click()
    expect(dialog).to_contain_text("after it went away and came back.")
    expect(dialog).not_to_contain_text("stronger")


def test_closing_says_that_the_erps_own_order_is_ended_there(opened: Open) -> None:
    page = opened("Anna Approver", f"#/orders/{CREATED}")
    expect(page.locator(".order-decide")).to_be_visible()
    page.keyboard.press("c")

    expect(page.locator("dialog[open]")).to_contain_text(
        "order WO-10219 is not ended from here: end it there"
    )


OUT_OF_SIGHT = """(box) => { const seen = box.getBoundingClientRect(); const all = document.createRange();
  return [...box.querySelectorAll("th, td")].filter((one) => { all.selectNodeContents(one); return all.getBoundingClientRect().right > seen.right; }).map((one) => one.textContent); }"""


def test_every_column_of_the_queue_is_in_sight_on_a_laptop(
    opened: Open, plant: Plant, publish: Callable[[str, Any], None]
) -> None:
    """At 1366 px the board's table was cut at "Delivered": that something was lost was out of sight."""
    statuses = scene.statuses(is_online=False)
    for topic, status in statuses.items():
        for stream in status.get("streams", []):
            stream |= {"events": 12345, "stored": 1234567, "delivered": 1222222, "dropped": 1234, "dropped_by": {"retention": 1234}}  # fmt: skip
        publish(topic, json.loads(json.dumps(status)))
    page = opened("Vera Viewer")
    streams: Locator = page.locator(".streams-box")
    expect(streams).to_contain_text("1,234 retention")

    hidden = {}
    for width in (1366, 1280, 1440, 1920, 1110):
        page.set_viewport_size({"width": width, "height": 768})
        hidden |= {width: out} if (out := streams.evaluate(OUT_OF_SIGHT)) else {}
    assert hidden == {}
