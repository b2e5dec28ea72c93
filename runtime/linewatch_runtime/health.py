# SPDX-License-Identifier: Apache-2.0
"""The heartbeat: a file that the flow touches; `python -m linewatch_runtime.health FILE MAX_AGE_S` judges its age."""

import asyncio
import sys
import time
from pathlib import Path


class Heartbeat:
    """Touches `path` while the service makes progress; no path, no heartbeat."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def beat(self) -> None:
        """Says that the flow moved."""
        if self._path:
            self._path.touch()

    async def keep(self, stop: asyncio.Event, every_s: float = 2.0) -> None:
        """Beats while the event loop turns, until `stop`."""
        while not stop.is_set():
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
        print(f"no heartbeat yet: {path}")
        return 1
    print(f"last heartbeat {age:.1f} s ago, limit {limit_s:g} s")
    return 0 if age <= limit_s else 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
