# SPDX-License-Identifier: Apache-2.0
"""The Prometheus endpoint of a process."""

import logging
import sys

from prometheus_client import disable_created_metrics, start_http_server

from linewatch_runtime.settings import EXIT_BAD_SETTINGS

log = logging.getLogger(__name__)


def serve_metrics(host: str, port: int, variable: str = "METRICS_PORT") -> None:
    """Serves /metrics in a thread of its own; port 0 serves none. A taken port ends the process with 2."""
    if port == 0:
        return
    # A second series beside each count, which nothing here asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        start_http_server(port, addr=host)
    except OSError as error:
        print(
            f"{variable}: can't listen on {host}:{port}: {error.strerror}; choose a free port",
            file=sys.stderr,
        )
        sys.exit(EXIT_BAD_SETTINGS)
    log.info("metrics_served", extra={"host": host, "port": port})
