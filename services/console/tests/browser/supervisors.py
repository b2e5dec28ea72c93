# SPDX-License-Identifier: Apache-2.0
"""Who works at the console in these tests, and what watches their pages."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from console_process import DEADLINE_S, CloudServer, Console, wait_for
from console_stand_in import StandInCloud
from playwright.sync_api import Page, expect

from linewatch_console.user_list import HASHER, User, write_users

PASSWORD = "a password for the tests"
USERS = {"Vera Viewer": "viewer", "Anna Approver": "approver", "Ben Supervisor": "approver", "Ada Admin": "admin"}  # fmt: skip
DEADLINE_MS = 1000 * DEADLINE_S

expect.set_options(timeout=DEADLINE_MS)


@dataclass
class Plant:
    """A console where people sign in, on a broker and a stand-in cloud that show the scene."""

    console: Console
    server: CloudServer
    users_file: Path
    sessions: dict[str, Any] = field(default_factory=dict)
    """Cookies of who signed in before: one sign-in a person is enough for a module."""

    @property
    def cloud(self) -> StandInCloud:
        return self.server.stand_in

    def sign_up(self, *without: str) -> None:
        users = [
            User(name=name, role=role, password=HASH) for name, role in USERS.items() if name not in without
        ]
        write_users(self.users_file, {user.name: user for user in users})


HASH = HASHER.hash(PASSWORD)


@dataclass
class Watch:
    """What a page must not do while a test looks: complain, break its policy, ask another host."""

    origin: str
    allowed: list[str] = field(default_factory=list)
    """Texts of complaints that this test provokes, such as of a server that it took away."""
    seen: list[str] = field(default_factory=list)
    network_changes: int = 0
    """What Chromium dropped because a network interface of this machine came or went, as containers' do: no word about the page."""

    def over(self, page: Page) -> None:
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.seen.append(f"error: {error}"))
        page.on("request", lambda request: self._asked(request.url))

    def _note(self, kind: str, text: str) -> None:
        if "net::ERR_NETWORK_CHANGED" in text:
            self.network_changes += 1
            return
        if kind in {"error", "warning"} and not any(one in text for one in self.allowed):
            self.seen.append(f"{kind}: {text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.origin, "data:", "blob:")):
            self.seen.append(f"left the origin: {url}")


Open = Callable[..., Page]


def looked_again(cloud: StandInCloud) -> None:
    """Returns once the console's list is of now: else a page begins with what an earlier test left in the cloud.

    A look that was under way may have read before; it is over when the one after the next begins.
    """
    seen = cloud.looks
    wait_for("the console looked", lambda: cloud.looks >= seen + 2)


def zone_at(hour: int) -> str:
    """A time zone where it is now this hour of the day."""
    east = (hour - datetime.datetime.now(datetime.UTC).hour + 11) % 24 - 11
    return f"Etc/GMT{-east:+d}"  # POSIX counts them westwards


def sign_in(page: Page, name: str, url: str, address: str = "#/") -> None:
    page.goto(f"{url}/login{address}")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
