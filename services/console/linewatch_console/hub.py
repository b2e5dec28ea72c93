# SPDX-License-Identifier: Apache-2.0
"""Sends what changes to every open page, as server-sent events.

A page that comes back names the last message it saw. If the ring still holds what followed, it gets exactly that;
otherwise, and after a restart of the console, it gets a snapshot of everything. Both the ring and each page's queue are
bounded: a page that reads too slowly is dropped, and comes back by itself.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter, Gauge

RING_MESSAGES = 600
QUEUED_MESSAGES = 200

clients = Gauge("linewatch_console_clients", "Pages that are open")
dropped_clients = Counter("linewatch_console_clients_dropped", "Pages dropped because they read too slowly")


class TooManyClients(Exception):
    """As many pages are open as the setting allows."""


@dataclass(eq=False, slots=True)
class Client:
    """One open page: what it missed, then what comes, encoded; None when the page must go."""

    missed: list[bytes]
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(maxsize=QUEUED_MESSAGES))


class Hub:
    """The ring and the open pages. Use it from one event loop."""

    def __init__(self, max_clients: int) -> None:
        self._max_clients = max_clients
        self._run = secrets.token_hex(4)
        self._number = 0
        self._ring: deque[tuple[int, bytes]] = deque(maxlen=RING_MESSAGES)
        self._clients: set[Client] = set()
        self._is_closed = False
        self.snapshot: Callable[[], dict[str, Any]] = dict
        """Everything that a page shows. May publish; what it publishes is in the snapshot already."""

    def publish(self, kind: str, content: dict[str, Any]) -> None:
        """Sends one message to every page and keeps it in the ring."""
        self._number += 1
        message = self._encoded(kind, content)
        self._ring.append((self._number, message))
        for client in list(self._clients):
            if client.queue.full():
                self._drop(client)
            else:
                client.queue.put_nowait(message)

    def attach(self, last_event_id: str) -> Client:
        """A new page, with what it missed; after `close` one that ends at once.

        Raises:
            TooManyClients: the setting's number of pages is open.
        """
        if self._is_closed:
            # It came between the stop and the listener's end. Let in, it would hold the stop until the grace is over.
            ended = Client([])
            ended.queue.put_nowait(None)
            return ended
        if len(self._clients) >= self._max_clients:
            raise TooManyClients
        client = Client(self._missed(last_event_id))
        self._clients.add(client)
        clients.set(len(self._clients))
        return client

    def detach(self, client: Client) -> None:
        """The page is gone. Harmless when it was dropped before."""
        self._clients.discard(client)
        clients.set(len(self._clients))

    def close(self) -> None:
        """Ends every page's stream, for good."""
        self._is_closed = True
        for client in list(self._clients):
            self._end(client)

    def _missed(self, last_event_id: str) -> list[bytes]:
        run, _, number = last_event_id.partition("-")
        if run == self._run and number.isdecimal() and len(number) < 20:
            seen = int(number)
            oldest = self._ring[0][0] if self._ring else self._number + 1
            if oldest - 1 <= seen <= self._number:
                return [message for at, message in self._ring if at > seen]
        content = self.snapshot()
        return [self._encoded("snapshot", content)]

    def _encoded(self, kind: str, content: dict[str, Any]) -> bytes:
        # json.dumps escapes line breaks, so a text from outside can't end the message.
        body = json.dumps(content, separators=(",", ":"))
        return f"id: {self._run}-{self._number}\nevent: {kind}\ndata: {body}\n\n".encode()

    def _drop(self, client: Client) -> None:
        dropped_clients.inc()
        self._end(client)

    def _end(self, client: Client) -> None:
        self.detach(client)
        while not client.queue.empty():
            client.queue.get_nowait()
        client.queue.put_nowait(None)
