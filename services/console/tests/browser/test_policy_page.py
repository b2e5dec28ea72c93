# SPDX-License-Identifier: Apache-2.0
"""The policy on the page: everybody reads it, an administrator puts another one, and the cloud's own reader says what is wrong."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import scene
from accessibility import faults
from playwright.sync_api import Locator, Page, expect
from supervisors import Open, Plant, Watch


def dialog(page: Page) -> Locator:
    return page.locator("dialog[open]")


@pytest.fixture
def editor(opened: Open) -> Callable[..., Page]:
    def open_with(size: tuple[int, int] = (1440, 900), **changes: Any) -> Page:
        """The page with the document changed in it, as an administrator types it."""
        page = opened("Ada Admin", "#/policy", size=size)
        expect(page.get_by_label("The document")).to_have_value(
            json.dumps(scene.RELEASED, indent=2, ensure_ascii=False)
        )
        if changes:
            page.get_by_label("The document").fill(json.dumps(scene.RELEASED | changes, indent=2))
        return page

    return open_with


def test_everybody_reads_the_policy_and_only_an_administrator_changes_it(opened: Open, plant: Plant) -> None:
    plant.cloud.record("policy", "put", "Ada Admin", {"version": "1.9.0", "digest": "sha256:" + "0" * 64})
    for name in ("Vera Viewer", "Anna Approver"):
        page = opened(name, "#/orders")
        page.get_by_role("link", name="Policy").click()
        expect(page.get_by_role("heading", name="Version 2.0.0 holds")).to_be_visible()
        for text in ("4 of the last 5 parts", "above 0.80, off below 0.70", "5 of an asset in 24 h", "after 72 h it is rejected", "1.9.0 by Ada Admin"):  # fmt: skip
            expect(page.locator("#view")).to_contain_text(text)
        expect(page.locator("pre")).to_contain_text('"hpc-degradation"')
        assert page.locator("textarea").count() == 0
        assert page.get_by_role("button", name="See what changes").count() == 0


def test_administrator_puts_a_policy_after_a_look_at_what_changes(
    editor: Callable[..., Page], opened: Open, plant: Plant
) -> None:
    page = editor(version="2.1.0", needed=5, quiet_hours=[])
    page.get_by_role("button", name="See what changes").click()
    changes = dialog(page).get_by_role("row")
    expect(changes).to_have_text(["PlaceNowThen", 'version"2.0.0""2.1.0"', "needed45"])
    expect(dialog(page)).to_contain_text("Version 2.1.0 decides instead of 2.0.0")
    assert faults(page) == []
    assert plant.cloud.reports["policy"]["version"] == "2.0.0", "nothing is put before it is confirmed"
    dialog(page).get_by_role("button", name="Put this policy").click()

    expect(page.get_by_role("heading", name="Version 2.1.0 holds")).to_be_visible()
    expect(page.locator(".policy")).to_contain_text("5 of the last 5 parts")
    expect(page.locator(".policy")).to_contain_text("2.1.0 by Ada Admin")
    assert plant.cloud.reports["policy"]["document"]["needed"] == 5
    page.evaluate("location.hash = '#/audit'")
    expect(page.locator(".audit")).to_contain_text("put_policy")
    expect(page.locator(".audit")).to_contain_text("taken")


def test_what_the_cloud_refuses_is_told_at_the_document_with_the_field_chosen(
    editor: Callable[..., Page], plant: Plant, watch: Watch
) -> None:
    watch.allowed.append("400")
    page = editor(version="2.1.0", needed=9, clear_after=0)
    page.get_by_role("button", name="See what changes").click()
    dialog(page).get_by_role("button", name="Put this policy").click()

    expect(dialog(page)).to_have_count(0)
    problem = page.locator("#policy-problem span")
    expect(problem).to_contain_text("needed: must be a whole number from 1 to 5, got 9")
    told = problem.inner_text().splitlines()
    assert [line.partition(":")[0] for line in told] == ["needed", "clear_after"], "a line each"
    text = page.get_by_label("The document")
    expect(text).to_have_attribute("aria-invalid", "true")
    assert text.evaluate("(one) => one.value.slice(one.selectionStart, one.selectionEnd)") == '"needed"'
    assert '"needed": 9' in text.input_value(), "what was written stays"
    assert plant.cloud.reports["policy"]["version"] == "2.0.0"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ('{"version": ', "This is no JSON"),
        (json.dumps(scene.RELEASED), "Nothing is changed"),
        (json.dumps(scene.RELEASED | {"needed": 5}), "version: is still that of the policy that holds"),
    ],
    ids=["no JSON", "no change", "no version"],
)
def test_what_can_be_no_policy_is_told_before_anything_is_asked(
    editor: Callable[..., Page], typed: str, told: str
) -> None:
    page = editor()
    page.get_by_label("The document").fill(typed)
    page.get_by_role("button", name="See what changes").click()

    expect(page.locator("#policy-problem")).to_contain_text(told)
    expect(dialog(page)).to_have_count(0)


def test_a_key_that_is_there_twice_reaches_the_clouds_reader(
    editor: Callable[..., Page], watch: Watch
) -> None:
    """A browser's own reader takes the last of the two: the text goes as it was written."""
    watch.allowed.append("400")
    page = editor()
    text = json.dumps(scene.RELEASED | {"version": "2.1.0"})
    page.get_by_label("The document").fill(text.replace('"needed": 4', '"needed": 5, "needed": 4'))
    page.get_by_role("button", name="See what changes").click()
    dialog(page).get_by_role("button", name="Put this policy").click()

    expect(page.locator("#policy-problem")).to_contain_text("needed: is there twice")


def test_of_two_administrators_the_second_is_told_of_the_first(
    editor: Callable[..., Page], plant: Plant, watch: Watch
) -> None:
    watch.allowed.append("409")
    page = editor(version="2.1.0", needed=5)
    page.get_by_role("button", name="See what changes").click()
    plant.cloud.reports["policy"] |= {"version": "2.0.9", "digest": "sha256:" + "9" * 64}
    dialog(page).get_by_role("button", name="Put this policy").click()

    expect(dialog(page).get_by_role("alert")).to_contain_text("somebody put another policy meanwhile: version 2.0.9 holds now")  # fmt: skip
    assert plant.cloud.reports["policy"]["version"] == "2.0.9"


@pytest.mark.parametrize("size", [(360, 780), (1440, 900), (1920, 1080)])
def test_page_of_the_policy_is_accessible_and_no_wider_than_the_screen(
    editor: Callable[..., Page], size: tuple[int, int]
) -> None:
    page = editor(size)

    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
