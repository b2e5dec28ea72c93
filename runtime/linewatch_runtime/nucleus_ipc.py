# SPDX-License-Identifier: Apache-2.0
"""A connection to the Greengrass nucleus's IPC server, over awsiotsdk.

Its client never reconnects, and its calls may wait for ever: whoever uses this makes a new connection for each session,
and waits for every answer with `answer`, which has a timeout. Nothing of the client is imported before it is needed.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from linewatch_runtime.lifecycle import in_daemon_thread

SOCKET_VARIABLE = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
TOKEN_VARIABLE = "SVCUID"  # noqa: S105 - a name

CALL_TIMEOUT_S = 10.0


class NucleusGone(Exception):
    """The session with the nucleus ended or could not begin."""


class NucleusIpc:
    """Makes connections to one nucleus, in one thread of the client's own."""

    def __init__(self, socket: str, token: str) -> None:
        self.socket = socket
        self._token = token
        self._bootstrap: Any = None

    async def connect(self, gone: Callable[[NucleusGone], object]) -> Any:
        """A GreengrassCoreIPCClientV2. Raises what the client raises.

        `gone` is called in the event loop when the connection has ended.
        """
        if self._bootstrap is None:
            await in_daemon_thread(self._prepare)
        from awscrt.io import SocketDomain, SocketOptions
        from awsiot import eventstreamrpc as rpc
        from awsiot.greengrasscoreipc.client import GreengrassCoreIPCClient
        from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

        put = in_loop(gone)

        class Told(rpc.LifecycleHandler):  # type: ignore[misc]
            def on_disconnect(self, reason: Exception | None) -> None:
                put(NucleusGone(told(reason) if reason else "it ended the connection"))

        options = SocketOptions()
        options.domain = SocketDomain.Local
        # Not awsiot.greengrasscoreipc.connect(): a nucleus that never answers would leave its connection open.
        connection = rpc.Connection(
            host_name=self.socket, port=0, bootstrap=self._bootstrap, socket_options=options,
            connect_message_amender=rpc.MessageAmendment.create_static_authtoken_amender(self._token),
        )  # fmt: skip
        try:
            await answer(connection.connect(Told()))
        except BaseException:
            connection.close()
            raise
        return GreengrassCoreIPCClientV2(GreengrassCoreIPCClient(connection), executor=None)

    def _prepare(self) -> None:
        """Imports all of the client, which takes a slow disk seconds; 1 thread of its own for all sessions."""
        import awsiot.greengrasscoreipc.clientv2  # noqa: F401 - found there by the imports below
        from awscrt import io

        # It logs each failed attempt as an error; we tell a change only.
        logging.getLogger("awsiot.eventstreamrpc").setLevel(logging.CRITICAL)
        group = io.EventLoopGroup(num_threads=1)
        self._bootstrap = io.ClientBootstrap(group, io.DefaultHostResolver(group))


def in_loop(function: Callable[[Any], object]) -> Callable[[Any], None]:
    """A callback for the client's thread that has the event loop call the function."""
    loop = asyncio.get_running_loop()

    def call(event: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            loop.call_soon_threadsafe(function, event)

    return call


async def answer(future: "concurrent.futures.Future[Any]") -> Any:
    """What the nucleus answers. Raises TimeoutError after CALL_TIMEOUT_S."""
    async with asyncio.timeout(CALL_TIMEOUT_S):
        return await asyncio.wrap_future(future)


def told(error: Exception) -> str:
    """The reason with what an operator can do about it."""
    if isinstance(error, TimeoutError):
        return f"the nucleus did not answer in {CALL_TIMEOUT_S:g} s; look at its log"
    if isinstance(error, NucleusGone):
        return str(error)
    remedy = next((remedy for name, remedy in _REMEDIES.items() if name in repr(error)), "")
    return f"{str(error).rstrip('.')}; {remedy}" if remedy else repr(error)


_REMEDIES = {
    "AccessDenied": f"{TOKEN_VARIABLE} is not of this component's present start: restart the component",
    "AWS_IO_SOCKET_CLOSED": f"the nucleus stopped, or does not know {TOKEN_VARIABLE}: look at its log",
    "AWS_ERROR_FILE_INVALID_PATH": f"mount the socket at the path that {SOCKET_VARIABLE} names",
    "AWS_IO_SOCKET_CONNECTION_REFUSED": "if the nucleus is up again, restart the component: its mount shows the old socket",
    "AWS_ERROR_NO_PERMISSION": "let this user write to the socket",
}
