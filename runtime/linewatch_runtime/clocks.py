# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of the time: since boot, of which boot, and whether the wall clock is synchronised.

Durations and ages are measured on `since_boot` or time.monotonic(), never on the wall clock: that one may jump by years.
"""

import ctypes
import functools
import time
from pathlib import Path

_TIME_ERROR = 5  # adjtimex(2): TIME_ERROR, the clock is not synchronised


def since_boot() -> float:
    """Seconds since boot, also while the device slept; no wall clock moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@functools.cache
def boot_id() -> str:
    """The kernel's id of this boot; empty where it can't be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def clock_synchronised() -> bool | None:
    """Whether the kernel says that the wall clock is synchronised; None where it can't be asked."""
    try:
        buffer = ctypes.create_string_buffer(
            256
        )  # struct timex is 208 bytes on 64-bit Linux; modes = 0 only reads
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
