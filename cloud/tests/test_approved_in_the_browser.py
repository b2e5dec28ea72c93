# SPDX-License-Identifier: Apache-2.0
"""The page, the console, the cloud's API and the ERP as one: what a supervisor approves in a browser is one order there."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_line import Eventually, Line
from test_consequences import Case, quiet_now

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "console" / "tests"))
sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "console" / "tests" / "browser"))

import chromium
from console_process import Console, begun, ended, environment_in
from patient_console import patient
from playwright.sync_api import Page, expect, sync_playwright

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from work_orders.sweep import sweep
from work_orders.wiring import desk_of

DEADLINE_MS = 60_000


def offered(page: Page, what: str) -> None:
    """The decision can be taken: the page knows who reads it and that the cloud answers. It shows the order before that."""
    expect(page.locator(f".order-decide [data-what={what}]")).to_be_enabled()


@pytest.fixture
def console(cloud: StandinCloud, tmp_path: Path) -> Iterator[Console]:
    environment = environment_in(tmp_path) | {
        "CONSOLE_CLOUD_API_URL": cloud.api_url,
        "CONSOLE_CLOUD_API_TOKEN_FILE": str(tmp_path / "token"),
        "CONSOLE_STATE_DIR": str(tmp_path),
        "CONSOLE_OPERATOR_NAME": "M. Keller",
    }
    (tmp_path / "token").write_text(cloud.api_token)
    started = begun(patient(environment, tmp_path / "patient"))
    yield started
    ended(started)


@pytest.mark.skipif(
    not chromium.found(),
    reason="no Chromium on this machine: apt-get install chromium, or let CHROMIUM name one",
)
def test_an_order_approved_in_the_browser_is_one_order_in_the_erp(
    cloud: StandinCloud, erp: ErpClient, machine: Line, console: Console, eventually: Eventually
) -> None:
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    order = eventually(lambda: machine.order("awaiting_approval"), "the order")
    eventually(machine.all_decided, "the rest")
    reference = order["reference"]
    complaints: list[str] = []

    with sync_playwright() as playwright, chromium.launched(playwright) as browser:
        page = browser.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.set_default_timeout(DEADLINE_MS)
        expect.set_options(timeout=DEADLINE_MS)
        page.goto(f"{console.url}/#/orders/{reference}")
        expect(page.locator(".order-title h1")).to_contain_text("compressor")
        expect(page.locator(".persistence")).to_have_attribute("aria-label", re.compile("over 0.50"))
        offered(page, "approve")
        page.keyboard.press("a")
        page.keyboard.type("heard it on the line")
        page.keyboard.press("Control+Enter")
        expect(page.locator("dialog[open]")).to_have_count(
            0
        )  # the list may tell of it before the answer is there
        expect(page.locator(".order-strip")).to_contain_text("In the ERP")
        in_erp = [one for one in erp.orders() if one["external_reference"] == reference]
        expect(page.locator(".order-strip")).to_contain_text(in_erp[0]["id"])

        page.keyboard.press("w")
        expect(page.locator(".verdict-badge")).to_contain_text("Verified")
        for text in (
            "M. Keller",
            "heard it on the line",
            in_erp[0]["id"],
            f"Policy {order['policy_version']}",
        ):
            expect(page.locator(".timeline")).to_contain_text(text)

        # Found on the demo: answers of the ERP were shown as none.
        assert "201" in page.locator(".calls .chip.ok").all_text_contents()

        page.keyboard.press("u")
        offered(page, "close")
        page.keyboard.press("c")
        page.get_by_text("Confirmed", exact=True).click()
        page.keyboard.press("Control+Enter")
        expect(page.locator("dialog[open]")).to_have_count(0)
        expect(page.locator(".order-strip")).to_contain_text("Confirmed")
        page.goto(f"{console.url}/#/accuracy")
        expect(page.locator(".tally.big")).to_contain_text("judged orders were confirmed")
        browser.close()

    assert len(in_erp) == 1
    assert machine.orders()[0]["decided_by"] == "M. Keller"
    # What the page can't have: pictures of parts that are not on this machine.
    assert [one for one in complaints if "evidence" not in one and "404" not in one] == []


@pytest.mark.skipif(
    not chromium.found(),
    reason="no Chromium on this machine: apt-get install chromium, or let CHROMIUM name one",
)
def test_a_held_order_approved_in_the_browser_is_one_order_in_the_erp_and_the_sweep_makes_no_second(
    environment: dict[str, str], erp: ErpClient, machine: Line, console: Console
) -> None:
    desk = desk_of({**environment, "LEASE_S": "1", "PILOT_MODE": "policy"})
    case = Case(machine, desk, erp).with_policy(quiet_hours=[quiet_now()])
    order = case.says(0.85, 0.85, 0.85, 0.85)
    assert order is not None
    assert (order.is_held, case.in_erp()) == (True, [])

    with sync_playwright() as playwright, chromium.launched(playwright) as browser:
        page = browser.new_page()
        page.set_default_timeout(DEADLINE_MS)
        expect.set_options(timeout=DEADLINE_MS)
        page.goto(f"{console.url}/#/orders/{order.reference}")
        expect(page.locator(".notice.held")).to_contain_text("Held back by the policy's quiet hours")
        offered(page, "approve")
        page.keyboard.press("a")
        page.keyboard.type("the line stands anyway")
        page.keyboard.press("Control+Enter")
        expect(page.locator("dialog[open]")).to_have_count(
            0
        )  # the list may tell of it before the answer is there
        expect(page.locator(".order-strip")).to_contain_text("In the ERP")
        expect(page.locator(".order-strip")).to_contain_text("Decided by M. Keller")
        page.keyboard.press("w")
        expect(page.locator(".timeline")).to_contain_text("held for quiet hours until")
        expect(page.locator(".timeline")).to_contain_text("M. Keller ended its wait: the line stands anyway")
        browser.close()

    sweep(case.desk)
    assert [one["external_reference"] for one in case.in_erp()] == [order.reference]
    released = next(one for one in case.desk.records.of(order.reference) if one.what == "released")
    assert json.loads(released.detail)["audit"].startswith("sha256:")
