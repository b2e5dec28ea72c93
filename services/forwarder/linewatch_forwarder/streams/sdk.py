# SPDX-License-Identifier: Apache-2.0
"""A session with Stream Manager that survives it: the SDK's client, made anew whenever it may be broken.

The client can't be trusted after trouble: a request that times out and is answered late ends its read loop for good
while it still says `connected`; after a restart of the server it tries once. So each error that is no answer of Stream
Manager's throws the client away, and the next call makes a new one, after a pause with full jitter.

Calls block for REQUEST_S at most each, in whatever thread the caller chose; one at a time.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from stream_manager import StreamManagerClient, StreamManagerException
from stream_manager.exceptions import (
    ClientException,
    ConnectFailedException,
    ServerTimeoutException,
    UnauthorizedException,
)

from linewatch_forwarder.streams.port import StreamsUnavailable

log = logging.getLogger(__name__)

CONNECT_S = 3
REQUEST_S = 5
"""One request, as an append that waits for the disk. Below the time that a stop has."""

LONGEST_BACKOFF_S = 10.0

CLOSE_S = 1.0

TOKEN_VARIABLES = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "SVCUID")
"""Where a nucleus gives a component its token; Stream Manager takes the same one."""

_quiet = logging.getLogger(f"{__name__}.client")
_quiet.setLevel(logging.CRITICAL)  # it logs tracebacks for what `trouble` says in a line

Answer = TypeVar("Answer")


class Session:
    """One connection to Stream Manager at a time."""

    def __init__(self, host: str, port: int, token_file: Path | None = None) -> None:
        """`token_file`: holds the token, for a process that the nucleus did not start; read at each connect."""
        self._host = host
        self._port = port
        self._token_file = token_file
        self._client: _Client | None = None
        self._lock = threading.Lock()
        self._failures = 0
        self._not_before = 0.0
        self.trouble = ""
        """Why there is no session, for people; empty while there is one, and before the first call."""
        self.generation = 0
        """Rises with each new connection: what was in flight on the one before is unknown."""

    def call(self, ask: Callable[[StreamManagerClient], Answer]) -> Answer:
        """The answer to one request.

        Raises:
            StreamsUnavailable: there was no answer.
            StreamManagerException: Stream Manager's answer was this error.
        """
        with self._lock:
            client = self._connected()
            try:
                return ask(client)
            except (ClientException, ServerTimeoutException, UnauthorizedException) as error:
                raise self._broken(error) from error
            except StreamManagerException:
                raise
            except Exception as error:  # TimeoutError, ConnectionError, and what the client's own bugs raise
                raise self._broken(error) from error

    def open(self) -> int:
        """Connects if there is no session. Returns its generation. Raises StreamsUnavailable."""
        with self._lock:
            self._connected()
            return self.generation

    def close(self) -> None:
        """Ends the session. Waits CLOSE_S at most, also for a call in hand."""
        taken = self._lock.acquire(timeout=CLOSE_S)
        client, self._client = self._client, None
        if taken:
            self._lock.release()
        if client:
            _throw_away(client)

    def _connected(self) -> "_Client":
        if self._client and not self._client.connected:
            _throw_away(self._client)
            self._client = None
        return self._client or self._connect()

    def _connect(self) -> "_Client":
        wait = self._not_before - time.monotonic()
        if wait > 0:
            raise StreamsUnavailable(f"{self.trouble}; tried again in {wait:.1f} s")
        try:
            self._client = _Client(self._host, self._port, self._token())
        except Exception as error:
            raise self._broken(error) from error
        self._failures = 0
        self.generation += 1
        if self.trouble:
            log.info("stream_manager_reached", extra={"generation": self.generation})
        self.trouble = ""
        return self._client

    def _broken(self, error: Exception) -> StreamsUnavailable:
        client, self._client = self._client, None
        if client:
            _throw_away(client)
        self._failures += 1
        longest = min(LONGEST_BACKOFF_S, 0.25 * 2 ** min(self._failures, 10))
        self._not_before = time.monotonic() + random.uniform(0, longest)  # noqa: S311
        trouble = f"Stream Manager at {self._host}:{self._port}: {_told(error)}"
        if trouble != self.trouble:
            log.warning("stream_manager_unreachable", extra={"reason": trouble})
        self.trouble = trouble
        return StreamsUnavailable(trouble)

    def _token(self) -> str | None:
        if self._token_file is not None:
            return self._token_file.read_text(encoding="utf-8").strip()
        return next((os.environ[name] for name in TOKEN_VARIABLES if os.environ.get(name)), None)


class _Client(StreamManagerClient):  # type: ignore[misc]  # the SDK has no types
    """The SDK's client for one connection: with a token of our choice, without a second try of its own, which nobody
    would be told of, and without the thread that it leaves behind when it can't connect.
    """

    _has_tried = False

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self._token = token
        try:
            super().__init__(host, port, CONNECT_S, REQUEST_S, _quiet)
        except BaseException:
            _throw_away(self)
            raise

    @property
    def auth_token(self) -> str | None:
        """What it sends; the SDK would take it from the environment only."""
        return self._token

    @auth_token.setter
    def auth_token(self, _: Any) -> None: ...

    # The SDK's private method under its mangled name: its read loop calls it when the connection is lost, and each
    # request that finds it lost. What they made would have no generation, and leave the socket before it to nobody.
    async def _StreamManagerClient__connect(self) -> None:  # noqa: N802
        if self._has_tried:
            raise ConnectionResetError("Stream Manager ended the connection")
        self._has_tried = True
        await super()._StreamManagerClient__connect()


def _throw_away(client: _Client) -> None:
    """Closes a client that may hang or fail while it is closed; its thread ends as soon as it can."""

    def close() -> None:
        for _ in range(2):  # the first may fail on a dead socket, and then the second ends the client's loop
            try:
                client.close()
            except Exception as error:  # noqa: BLE001 - it is thrown away
                log.debug("client_close_failed", extra={"reason": repr(error)})
            else:
                return

    thread = threading.Thread(target=close, name="close Stream Manager client", daemon=True)
    thread.start()
    thread.join(CLOSE_S)


def _told(error: Exception) -> str:
    """The error with what a person can do."""
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; deploy aws.greengrass.StreamManager, or correct FORWARDER_STREAM_MANAGER_PORT"
    if isinstance(error, ConnectFailedException | UnauthorizedException):
        return (
            "it refused us; pass AWS_CONTAINER_AUTHORIZATION_TOKEN into the container, or set"
            " STREAM_MANAGER_AUTHENTICATE_CLIENT=false for a process that is no component"
        )
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return f"FORWARDER_STREAM_MANAGER_TOKEN_FILE: {error.filename}: {error.strerror}"
    if isinstance(error, TimeoutError):
        return f"no answer within {REQUEST_S} s"
    return repr(error)
