# SPDX-License-Identifier: Apache-2.0
"""What an order does not show is said where one looks for it."""

import scene
from playwright.sync_api import expect
from supervisors import Open, Plant

FRAME, WINDOW = scene.WAITING_FRAME, scene.WAITING_WINDOW


def test_files_that_the_order_has_no_room_for_are_counted_on_it_and_on_its_timeline(
    opened: Open, plant: Plant
) -> None:
    plant.cloud.orders[FRAME] |= {"evidence_left_out": 1212}
    plant.cloud.orders[WINDOW] |= {"evidence_left_out": 1}
    page = opened("Vera Viewer", f"#/orders/{FRAME}")

    told = page.locator(".notice.left-out")
    expect(told).to_contain_text("1,212 more files of these parts are not shown")
    expect(told).to_contain_text("more pictures or windows than one order can name")
    expect(told).to_contain_text("this order keeps none of them")
    plant.cloud.parts[FRAME] = [{"event_id": "0198-1", "result": "NG", "evidence": [], "model": {}}]
    page.keyboard.press("w")
    expect(page.locator(".timeline .notice.left-out")).to_contain_text("1,212 more files")

    page.evaluate("(hash) => { location.hash = hash; }", f"#/orders/{WINDOW}")
    expect(told).to_contain_text("1 more file of these parts is not shown")


def test_timeline_of_an_order_that_the_list_has_no_more_says_it_too(opened: Open, plant: Plant) -> None:
    plant.cloud.orders[FRAME] |= {"evidence_left_out": 7}
    plant.cloud.parts[FRAME] = [{"event_id": "0198-1", "result": "NG", "evidence": [], "model": {}}]
    page = opened("Vera Viewer", "#/device")
    page.evaluate("JSON.parse = ((parse) => (text) => { const told = parse(text); if (told?.orders?.length) told.orders = []; return told; })(JSON.parse)")  # fmt: skip
    plant.cloud.suppressed += 1  # news: the list comes again, and this page leaves its orders out
    page.evaluate("location.hash = '#/orders'")
    expect(page.locator(".row")).to_have_count(0)

    page.evaluate("(hash) => { location.hash = hash; }", f"#/orders/{FRAME}/why")

    expect(page.locator(".timeline .notice.left-out")).to_contain_text("7 more files")
    expect(page.locator(".why-head h1")).to_contain_text("Stringer cracks cells")


def test_an_order_that_names_everything_says_nothing_of_it(opened: Open, plant: Plant) -> None:
    page = opened("Vera Viewer", f"#/orders/{FRAME}")

    expect(page.get_by_role("button", name="Frame 1 of 4")).to_be_visible()
    expect(page.locator("#view")).not_to_contain_text("not shown")
    expect(page.locator("#view")).not_to_contain_text("of 4 pictures")


def test_only_the_newest_pictures_are_on_the_page_and_it_says_of_how_many(opened: Open, plant: Plant) -> None:
    frames = [one for one in plant.cloud.orders[FRAME]["evidence"] if one["kind"] == "frame"]
    plant.cloud.orders[FRAME] |= {"evidence": frames * 3}
    page = opened("Vera Viewer", f"#/orders/{FRAME}")

    expect(page.get_by_role("button", name="Frame 8 of 8")).to_be_visible()
    expect(page.locator(".order-page")).to_contain_text("The newest 8 of 12 pictures")
