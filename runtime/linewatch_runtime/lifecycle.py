# SPDX-License-Identifier: Apache-2.0
"""How a process stops: the first SIGTERM or SIGINT asks, the second one means now."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

EXIT_NOW = 130


@contextlib.contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that the first signal sets. Call it inside the running loop; the old handlers come back at the end."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def asked() -> None:
        if stop.is_set():
            os._exit(EXIT_NOW)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def wait_until(stop: asyncio.Event, seconds: float) -> bool:
    """Waits for `stop`, at most `seconds`. True when it is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()
