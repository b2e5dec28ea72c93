# SPDX-License-Identifier: Apache-2.0
"""Takes pictures of a console that shows tests/browser/scene.py: `python …/pictures.py FOLDER`.

--docs makes the four of docs/ anew from it. Those that are committed show a running `make demo`, but for the accuracy,
which a demo of minutes has none of: `pictures.py docs --url http://127.0.0.1:8080 --at "dark=#/=console,…"`.
Needs Chromium (`/usr/bin/chromium`, or CHROMIUM names it).
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of this file is there by itself

import paho.mqtt.client as paho
import scene
from chromium import launched
from console_process import DEADLINE_S, Broker, CloudServer, begun, ended, environment_in, free_port, wait_for
from console_stand_in import StandInCloud
from playwright.sync_api import Browser, sync_playwright

from linewatch_runtime.mqtt_client import SessionClient

VIEWS = {
    "board": "#/", "wall": "#/wall", "orders": "#/orders", "order": f"#/orders/{scene.WAITING_FRAME}", "machine": f"#/orders/{scene.WAITING_WINDOW}",
    "why": f"#/orders/{scene.CREATED}/why", "accuracy": "#/accuracy", "device": "#/device",
}  # fmt: skip
SIZES = {
    "dark": (1440, 900, "dark"),
    "light": (1440, 900, "light"),
    "phone": (390, 844, "dark"),
    "phone-light": (360, 780, "light"),
    "wall": (1920, 1080, "dark"),
    "tall": (1200, 1600, "dark"),
}
LOADED = """!document.querySelector('.loading:not([hidden])') && document.querySelector('.links .link')
  && [...document.images].every((one) => one.complete || one.loading === 'lazy')"""
DOCS = {"console": "board", "console-orders": "orders", "console-why": "why", "console-accuracy": "accuracy"}


@contextlib.contextmanager
def shown_scene() -> Iterator[str]:
    """A console with the scene on its broker and in its cloud; its address."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker, cloud = Broker(free_port(), folder / "broker"), CloudServer(StandInCloud(), free_port())
        (folder / "broker").mkdir()
        (folder / "console").mkdir()
        broker.start()
        cloud.start()
        environment = environment_in(folder / "console") | {
            "CONSOLE_MQTT_PORT": str(broker.port), "CONSOLE_CLOUD_API_URL": f"http://127.0.0.1:{cloud.port}",
            "CONSOLE_CLOUD_API_TOKEN_FILE": str(folder / "console" / "token"), "CONSOLE_OPERATOR_NAME": "M. Keller", "CONSOLE_STALE_AFTER_S": "600",
        }  # fmt: skip
        console = begun(environment)
        try:
            wait_for("the broker", lambda: console.http.get("/healthz").json()["broker"] == "connected")
            scene.raise_orders(cloud.stand_in, console.evidence_dir)
            client = SessionClient(paho.CallbackAPIVersion.VERSION2, "feeder", protocol=paho.MQTTv5)
            client.connect("127.0.0.1", broker.port)
            client.loop_start()

            def publish(topic: str, payload: Any) -> None:
                content = json.dumps(payload).encode() if isinstance(payload, dict) else payload
                client.publish(topic, content, qos=1, retain=topic.endswith("/status")).wait_for_publish(
                    DEADLINE_S
                )

            scene.play(publish, console.evidence_dir)
            yield console.url
            client.close()
        finally:
            ended(console)
            cloud.stop()
            broker.stop()


def take(browser: Browser, url: str, size: str, address: str, path: Path, *, session: Any = None) -> None:
    """One picture, once nothing on it loads any more. A phone's is as long as the page."""
    width, height, theme = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=theme,
        reduced_motion="reduce",
        storage_state=session,
    )
    page = context.new_page()
    page.goto(f"{url}/{address}")
    page.wait_for_selector("#view > *")
    wait_for("nothing loads", lambda: page.evaluate(LOADED))
    page.wait_for_load_state("load")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_timeout(300)
    page.screenshot(path=path, full_page=size.startswith("phone"))
    context.close()


def session_at(browser: Browser, url: str, user: str, password: str) -> Any:
    """Signs in at somebody's console; the cookies."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/login")
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")
    page.wait_for_selector("#me .role")
    session = context.storage_state()
    context.close()
    return session


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--only", default="", help="SIZE-VIEW, several by commas")
    parser.add_argument(
        "--at",
        default="",
        help="SIZE=ADDRESS=NAME of a console that runs, such as dark=#/orders=console-orders",
    )
    parser.add_argument(
        "--url", default="", help="that console; its user comes from LINEWATCH_USER, _PASSWORD"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    scenery = contextlib.nullcontext(options.url) if options.url else shown_scene()
    with scenery as url, sync_playwright() as playwright, launched(playwright) as browser:
        if options.url:
            session = session_at(browser, url, os.environ["LINEWATCH_USER"], os.environ["LINEWATCH_PASSWORD"])
            for one in options.at.split(","):
                size, address, name = one.split("=")
                take(browser, url, size, address, options.folder / f"{name}.png", session=session)
            return
        wanted = {f"{size}-{view}": (size, view) for size in SIZES for view in VIEWS}
        if options.docs:
            wanted = {name: ("dark", view) for name, view in DOCS.items()}
        elif options.only:
            wanted = {name: wanted[name] for name in options.only.split(",")}
        for name, (size, view) in wanted.items():
            take(browser, url, size, VIEWS[view], options.folder / f"{name}.png")


if __name__ == "__main__":
    main()
