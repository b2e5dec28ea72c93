# SPDX-License-Identifier: Apache-2.0
"""How a process stops: the first SIGTERM or SIGINT asks, the second one means now."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

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
    # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the result.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


async def in_daemon_thread(function: Callable[[], object]) -> None:
    """Runs a call that may block for long in a thread that the process's end does not wait for.

    `asyncio.to_thread` would hold a stopping process until the call returns, and would not begin it while the executor's
    threads are all busy. When the wait is cancelled the call goes on alone.
    """
    done, raised = _begin(function)
    await done.wait()
    if raised:
        raise raised.pop()


async def to_the_end(function: Callable[[], object]) -> None:
    """Runs a blocking call that cleans up, and returns when it has ended, also where we are cancelled meanwhile.

    But cancelled twice: then the call goes on alone.
    """
    try:
        done, raised = _begin(function)
    except RuntimeError:  # no thread is to be had
        function()
        return
    try:
        await done.wait()
    except asyncio.CancelledError:
        await done.wait()
        raise
    if raised:
        raise raised.pop()


def _begin(function: Callable[[], object]) -> tuple[asyncio.Event, list[BaseException]]:
    """The call's end, and what it raised. It has begun, whatever is cancelled from here on."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    # Taken out of it again by who raises it: a future would keep the error, and all it refers to.
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            raised.append(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=call, name="blocking call", daemon=True).start()
    return done, raised
