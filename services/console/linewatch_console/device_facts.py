# SPDX-License-Identifier: Apache-2.0
"""What this machine tells of itself: its clock, and the disks that evidence and the audit log lie on."""

import os
from pathlib import Path
from typing import Any

from linewatch_runtime.clocks import clock_synchronised

_SHOWN_BYTES = 100 * 1024 * 1024
"""Sizes are told in steps: what wavers is no news that every page is sent."""


class DeviceFacts:
    """Looks when asked; a disk that can't be asked says why."""

    def __init__(self, evidence_dir: Path, state_dir: Path) -> None:
        self._places = {"evidence": evidence_dir, "state": state_dir}

    def look(self) -> dict[str, Any]:
        """`clock.synchronised` is None where the kernel can't be asked, as in some containers."""
        return {
            "clock": {"synchronised": clock_synchronised()},
            "disks": [_disk(name, path) for name, path in self._places.items()],
        }


def _disk(name: str, path: Path) -> dict[str, Any]:
    try:
        state = os.statvfs(path)
    except OSError as error:
        return {
            "name": name,
            "total_bytes": None,
            "free_bytes": None,
            "used": None,
            "trouble": error.strerror,
        }
    total, free = state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
    return {
        "name": name,
        "total_bytes": total,
        "free_bytes": free // _SHOWN_BYTES * _SHOWN_BYTES,
        "used": round(1 - free / total, 2) if total else None,
        "trouble": "it can only be read" if state.f_flag & os.ST_RDONLY and name == "state" else "",
    }
