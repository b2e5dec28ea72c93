# SPDX-License-Identifier: Apache-2.0
"""What a check found: good, worth a look, or broken; and always what to do about it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OK, WARN, FAIL, NOT_CHECKED = "ok", "warn", "FAIL", "not checked"

LOOK_S = 15.0
"""Longest wait for one program that only looks."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table."""

    check: str
    state: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Device:
    """Where things lie on this device."""

    directory: Path = Path("/var/lib/linewatch")
    """Everything of Linewatch: secrets, models, state, evidence, uplink."""
    registry: str = ""
    """Registry host to reach; empty: taken from the images of this device's containers."""
    endpoint: str = ""
    """IoT Core data endpoint, host:port; empty: taken from the forwarder's container."""
    root: Path = Path("/")
    """Root of the file system that is looked at."""


@dataclass(frozen=True)
class Said:
    """What a program answered."""

    code: int
    out: str
    error: str


def look(*command: str, timeout_s: float = LOOK_S) -> Said:
    """Runs a program that changes nothing. A program that is missing or hangs is an answer too (codes 127, 124)."""
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, errors="replace"
        )
    except FileNotFoundError:
        return Said(127, "", f"{command[0]}: not installed")
    except PermissionError as error:
        return Said(126, "", str(error))
    except subprocess.TimeoutExpired:
        return Said(124, "", f"{' '.join(command)}: no answer within {timeout_s:.0f} s")
    return Said(ran.returncode, ran.stdout.strip(), ran.stderr.strip())


def worst(findings: Sequence[Finding]) -> str:
    """The state of the whole."""
    states = {finding.state for finding in findings}
    return next((state for state in (FAIL, WARN) if state in states), OK)
