# SPDX-License-Identifier: Apache-2.0
"""Starts ministack with three cures, as a child of this plant: `python -m linewatch_plant.ministack_launcher`.

ministack's MQTT listener binds 0.0.0.0 whatever BIND_HOST says, and takes clients without a certificate. Here it binds
BIND_HOST and requires one, as IoT Core does. UpdateThing passes over the version that the caller expects; here it refuses
another one, so that of two writers one can. And it ends with its parent: standard input is a pipe that the parent
holds; when that closes, however the parent died, the whole process group is ended.
"""

import asyncio
import os
import signal
import ssl
import sys
import threading
from typing import Any


def end_with_parent() -> None:
    """Ends this process group (the Lambda workers too) once the parent's end of standard input is closed."""

    def wait() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="end_with_parent", daemon=True).start()


def bind_where_told() -> None:
    """Maps 0.0.0.0 to BIND_HOST for every listener of the event loop."""
    create_server = asyncio.BaseEventLoop.create_server

    async def create_server_where_told(
        loop: asyncio.BaseEventLoop, factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        if host == "0.0.0.0":
            host = os.environ["BIND_HOST"]
        return await create_server(loop, factory, host, port, **options)

    asyncio.BaseEventLoop.create_server = create_server_where_told  # type: ignore[method-assign,assignment]


def require_client_certificates() -> None:
    """Makes the TLS context of the MQTT listener refuse clients without a certificate."""
    from ministack.services import iot

    build = iot._mtls_build_ssl_context

    def build_strict() -> ssl.SSLContext:
        context: ssl.SSLContext = build()
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    iot._mtls_build_ssl_context = build_strict


def check_expected_versions() -> None:
    """Makes UpdateThing refuse a version that is not the thing's, as IoT does."""
    from ministack.services import iot

    update = iot._update_thing

    def update_expected(name: str, payload: dict[str, Any]) -> tuple[Any, ...]:
        expected, thing = payload.get("expectedVersion"), iot._things.get(name)
        if thing is not None and expected is not None and int(expected) != thing.get("version", 1):
            refused: tuple[Any, ...] = iot.error_response_json(
                "VersionConflictException",
                f"The version for thing {name} does not match the expected version.",
                409,
            )
            return refused
        updated: tuple[Any, ...] = update(name, payload)
        return updated

    iot._update_thing = update_expected


if __name__ == "__main__":
    end_with_parent()
    bind_where_told()
    require_client_certificates()
    check_expected_versions()
    sys.argv = ["ministack"]
    from ministack.app import main

    main()
