# SPDX-License-Identifier: Apache-2.0
"""Ends a whole HTTP call at one moment, wherever it is: in the TLS handshake, between headers, in the body.

A timer shuts the TCP connection down; whoever reads from it then gets an error at once.
"""

import contextlib
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

# Connections kept at once; the functions' batches are worked on one by one.
KEPT = 4


SHORTEST_S = 0.2
"""Of a call that is worth beginning."""

_ends_at: ContextVar[float] = ContextVar("erp_ends_at", default=math.inf)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Every call that is made inside ends by then, however many there are: a function's time, or a person's patience."""
    before = _ends_at.set(min(_ends_at.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _ends_at.reset(before)


def left_of(timeout_s: float) -> float:
    """Seconds that a call may take here; 0 where none is worth beginning."""
    left = min(timeout_s, _ends_at.get() - time.monotonic())
    return left if left >= SHORTEST_S else 0.0


class Deadline:
    """The moment at which the calls of one thread of control end."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._tcp: socket.socket | None = None
        self.is_over = False
        # Bytes of the request may have left. Before that nothing can have been created.
        self.may_have_left = False

    def left_s(self) -> float:
        """Seconds left, never zero: urllib3 refuses that."""
        return max(0.001, self._until - time.monotonic())

    def watch(self, tcp: socket.socket) -> None:
        """Shuts this connection down at the end, and no other any more."""
        with self._lock:
            self._tcp = tcp
            if self.is_over:
                self._shut()

    def end(self) -> None:
        """Called by the timer."""
        with self._lock:
            self.is_over = True
            self._shut()

    def _shut(self) -> None:
        if self._tcp is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                self._tcp.shutdown(socket.SHUT_RDWR)


_deadline: ContextVar[Deadline] = ContextVar("erp_deadline")


@contextlib.contextmanager
def kept(until: Deadline) -> Iterator[None]:
    """Every watched connection that is used inside ends then."""
    timer = threading.Timer(until.left_s(), until.end)
    timer.daemon = True
    timer.start()
    before = _deadline.set(until)
    try:
        yield
    finally:
        _deadline.reset(before)
        timer.cancel()


class _Watched:
    """Keeps a second handle of the TCP connection: TLS takes the first one away while it shakes hands."""

    _tcp: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()  # type: ignore[misc]
        self._tcp = socket.socket(fileno=os.dup(made.fileno()))
        _deadline.get().watch(self._tcp)
        return made

    def connect(self) -> None:
        _deadline.get().may_have_left = False
        super().connect()  # type: ignore[misc]
        _deadline.get().may_have_left = True

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self._tcp is not None:
            _deadline.get().may_have_left = True
            _deadline.get().watch(self._tcp)
        super().request(*args, **kwargs)  # type: ignore[misc]

    def close(self) -> None:
        if self._tcp is not None:
            self._tcp.close()
            self._tcp = None
        super().close()  # type: ignore[misc]


class _Http(_Watched, HTTPConnection):
    pass


class _Https(_Watched, HTTPSConnection):
    pass


def watched(origin: str, tls: ssl.SSLContext | None) -> urllib3.HTTPConnectionPool:
    """A pool of connections that end with the deadline."""
    pool: urllib3.HTTPConnectionPool
    if tls is None:
        pool = urllib3.connection_from_url(origin, maxsize=KEPT)
        pool.ConnectionCls = _Http
    else:
        pool = urllib3.connection_from_url(origin, maxsize=KEPT, ssl_context=tls)
        pool.ConnectionCls = _Https
    return pool
