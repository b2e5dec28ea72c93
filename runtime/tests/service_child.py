# SPDX-License-Identifier: Apache-2.0
"""A service of its own kind, for signals: `quiet` stops when asked, `stuck` doesn't, `crash` has a task that fails."""

import asyncio
import sys

from linewatch_runtime.lifecycle import stop_on_signals, wait_until


async def crash() -> None:
    raise RuntimeError("a task failed")


async def main(kind: str) -> None:
    with stop_on_signals() as stop:
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            if kind == "crash":
                tasks.create_task(crash())
            while not await wait_until(stop, 60):
                pass
            print("asked", flush=True)
            if kind == "stuck":
                await asyncio.sleep(60)
    print("clean", flush=True)


asyncio.run(main(sys.argv[1]))
