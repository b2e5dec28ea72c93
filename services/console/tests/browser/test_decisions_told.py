# SPDX-License-Identifier: Apache-2.0
"""What the page says of a decision that was not taken, and what it offers: the cloud's own rules and words."""

import re
from typing import Any

import pytest
import scene
from console_stand_in import work_order
from playwright.sync_api import Page, Route, expect
from supervisors import Open, Plant, Watch

FRAME, WINDOW, CREATED, PARKED = scene.WAITING_FRAME, scene.WAITING_WINDOW, scene.CREATED, "lw-77aa120b93c1"


@pytest.fixture
def dialog(plant: Plant) -> Any:
    return lambda page: page.locator("dialog[open]")


def asked(page: Page, reference: str, key: str) -> None:
    page.evaluate("(hash) => { location.hash = hash; }", f"#/orders/{reference}")
    expect(page.locator(".order-decide")).to_be_visible()
    expect(page.locator(".order-strip")).to_be_visible()
    page.keyboard.press(key)


def refusing(page: Page, order: dict[str, Any], words: str, times: int = 1) -> None:
    """The next decisions are answered as the API does where it can't take one now; then they reach the cloud."""

    def refuse(route: Route) -> None:
        route.fulfill(status=409, json={"error": words, "order": order})

    page.route(re.compile("/api/work-orders/.*/(approve|reject|merge|close)"), refuse, times=times)


BUSY = "it can't be approved now: the ERP is being called for it, or somebody else changed it at this moment; try again"


def test_a_refusal_that_changed_nothing_is_told_in_the_clouds_words_and_can_be_repeated(
    opened: Open, plant: Plant, watch: Watch, dialog: Any
) -> None:
    """Found in review: every 409 was "Somebody decided meanwhile", and the button stayed off."""
    watch.allowed.append("409")
    page = opened("Anna Approver")
    asked(page, FRAME, "a")
    refusing(page, plant.cloud.orders[FRAME], BUSY)
    send = dialog(page).get_by_role("button", name="Approve", exact=True)
    send.click()

    expect(dialog(page).get_by_role("alert")).to_contain_text("the ERP is being called for it")
    expect(dialog(page).get_by_role("alert")).not_to_contain_text("decided meanwhile")
    expect(send).to_be_enabled()
    send.click()

    expect(dialog(page)).to_have_count(0)
    assert [one[:2] for one in plant.cloud.decided] == [(FRAME, "approve")]


def test_an_order_that_went_on_by_itself_was_decided_by_nobody(
    opened: Open, plant: Plant, watch: Watch, dialog: Any
) -> None:
    """A parked order that reached the ERP while somebody filled in its finding: it can be closed still."""
    watch.allowed.append("409")
    page = opened("Anna Approver")
    plant.cloud.orders[PARKED] |= {"decided_by": "M. Keller", "decided_at": scene.at(8)}
    asked(page, PARKED, "c")
    dialog(page).get_by_text("Confirmed").click()
    moved = plant.cloud.orders[PARKED] | {"status": "created", "erp_id": "WO-10300"}
    refusing(page, moved, "it can't be closed now: somebody else changed it at this moment; try again")
    send = dialog(page).get_by_role("button", name="Close the order")
    send.click()

    expect(dialog(page).get_by_role("alert")).to_contain_text("The order went on meanwhile")
    expect(dialog(page).get_by_role("alert")).to_contain_text("WO-10300")
    expect(dialog(page).get_by_role("alert")).not_to_contain_text("decided meanwhile")
    expect(send).to_be_enabled()


def test_merging_is_offered_into_orders_of_the_same_asset_or_line_alone(
    opened: Open, plant: Plant, dialog: Any
) -> None:
    """Found in review: it offered every open order, chose another line's, and the API refused it."""
    plant.cloud.orders["lw-19e4d0c7b2aa"] |= {"status": "closed"}
    page = opened("Anna Approver")
    asked(page, WINDOW, "m")

    expect(dialog(page).get_by_role("radio")).to_have_count(1)
    offered = dialog(page).get_by_role("radio")
    assert offered.get_attribute("value") == CREATED, "the one other open order of line-2"
    expect(offered).not_to_be_checked()
    page.get_by_label("Reason").fill("the same repair")
    dialog(page).get_by_role("button", name="Merge", exact=True).click()
    expect(dialog(page)).to_be_visible()
    assert plant.cloud.decided == [], "nothing is chosen for anybody on another asset"
    offered.check()
    dialog(page).get_by_role("button", name="Merge", exact=True).click()
    expect(dialog(page)).to_have_count(0)
    assert plant.cloud.orders[WINDOW]["merged_into"] == CREATED


def test_where_there_is_nothing_to_merge_into_it_is_said_and_the_button_is_off(
    opened: Open, plant: Plant, dialog: Any
) -> None:
    plant.cloud.add(work_order("lw-a10ne", asset_id="X-1", line="line-9"))
    page = opened("Anna Approver")
    expect(page.locator("[data-reference=lw-a10ne]")).to_be_visible()
    asked(page, "lw-a10ne", "m")

    expect(dialog(page)).to_contain_text("no other open order of this asset or this line")
    expect(dialog(page).get_by_role("button", name="Merge", exact=True)).to_be_disabled()
