# SPDX-License-Identifier: Apache-2.0
"""The nucleus's configuration file of a device, in the form of each of the two runtimes."""

from dataclasses import dataclass
from typing import Any, Final, Literal

import yaml

Runtime = Literal["classic", "lite"]

NUCLEUS: Final = {"classic": "aws.greengrass.Nucleus", "lite": "aws.greengrass.NucleusLite"}
VERSION: Final = "2.18.0"
"""Of the classic nucleus; `components` in fleet.yaml replaces it. Deployments pin it, too."""
ACCELERATOR: Final = "io.linewatch.accelerator"
"""Attribute of the platform that chooses the manifest for Jetson; the lite runtime knows no such attributes."""
# Where each runtime keeps what: root path, folder of its credentials, user of its components.
ROOTS: Final = {"classic": "/greengrass/v2", "lite": "/var/lib/greengrass"}
CREDENTIALS: Final = {"classic": "/greengrass/v2/credentials", "lite": "/etc/greengrass/credentials"}
USERS: Final = {"classic": "ggc_user:ggc_group", "lite": "gg_component:gg_component"}
# Twice AWS's own bound: status and jobs of a device that is offline for a shift. Events have their own spool.
_SPOOL_BYTES = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a device of the account connects to, and as what."""

    region: str
    role_alias: str
    data_endpoint: str
    credentials_endpoint: str


def configuration(
    runtime: Runtime, thing: str, connection: Connection, version: str, accelerator: str
) -> str:
    """The file for `--init-config` (classic) or /etc/greengrass/config.yaml (lite)."""
    place = CREDENTIALS[runtime]
    settings: dict[str, Any] = {
        "awsRegion": connection.region,
        "iotRoleAlias": connection.role_alias,
        "iotDataEndpoint": connection.data_endpoint,
        "iotCredEndpoint": connection.credentials_endpoint,
        "runWithDefault": {"posixUser": USERS[runtime]},
    }
    nucleus: dict[str, Any] = {"componentType": "NUCLEUS", "configuration": settings}
    if runtime == "lite":
        settings["greengrassDataPlanePort"] = "8443"
    else:
        nucleus["version"] = version
        settings["mqtt"] = {
            "port": 8883,
            "spooler": {
                "storageType": "Memory",
                "maxSizeInBytes": _SPOOL_BYTES,
                "keepQos0WhenOffline": False,
            },
        }
        settings["logging"] = {
            "level": "INFO",
            "format": "JSON",
            "fileSizeKB": 1024,
            "totalLogsSizeKB": 10240,
        }
        settings["telemetry"] = {"enabled": True, "periodicAggregateMetricsIntervalSeconds": 3600}
        if accelerator:
            settings["platformOverride"] = {ACCELERATOR: accelerator}
    content = {
        "system": {
            "certificateFilePath": f"{place}/certificate.pem",
            "privateKeyPath": f"{place}/key.pem",
            "rootCaPath": f"{place}/ca.pem",
            # The two runtimes spell it differently.
            ("rootPath" if runtime == "lite" else "rootpath"): ROOTS[runtime],
            "thingName": thing,
        },
        "services": {NUCLEUS[runtime]: nucleus},
    }
    return yaml.safe_dump(content, sort_keys=False)
