# SPDX-License-Identifier: Apache-2.0
"""Debian's Chromium, driven by Playwright: nothing is fetched when a test runs."""

import contextlib
import os
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, Playwright


def found() -> str:
    """Chromium's path; empty where this machine has none."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or ""


@contextlib.contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    """A headless browser. The tests may run as root in a container, where Chromium's own sandbox can't be had."""
    browser = playwright.chromium.launch(
        executable_path=found(), timeout=120_000, args=["--no-sandbox", "--disable-dev-shm-usage"]
    )
    try:
        yield browser
    finally:
        browser.close()
