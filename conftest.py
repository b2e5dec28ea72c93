# SPDX-License-Identifier: Apache-2.0
"""Makes the fixtures of tests/brokers.py and tests/service_models.py known to every test folder."""

import contextlib
import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "tests"))

# hypothesis would make a folder of its own in the root, which git and pytest then stumble over.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parent / ".venv" / "hypothesis"))

pytest_plugins = ["brokers", "service_models"]

# A shared machine stands still for longer than hypothesis would wait; what takes long is for pytest-timeout.
# The same examples in each run: what a new one finds is to fail who looks for it, `make test SEARCH=1`, not a commit that has
# no part in it.
settings.register_profile(
    "linewatch",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("SEARCH") != "1",
)
settings.load_profile("linewatch")

MOST_OPEN = 700
"""Files that a process of tests may have open between two files of tests. MQTT's client waits with select(2), which takes
none from 1024 on: every broker then seems mute. A good 300 keep the ports that were given (console_process, processes)."""


MOST_LEFT_OPEN = 32
"""Files with a name that one file of tests may leave open, such as the logs of what the whole session uses."""


@pytest.fixture(scope="module", autouse=True)
def _leftovers_are_told_here() -> Iterator[None]:
    """What nobody closed fails the file that left it, not whichever test runs when the collector comes by.

    But what a fixture of the file's last test holds, which pytest lets go of a moment later.
    """
    before = sum(_opened().values())
    yield
    gc.collect()
    after = _opened()
    assert sum(after.values()) <= before + MOST_LEFT_OPEN, f"open files are left in {after.most_common(5)}"
    number = len(list(Path("/proc/self/fd").iterdir()))
    assert number <= MOST_OPEN, f"{number} open files are left, with a name in {after.most_common(5)}"


def _opened() -> "Counter[str]":
    """Files with a name that are open, by their folder."""
    folders: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one by which the folder is read
            named = descriptor.readlink()
            if named.is_absolute():
                folders[str(named.parent)] += 1
    return folders
