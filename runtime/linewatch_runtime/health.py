# SPDX-License-Identifier: Apache-2.0
"""The heartbeat: a file that a service touches while it can do its work on this device.

`python -m linewatch_runtime.health FILE MAX_AGE_S` judges its age. A broker that is away for less than MAX_AGE_S is no
illness, and the cloud being away never is: nothing on the device could heal that.

The file's time of change is the seconds since boot at the last beat, so that it looks like one of January 1970. A wall
clock that jumps by a year, as one does that learns the time late, makes no healthy service look dead and no dead one
look well.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from linewatch_runtime.clocks import since_boot


class Heartbeat:
    """Touches `path` while the service makes progress; no path, no heartbeat."""

    def __init__(self, path: Path | None) -> None:
        """Takes away what an earlier process left: it would speak for this one."""
        self._path = path
        if path:
            path.unlink(missing_ok=True)

    def beat(self) -> None:
        """Says that the service can do its work."""
        if self._path:
            now = since_boot()
            with contextlib.suppress(OSError):  # a file that can't be written gets old, which says it all
                self._path.touch()
                os.utime(self._path, (now, now))

    async def keep(
        self, stop: asyncio.Event, ready: Callable[[], bool] = lambda: True, every_s: float = 1.0
    ) -> None:
        """Beats while the event loop turns and the service is `ready`, until `stop`."""
        while not stop.is_set():
            if ready():
                self.beat()
            await asyncio.sleep(every_s)


def age_s(path: Path) -> float:
    """Seconds since the last beat. Raises FileNotFoundError before the first of this boot."""
    age = since_boot() - path.stat().st_mtime
    if age < 0:
        raise FileNotFoundError(path)  # left by a boot that lasted longer than this one does
    return age


def _main(arguments: list[str]) -> int:
    path, limit_s = Path(arguments[0]), float(arguments[1])
    try:
        age = age_s(path)
    except FileNotFoundError:
        print(f"no heartbeat yet: {path}; the service can't do its work, and its log says why")
        return 1
    is_well = age <= limit_s
    hint = "" if is_well else "; the service can't do its work any more, and its log says why"
    print(f"last heartbeat {age:.1f} s ago, limit {limit_s:g} s{hint}")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
