# SPDX-License-Identifier: Apache-2.0
"""Makes the fixtures of tests/brokers.py known to every test folder."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tests"))

# hypothesis would make a folder of its own in the root, which git and pytest then stumble over.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parent / ".venv" / "hypothesis"))

pytest_plugins = ["brokers"]
