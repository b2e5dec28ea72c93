# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md is what `make faults` counted: every fault test has its row, and every row is of a test."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
SHORT = PAGE.partition("<!-- faults: begin -->")[2].partition("<!-- faults: end -->")[0]
TESTS = {
    f"{path.name}::{name}"
    for path in (ROOT / "tests" / "faults").glob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    if "pytest.mark.faults" in path.read_text()
} | {
    f"{path.name}::{name}::runTest"
    for path in (ROOT / "tests" / "faults").glob("test_*.py")
    for name in re.findall(r"^(Test\w+) = ", path.read_text(), re.MULTILINE)
}


def rows(text: str) -> list[tuple[str, list[str]]]:
    """The tables' rows: the test's name without its parameters, and the cells behind it."""
    found = re.findall(r"^\| `([^`[]+)(?:\[[^`]*\])?` \|(.*)\|$", text, re.MULTILINE)
    return [(name, [cell.strip() for cell in cells.split("|")]) for name, cells in found]


def test_short_table_has_every_fault_test_and_no_other() -> None:
    assert {name for name, _ in rows(SHORT)} == TESTS


def test_no_row_tells_of_a_loss_and_every_control_lost_something() -> None:
    told = rows(PAGE)

    assert told
    for name, (_, lost, doubled, control, *_) in told:
        assert lost in {"", "0"}, name
        assert doubled in {"", "0"}, name
        assert control != "0", f"{name}: its control lost nothing, so the test is blind"
