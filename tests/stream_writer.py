# SPDX-License-Identifier: Apache-2.0
"""A process that appends to the streams and settles a part of it, and says what it was told; killed by the test.

    python stream_writer.py KIND FOLDER PORT FIRST

Prints `stored N` after each append that returned, and `settled N` before and `gone N` after each settle.
"""

import asyncio
import sys
from pathlib import Path

from stream_kinds import PLENTY, Kind, record

GROUP = 10


class _Port:
    def __init__(self, port: int) -> None:
        self.port = port


async def write(kind: Kind, first: int) -> None:
    streams = kind.open(PLENTY)
    number = first
    while True:
        group = [record(number + index, alarm=index % 5 == 0, size=200) for index in range(GROUP)]
        await streams.append(group)
        for one in group:
            print("stored", one.event_id, flush=True)
        number += GROUP
        if number % (3 * GROUP) == 0:
            some = [one.record.event_id for one in await streams.next(GROUP)]
            for event_id in some:
                print("settled", event_id, flush=True)
            await streams.settle(some)
            for event_id in some:
                print("gone", event_id, flush=True)


if __name__ == "__main__":
    name, folder, port, begin = sys.argv[1:]
    server = _Port(int(port)) if int(port) else None
    asyncio.run(write(Kind(name, Path(folder), server), int(begin)))  # type: ignore[arg-type]
