# SPDX-License-Identifier: Apache-2.0
"""What the page promises on every view: readable, steady, usable without a mouse, honest about what is away."""

import re
import time
from typing import Any

import cv2
import numpy
import pytest
import scene
from accessibility import faults
from console_process import DEADLINE_S, CloudServer, wait_for
from console_stand_in import work_order
from playwright.sync_api import Browser, Page, Route, expect
from supervisors import Open, Plant, Watch, sign_in

VIEWS = {
    "board": "#/", "wall": "#/wall", "orders": "#/orders", "order": f"#/orders/{scene.WAITING_FRAME}", "machine": f"#/orders/{scene.WAITING_WINDOW}",
    "why": f"#/orders/{scene.CREATED}/why", "accuracy": "#/accuracy", "device": "#/device", "audit": "#/audit",
}  # fmt: skip
WIDTHS = (360, 390, 600, 768, 900, 1024, 1200, 1440, 1920)
READY = {
    "board": ".order", "wall": ".tile", "orders": ".row", "order": ".places", "machine": ".channel", "why": ".step", "accuracy": ".candidates",
    "device": ".card", "audit": ".audit",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def line(line_plant: Plant, broker: Any) -> None:
    """A shift on both lines, once for the module."""
    import json

    import paho.mqtt.client as paho

    from linewatch_runtime.mqtt_client import SessionClient

    client = SessionClient(paho.CallbackAPIVersion.VERSION2, "feeder", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()

    def send(topic: str, payload: bytes | dict[str, Any]) -> None:
        content = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        client.publish(topic, content, qos=1, retain=topic.endswith("/status")).wait_for_publish(DEADLINE_S)

    scene.play(send, line_plant.console.evidence_dir)
    client.close()


@pytest.fixture(params=VIEWS)
def view(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def turn_to(page: Page, view: str) -> None:
    page.evaluate("(hash) => { location.hash = hash; }", VIEWS[view])
    expect(page.locator(READY[view]).first).to_be_visible()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_view_is_accessible(opened: Open, theme: str) -> None:
    page = opened("Ada Admin", theme=theme)
    found = {}
    for view in VIEWS:
        turn_to(page, view)
        found |= {view: wrong} if (wrong := faults(page)) else {}
    turn_to(page, "board")
    page.keyboard.press("?")
    found |= {"help": wrong} if (wrong := faults(page)) else {}

    assert found == {}


def test_a_page_that_is_not_accessible_is_found_out(opened: Open) -> None:
    """The control: each kind of fault, put in."""
    page = opened("Ada Admin")
    page.evaluate(
        """() => {
        const put = (tag, act) => { const one = document.createElement(tag); act(one); document.querySelector("main").append(one); };
        put("p", (one) => { one.textContent = "grey on grey"; one.style.color = "#333"; });
        put("button", (one) => { one.style.padding = 0; one.style.width = "9px"; });
        put("img", () => {});
        put("p", (one) => { one.id = "me"; });
        put("h4", (one) => { one.textContent = "too deep"; });
        put("div", (one) => { one.tabIndex = 3; });
      }"""
    )

    text = "\n".join(faults(page))

    for fault in ("contrast", "no name: button", "smaller than 24 px", "no alt", "id twice: me", "heading 4", "tabindex 3"):  # fmt: skip
        assert fault in text


@pytest.mark.parametrize("hour", [0, 14])
def test_nothing_is_wider_than_the_screen(opened: Open, hour: int) -> None:
    """Soon after midnight all that happened today was yesterday, and says so."""
    page = opened("Ada Admin", hour=hour)
    wide = {}
    for view in VIEWS:
        turn_to(page, view)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")  # fmt: skip
            wide |= {f"{view} at {width}": over} if over > 0 else {}
        page.set_viewport_size({"width": 1440, "height": 900})

    assert wide == {}


def test_device_names_the_versions_that_lie_ready_for_a_rollback(opened: Open) -> None:
    page = opened(address="#/device")

    expect(page.locator(".resting")).to_have_text(
        "On the device, not serving: pv-el-cells 0.9.1, 0.9.0; turbofan 0.8.0 and 2 more."
    )


# Each text that leaves its place, or lies on another: a place that scrolls, or ends a text in dots, is in order.
MISPLACED = """() => {
  const found = new Set(), texts = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, words = text.textContent.trim(), parent = text.parentElement;
    if (!words || !parent.checkVisibility({ visibilityProperty: true }) || parent.closest("svg, .unseen, .stage, .order-decide")) continue;
    const all = document.createRange();
    all.selectNodeContents(text);
    let seen = null;
    for (let place = parent; !seen && place !== document.body; place = place.parentElement) {
      const style = getComputedStyle(place), box = place.getBoundingClientRect();
      if (style.overflowX !== "visible") seen = box;
      if (["auto", "scroll"].includes(style.overflowX) || style.textOverflow === "ellipsis") break;
      if (style.display === "inline" || style.position === "absolute") continue;
      const told = all.getBoundingClientRect();
      if (told.right > box.right + 1.5 || told.left < box.left - 1.5) { found.add(`"${words}" leaves ${place.className || place.tagName}`); break; }
    }
    for (const { left, right, top, bottom } of all.getClientRects()) {
      const inside = { text, words, left: Math.max(left, seen?.left ?? left), right: Math.min(right, seen?.right ?? right), top: Math.max(top, seen?.top ?? top), bottom: Math.min(bottom, seen?.bottom ?? bottom) };
      if (inside.right - inside.left > 1 && inside.bottom - inside.top > 1) texts.push(inside);
    }
  }
  texts.forEach((a, at) => { for (const b of texts.slice(at + 1)) if (a.text !== b.text && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4) found.add(`"${a.words}" lies on "${b.words}"`); });
  return [...found];
}"""


def grow(orders: dict[str, dict[str, Any]]) -> None:
    """Times and numbers as long as they are told: days and hours, hours and minutes, thousands, a long name."""
    for order in orders.values():
        for name in ("created_at", "observed_at", "decided_at", "closed_at"):
            if order.get(name):
                order[name] = scene.at(239.9)
        for entry in (*order.get("escalations", ()), *order["history"]):
            entry["at"] = scene.at(239.9)
        if order.get("approval"):
            order["approval"] |= {"expires_at": scene.at(-239.9)}
        if order.get("decided_by"):
            order["decided_by"] = "Maximiliane Kellermann-Odermatt"
    orders[scene.HELD] |= {"hold_until": int(time.time() + 23.9 * 3600)}
    hours = {"p10": 230.9, "p50": 239.9, "p90": 23999}
    orders[scene.WAITING_WINDOW]["time_to_failure"] = {"p10": 11888, "p50": 12888, "p90": 18888, "unit": "cycle", "horizon": 20000, "hours": hours}  # fmt: skip


def test_the_longest_times_and_numbers_keep_to_their_places(opened: Open, plant: Plant) -> None:
    """At 360 px the note of a held order was wider than the screen while it had ten hours and more to go, over a midnight."""
    grow(plant.cloud.orders)
    plant.cloud.suppressed = 12_345_678
    page = opened("Ada Admin", hour=0)
    wrong: dict[str, Any] = {}
    for view in ("board", "wall", "orders", "order", "machine", "held", "device", "audit", "policy"):
        if view in VIEWS:
            turn_to(page, view)
        else:
            address, ready = {"held": (f"#/orders/{scene.HELD}", ".notice.held .when"), "policy": ("#/policy", ".policy .panel")}[view]  # fmt: skip
            page.evaluate("(hash) => { location.hash = hash; }", address)
            expect(page.locator(ready).first).to_be_visible()
        for width in (*WIDTHS, 821, 1101):
            page.set_viewport_size({"width": width, "height": 900})
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")  # fmt: skip
            misplaced = page.evaluate(MISPLACED)
            wrong |= {f"{view} at {width}": [over, *misplaced]} if over > 0 or misplaced else {}
        page.set_viewport_size({"width": 1440, "height": 900})

    assert wrong == {}


def test_at_midnight_a_time_of_today_becomes_one_of_yesterday(opened: Open) -> None:
    """A page that stayed open told of "22:29" all the next day."""
    page = opened("Vera Viewer", f"#/orders/{scene.WAITING_FRAME}")
    raised = page.locator(".order-strip .when .clock-time").first
    expect(raised).to_have_text(re.compile(r"^\d\d:\d\d$"))

    page.evaluate("() => { const real = Date; window.Date = class extends real { constructor(...all) { super(...(all.length ? all : [real.now() + 86400e3])); } }; }")  # fmt: skip

    expect(raised).to_have_text(re.compile(r"^\d{1,2} \w+ \d\d:\d\d$"))


COUNTED = """{ const parsed = JSON.parse, n = window.grownTo;
  const grown = (tile) => { tile.counts = { OK: n, NG: n, REVIEW: n, NOT_INSPECTED: n, skipped: 0, dropped: 0 };
    tile.rate_per_minute = 1179; tile.latency_p50_ms = 1112; if (tile.last) tile.last.taken_at = Date.now() / 1000 - 23.99 * 3600; };
  JSON.parse = (text) => { const content = parsed(text); for (const tile of content?.tiles ?? (content?.counts ? [content] : [])) grown(tile); return content; }; }"""
CROWDED = """() => [...document.querySelectorAll(".tile")].flatMap((list) => {
  const boxes = [...list.querySelectorAll(".figures dt, .figures dd, .scale span")].filter((one) => one.checkVisibility()).map((one) => { const all = document.createRange(); all.selectNodeContents(one); return [one.textContent, all.getBoundingClientRect()]; });
  const tile = list.getBoundingClientRect();
  const outside = boxes.filter(([, box]) => box.left < tile.left + 8 || box.right > tile.right - 8).map(([text]) => `${text} outside`);
  const near = boxes.flatMap(([text, a], n) => boxes.slice(n + 1).filter(([, b]) => a.left < b.right + 4 && b.left < a.right + 4 && a.top < b.bottom - 2 && b.top < a.bottom - 2).map(([other]) => `${text} | ${other}`));
  return [...outside, ...near]; })"""


def test_counts_of_a_tile_stay_apart_up_to_ten_million(opened: Open) -> None:
    """Found on the demo's picture: "1,0141,018" on two of the four."""
    crowded = {}
    for counted, shown in ((1014, "1,014"), (99_999, "99,999"), (100_000, "100k"), (9_999_999, "9.99M")):
        page = opened("Vera Viewer")
        page.add_init_script(f"window.grownTo = {counted}; {COUNTED}")
        page.reload()
        expect(page.locator(".tile")).to_have_count(2)
        expect(page.locator(".figures .ng dd").first).to_have_text(shown)
        expect(page.locator(".figures div:first-child dd").first).to_have_text("23 h 59 min")
        expect(page.locator(".figures .ng").first).to_have_attribute("title", f"NG: {counted:,}")
        for width in (*WIDTHS, 1280, 1680, 2560):
            page.set_viewport_size({"width": width, "height": 900})
            crowded |= {f"{counted} at {width}": wrong} if (wrong := page.evaluate(CROWDED)) else {}

    assert crowded == {}


def test_phone_has_its_bar_at_the_bottom_and_buttons_for_a_thumb(opened: Open) -> None:
    page = opened("Anna Approver", f"#/orders/{scene.WAITING_FRAME}", size=(390, 844))

    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    approve = page.get_by_role("button", name="Approve").bounding_box()
    bar = page.get_by_role("navigation", name="Views").bounding_box()

    assert approve is not None
    assert bar is not None
    assert approve["height"] >= 40
    assert approve["y"] + approve["height"] <= bar["y"] + 1
    assert bar["y"] + bar["height"] == pytest.approx(844, abs=1)


@pytest.mark.parametrize("size", [(1920, 1080), (3840, 2160)])
def test_wall_screen_fits_and_reads_from_afar(opened: Open, size: tuple[int, int]) -> None:
    page = opened("Vera Viewer", "#/wall", size=size)
    expect(page.locator(".tile .word").first).to_be_visible()

    inside = page.evaluate("[document.documentElement.scrollHeight <= innerHeight, document.documentElement.scrollWidth <= innerWidth]")  # fmt: skip
    heights = page.evaluate("[...document.querySelectorAll('.tile .word')].map((one) => parseFloat(getComputedStyle(one).fontSize))")  # fmt: skip

    assert inside == [True, True]
    # A screen of 55 inches is 685 mm high; from 5 m a letter should be 20 mm: 3 % of it. Capitals are 0.7 of the size.
    assert min(heights) * 0.7 >= size[1] * 0.03
    expect(page.locator(".top")).to_be_hidden()
    expect(page.locator(".wall-facts")).to_contain_text("2orders await approval")


RISING = """() => [...document.querySelectorAll(".tile")].flatMap((tile) => { const below = tile.querySelector(".said").getBoundingClientRect().bottom;
  return [...tile.querySelectorAll(".strip i")].map((bar) => bar.getBoundingClientRect()).filter((bar) => bar.top < below - 0.5 || bar.height < 1).length; })"""


@pytest.mark.parametrize("size", [(960, 540), (720, 450), (683, 384), (1920, 1080)])
def test_bars_of_the_last_parts_stay_below_what_is_said_of_the_part(
    opened: Open, size: tuple[int, int]
) -> None:
    """Found at 200 % zoom: a bar of 26 px rose out of its strip of 14 over the name of the file."""
    page = opened("Vera Viewer", "#/wall", size=size)
    expect(page.locator(".tile .strip i.ng").first).to_be_visible()

    assert page.evaluate(RISING) == [0, 0]


def lit_runs(page: Page, selector: str) -> int:
    """How many strokes its middle row crosses: what differs from the ground, which most of it is."""
    expect(page.locator(selector)).to_be_visible()
    # Not the element's own picture: with news it may be drawn anew, at the same place.
    box = page.evaluate("(one) => document.querySelector(one).getBoundingClientRect().toJSON()", selector)
    around = {"x": box["x"] - 3, "y": box["y"], "width": box["width"] + 6, "height": box["height"]}
    picture = page.screenshot(clip=around)  # with what is beside it: an edge may lie between two pixels
    grey = cv2.imdecode(numpy.frombuffer(picture, numpy.uint8), cv2.IMREAD_GRAYSCALE).astype(int)
    row = abs(grey[len(grey) // 2] - int(numpy.median(grey[len(grey) // 2]))) > 80
    return int(row[0]) + int(numpy.count_nonzero(row[1:] & ~row[:-1]))


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_bars_are_drawn_in_a_persons_own_colours(opened: Open, theme: str) -> None:
    """Forced colours take grounds and gradients away: of the risk bars a stroke was left, with nothing to measure it by."""
    page = opened("Anna Approver", theme=theme)
    page.emulate_media(forced_colors="active")
    strip = page.locator(".tile.camera .strip")
    expect(strip.locator(".ng").first).to_be_visible()

    assert lit_runs(page, f".order[data-reference='{scene.WAITING_WINDOW}'] .risk") == 5, (
        "both ends, both thresholds, and the risk between them"
    )
    assert lit_runs(page, ".tile.sensor .track") >= 3, "both ends, and the interval with its middle"
    drawn = strip.evaluate("(one) => [...one.querySelectorAll('i[class]')].map((bar) => getComputedStyle(bar).backgroundColor)")  # fmt: skip
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert len(drawn) >= 12
    assert set(drawn) == {ink}, "a bar is told by its height"
    page.evaluate("(hash) => { location.hash = hash; }", VIEWS["machine"])
    assert lit_runs(page, ".risk-scale .risk") == 5


def test_theme_is_chosen_and_kept(opened: Open, plant: Plant) -> None:
    page = opened("Vera Viewer", theme="dark")
    ground = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    dark = ground()
    page.emulate_media(color_scheme="light")
    light = ground()
    assert dark != light

    page.get_by_role("button", name=re.compile("^Theme")).click()
    page.get_by_role("button", name=re.compile("light")).click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert ground() == dark
    page.reload()

    assert ground() == dark
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_keys_do_nothing_while_somebody_types_or_a_dialog_is_open(opened: Open) -> None:
    page = opened("Anna Approver", "#/orders")
    page.get_by_label("Search work orders").fill("")
    page.keyboard.type("gdarw?")
    assert page.evaluate("location.hash") == "#/orders"
    expect(page.locator("dialog[open]")).to_have_count(0)

    page.get_by_label("Search work orders").fill("")
    page.keyboard.press("Enter")
    page.keyboard.press("a")
    expect(page.locator("dialog[open]")).to_be_visible()
    page.locator("#dialog-title").click()
    for key in "gdrw":
        page.keyboard.press(key)
    assert page.evaluate("location.hash") == "#/orders"
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert page.evaluate("document.activeElement.dataset.reference"), "the focus is back on the order"


def test_single_keys_can_be_switched_off(opened: Open) -> None:
    page = opened("Anna Approver")
    page.keyboard.press("?")
    page.get_by_label("Single keys do these things on this machine").uncheck()
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)

    page.keyboard.press("g")
    page.keyboard.press("d")

    assert page.evaluate("location.hash") == "#/"


def test_news_moves_nothing_and_takes_no_focus(opened: Open, plant: Plant) -> None:
    page = opened("Anna Approver", "#/orders")
    page.locator(".row").nth(1).focus()
    focused = page.evaluate("document.activeElement.dataset.reference")
    page.evaluate("document.activeElement.kept = true")
    tops = "[...document.querySelectorAll('.row')].map((row) => row.getBoundingClientRect().y)"
    before = page.evaluate(tops)
    page.evaluate(
        """() => { window.changed = new Set();
        new MutationObserver((all) => { for (const one of all) { const row = (one.target.nodeType === 1 ? one.target : one.target.parentElement)?.closest(".row");
          if (row && one.type === "childList" && !one.target.closest("time")) window.changed.add(row.dataset.reference); } }).observe(document.querySelector(".rows"), { subtree: true, childList: true }); }"""
    )

    plant.cloud.orders["lw-77aa120b93c1"] |= {"status": "created", "erp_id": "WO-10300"}
    expect(page.locator("[data-reference='lw-77aa120b93c1']")).to_contain_text("WO-10300")

    assert page.evaluate("[document.activeElement.dataset.reference, document.activeElement.kept]") == [focused, True]  # fmt: skip
    assert page.evaluate(tops) == before
    assert page.evaluate("[...window.changed]") == ["lw-77aa120b93c1"], (
        "only the row that changed is drawn anew"
    )


def test_dialog_stays_while_news_come(opened: Open, plant: Plant) -> None:
    page = opened("Anna Approver", f"#/orders/{scene.WAITING_FRAME}")
    expect(page.locator(".order-decide")).to_be_visible()
    page.keyboard.press("r")
    page.keyboard.type("half a reas")

    plant.cloud.add(work_order("lw-new", created_at=scene.at(0)))
    expect(page.locator(".badge")).to_have_text("3")

    assert page.get_by_label("Reason").input_value() == "half a reas"
    assert page.evaluate("document.activeElement.id") == "reason"


def test_two_hundred_orders_stay_in_place(opened: Open, plant: Plant) -> None:
    for number in range(200):
        plant.cloud.add(work_order(f"lw-many-{number:03d}", created_at=scene.at(100 + number), asset_name=f"asset {number}"))  # fmt: skip
    page = opened("Anna Approver", "#/orders")
    # The console looks at the newest hundred, and at all that wait.
    wait_for("the list", lambda: page.locator(".row").count() >= 100)
    count = page.locator(".row").count()
    page.evaluate("document.querySelectorAll('.row').forEach((row) => { row.kept = true; })")

    plant.cloud.orders["lw-many-000"]["risk"] = 0.79
    expect(page.locator("[data-reference='lw-many-000']")).to_contain_text("0.79")

    assert page.evaluate("[...document.querySelectorAll('.row')].filter((row) => row.kept).length") == count
    for _ in range(30):
        page.keyboard.press("j")
    assert page.evaluate("document.activeElement.dataset.reference")


def test_hostile_names_stay_text_and_long_ones_end(opened: Open, plant: Plant) -> None:
    hostile = '<img src=x onerror="document.title=1"><script>alert(1)</script>'
    plant.cloud.add(work_order("lw-hostile", asset_name=hostile, location="x" * 300, failure_type=hostile, created_at=scene.at(0)))  # fmt: skip
    page = opened("Anna Approver", "#/orders", size=(360, 780))

    row = page.locator("[data-reference='lw-hostile']")
    expect(row).to_contain_text("<img src=x")
    row.locator("h2").click()
    expect(page.locator(".order-title h1")).to_contain_text("<img src=x")

    assert page.locator("#view img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_cloud_that_goes_away_is_told_and_comes_back(opened: Open, plant: Plant, cloud: CloudServer, watch: Watch) -> None:  # fmt: skip
    watch.allowed.append("503")
    page = opened("Anna Approver", f"#/orders/{scene.WAITING_FRAME}")
    approve = page.get_by_role("button", name="Approve")
    expect(approve).to_be_enabled()

    cloud.stop()

    expect(page.locator(".notices")).to_contain_text(
        re.compile(r"The cloud is not reachable since (\d+ \w+ )?\d\d:\d\d")
    )
    expect(approve).to_be_disabled()
    expect(page.locator(".order-title h1")).to_contain_text("Stringer cracks cells")
    page.keyboard.press("a")
    expect(page.locator("dialog[open]")).to_have_count(0)
    expect(page.locator("#announce")).to_contain_text("not reachable")
    page.evaluate("location.hash = '#/accuracy'")
    expect(page.locator(".accuracy .empty")).to_contain_text("can't be shown now")

    cloud.start()

    expect(page.locator(".notices")).to_be_empty()
    expect(page.locator(".tally.big")).to_contain_text("82 of 111")
    page.go_back()
    expect(approve).to_be_enabled()


def test_an_answer_that_does_not_come_is_asked_for_again(opened: Open, plant: Plant, watch: Watch) -> None:
    """Found against the real API on a busy machine: one answer too late, and the page stood there until news came."""
    watch.allowed.append("503")
    page = opened("Vera Viewer", "#/orders")
    is_away = True

    def sometimes(route: Route) -> None:
        if is_away:
            route.fulfill(status=503, json={"error": "work orders: no answer in time"})
        else:
            route.continue_()

    for address, shown in ((VIEWS["why"], ".verdict-badge"), (VIEWS["order"], ".places"), ("#/accuracy", ".tally.big")):  # fmt: skip
        is_away = True
        page.route(re.compile(r"/api/(work-orders/|accuracy)"), sometimes)
        page.evaluate("(hash) => { location.hash = hash; }", address)
        expect(page.locator("#view")).to_contain_text("can't be shown now")
        is_away = False
        expect(page.locator(shown)).to_be_visible()
        page.unroute_all(behavior="wait")


def test_session_that_is_ended_elsewhere_is_told(opened: Open, plant: Plant, watch: Watch) -> None:
    watch.allowed.append("401")
    page = opened("Ben Supervisor", "#/orders")
    expect(page.locator(".row").first).to_be_visible()

    plant.sign_up("Ben Supervisor")

    expect(page.locator(".notices")).to_contain_text("Your session has ended")
    del plant.sessions["Ben Supervisor"]
    plant.sign_up()
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Name").fill("Ben Supervisor")
    page.get_by_label("Password").fill("a password for the tests")
    page.keyboard.press("Enter")
    expect(page.locator(".row").first).to_be_visible()
    assert page.evaluate("location.hash") == "#/orders", "one comes back to where one was"


def test_signing_out_ends_the_other_tabs(browser: Browser, plant: Plant, watch: Watch) -> None:
    watch.allowed.append("401")
    context = browser.new_context()
    first, second = context.new_page(), context.new_page()
    sign_in(first, "Vera Viewer", plant.console.url)
    expect(first.locator("#me .operator")).to_have_text("Vera Viewer")
    second.goto(plant.console.url)
    expect(second.locator(".order").first).to_be_visible()

    first.get_by_role("button", name="Sign out").click()

    expect(first.get_by_label("Password")).to_be_visible()
    expect(second.locator(".notices")).to_contain_text("Your session has ended")
    context.close()


def test_wrong_password_is_told_and_nobody_is_let_in(browser: Browser, plant: Plant, watch: Watch) -> None:
    watch.allowed.append("401")
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    watch.over(page)
    page.goto(f"{plant.console.url}/")
    assert page.url.endswith("/login")
    assert faults(page) == ["not one header"], "the sign-in page has no head; the rest is in order"
    page.get_by_label("Name").fill("Anna Approver")
    page.get_by_label("Password").fill("not the password")
    page.keyboard.press("Enter")

    expect(page.get_by_role("alert")).to_be_visible()
    assert page.get_by_label("Name").input_value() == "Anna Approver"
    context.close()


def test_states_without_content_are_told(opened: Open, plant: Plant, watch: Watch) -> None:
    watch.allowed.append("404")
    plant.cloud.orders.clear()
    page = opened("Vera Viewer")
    expect(page.locator(".orders .empty")).to_contain_text("No work orders yet")
    page.evaluate("location.hash = '#/orders/lw-unknown'")
    expect(page.locator(".empty")).to_contain_text("no such work order")
    page.evaluate("location.hash = '#/orders/lw-unknown/why'")
    expect(page.locator(".empty")).to_contain_text("no such work order")
    page.evaluate("location.hash = '#/nonsense'")
    expect(page.locator(".empty")).to_contain_text("no such page")


def test_clock_that_differs_is_told_and_ages_go_by_the_console(opened: Open) -> None:
    ahead = "{ const real = Date.now; Date.now = () => real() + 3 * 3600 * 1000; }"
    page = opened("Anna Approver", "#/orders", script=ahead)

    expect(page.locator(".notices")).to_contain_text(
        re.compile("clock is (3 h|2 h 59 min) ahead of the console's")
    )
    expect(page.locator(f"[data-reference='{scene.WAITING_WINDOW}']")).to_contain_text(
        re.compile(r"2 h 1[2-9] min ago")
    )


def test_prints_the_timeline_without_the_rest(opened: Open) -> None:
    page = opened("Vera Viewer", VIEWS["why"])
    expect(page.locator(".step").first).to_be_visible()

    page.emulate_media(media="print")

    expect(page.locator(".top")).to_be_hidden()
    expect(page.locator(".timeline")).to_be_visible()
    expect(page.locator(".raw pre").first).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_motion_is_reduced_where_it_is_asked_for(opened: Open) -> None:
    page = opened("Vera Viewer")
    expect(page.locator(".order").first).to_be_visible()
    moves = "(all) => all.filter((one) => parseFloat(getComputedStyle(one).transitionDuration) > 0).length"

    assert page.locator("*").evaluate_all(moves) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.locator("*").evaluate_all(moves) > 0
