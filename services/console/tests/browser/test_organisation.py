# SPDX-License-Identifier: Apache-2.0
"""Signing in with an organisation, clicked through: a provider that others wrote, as a process, on another site than the console."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from accessibility import faults
from console_process import CloudServer, Console, answers, begun, ended, environment_in, free_port, wait_for
from console_stand_in import work_order
from playwright.sync_api import Browser, Page, Route, expect
from supervisors import DEADLINE_MS, Watch

PEOPLE = {
    "s-1": {"email": "ivanova@plant.example", "email_verified": True, "groups": ["line-leads"]},
    "s-2": {"email": "cook@plant.example", "email_verified": True, "groups": ["canteen"]},
}
ORDER = "lw-0123456789abcdef"
NO_HEAD = "not one header"
"""What the pages before signing in lack on purpose: there is nowhere to go."""


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """oidc-provider-mock's address. By name: the console is reached by number, so the two are of different sites to a browser."""
    port = free_port()
    users = [
        word
        for sub, claims in PEOPLE.items()
        for word in ("--user-claims", json.dumps({"sub": sub, **claims}))
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true", *users],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for("the provider listens", lambda: answers(port))
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def console_at_provider(
    provider: str, cloud_server: CloudServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    (folder / "client-secret").write_text("the client's secret")
    environment = environment_in(folder) | {
        "CONSOLE_CLOUD_API_URL": f"http://127.0.0.1:{cloud_server.port}",
        "CONSOLE_CLOUD_API_TOKEN_FILE": str(folder / "token"),
        "CONSOLE_OIDC_ISSUER": provider,
        "CONSOLE_OIDC_CLIENT_ID": "linewatch",
        "CONSOLE_OIDC_CLIENT_SECRET_FILE": str(folder / "client-secret"),
        "CONSOLE_OIDC_ROLE_CLAIM": "groups",
        "CONSOLE_OIDC_ROLE_MAP": "line-leads=approver",
    }
    environment["CONSOLE_PUBLIC_URL"] = f"http://127.0.0.1:{environment['CONSOLE_PORT']}"
    console = begun(environment)
    yield console
    ended(console)


@pytest.fixture
def page(browser: Browser, console_at_provider: Console, provider: str, cloud: CloudServer) -> Iterator[Page]:
    """A browser that nobody signed in with; an order waits."""
    cloud.stand_in.add(work_order(ORDER))
    context = browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(DEADLINE_MS)

    def at_home(route: Route) -> None:
        """The provider's own pages ask for a style sheet of another host: nothing leaves this machine."""
        if route.request.url.startswith((console_at_provider.url, provider)):
            route.continue_()
        else:
            route.abort()

    context.route("**/*", at_home)
    yield context.new_page()
    context.close()


@pytest.fixture
def leads_there(page: Page, console_at_provider: Console) -> Callable[[str], None]:
    def lead(address: str = "") -> None:
        """Opens an address of the console and goes from its page to the provider's."""
        page.goto(f"{console_at_provider.url}/{address}")
        expect(page).to_have_url(f"{console_at_provider.url}/login{address}")
        page.get_by_role("link", name="Sign in with your organisation").click()
        expect(page.get_by_role("heading", name="Authorize Client")).to_be_visible()

    return lead


Leads = Callable[..., None]


def test_approver_signs_in_at_the_organisation_and_decides_under_that_name(
    page: Page, leads_there: Leads, console_at_provider: Console, cloud: CloudServer
) -> None:
    watch = Watch(console_at_provider.url)
    leads_there()
    page.get_by_role("button", name="s-1", exact=True).click()
    expect(page.locator("#me .operator")).to_have_text("ivanova@plant.example")
    watch.over(page)

    expect(page.locator("#me .role")).to_have_text("approver")
    order = page.locator(f"[data-reference='{ORDER}']")
    order.get_by_role("button", name="Approve").click()
    page.locator("dialog[open]").get_by_role("button", name="Approve", exact=True).click()

    expect(order).to_contain_text("In the ERP")
    assert [one[:3] for one in cloud.stand_in.decided] == [(ORDER, "approve", "ivanova@plant.example")]
    page.reload()
    expect(page.locator("#me .operator")).to_have_text("ivanova@plant.example")
    assert watch.seen == [], "the page complained"


def test_link_of_an_announcement_leads_on_to_the_order_after_the_provider(
    page: Page, leads_there: Leads, console_at_provider: Console
) -> None:
    """Found by clicking: the fragment was lost at the provider, and the mail's link ended on the board."""
    leads_there(f"#/orders/{ORDER}")
    page.get_by_role("button", name="s-1", exact=True).click()

    expect(page.locator(".order-title h1")).to_be_visible()
    assert page.evaluate("location.hash") == f"#/orders/{ORDER}"
    page.goto("about:blank")
    page.goto(console_at_provider.url)
    expect(page.locator(".board")).to_be_visible()
    assert page.evaluate("location.hash") == "", "it leads on once"


def test_who_has_no_role_is_told_whom_to_ask_and_sees_nothing(
    page: Page, leads_there: Leads, console_at_provider: Console
) -> None:
    leads_there()
    page.get_by_role("button", name="s-2", exact=True).click()

    expect(page.get_by_role("alert")).to_contain_text("cook@plant.example has no role at this console; ask")
    expect(page.get_by_role("link", name="Sign in with your organisation")).to_be_visible()
    assert [one for one in faults(page) if one != NO_HEAD] == []
    page.goto(console_at_provider.url)
    expect(page).to_have_url(f"{console_at_provider.url}/login")


def test_who_declines_at_the_provider_is_told_so_and_can_begin_again(page: Page, leads_there: Leads) -> None:
    leads_there()
    page.get_by_role("button", name="Deny").click()

    expect(page.get_by_role("alert")).to_contain_text("declined at the identity provider (access_denied)")
    page.get_by_role("link", name="Sign in with your organisation").click()
    page.get_by_role("button", name="s-1", exact=True).click()
    expect(page.locator("#me .operator")).to_have_text("ivanova@plant.example")


def test_going_back_to_the_used_way_back_signs_nobody_in(page: Page, leads_there: Leads) -> None:
    """The Back button, or a bookmark of the address with the code."""
    used: list[str] = []
    page.on("request", lambda request: used.append(request.url) if "/oidc/callback" in request.url else None)
    leads_there()
    page.get_by_role("button", name="s-1", exact=True).click()
    expect(page.locator("#me .operator")).to_have_text("ivanova@plant.example")
    page.context.clear_cookies()

    page.goto(used[0])

    expect(page.get_by_role("alert")).to_contain_text("was not begun here, or too long ago")
    expect(page.locator("#me")).to_have_count(0)


def test_signing_out_ends_the_session_and_offers_the_providers_own_way_out(
    page: Page, leads_there: Leads, console_at_provider: Console, provider: str
) -> None:
    leads_there()
    page.get_by_role("button", name="s-1", exact=True).click()
    page.get_by_role("button", name="Sign out").click()

    expect(page.locator("main")).to_contain_text("You are signed out of this console")
    assert [one for one in faults(page) if one != NO_HEAD] == []
    page.get_by_role("link", name="Sign out of the identity provider too").click()
    expect(page.get_by_role("heading", name="End Session")).to_be_visible()
    assert page.url.startswith(provider)
    page.get_by_role("button", name="End session").click()
    expect(page).to_have_url(f"{console_at_provider.url}/login")
    page.goto(console_at_provider.url)
    expect(page).to_have_url(f"{console_at_provider.url}/login")
