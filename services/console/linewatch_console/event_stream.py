# SPDX-License-Identifier: Apache-2.0
"""The response that carries server-sent events to one page."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from linewatch_console.hub import Client, Hub

PING_EVERY_S = 10.0
SEND_TIMEOUT_S = 10.0
"""A page that takes nothing for this long is gone."""
RETRY_MS = 1500


class EventStream(Response):
    """Sends until the page goes, is dropped, its session ends, or the console stops."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, client: Client, ended: asyncio.Event, used: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._ended = ended
        self._used = used
        del self.headers["content-length"]
        self._hub = hub
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """The ASGI response."""
        gone = asyncio.create_task(_first(_disconnected(receive), self._ended.wait()), name="page-gone")
        try:
            await self._send(
                send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            )
            async for chunk in self._chunks(gone):
                await self._send(send, {"type": "http.response.body", "body": chunk, "more_body": True})
            await self._send(send, {"type": "http.response.body", "body": b""})
        except TimeoutError:
            return
        finally:
            gone.cancel()
            self._hub.detach(self._client)

    async def _chunks(self, gone: "asyncio.Task[None]") -> AsyncIterator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        for message in self._client.missed:
            yield message
        self._client.missed.clear()
        while True:
            following = asyncio.create_task(self._client.queue.get(), name="next-message")
            await asyncio.wait({following, gone}, timeout=PING_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                following.cancel()
                return
            self._used()
            if not following.done():
                following.cancel()
                yield b": ping\n\n"
                continue
            following_message = following.result()
            if following_message is None:
                return
            yield following_message

    @staticmethod
    async def _send(send: Send, message: dict[str, object]) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await send(message)


async def _first(*waits: Coroutine[None, None, object]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
