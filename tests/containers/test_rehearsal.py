# SPDX-License-Identifier: Apache-2.0
"""The verbs of `linewatch` in the order of a platform engineer's day, each in a process of its own, with the real images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from linewatch_fleet.cli import VERBS

pytestmark = pytest.mark.containers

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "build/images.json"


def test_the_whole_day_from_release_to_teardown_ends_as_it_should() -> None:
    if not IMAGES.is_file():
        pytest.skip("no images are built; make images PLATFORMS=linux/amd64,linux/arm64")
    if len(json.loads(IMAGES.read_text())["images"]["forwarder"]["platforms"]) < 2:
        pytest.skip("images are built for one platform only; make images PLATFORMS=linux/amd64,linux/arm64")

    ran = subprocess.run(
        [sys.executable, "-m", "linewatch_plant.rehearsal"], cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False
    )  # fmt: skip

    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    commands = [line.split()[2] for line in ran.stdout.splitlines() if line.startswith("$ linewatch")]
    # All but the doctor, which looks at the machine that it runs on, and `recipes`, which publish and bundle use.
    assert set(commands) == set(VERBS) - {"doctor", "recipes"}
    assert "Traceback" not in ran.stderr
