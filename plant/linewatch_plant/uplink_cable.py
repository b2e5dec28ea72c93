# SPDX-License-Identifier: Apache-2.0
"""The cable between the device and the cloud: a TCP relay on loopback that can be cut."""

import asyncio
import contextlib

CHUNK = 64 * 1024


class UplinkCable:
    """Relays every connection to the target; while it is cut, it drops connections and takes none."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self.is_cut = False
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; port 0 is a free one. The port is kept in `port`."""
        self._server = await asyncio.start_server(self._connected, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Breaks what is connected and refuses what comes."""
        self.is_cut = True
        for relay in self._relays:
            relay.cancel()

    def mend(self) -> None:
        """Lets connections through again."""
        self.is_cut = False

    async def stop(self) -> None:
        """Ends every relay."""
        self.cut()
        if self._server:
            await close(self._server)
        if self._relays:
            await asyncio.wait(self._relays, timeout=1.0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(_copy(reader, far), name="up")
                directions.create_task(_copy(far_reader, writer), name="down")
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # either end may go at any time; both are closed below
        finally:
            ends = [end for end in (writer, far) if end is not None]
            for end in ends:
                end.transport.abort()
            for end in ends:
                with contextlib.suppress(OSError):
                    await end.wait_closed()


async def close(server: asyncio.Server) -> None:
    """Accepts nobody new; whom the server had accepted has reached its handler when this returns."""
    # A server that is closed between an accept and the task that it makes for it forgets the connection.
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    for _ in range(10):
        await asyncio.sleep(0)
    server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
    raise ConnectionResetError  # one end closed: close both
