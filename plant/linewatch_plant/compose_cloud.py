# SPDX-License-Identifier: Apache-2.0
"""The stand-in cloud as a container: the one of `make demo`, reached from a container network.

    python -m linewatch_plant.compose_cloud --erp erp-simulator:8600 --handover /handover

The stand-in itself stays on loopback. This process lets through what a device and a console reach in a real account:
MQTT over mutual TLS (the certificate names this container's host name), and the console's API at /api. What the account's
operator would hand over is written to --handover: forwarder/{ca,certificate,key}.pem and console/api-token. Each start
is a new account, with new certificates. /counts is for tests: what arrived and what became of it.
"""

import argparse
import asyncio
import contextlib
import shutil
import signal
from pathlib import Path

import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from linewatch_plant.standin_cloud import StandinCloud
from linewatch_plant.uplink_cable import UplinkCable

MQTT_PORT = 8883
HTTP_PORT = 8080
API_TIMEOUT_S = 30.0
PASSED_ON = (
    "authorization",
    "content-type",
    "x-linewatch-user",
    "x-linewatch-role",
    "x-linewatch-audit",
    "x-linewatch-signature",
)


def hand_over(cloud: StandinCloud, directory: Path) -> None:
    """Writes the files that a device and a console need, each one whole or not at all."""
    for name, source in (
        ("ca", cloud.ca_file),
        ("certificate", cloud.certificate_file),
        ("key", cloud.key_file),
    ):
        _write(directory / "forwarder" / f"{name}.pem", source.read_text())
    _write(directory / "console" / "api-token", cloud.api_token)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    whole = path.with_suffix(".new")
    whole.unlink(missing_ok=True)
    whole.touch(mode=0o600)
    whole.write_text(text)
    whole.replace(path)


def application(cloud: StandinCloud) -> Starlette:
    """The API under /api, and what tests ask."""

    async def api(request: Request) -> Response:
        answer = await asyncio.to_thread(
            requests.request,
            request.method,
            f"{cloud.api_url}/{request.path_params['path']}",
            params=request.query_params.multi_items(),
            data=await request.body(),
            headers={name: request.headers[name] for name in PASSED_ON if name in request.headers},
            timeout=API_TIMEOUT_S,
        )
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    def counts(_: Request) -> Response:
        return JSONResponse(
            {**cloud.counts(), "at_rest": cloud.queues_are_empty(), "dead_letters": cloud.dead_letters()}
        )

    return Starlette(
        routes=[
            Route("/api/{path:path}", api, methods=["GET", "POST", "PUT"]),
            Route("/counts", counts),
            Route("/health", lambda _: Response("up")),
        ]
    )


async def run(erp: tuple[str, int], handover: Path, directory: Path, host: str, *, pilot: bool) -> None:
    """Starts the stand-in, hands over, and lets through what is allowed, until a signal."""
    # The template takes plain HTTP for an ERP on loopback only, so that is where it is.
    to_erp = UplinkCable(*erp)
    await to_erp.start()
    cloud = await asyncio.to_thread(
        StandinCloud.start, directory, f"http://127.0.0.1:{to_erp.port}", pilot=pilot
    )
    from_device = UplinkCable(cloud.mqtt_host, cloud.mqtt_port)
    try:
        hand_over(cloud, handover)
        await from_device.start(host, MQTT_PORT)
        server = uvicorn.Server(
            uvicorn.Config(
                application(cloud),
                host=host,
                port=HTTP_PORT,
                log_level="warning",
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        await server.serve()
    finally:
        await from_device.stop()
        await asyncio.to_thread(cloud.stop)
        await to_erp.stop()


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m linewatch_plant.compose_cloud", description=__doc__)
    parser.add_argument("--erp", required=True, metavar="HOST:PORT")
    parser.add_argument("--handover", type=Path, required=True, help="folder for certificates and token")
    parser.add_argument("--directory", type=Path, default=Path("/tmp/cloud"), help="state; emptied at start")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on inside the container")
    parser.add_argument("--pilot", action="store_true", help="every work order awaits approval")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.directory, ignore_errors=True)
    erp_host, _, erp_port = arguments.erp.rpartition(":")
    # A container's first process has no default for SIGTERM: until uvicorn takes it over, it means stop, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            run(
                (erp_host, int(erp_port)),
                arguments.handover,
                arguments.directory,
                arguments.host,
                pilot=arguments.pilot,
            )
        )


if __name__ == "__main__":
    main()
