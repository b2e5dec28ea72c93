# SPDX-License-Identifier: Apache-2.0
"""Every product's simulator as a process, and its adapter as erp.choose makes it; shared by the tests of the ERPs."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError
from cloud_line import wait_for_erp

from erp.choose import erp_of
from erp.port import Erp
from linewatch_plant.erp_simulator import DEFAULT_CLIENT_ID, ErpClient
from linewatch_plant.processes import free_port

# Looked for in every exception, log line and transcript.
CANARY = "canary+/secret=with &quotes'\"äß"
# Of calls that are answered: the simulators share a busy machine with the tests, and being late is not what is tested.
TIMEOUT_S = 20.0
# Of calls that are never answered, or byte by byte: each costs the test so long.
HASTY_S = 3.0

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "rest": {},
    "sap": {
        "findings": {"CONF": "confirmed", "OTHR": "other_fault", "NONE": "no_fault"},
        "constants": {"MaintenancePlanningPlant": "1010"},
    },
    "odoo": {"database": "plant"},
    "maximo": {"siteid": "BEDFORD"},
    "atlas": {},
}
# What a technician of this product enters for our words.
CODES = {"sap": {"confirmed": "CONF", "other_fault": "OTHR", "no_fault": "NONE"}}
PRODUCTS = tuple(SETTINGS)


class SecretsManager:
    """Secrets Manager's one call, with stages."""

    def __init__(self, **current: str) -> None:
        self.stages: dict[str, str] = {"AWSCURRENT": json.dumps(current)}
        self.reads = 0

    def rotate(self, **current: str) -> None:
        """As Secrets Manager does: what was current is previous now."""
        self.stages = {"AWSCURRENT": json.dumps(current), "AWSPREVIOUS": self.stages["AWSCURRENT"]}

    def get_secret_value(self, **call: str) -> dict[str, str]:
        self.reads += 1
        if call["VersionStage"] not in self.stages:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetSecretValue")
        return {"SecretString": self.stages[call["VersionStage"]]}


def credentials(product: str, secret: str) -> dict[str, str]:
    """The secret's value as this product's adapter wants it."""
    if product == "rest":
        return {"client_id": DEFAULT_CLIENT_ID, "client_secret": secret}
    if product == "sap":
        return {"user": DEFAULT_CLIENT_ID, "password": secret}
    return {"api_key": secret}


@dataclass(slots=True)
class Connected:
    """One product: its simulator, the adapter against it, the secret between them."""

    product: str
    simulator: ErpClient
    secrets: SecretsManager
    erp: Erp
    url: str
    settings: dict[str, Any] = field(default_factory=dict)

    def adapter(self, timeout_s: float = TIMEOUT_S, **settings: Any) -> Erp:
        """A fresh adapter, as another process has it."""
        return erp_of(environment(self.product, self.url, timeout_s, **settings), self.secrets)

    def rotate(self, secret: str) -> None:
        """The plant puts a new secret into both."""
        self.secrets.rotate(**credentials(self.product, secret))
        self.simulator.rotate(secret)

    def kept(self, reference: str) -> list[dict[str, Any]]:
        """What the simulator has under this reference."""
        return [order for order in self.simulator.orders() if order["external_reference"] == reference]

    def code(self, finding: str) -> str:
        """The technician's word for this finding."""
        return CODES.get(self.product, {}).get(finding, finding)


def environment(product: str, url: str, timeout_s: float = TIMEOUT_S, **settings: Any) -> dict[str, str]:
    """As the functions get it."""
    return {
        "ERP_KIND": product,
        "ERP_BASE_URL": url + ("/maximo/api" if product == "maximo" else ""),
        "ERP_SECRET_ID": "erp",
        "ERP_TIMEOUT_S": str(timeout_s),
        "ERP_SETTINGS": json.dumps({**SETTINGS[product], **settings}),
    }


@contextmanager
def serving(product: str, *arguments: str) -> Iterator[Connected]:
    """The simulator as a process of its own, and an adapter against it."""
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "linewatch_plant.erp_simulator",
            "--product",
            product,
            "--port",
            str(port),
            *arguments,
        ],
        stderr=subprocess.DEVNULL,  # of answers that it breaks off on purpose
    )
    try:
        simulator = ErpClient(f"http://127.0.0.1:{port}", timeout_s=30.0)
        wait_for_erp(process, simulator)
        simulator.rotate(CANARY)
        secrets = SecretsManager(**credentials(product, CANARY))
        erp = erp_of(environment(product, simulator.url), secrets)
        yield Connected(product, simulator, secrets, erp, simulator.url)
    finally:
        process.terminate()
        process.wait(60)
