# SPDX-License-Identifier: Apache-2.0
"""What every fault test counts, written to build/faults.json; docs/reliability.md is made from it.

LONG=1 chooses the long forms. A test that could not run is in the file too, with its reason: counted as not run.
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[2] / "build"
LONG = os.environ.get("LONG") == "1"


@dataclass(slots=True)
class Tally:
    """One test's counts.

    Attributes:
        accepted: distinct events (or orders) that somebody was told are safe; what the test is about.
        lost: of those, how many never arrived.
        doubled: how many took effect twice: orders for work orders, rows for events. A repeat on the wire is none. None
            where nobody counted.
        control_lost: what the control beside it lost or doubled at the same crash point; None where none is needed.
        note: one line for people: kills, repeats, percentiles.
    """

    accepted: int = 0
    lost: int = 0
    doubled: int | None = None
    control_lost: int | None = None
    note: str = ""


_told: list[dict[str, object]] = []
_TALLY = pytest.StashKey[Tally]()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Fill it in; what is asserted is the test's own business."""
    made = Tally()
    request.node.stash[_TALLY] = made
    return made


@pytest.fixture
def long() -> bool:
    """Whether the long form runs."""
    return LONG


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call" or (report.when == "setup" and not report.passed):
        counts = asdict(item.stash.get(_TALLY, Tally()))
        outcome = (
            report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else report.outcome
        )
        name = item.nodeid.removeprefix("tests/faults/")
        _told.append({"name": name, "outcome": outcome, **counts, "seconds": round(call.duration, 1)})
    return report


def pytest_sessionfinish() -> None:
    """`make faults` begins with no file; a part that is run alone replaces its own rows."""
    if not _told:
        return
    BUILD.mkdir(exist_ok=True)
    path = BUILD / ("faults-long.json" if LONG else "faults.json")
    before = json.loads(path.read_text())["tests"] if path.exists() else []
    where = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    day = time.strftime("%Y-%m-%d", time.gmtime())
    rows = {test["name"]: test for test in before}
    rows |= {str(test["name"]): {**test, "at": day, "machine": where} for test in _told}
    path.write_text(json.dumps({"tests": [rows[name] for name in sorted(rows)]}, indent=1) + "\n")
