# SPDX-License-Identifier: Apache-2.0
"""Orders that are not in the ERP: whether it was away or refused is said, and a person can have it tried again."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import scene
from playwright.sync_api import Locator, Page, expect
from supervisors import Open, Plant

PARKED = "lw-77aa120b93c1"
REFUSED = {
    "is_refused": True,
    "failure": "HTTP 422: equipment LAM-02 is not known",
    "standing": {
        "where": "It is parked: the ERP refused it.",
        "why": "The ERP said: HTTP 422: equipment LAM-02 is not known",
        "tried": "",
        "next": "Nothing by itself.",
        "is_stuck": True,
    },
}


def dialog(page: Page) -> Locator:
    return page.locator("dialog[open]")


def test_order_that_the_erp_refused_is_not_said_to_wait_for_it(opened: Open, plant: Plant) -> None:
    plant.cloud.orders[PARKED] |= REFUSED
    page = opened("Anna Approver")
    listed = page.locator(f".order[data-reference='{PARKED}']")
    expect(listed).to_contain_text("the ERP refused it")

    page.evaluate("(hash) => { location.hash = hash; }", f"#/orders/{PARKED}")
    told = page.locator(".order-head .notice")
    expect(told).to_contain_text("The ERP refused it. The ERP said: HTTP 422: equipment LAM-02 is not known")
    expect(told).to_contain_text("Nothing happens by itself")


def test_order_whose_erp_is_away_says_what_happens_next(opened: Open, plant: Plant) -> None:
    standing = {"why": "The last try ended with: timed out.", "next": "The sweep tries it again."}
    plant.cloud.orders[PARKED]["standing"] = standing
    page = opened("Vera Viewer", f"#/orders/{PARKED}")

    expect(page.locator(".order-strip")).to_contain_text("no answer of the ERP")
    expect(page.locator(".order-head .notice")).to_contain_text(
        "The ERP did not answer. The last try ended with: timed out. The sweep tries it again."
    )
    expect(page.get_by_role("button", name=re.compile("^Try again"))).to_have_count(0)


@pytest.mark.parametrize("by_key", [True, False], ids=["key", "button"])
def test_parked_order_is_tried_again_by_an_approver(opened: Open, plant: Plant, by_key: bool) -> None:
    plant.cloud.orders[PARKED] |= REFUSED
    page = opened("Anna Approver", f"#/orders/{PARKED}")
    again = page.locator(".order-decide").get_by_role("button", name=re.compile("^Try again"))
    expect(again).to_be_visible()
    if by_key:
        page.keyboard.press("t")
    else:
        again.click()
    expect(dialog(page)).to_contain_text("once, however often this is asked")
    dialog(page).get_by_label("Reason").fill("LAM-02 was entered")
    dialog(page).get_by_role("button", name="Try again").click()

    expect(dialog(page)).to_have_count(0)
    expect(page.locator(".order-head .notice")).to_contain_text("The ERP did not answer")
    assert plant.cloud.decided == [(PARKED, "replay", "Anna Approver", "LAM-02 was entered")]


def test_decision_can_be_read_in_the_audit_log(opened: Open, plant: Plant) -> None:
    """It said `body [object Object]` for every decision."""
    page = opened("Anna Approver", f"#/orders/{PARKED}")
    page.keyboard.press("t")
    dialog(page).get_by_label("Reason").fill("LAM-02 was entered")
    page.keyboard.press("Control+Enter")
    expect(dialog(page)).to_have_count(0)

    audit = opened("Ada Admin", "#/audit").locator(".audit")
    expect(audit).to_contain_text(
        re.compile(
            rf"Verb: replay · Reference: {PARKED} · Reason: LAM-02 was entered · From: \S+ · Role: approver",
            re.I,
        )
    )
    expect(audit).to_contain_text(re.compile(r"Outcome: taken · .*Of: sha256:[0-9a-f]{64}", re.I))
    expect(audit).not_to_contain_text("[object")


def test_bands_of_the_policy_that_holds_stand_behind_the_severity(
    opened: Open, plant: Plant, publish: Callable[[str, Any], None]
) -> None:
    plant.cloud.bands = {"approval": 0.6, "automatic": 0.7}
    for topic, status in scene.statuses().items():
        publish(topic, status)
    publish(scene.MACHINE_TOPIC, scene.window_event(1, 0.4, 90))
    page = opened("Vera Viewer")
    labels = page.locator(".tile .trend-label")

    expect(labels).to_have_text(["makes an order", "awaits approval", "recorded"])
    expect(page.locator(".tile .trend .band-approval")).to_have_attribute("height", re.compile(r"^8(\.0|$)"))
    plant.cloud.bands = {"approval": 0.3, "automatic": 0.8}
    expect(page.locator(".tile .trend .band-approval")).to_have_attribute("height", re.compile(r"^40(\.0|$)"))
