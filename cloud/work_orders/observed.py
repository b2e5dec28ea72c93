# SPDX-License-Identifier: Apache-2.0
"""When a part was really taken, as far as anybody knows. Pure."""

from collections.abc import Mapping
from typing import Any


def observed_at(origin: Mapping[str, Any]) -> str | None:
    """RFC 3339, by a clock that was right: as the forwarder corrected it, or as the device's synchronised clock said.

    None where the device did not know the time; what its wall clock said may be years off. Nothing is ordered by it:
    order is (epoch, sequence).
    """
    if "corrected_at" in origin:
        return str(origin["corrected_at"])
    if origin.get("clock", {}).get("synchronised") is True and "taken_at" in origin:
        return str(origin["taken_at"])
    return None
