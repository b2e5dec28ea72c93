# SPDX-License-Identifier: Apache-2.0
"""Every environment variable of the inference service."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from linewatch_inference.package import read_trusted_keys
from linewatch_inference.session import CPU, ProviderPolicy
from linewatch_runtime.settings import Port, ServiceSettings, service_settings

_MODEL = re.compile(r"^[a-z0-9][a-z0-9_-]*(:\d+\.\d+\.\d+)?$")


class Settings(ServiceSettings):
    """The inference service's settings; prefix INFERENCE_."""

    model_config = service_settings("INFERENCE_")

    host: str = "127.0.0.1"
    """Address that gRPC listens on."""
    port: Port = 8001
    """Port that gRPC listens on."""
    models_dir: Path = Path("/var/lib/linewatch/models")
    """Directory of the model packages: <name>/<version>/ or <name>/releases/<version>/."""
    models: str = ""
    """Which packages to serve, `name` or `name:version`, separated by commas. Empty: all. Without a version the model's file `active` names it, or else it is the newest."""
    variant: Literal["fp32", "int8"] = "fp32"
    """Which graph to run; int8 only where the package has one."""
    execution_providers: str = CPU
    """ONNX Runtime execution providers, best first, separated by commas."""
    provider_policy: ProviderPolicy = ProviderPolicy.STRICT
    """When the first provider can't run a model: strict refuses the model, degrade takes the next one and says so."""
    workers: int = Field(default=1, ge=1, le=64)
    """Parts that are judged at the same time."""
    queue_limit: int = Field(default=8, ge=0, le=1024)
    """Parts that may wait for a worker; more are refused as busy."""
    stream_limit: int = Field(default=16, ge=1, le=1024)
    """Streams that may be open at once."""
    intra_op_threads: int = Field(default=1, ge=1, le=64)
    """Threads of one run of a graph. They never spin."""
    trusted_keys_dir: Path | None = None
    """Directory with Ed25519 public keys (*.pem), read at each load. Set: only packages signed by one of them are served."""
    shared_memory_dir: Path | None = None
    """Directory, such as a tmpfs, in which callers leave pixels. Empty: shared-memory images are refused."""
    max_message_bytes: int = Field(default=20 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    """Largest gRPC message, bytes."""
    drain_s: float = Field(default=5.0, ge=0.0, le=300.0)
    """Seconds that a stop waits for calls that run."""
    tls_certificate_file: Path | None = None
    """Server certificate (PEM). Empty: no TLS; then listen on a loopback or a private network only."""
    tls_key_file: Path | None = None
    """Its private key."""
    tls_client_ca_file: Path | None = None
    """CA certificate that callers' certificates must come from. Set: mutual TLS."""
    mqtt_host: str = ""
    """Address of the broker on the device, for engine events and status. Empty: none are published."""

    @field_validator("models")
    @classmethod
    def _models_are_names(cls, value: str) -> str:
        for word in _words(value):
            if not _MODEL.match(word):
                raise ValueError(f"{word!r} is neither `name` nor `name:1.0.0`")
        return value

    @field_validator("execution_providers")
    @classmethod
    def _at_least_one_provider(cls, value: str) -> str:
        if not _words(value):
            raise ValueError("name at least one provider, such as CPUExecutionProvider")
        return value

    @field_validator("trusted_keys_dir")
    @classmethod
    def _keys_can_be_read(cls, value: Path | None) -> Path | None:
        # None there yet is no wrong setting: on a new device packages are refused until the key has come.
        read_trusted_keys(value)
        return value

    @model_validator(mode="after")
    def _tls_files_fit(self) -> "Settings":
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("INFERENCE_TLS_CERTIFICATE_FILE and INFERENCE_TLS_KEY_FILE: set both or none")
        if self.tls_client_ca_file and not self.tls_certificate_file:
            raise ValueError("INFERENCE_TLS_CLIENT_CA_FILE: needs INFERENCE_TLS_CERTIFICATE_FILE as well")
        for name in ("tls_certificate_file", "tls_key_file", "tls_client_ca_file"):
            path = getattr(self, name)
            if path and not path.is_file():
                raise ValueError(f"INFERENCE_{name.upper()}: there is no file {path}")
        return self

    @property
    def wanted_models(self) -> list[tuple[str, str]]:
        """(name, version) pairs, version "" for the newest."""
        return [(name, version) for name, _, version in (word.partition(":") for word in _words(self.models))]

    @property
    def providers(self) -> list[str]:
        """Execution providers, best first."""
        return _words(self.execution_providers)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
