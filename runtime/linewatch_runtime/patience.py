# SPDX-License-Identifier: Apache-2.0
"""A start on a volume that is full: it waits inside the process until there is room.

SQLite can't open a file there that was closed in good order: it needs room for its log, if only to let events go.
Ending the process would name a wrong reason, or start it over and over.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

from linewatch_runtime.records import SpoolFull, VolumeFull

log = logging.getLogger(__name__)

AGAIN_S = 1.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Result = TypeVar("Result")


def when_there_is_room(begin: Callable[[], Result]) -> Result:
    """What `begin` returns, tried again each second while the volume has no room, and told once. For the main thread.

    A signal ends the process with 0 while it waits: as process 1 of a container it would not end by itself.
    """
    before: dict[int, Any] = {}
    try:
        while True:
            try:
                result = begin()
            except (VolumeFull, SpoolFull) as error:
                if not before:
                    before = {number: signal.signal(number, _leave) for number in _SIGNALS}
                    log.error("waits_for_room", extra={"reason": str(error)})
            else:
                if before:
                    log.info("has_room")
                return result
            time.sleep(AGAIN_S)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    log.info("stopped", extra={"signal": signal.Signals(number).name})
    sys.exit(0)
