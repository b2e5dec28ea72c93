# SPDX-License-Identifier: Apache-2.0
"""What others wrote reaches a terminal as text only: nothing of it moves the cursor, paints over or turns the order of signs."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from test_verifying import REFERENCE, saved

from linewatch_fleet import errors, output
from linewatch_fleet.cli import linewatch
from linewatch_fleet.printable import LOST, in_json, on_a_line, on_lines

# Back to the line above and wipe it; the window's title (OSC); the same as one C1 sign; the clipboard; right to left; invisible.
PAINTS = (
    "\x1b[1A\x1b[2K",
    "\x1b]0;all is well\x07",
    "\x9b2J",
    "\x1b]52;c;cm0=\x1b\\",
    "\u202e",
    "\u2066",
    "\u200b",
    "\x7f",
)
ALL = "".join(PAINTS)


def verify(tmp_path: Path, content: dict[str, Any], *more: str) -> Result:
    file = tmp_path / "order.json"
    file.write_text(json.dumps(content))
    return CliRunner().invoke(linewatch, ["verify", "--file", str(file), *more])


def obeyed(text: str) -> set[str]:
    """What a terminal would obey or not show."""
    return {sign for sign in text if not sign.isprintable() and sign != "\n"}


def hostile() -> dict[str, Any]:
    """An order that was changed, by somebody who does not want it seen."""
    content = saved()
    forged = f"{ALL}\n{REFERENCE}  7  as written\r"
    content["order"]["status"] = content["order"]["finding"] = content["order"]["erp_id"] = forged
    content["chains"][REFERENCE][3]["by"] = forged
    content["anchor"] = {"reference": forged, "digest": forged}
    return content


def test_a_changed_order_cannot_paint_over_its_row(tmp_path: Path) -> None:
    told = verify(tmp_path, hostile())

    assert told.exit_code == errors.UNHEALTHY
    assert obeyed(told.output) == set()
    row = next(line for line in told.stdout.splitlines() if line.startswith(REFERENCE))
    assert "CHANGED" in row
    # Nor forge a row of its own.
    assert sum(line.startswith(REFERENCE) for line in told.stdout.splitlines()) == 1


def test_a_reference_itself_is_text_only(tmp_path: Path) -> None:
    content = json.loads(json.dumps(saved()).replace(REFERENCE, "lw-\\u001b[2J\\u202e"))

    told = verify(tmp_path, content)

    assert obeyed(told.output) == set()


def test_json_says_exactly_what_was_written_and_no_terminal_obeys_it(tmp_path: Path) -> None:
    told = verify(tmp_path, hostile(), "--json")

    assert obeyed(told.stdout) == set()
    (order,) = json.loads(told.stdout)["orders"]
    assert order["anchor"] == hostile()["anchor"]


@pytest.mark.parametrize("sign", [chr(number) for number in (*range(32), *range(127, 160))])
def test_every_control_character_is_gone_from_text_and_escaped_in_json(sign: str) -> None:
    assert on_a_line(f"a{sign}b").isprintable()
    assert json.loads(in_json(json.dumps({"a": sign}, ensure_ascii=False))) == {"a": sign}


@pytest.mark.parametrize("sign", [*"\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c\ufeff\u200b", "\U000e0041", "\ud800"])  # fmt: skip
def test_what_turns_or_hides_is_replaced_in_text_and_escaped_in_json(sign: str) -> None:
    assert on_a_line(f"a{sign}b") == f"a{LOST}b"
    shown = in_json(json.dumps({"a": f"x{sign}y"}, ensure_ascii=False))
    assert shown.isprintable()
    assert json.loads(shown) == {"a": f"x{sign}y"}


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("A. Yılmaz", "Größe 5 µm — 96 %", "温度异常", "حرارة", "é", "👍"):
        assert on_a_line(text) == text
        assert in_json(text) == text
    assert on_a_line("95\u00a0%") == "95 %"
    assert on_lines("a\nb\x1b") == f"a\nb{LOST}"


def test_messages_are_text_only(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"no{ALL}\nyes")
    for error in (errors.CommandFailed, errors.BadInput, errors.GateRefused):
        error(f"no{ALL}\n  more").show(sys.stderr)

    told = capsys.readouterr().err
    assert obeyed(told) == set()
    assert told.splitlines()[0].endswith("yes")
    assert told.count("\n  more") == 3, "several lines of an error stay several"


def test_a_file_that_cannot_be_read_is_named_and_not_obeyed(tmp_path: Path) -> None:
    content = saved()
    content["format"] = ALL

    told = verify(tmp_path, content)

    assert told.exit_code == errors.USAGE
    assert obeyed(told.output) == set()
