# SPDX-License-Identifier: Apache-2.0
import asyncio
import gc
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from brokers import answering

from linewatch_plant.uplink_cable import UplinkCable


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def cable_to_an_echo() -> AsyncIterator[UplinkCable]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            writer.write(data)

    async with answering(echo) as port:
        cable = UplinkCable("127.0.0.1", port)
        await cable.start()
        try:
            yield cable
        finally:
            await cable.stop()


async def said(cable: UplinkCable, words: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", cable.port)
    try:
        writer.write(words)
        return await asyncio.wait_for(reader.read(1024), 60)
    finally:
        await gone(writer)


def test_a_cut_cable_breaks_what_is_connected_and_refuses_what_comes_until_it_is_mended() -> None:
    async def story() -> None:
        async with cable_to_an_echo() as cable:
            assert await said(cable, b"hello") == b"hello"
            reader, writer = await asyncio.open_connection("127.0.0.1", cable.port)
            writer.write(b"still there")
            assert await asyncio.wait_for(reader.read(1024), 60) == b"still there"

            cable.cut()

            with pytest.raises(ConnectionError):
                if await asyncio.wait_for(reader.read(1024), 60) == b"":
                    raise ConnectionResetError
            with pytest.raises(ConnectionError):
                if await said(cable, b"anybody") == b"":
                    raise ConnectionResetError

            cable.mend()
            assert await said(cable, b"back") == b"back"
            await gone(writer)

    asyncio.run(story())


@pytest.mark.parametrize("turns", range(6))
def test_a_connection_that_comes_in_the_moment_of_its_stop_is_closed(turns: int) -> None:
    """asyncio forgets whom its server has accepted where that is closed a turn later."""

    async def story() -> None:
        async with cable_to_an_echo() as cable:
            with socket.create_connection(("127.0.0.1", cable.port)):
                for _ in range(turns):
                    await asyncio.sleep(0)
                await cable.stop()

    gc.collect()  # what others left is not this test's
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(story())
        gc.collect()
    assert told == []
