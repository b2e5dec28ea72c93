# SPDX-License-Identifier: Apache-2.0
"""The settings of the way to the cloud."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from linewatch_forwarder.uplinks import files
from linewatch_runtime.nucleus_ipc import SOCKET_VARIABLE, TOKEN_VARIABLE
from linewatch_runtime.settings import Port, ServiceSettings

CREDENTIAL_VARIABLES = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")
"""What tells that boto3's own chain will find credentials: the token exchange service, or a developer's own."""

THING_NAME_VARIABLE = "AWS_IOT_THING_NAME"
"""What the nucleus tells its components: the core device's thing name, which is its own client id."""


class UplinkSettings(ServiceSettings):
    """Which uplink, where it is and who we are to it."""

    uplink: Literal["mqtt", "greengrass_ipc", "none"] = "mqtt"
    """mqtt: IoT Core over mutual TLS. greengrass_ipc: through the nucleus, which may lose what it took; see above. none: not set up yet; every event waits on this device, as in an outage."""
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
    uplink_bytes_per_s: int = Field(default=512 * 1024, ge=1024)
    """Payload bytes per second at most; IoT Core allows 512 KiB on one connection."""
    batch_max_events: int = Field(default=40, ge=1, le=50)
    """Events in one publish at most, when more than one waits; 1: each goes alone."""
    batch_max_bytes: int = Field(default=32 * 1024, ge=1024, le=128 * 1024)
    """Payload bytes of a publish with several events at most."""
    basic_ingest_rule: str = Field(default="", pattern=r"^[A-Za-z0-9_]{0,128}$")
    """Name of an IoT rule that gets every event by Basic Ingest, past the message broker and its price: the stack's
    IngestRuleName. No acknowledgement tells whether there is such a rule; the policy, which allows this one only, refuses
    a wrong name. Empty: each event goes to its own topic."""
    resend_window_s: float = Field(default=120.0, gt=0, le=3600)
    """greengrass_ipc: seconds that an event is kept after the nucleus took it, to be sent again if the nucleus restarts."""
    event_bus: str = Field(default="", pattern=r"^[A-Za-z0-9._/:-]{0,256}$")
    """Name or ARN of an EventBridge bus for engine events, which then do not go to IoT Core. Empty: none."""
    event_bus_kinds: Literal["lifecycle", "all"] = "lifecycle"
    """lifecycle: engine events go to that bus. all: every InferenceCompleted too, and to IoT Core as well."""
    aws_region: str = Field(default="", pattern=r"^[a-z0-9-]{0,32}$")
    """Region of the AWS services other than IoT Core that this forwarder uses."""
    credentials_host: str = Field(default="", pattern=r"^[A-Za-z0-9.-]*(:[0-9]+)?$")
    """The account's IoT credential provider endpoint: the uplink's certificate gives AWS credentials there. Empty: the
    token exchange service, or what else boto3 finds."""
    role_alias: str = Field(default="", pattern=r"^[\w=,@-]{0,128}$")
    """Role alias whose role those credentials are of."""

    @model_validator(mode="after")
    def _uplink_is_whole(self) -> "UplinkSettings":
        if self.uplink == "mqtt" and not self.uplink_host:
            raise ValueError(
                "FORWARDER_UPLINK_HOST must be set to the IoT Core data endpoint, or FORWARDER_UPLINK=none"
            )
        if self.uplink == "greengrass_ipc":
            for name in (SOCKET_VARIABLE, TOKEN_VARIABLE):
                if not os.environ.get(name):
                    raise ValueError(
                        f"{name} is not set: FORWARDER_UPLINK=greengrass_ipc is for a component of Greengrass;"
                        " pass it into the container, or choose FORWARDER_UPLINK=mqtt"
                    )
        if self.uplink == "mqtt":
            self._check_files("the uplink is mutual TLS")
        if self.uplink == "mqtt" and self.client_id == os.environ.get(THING_NAME_VARIABLE):
            raise ValueError(
                f"FORWARDER_UPLINK_CLIENT_ID: {self.client_id} is the Greengrass nucleus's own client id, and each of two"
                " with one id ends the other's session; leave the variable empty, or add -forwarder to the name"
            )
        return self

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> "UplinkSettings":
        if self.role_alias and not self.credentials_host:
            raise ValueError(
                "FORWARDER_CREDENTIALS_HOST must be set to the account's credential provider endpoint"
                " (aws iot describe-endpoint --endpoint-type iot:CredentialProvider), or FORWARDER_ROLE_ALIAS removed"
            )
        if self.credentials_host and not self.role_alias:
            raise ValueError(
                "FORWARDER_ROLE_ALIAS must be set: the credential provider is asked for its role"
            )
        if self.credentials_host:
            self._check_files("the credential provider asks for the uplink's certificate")
        if self.event_bus and self.uplink != "none":
            self.need_credentials("FORWARDER_EVENT_BUS")
        return self

    def need_credentials(self, variable: str) -> None:
        """Raises ValueError when the setting that `variable` names needs AWS credentials and there is no way to them."""
        if not self.aws_region:
            raise ValueError(f"FORWARDER_AWS_REGION must be set: {variable} needs it")
        if not self.credentials_host and not any(os.environ.get(name) for name in CREDENTIAL_VARIABLES):
            raise ValueError(
                f"FORWARDER_CREDENTIALS_HOST and FORWARDER_ROLE_ALIAS must be set, or {CREDENTIAL_VARIABLES[0]} passed"
                f" in by the nucleus: {variable} needs AWS credentials"
            )

    def _check_files(self, reason: str) -> None:
        names = ("uplink_ca_file", "uplink_certificate_file", "uplink_key_file")
        paths = [path for name in names if (path := getattr(self, name)) is not None]
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"FORWARDER_{name.upper()} must be set: {reason}")
        files.check(*paths)

    @property
    def client_id(self) -> str:
        """The client id at IoT Core; never the Greengrass nucleus's own, which is the bare thing name."""
        return self.uplink_client_id or f"{self.device}-forwarder"
