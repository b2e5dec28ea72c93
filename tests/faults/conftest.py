# SPDX-License-Identifier: Apache-2.0
"""What every fault test counts, written to build/faults.json; docs/reliability.md is made from it.

LONG=1 chooses the long forms. A test that could not run is in the file too, with its reason: counted as not run.
"""

import json
import os
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
        doubled: how many took effect twice: orders for work orders, rows for events. A repeat on the wire is none.
        control_lost: what the control beside it lost or doubled at the same crash point; None where none is needed.
        note: one line for people: kills, repeats, percentiles.
    """

    accepted: int = 0
    lost: int = 0
    doubled: int = 0
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
    """The file is of one run: `make faults` and `make faults LONG=1` each write their own whole."""
    if not _told:
        return
    BUILD.mkdir(exist_ok=True)
    name = "faults-long.json" if LONG else "faults.json"
    machine = {"cores": os.cpu_count(), "at": time.strftime("%Y-%m-%d", time.gmtime())}
    (BUILD / name).write_text(json.dumps({"machine": machine, "tests": _told}, indent=1) + "\n")
