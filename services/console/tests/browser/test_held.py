# SPDX-License-Identifier: Apache-2.0
"""Orders that quiet hours hold back: shown as such, and decided like those that wait for a person, once."""

import re
import time

import scene
from playwright.sync_api import Locator, Page, expect
from supervisors import Open, Plant, Watch

HELD = scene.HELD
DECIDE = re.compile("^(Approve|Reject)")


def dialog(page: Page) -> Locator:
    return page.locator("dialog[open]")


def shown(page: Page) -> Locator:
    """The order's own page, with its buttons."""
    expect(page.locator(".order-strip")).to_contain_text("Held")
    return page.locator(".order-decide")


def test_held_order_says_when_it_goes_on_by_itself_and_offers_the_decision(opened: Open) -> None:
    page = opened("Anna Approver", f"#/orders/{HELD}")

    buttons = shown(page).get_by_role("button")
    expect(buttons).to_have_text([re.compile("^Approve"), re.compile("^Reject")])
    told = page.locator(".notice.held")
    expect(told).to_contain_text("Held back by the policy's quiet hours")
    expect(told).to_contain_text(re.compile(r"Placed in the ERP in 3 h 1\d min"))
    expect(told).to_contain_text("You need not do anything")


def test_held_order_is_approved_by_keyboard_and_becomes_one_order(opened: Open, plant: Plant) -> None:
    page = opened("Anna Approver", f"#/orders/{HELD}")
    shown(page)
    page.keyboard.press("a")
    expect(dialog(page)).to_contain_text("waits for the end of the quiet hours no longer")
    expect(dialog(page)).to_contain_text("Nobody has to decide: placed in the ERP by itself in 3 h")
    page.keyboard.type("the line stands, we can start tonight")
    page.keyboard.press("Control+Enter")

    expect(dialog(page)).to_have_count(0)
    expect(page.locator(".order-strip")).to_contain_text("In the ERP")
    expect(page.locator(".order-strip")).to_contain_text("Decided by Anna Approver")
    expect(page.locator(".notice.held")).to_have_count(0)
    assert plant.cloud.decided == [
        (HELD, "approve", "Anna Approver", "the line stands, we can start tonight")
    ]


def test_held_order_is_rejected_with_a_reason_only(opened: Open, plant: Plant) -> None:
    page = opened("Anna Approver")
    held = page.locator(f".order[data-reference='{HELD}']")
    held.get_by_role("button", name="Reject").click()
    expect(dialog(page)).to_contain_text("raises an order again after it went away and came back")

    dialog(page).get_by_role("button", name="Reject", exact=True).click()
    expect(dialog(page)).to_be_visible()
    assert plant.cloud.decided == [], "no reason, no decision"
    dialog(page).get_by_role("button", name="False alarm").click()
    dialog(page).get_by_role("button", name="Reject", exact=True).click()

    expect(held).to_contain_text("Rejected")
    assert plant.cloud.decided == [(HELD, "reject", "Anna Approver", "False alarm")]


def test_of_two_who_decide_a_held_order_one_is_told_of_the_other(
    opened: Open, plant: Plant, watch: Watch
) -> None:
    watch.allowed.append("409")
    anna, ben = opened("Anna Approver", f"#/orders/{HELD}"), opened("Ben Supervisor", f"#/orders/{HELD}")
    for page, key in ((anna, "r"), (ben, "a")):
        shown(page)
        page.keyboard.press(key)
        expect(dialog(page)).to_be_visible()
    dialog(anna).get_by_label("Reason").fill("serviced at noon")
    dialog(anna).get_by_role("button", name="Reject", exact=True).click()
    expect(dialog(anna)).to_have_count(0)

    dialog(ben).get_by_role("button", name="Approve", exact=True).click()

    expect(dialog(ben).get_by_role("alert")).to_contain_text("Anna Approver decided meanwhile")
    expect(dialog(ben).get_by_role("alert")).to_contain_text("serviced at noon")
    expect(dialog(ben).get_by_role("button", name="Approve", exact=True)).to_be_disabled()
    assert [verb for _, verb, _, _ in plant.cloud.decided] == ["reject"]


def test_an_order_whose_hold_ended_while_somebody_wrote_was_decided_by_nobody(
    opened: Open, plant: Plant, watch: Watch
) -> None:
    watch.allowed.append("409")
    page = opened("Anna Approver", f"#/orders/{HELD}")
    shown(page)
    page.keyboard.press("r")
    dialog(page).get_by_label("Reason").fill("serviced at noon")
    plant.cloud.orders[HELD] |= {"status": "created", "hold_until": None, "erp_id": "WO-10400"}
    dialog(page).get_by_role("button", name="Reject", exact=True).click()

    alert = dialog(page).get_by_role("alert")
    expect(alert).to_contain_text("The order went on meanwhile")
    expect(alert).to_contain_text("WO-10400")
    expect(alert).not_to_contain_text("decided meanwhile")
    assert plant.cloud.decided == []


def test_buttons_go_when_the_hold_ends_though_nothing_new_comes_from_the_cloud(
    opened: Open, plant: Plant
) -> None:
    page = opened("Anna Approver")
    ends = int(time.time() + 4)
    plant.cloud.orders[HELD] |= {"hold_until": ends}
    held = page.locator(f".order[data-reference='{HELD}']")
    expect(held).to_contain_text("To the ERP in")
    expect(held.get_by_role("button", name=DECIDE)).to_have_count(0)

    assert time.time() >= ends
    expect(held).to_contain_text("Creating")
    expect(held).not_to_contain_text("To the ERP")


def test_in_a_pilot_the_end_of_a_hold_asks_a_person_and_the_page_says_so(opened: Open, plant: Plant) -> None:
    plant.cloud.pilot = True
    page = opened("Anna Approver", f"#/orders/{HELD}")
    shown(page)

    expect(page.locator(".notice.held")).to_contain_text("A person is asked in 3 h")
    expect(page.locator(".notice.held")).not_to_contain_text("Placed in the ERP")


def test_held_orders_are_found_in_the_queue_and_stand_before_what_went_on(opened: Open, plant: Plant) -> None:
    later = plant.cloud.orders[HELD] | {"reference": "lw-he1d2", "hold_until": int(time.time() + 7 * 3600)}
    plant.cloud.add(later)
    page = opened("Vera Viewer", "#/orders")
    expect(page.locator(".row[data-reference='lw-he1d2']")).to_be_visible()

    order = page.locator(".row").evaluate_all("(all) => all.map((one) => one.dataset.reference)")
    assert order[2:4] == [HELD, "lw-he1d2"], "after those that wait for a person, the next to go on first"
    page.get_by_role("button", name=re.compile("^Open in the ERP")).click()
    expect(page.locator(f".row[data-reference='{HELD}']")).to_have_count(0)
    page.get_by_role("button", name=re.compile("^Held")).click()
    expect(page.locator(".row")).to_have_count(2)


def test_viewer_sees_that_it_is_held_and_decides_nothing(opened: Open, plant: Plant) -> None:
    page = opened("Vera Viewer", f"#/orders/{HELD}")
    buttons = shown(page).get_by_role("button")
    page.keyboard.press("a")

    expect(buttons).to_have_count(0)
    expect(dialog(page)).to_have_count(0)
    expect(page.locator(".notice.held")).to_contain_text("Placed in the ERP in 3 h")
    expect(page.locator(".notice.held")).not_to_contain_text("approve it")
    assert plant.cloud.decided == []


def test_a_held_order_is_merged_into_nothing(opened: Open) -> None:
    """The API takes approve and reject of a held order, and no merge: nothing offers one."""
    page = opened("Anna Approver", f"#/orders/{HELD}")
    shown(page)
    page.keyboard.press("m")
    page.keyboard.press("c")

    expect(dialog(page)).to_have_count(0)
