# SPDX-License-Identifier: Apache-2.0
"""Wires the console: settings, the two back ends, the page, and the end."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator

import uvicorn

from linewatch_console.access import Access
from linewatch_console.cloud_api import CloudApi
from linewatch_console.edge import Edge, topics
from linewatch_console.hub import Hub
from linewatch_console.orders import Orders
from linewatch_console.settings import Settings, read_secret
from linewatch_console.wall import Wall
from linewatch_console.web import Console, create_app
from linewatch_runtime import logs
from linewatch_runtime.health import Heartbeat
from linewatch_runtime.lifecycle import stop_on_signals
from linewatch_runtime.mqtt import Connection, Endpoint, Subscriptions, Tls
from linewatch_runtime.nucleus import Nucleus
from linewatch_runtime.settings import EXIT_BAD_SETTINGS, load
from linewatch_runtime.telemetry import serve_metrics

log = logging.getLogger("linewatch_console")

GRACE_S = 3
"""How long a stop waits for answers under way; open streams are ended first."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def main() -> None:
    """Runs until a signal."""
    settings = load(Settings)
    logs.configure("console", settings.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    serve_metrics(settings.metrics_host, settings.metrics_port, "CONSOLE_METRICS_PORT")
    asyncio.run(_serve(settings, _listen(settings)))
    log.info("stopped")


async def _serve(settings: Settings, listener: socket.socket) -> None:
    connection = Connection(_broker(settings), Subscriptions(topics=topics(settings.site)))
    api = CloudApi(settings.cloud_api_url, settings.cloud_api_token_file) if settings.cloud_api_url else None
    password = read_secret(settings.password_file) if settings.password_file else ""
    hub = Hub(settings.max_clients)
    edge = Edge(connection, Wall(time.monotonic), hub)
    orders = Orders(api, hub, settings.cloud_poll_s, settings.operator_name)
    console = Console(settings, Access(password, time.monotonic), hub, edge, orders)
    server = Server(
        uvicorn.Config(
            create_app(console), log_config=None, access_log=False, server_header=False, lifespan="off",
            timeout_graceful_shutdown=GRACE_S, ws="none",
        )
    )  # fmt: skip
    heartbeat = Heartbeat(settings.heartbeat_file)
    nucleus = Nucleus(lambda: server.started)
    with stop_on_signals() as stop:
        log.info("started", extra={"address": f"http://{settings.host}:{settings.port}/"})
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]), name="serve")
            following = [
                tasks.create_task(connection.run(), name="connection"),
                tasks.create_task(edge.run(), name="edge"),
                tasks.create_task(edge.tell(), name="tell"),
                tasks.create_task(orders.run(), name="orders"),
                tasks.create_task(heartbeat.keep(stop, lambda: server.started), name="heartbeat"),
                tasks.create_task(nucleus.run(), name="nucleus"),
            ]
            await stop.wait()
            server.should_exit = True
            hub.close()
            await serving
            for task in following:
                task.cancel()
    if api is not None:
        await api.close()


def _broker(settings: Settings) -> Endpoint:
    # The process id keeps two consoles of one device from throwing each other off the broker.
    client_id = f"{settings.device}-console-{socket.gethostname()[:24]}-{os.getpid()}"
    tls = Tls(settings.mqtt_ca_file) if settings.mqtt_ca_file else None
    return Endpoint(
        settings.mqtt_host,
        settings.mqtt_port,
        client_id,
        settings.mqtt_username,
        settings.mqtt_password_file,
        tls,
        "console",
    )


def _listen(settings: Settings) -> socket.socket:
    """The page's socket. A taken port ends the process with 2."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        print(
            f"CONSOLE_PORT: can't listen on {settings.host}:{settings.port}: {error.strerror}; choose a free port",
            file=sys.stderr,
        )
        sys.exit(EXIT_BAD_SETTINGS)
    return listener


if __name__ == "__main__":
    main()
