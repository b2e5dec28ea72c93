# SPDX-License-Identifier: Apache-2.0
"""Every environment variable of the forwarder."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from linewatch_forwarder import uplink_files
from linewatch_runtime.settings import Port, ServiceSettings, service_settings
from linewatch_runtime.spool import WhenFull


class Settings(ServiceSettings):
    """The forwarder's settings; prefix FORWARDER_."""

    model_config = service_settings("FORWARDER_")

    stream_max_bytes: int = Field(default=10 * 1024 * 1024, ge=2 * 1024 * 1024)
    """Bytes that one stream may hold on disk; at least as many as one group commit of the largest events needs."""
    stream_max_age_s: float = Field(default=7 * 24 * 3600.0, gt=0)
    """Seconds that an event may wait for the cloud before it expires and is counted."""
    when_full: WhenFull = WhenFull.SHED_GOOD
    """What a full stream does: shed_good, reject or overwrite_oldest."""
    file_max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Cap of the spool's file over all streams. Keep it well below the volume's free space."""
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
    def _files_fit(self) -> "Settings":
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
        uplink_files.check(*paths)
        return self

    @property
    def client_id(self) -> str:
        """The client id at IoT Core; never the Greengrass nucleus's own, which is the bare thing name."""
        return self.uplink_client_id or f"{self.device}-forwarder"
