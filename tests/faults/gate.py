# SPDX-License-Identifier: Apache-2.0
"""A gate in a TCP connection: what passes a fixed point can be held there, so that a process dies exactly at it.

    hold(UP)                    from now on nothing goes from the client to the server
    hold(UP, b"SendMessage")    nothing, from the first packet on that contains these bytes

    count(UP, PUBACK)           what went through from now on, and how often, is in `counted`

`held` is set once something waits at the gate. Kill the process then: what it did before is done, what came after
is not.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from brokers import answering

UP, DOWN = "up", "down"
PUBACK = b"\x40\x02"
"""How an MQTT client acknowledges; JSON and our names have no such bytes."""
CHUNK = 64 * 1024


class Gate:
    """Relays every connection to the target; open until it is told to hold."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._marks: dict[str, bytes] = {}
        self._shut: set[str] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self._counts: list[tuple[str, bytes]] = []
        self.port = 0
        self.counted: Counter[tuple[str, bytes]] = Counter()
        """How often (direction, bytes) went through."""
        self.held = asyncio.Event()

    def hold(self, direction: str, mark: bytes = b"") -> None:
        """Holds this direction, at once or from the mark on."""
        self.held.clear()
        if mark:
            self._marks[direction] = mark
        else:
            self._shut.add(direction)

    def count(self, direction: str, mark: bytes) -> None:
        """Counts these bytes, 64 at most, from 0."""
        self._counts = [*{*self._counts, (direction, mark)}]
        self.counted[direction, mark] = 0

    def open(self) -> None:
        """Lets new connections through; those that were held are gone with their process."""
        self._marks.clear()
        self._shut.clear()
        for relay in self._relays:
            relay.cancel()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        far = None
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(UP, reader, far), name=UP)
                both.create_task(self._copy(DOWN, far_reader, writer), name=DOWN)
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # either end may go at any time; both are closed below
        finally:
            self._relays.discard(task)
            for end in (writer, far):
                if end is not None:
                    end.close()

    async def _copy(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        before = b""
        while chunk := await reader.read(CHUNK):
            mark = self._marks.get(direction)
            if mark and mark in before + chunk:
                self._shut.add(direction)
            if direction in self._shut:
                self.held.set()
                await asyncio.Event().wait()
            writer.write(chunk)
            await writer.drain()
            for way, one in self._counts:
                if way == direction:
                    self.counted[way, one] += (before[max(0, len(before) - len(one) + 1) :] + chunk).count(
                        one
                    )
            before = (before + chunk)[-64:]  # a mark may lie in three chunks: one may be a single byte
        raise ConnectionResetError  # one end closed: close both


@asynccontextmanager
async def gate_before(port: int) -> AsyncIterator[Gate]:
    """A gate on a port of its own, before this port of loopback."""
    gate = Gate(port)
    async with answering(gate.relay) as gate.port:
        yield gate
