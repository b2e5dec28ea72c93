# SPDX-License-Identifier: Apache-2.0
"""A service of its own kind, for signals: `quiet` stops when asked, `stuck` doesn't, `crash` has a task that fails.

`nucleus` tells the nucleus of its environment that it is ready.
"""

import asyncio
import sys

from linewatch_runtime import nucleus_ipc
from linewatch_runtime.lifecycle import stop_on_signals, wait_until
from linewatch_runtime.nucleus import Nucleus

nucleus_ipc.CALL_TIMEOUT_S = 300.0  # whoever waited for a call at the end would be noticed


async def crash() -> None:
    raise RuntimeError("a task failed")


async def main(kind: str) -> None:
    with stop_on_signals() as stop:
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            if kind == "crash":
                tasks.create_task(crash())
            telling = tasks.create_task(Nucleus(lambda: kind == "nucleus").run())
            while not await wait_until(stop, 60):
                pass
            telling.cancel()
            print("asked", flush=True)
            if kind == "stuck":
                await asyncio.sleep(60)
    print("clean", flush=True)


asyncio.run(main(sys.argv[1]))
