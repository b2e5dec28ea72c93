# SPDX-License-Identifier: Apache-2.0
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import chromium
import scene
from console_process import Broker, CloudServer, Console, begun, ended, environment_in, hears
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as NotInTime
from supervisors import DEADLINE_MS, Open, Plant, Watch, looked_again, sign_in, zone_at


def is_there(element: Locator) -> bool:
    try:
        element.wait_for(timeout=15_000)
    except NotInTime:
        return False
    return True


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not chromium.found():
        pytest.skip("no Chromium on this machine: apt-get install chromium, or let CHROMIUM name one")
    with sync_playwright() as playwright, chromium.launched(playwright) as launched:
        yield launched


@pytest.fixture(scope="module")
def line_plant(
    browser: Browser, broker: Broker, cloud_server: CloudServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("console")
    (folder / "state").mkdir()
    environment = environment_in(folder) | {
        "CONSOLE_MQTT_PORT": str(broker.port),
        "CONSOLE_CLOUD_API_URL": f"http://127.0.0.1:{cloud_server.port}",
        "CONSOLE_CLOUD_API_TOKEN_FILE": str(folder / "token"),
        "CONSOLE_USERS_FILE": str(folder / "users.json"),
        "CONSOLE_STATE_DIR": str(folder / "state"),
        "CONSOLE_STALE_AFTER_S": "600",
    }
    unused = Console(0, Path(environment["CONSOLE_EVIDENCE_DIR"]), None)  # type: ignore[arg-type]
    plant = Plant(unused, cloud_server, folder / "users.json")
    plant.sign_up()
    plant.console = begun(environment)
    hears(plant.console)
    yield plant
    ended(plant.console)


@pytest.fixture
def plant(line_plant: Plant, cloud: CloudServer) -> Plant:
    """The module's plant with the orders of the scene, as they were raised."""
    line_plant.sign_up()
    scene.raise_orders(cloud.stand_in, line_plant.console.evidence_dir)
    if cloud.server is None:
        cloud.start()
    return line_plant


@pytest.fixture
def watch(plant: Plant) -> Iterator[Watch]:
    watching = Watch(plant.console.url)
    yield watching
    assert watching.seen == [], "the page complained"


@pytest.fixture
def opened(browser: Browser, plant: Plant, watch: Watch) -> Iterator[Open]:
    """Signs somebody in, in a browser of their own, and opens an address.

    `hour`: of the local day there. Times of another day are longer, so what a page looks like must not hang on when
    the tests run. `zone`: a time zone by name instead. `script`: runs before the page's own.
    """
    contexts = []

    def begin(
        name: str = "Anna Approver",
        address: str = "#/",
        *,
        size: tuple[int, int] = (1440, 900),
        theme: str = "dark",
        hour: int = 14,
        zone: str | None = None,
        script: str | None = None,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=theme, reduced_motion="reduce",
            storage_state=plant.sessions.get(name), timezone_id=zone or zone_at(hour),
        )  # fmt: skip
        contexts.append(context)
        looked_again(plant.cloud)
        context.set_default_timeout(DEADLINE_MS)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        watch.over(page)
        if name in plant.sessions:
            page.goto(f"{plant.console.url}/{address}")
        else:
            sign_in(page, name, plant.console.url, address)
        expect(page.locator("#me .operator")).to_have_text(name)
        plant.sessions[name] = context.storage_state()
        cloud_link = page.locator(".link", has_text="Cloud")
        # A script that Chromium dropped while it loaded is not asked for again but by a reload.
        while not is_there(cloud_link) and watch.network_changes:
            watch.network_changes = 0
            page.reload()
        expect(cloud_link).to_contain_text("reachable")
        return page

    yield begin
    for context in contexts:
        context.close()
