# SPDX-License-Identifier: Apache-2.0
"""Serves the simulator of one ERP or CMMS, and is the client of its admin endpoints.

    python -m linewatch_plant.erp_simulator --product sap --port 8600

erp_simulators/ has the products. State lives in memory, and in a file where one is named (`--state`), so that a
restarted ERP knows its orders.
"""

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import requests
import uvicorn

from linewatch_plant.erp_simulators.serving import PRODUCTS, application

# Of a simulator on loopback; a secret that everybody may know.
DEFAULT_CLIENT_ID, DEFAULT_SECRET = "linewatch", "erp-simulator-secret"


class ErpClient:
    """What the plant and its tests ask the simulator for: orders, faults, counts of calls."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s

    def orders(self) -> list[dict[str, Any]]:
        """Every order, oldest first, whatever faults are set. Raises requests.RequestException."""
        answer = requests.get(f"{self.url}/admin/orders", timeout=self._timeout_s)
        answer.raise_for_status()
        orders: list[dict[str, Any]] = answer.json()["work_orders"]
        return orders

    def set_faults(self, **faults: int) -> None:
        """Sets the named faults, see Faults; `revoke_tokens=1` forgets every token."""
        requests.put(f"{self.url}/admin/faults", json=faults, timeout=self._timeout_s).raise_for_status()

    def technician(self, erp_id: str, **entered: str) -> None:
        """Enters what a technician does: state, and finding, found_failure, note, by, at where there are any."""
        requests.put(
            f"{self.url}/admin/orders/{erp_id}", json=entered, timeout=self._timeout_s
        ).raise_for_status()

    def rotate(self, client_secret: str) -> None:
        """From now on only this secret, key or password is taken."""
        answer = requests.put(
            f"{self.url}/admin/secret", json={"client_secret": client_secret}, timeout=self._timeout_s
        )
        answer.raise_for_status()

    def calls(self) -> dict[str, int]:
        """Calls by what became of them: "created", "found", "token", "unauthorized", or the fault's name.

        "created_late": orders that came after a 500.
        """
        answer = requests.get(f"{self.url}/admin/calls", timeout=self._timeout_s)
        answer.raise_for_status()
        calls: dict[str, int] = answer.json()
        return calls

    def is_up(self) -> bool:
        """Whether it listens."""
        try:
            self.calls()
        except requests.RequestException:
            return False
        return True


def main() -> None:
    """Serves on loopback until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="simulator of an ERP or CMMS")
    parser.add_argument("--product", choices=PRODUCTS, default="rest")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8600)
    parser.add_argument("--client-id", default=os.environ.get("ERP_CLIENT_ID", DEFAULT_CLIENT_ID))
    parser.add_argument("--token-life-s", type=float, default=3600.0)
    parser.add_argument("--state", type=Path, help="file that keeps the orders over a restart")
    arguments = parser.parse_args()
    # The secret comes by environment, not by argument: arguments are seen by every user of the machine.
    secret = os.environ.get("ERP_CLIENT_SECRET", DEFAULT_SECRET)
    app = application(arguments.client_id, secret, arguments.token_life_s, arguments.state, arguments.product)
    # uvicorn sends itself the signal again once it has stopped: that is to end in order, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
        lifespan="off",
    )


if __name__ == "__main__":
    main()
