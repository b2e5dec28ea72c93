# SPDX-License-Identifier: Apache-2.0
"""Seconds from `make demo` on a fresh clone to the first verdict, with a warm and with a cold package cache.

    python3 tests/benchmarks/first_verdict.py

Clones this checkout's HEAD into a temporary directory, twice, and runs `make demo PARTS=20` there as a user would.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 600


def seconds_to_first_verdict(*, cold: bool) -> float:
    """Clones, runs the demo to its end, and returns when the first verdict was told."""
    with tempfile.TemporaryDirectory(prefix="linewatch-first-") as place:
        clone = Path(place) / "linewatch"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        environment = {**os.environ, **({"PIP_NO_CACHE_DIR": "1"} if cold else {})}
        started = time.monotonic()
        process = subprocess.Popen(
            ["make", "demo", "PARTS=20"], cwd=clone, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        first: float | None = None
        tail = []
        for line in process.stdout:
            tail = [*tail[-20:], line]
            if first is None and line.startswith("first verdict"):
                first = time.monotonic() - started
        code = process.wait(DEADLINE_S)
        if code or first is None:
            sys.exit(f"make demo ended with {code}:\n{''.join(tail)}")
        return first


def main() -> None:
    """Prints both figures and the machine."""
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    for name, cold in (("warm", False), ("cold", True)):
        print(
            f"make demo on a fresh clone, {name} package cache: first verdict after {seconds_to_first_verdict(cold=cold):.0f} s"
        )


if __name__ == "__main__":
    main()
