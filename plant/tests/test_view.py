# SPDX-License-Identifier: Apache-2.0
"""What a demo prints must tell how to sign in, on a terminal and in a log."""

import asyncio
import io
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from brokers import until
from rich.console import Console

from linewatch_plant.counts import Counts
from linewatch_plant.demo import LOOK_EVERY_S, LOOKS_A_LINE, _show
from linewatch_plant.plant import Plant
from linewatch_plant.view import View, how_to_sign_in

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1:8080/"
SIGN_INS = {
    "viewer": "aaaa-bbbb-cccc-dddd",
    "approver": "eeee-ffff-gggg-hhhh",
    "admin": "jjjj-kkkk-mmmm-nnnn",
}
APPROVER = f"sign in at {URL} as approver, password eeee-ffff-gggg-hhhh"


def drawn(view: View, *, width: int = 80, height: int = 24) -> list[str]:
    """The lines of the live view on a terminal."""
    terminal = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with terminal.capture() as capture:
        terminal.print(view.draw(Counts(), {}))
    return capture.get().splitlines()


def test_the_one_who_decides_is_told_last() -> None:
    assert how_to_sign_in(URL, SIGN_INS)[-1] == APPROVER
    assert len(how_to_sign_in(URL, SIGN_INS)) == 3


def test_the_live_view_ends_with_how_to_sign_in_as_approver_on_the_narrowest_terminal() -> None:
    view = View(URL)
    assert not any("password" in line for line in drawn(view)), "nobody can sign in before the console is up"

    view.sign_ins = SIGN_INS

    lines = drawn(view)
    assert lines[-2].strip("│ ") == APPROVER
    assert len(lines) <= 24


def test_a_log_is_told_how_to_sign_in_as_soon_as_it_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Between two lines of counts: a short demo was over before the next one, and had told nobody."""

    async def counts() -> Counts:
        return Counts()

    plant = SimpleNamespace(
        console_url=URL, sign_ins={}, command=None, counts=counts, processes=SimpleNamespace(restarted=dict)
    )
    said = []

    def is_told(words: str) -> bool:
        said.extend(capsys.readouterr().out.splitlines())
        return any(words in line for line in said)

    async def story() -> None:
        shown = asyncio.create_task(_show(cast("Plant", plant), View(URL)), name="show")
        await until(lambda: is_told("parts 0 judged"), "the first line of counts")
        plant.sign_ins, plant.command = SIGN_INS, Path("build/demo/linewatch")
        await until(lambda: is_told(APPROVER), "how to sign in")
        shown.cancel()

    asyncio.run(story())

    assert len([line for line in said if "parts 0 judged" in line]) == 1, "it did not wait for the next line"
    assert LOOKS_A_LINE * LOOK_EVERY_S >= 5
    assert any("build/demo/linewatch orders list demo" in line for line in said)


def test_compose_tells_it_in_the_same_words() -> None:
    passwords = "".join(f"{name} {password}\n" for name, password in SIGN_INS.items())

    told = subprocess.run(
        [ROOT / "tools" / "containers" / "sign-in", URL],
        input=passwords,
        capture_output=True,
        text=True,
        check=True,
    )

    assert told.stdout.splitlines() == how_to_sign_in(URL, SIGN_INS)
