# SPDX-License-Identifier: Apache-2.0
"""Makes the fixtures of tests/brokers.py known to every test folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tests"))

pytest_plugins = ["brokers"]
