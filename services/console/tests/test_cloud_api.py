# SPDX-License-Identifier: Apache-2.0
"""The client of the cloud API before servers that hang up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from linewatch_console.cloud_api import CloudApi, CloudAway, CloudUnclear
from linewatch_console.people import Person

pytestmark = pytest.mark.anyio


@dataclass
class HangsUp:
    """Answers each connection so often, then closes it behind the next request; `asked` counts all of them."""

    answers_each: int
    asked: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = 0
        self.serving.add(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                if answered == self.answers_each:
                    return
                answered += 1
                writer.write(
                    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}'
                )
                await writer.drain()
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def asking(tmp_path: Path, answers_each: int) -> AsyncIterator[tuple[CloudApi, HangsUp]]:
    hangs_up = HangsUp(answers_each)
    token = tmp_path / "token"
    token.write_text("secret")
    server = await asyncio.start_server(hangs_up.serve, "127.0.0.1", 0)
    api = CloudApi(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", token)
    try:
        yield api, hangs_up
    finally:
        await api.close()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*hangs_up.serving)


async def test_a_read_over_a_kept_connection_that_was_just_closed_is_asked_again(tmp_path: Path) -> None:
    async with asking(tmp_path, answers_each=1) as (api, hangs_up):
        for _ in range(3):
            assert await api.document("/assets") == {"a": 1}

        assert hangs_up.asked == 5, "the second and the third met the end of a kept connection"


async def test_a_cloud_that_always_hangs_up_is_away_after_two_tries(tmp_path: Path) -> None:
    async with asking(tmp_path, answers_each=0) as (api, hangs_up):
        with pytest.raises(CloudAway):
            await api.document("/assets")

        assert hangs_up.asked == 2


async def test_a_decision_is_never_sent_again_by_itself(tmp_path: Path) -> None:
    async with asking(tmp_path, answers_each=0) as (api, hangs_up):
        with pytest.raises(CloudUnclear):
            await api.send("/work-orders/lw-1/approve", {}, Person("Anna Approver", "approver"), "0")

        assert hangs_up.asked == 1
