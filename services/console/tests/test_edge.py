# SPDX-License-Identifier: Apache-2.0
import asyncio
import threading
from pathlib import Path
from typing import Any, cast

from console_process import DEADLINE_S

from linewatch_console.device_facts import DeviceFacts
from linewatch_console.edge import Edge
from linewatch_console.hub import Hub
from linewatch_console.wall import Wall
from linewatch_runtime.mqtt import Connection


class HungDisk(DeviceFacts):
    """Answers once; then every look at it waits, as at a network drive whose server is gone."""

    asked = 0

    def __init__(self) -> None:
        super().__init__(Path(), Path())
        self.hangs, self.released = threading.Event(), threading.Event()

    def look(self) -> dict[str, Any]:
        self.asked += 1
        if self.asked > 1:
            self.hangs.set()
            self.released.wait(DEADLINE_S)
        return {}


def test_stop_does_not_wait_for_a_look_at_a_disk_that_hangs() -> None:
    """Regression: the look was in the loop's own threads, which the process joins at its end, however long that takes."""
    disk = HungDisk()
    edge = Edge(cast("Connection", None), Wall(lambda: 0.0), Hub(1), disk)

    async def look_and_stop() -> None:
        looking = asyncio.create_task(edge.look())
        assert await asyncio.to_thread(disk.hangs.wait, DEADLINE_S)
        looking.cancel()

    giving_up = threading.Timer(DEADLINE_S / 2, disk.released.set)
    giving_up.start()
    asyncio.run(look_and_stop())

    assert not disk.released.is_set()
    giving_up.cancel()
    giving_up.join()
    disk.released.set()
