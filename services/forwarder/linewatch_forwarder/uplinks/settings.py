# SPDX-License-Identifier: Apache-2.0
"""The settings of the way to the cloud."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from linewatch_forwarder.uplinks import files
from linewatch_runtime.settings import Port, ServiceSettings


class UplinkSettings(ServiceSettings):
    """Which uplink, where it is and who we are to it."""

    uplink: Literal["mqtt", "none"] = "mqtt"
    """mqtt: IoT Core over mutual TLS. none: not set up yet; every event waits on this device, as in an outage."""
    uplink_host: str = ""
    """The account's IoT Core data endpoint."""
    uplink_port: Port = 8883
    """Its port for MQTT over mutual TLS."""
    uplink_client_id: str = ""
    """Client id at IoT Core, as the certificate's policy allows it. Empty: the device's name with -forwarder."""
    uplink_ca_file: Path | None = None
    """CA certificate of the endpoint."""
    uplink_certificate_file: Path | None = None
    """This device's certificate."""
    uplink_key_file: Path | None = None
    """Its private key."""
    uplink_rate: float = Field(default=100.0, gt=0)
    """Publishes per second at most; IoT Core allows 100 on one connection."""

    @model_validator(mode="after")
    def _files_fit(self) -> "UplinkSettings":
        if self.uplink == "none":
            return self
        if not self.uplink_host:
            raise ValueError(
                "FORWARDER_UPLINK_HOST must be set to the IoT Core data endpoint, or FORWARDER_UPLINK=none"
            )
        names = ("uplink_ca_file", "uplink_certificate_file", "uplink_key_file")
        paths = [path for name in names if (path := getattr(self, name)) is not None]
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"FORWARDER_{name.upper()} must be set: the uplink is mutual TLS")
        files.check(*paths)
        return self

    @property
    def client_id(self) -> str:
        """The client id at IoT Core; never the Greengrass nucleus's own, which is the bare thing name."""
        return self.uplink_client_id or f"{self.device}-forwarder"
