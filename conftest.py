# SPDX-License-Identifier: Apache-2.0
"""Makes the fixtures of tests/brokers.py and tests/service_models.py known to every test folder."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "tests"))

# hypothesis would make a folder of its own in the root, which git and pytest then stumble over.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parent / ".venv" / "hypothesis"))

pytest_plugins = ["brokers", "service_models"]

# A shared machine stands still for longer than hypothesis would wait; what takes long is for pytest-timeout.
settings.register_profile("linewatch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("linewatch")


@pytest.fixture(scope="module", autouse=True)
def _leftovers_are_told_here() -> Iterator[None]:
    """What nobody closed fails the file that left it, not whichever test runs when the collector comes by.

    But what a fixture of the file's last test holds, which pytest lets go of a moment later.
    """
    yield
    gc.collect()
