# SPDX-License-Identifier: Apache-2.0
"""The heartbeat: a file that a service touches while it can do its work on this device.

`python -m linewatch_runtime.health FILE MAX_AGE_S` judges its age. A broker that is away for less than MAX_AGE_S is no
illness, and the cloud being away never is: nothing on the device could heal that.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path


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
            self._path.touch()

    async def keep(
        self, stop: asyncio.Event, ready: Callable[[], bool] = lambda: True, every_s: float = 1.0
    ) -> None:
        """Beats while the event loop turns and the service is `ready`, until `stop`."""
        while not stop.is_set():
            if ready():
                self.beat()
            await asyncio.sleep(every_s)


def age_s(path: Path) -> float:
    """Seconds since the last beat. Raises FileNotFoundError before the first."""
    return time.time() - path.stat().st_mtime


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
