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
from typing import NoReturn

import uvicorn

from linewatch_console.access import Access
from linewatch_console.answers import Console
from linewatch_console.audit import Audit
from linewatch_console.audit.log import utc_now
from linewatch_console.audit.segments import Segments
from linewatch_console.cloud_api import CloudApi
from linewatch_console.deciding import Deciding
from linewatch_console.device_facts import DeviceFacts
from linewatch_console.edge import Edge, topics
from linewatch_console.hub import Hub
from linewatch_console.oidc import Oidc
from linewatch_console.oidc_provider import Provider
from linewatch_console.orders import Orders
from linewatch_console.remote_evidence import RemoteEvidence
from linewatch_console.reports import Reports
from linewatch_console.sessions import Sessions
from linewatch_console.settings import Settings, read_secret
from linewatch_console.sign_in import SignIn
from linewatch_console.throttle import Throttle, browser_key
from linewatch_console.user_list import UserList
from linewatch_console.wall import Wall
from linewatch_console.watching import watch_sessions
from linewatch_console.web import create_app
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
    console = _console(settings, Connection(_broker(settings), Subscriptions(topics=topics(settings.site))))
    server = Server(
        uvicorn.Config(
            create_app(console), log_config=None, access_log=False, server_header=False, lifespan="off",
            timeout_graceful_shutdown=GRACE_S, ws="none",
            # Else uvicorn would believe whoever is on this machine.
            proxy_headers=bool(settings.trusted_proxies), forwarded_allow_ips=settings.trusted_proxies,
        )
    )  # fmt: skip
    heartbeat = Heartbeat(settings.heartbeat_file)
    nucleus = Nucleus(lambda: server.started)
    with stop_on_signals() as stop:
        await console.audit.begin()
        log.info("started", extra={"address": f"http://{settings.host}:{settings.port}/"})
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]), name="serve")
            following = [
                tasks.create_task(console.edge.connection.run(), name="connection"),
                tasks.create_task(console.edge.run(), name="edge"),
                tasks.create_task(console.edge.tell(), name="tell"),
                tasks.create_task(console.edge.look(), name="look"),
                tasks.create_task(console.orders.run(), name="orders"),
                tasks.create_task(watch_sessions(console), name="sessions"),
                tasks.create_task(heartbeat.keep(stop, lambda: server.started), name="heartbeat"),
                tasks.create_task(nucleus.run(), name="nucleus"),
            ]
            await stop.wait()
            server.should_exit = True
            console.hub.close()
            await serving
            for task in following:
                task.cancel()
    await console.remote_evidence.close()
    await console.orders.close()
    if console.oidc is not None:
        await console.oidc.provider.close()


def _console(settings: Settings, connection: Connection) -> Console:
    clock = time.monotonic
    hub = Hub(settings.max_clients)
    api = CloudApi(settings.cloud_api_url, settings.cloud_api_token_file) if settings.cloud_api_url else None
    orders = Orders(api, hub, settings.cloud_poll_s)
    sessions = Sessions(clock, settings.session_idle_minutes * 60, settings.session_hours * 3600)
    users = UserList(settings.users_file) if settings.users_file else None
    if users is not None and users.problem:
        log.error("users_unreadable", extra={"reason": users.problem})
    password = read_secret(settings.password_file) if settings.password_file and users is None else ""
    audit = Audit(Segments(settings.state_dir / "audit", settings.audit_max_mb << 20, utc_now), clock)
    return Console(
        settings=settings,
        access=Access(sessions, settings.local, settings.public_url),
        sign_in_by=SignIn(
            settings.sign_in,
            Throttle(clock, browser_key(settings.state_dir)),
            users,
            password,
            settings.operator_name,
        ),
        oidc=Oidc(settings, Provider(settings)) if settings.oidc_issuer else None,
        hub=hub,
        edge=Edge(connection, Wall(clock), hub, DeviceFacts(settings.evidence_dir, settings.state_dir)),
        orders=orders,
        deciding=Deciding(orders, audit),
        reports=Reports(orders),
        audit=audit,
        remote_evidence=RemoteEvidence(orders),
    )


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


def _leave() -> NoReturn:
    """Ends the process at once.

    All is closed, and the interpreter's own end frees only what the kernel frees: each module, one by one, which took
    0.3 s of a core, and 10 s of a machine with 30 busy processes, where a stop has to be quick.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
    _leave()
