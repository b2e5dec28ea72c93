# SPDX-License-Identifier: Apache-2.0
"""Reads a service's settings from the environment, once, in `__main__`.

A wrong value, a missing one and an unknown name are fatal before anything else happens, each told with the variable's
name and the remedy. A typing error such as CAPTURE_RAET must not leave a line running on a default.
"""

import difflib
import os
import sys
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, StringConstraints, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]
"""A site, line, station or device as it stands in topics: lower case letters, digits, _ and -."""

Port = Annotated[int, Field(ge=1, le=65535)]

LoggedLevel = Annotated[str, StringConstraints(pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")]

EXIT_BAD_SETTINGS = 2


class ServiceSettings(BaseSettings):
    """The settings that every edge service has."""

    model_config = SettingsConfigDict(frozen=True, use_attribute_docstrings=True, extra="forbid")

    site: Name = "plant-1"
    """Site in every topic."""
    device: Name = "device-1"
    """Name of this device; a part of MQTT client ids."""
    state_dir: Path = Path("/var/lib/linewatch")
    """Directory of this service's durable state. Must be writable and on a real disk."""
    log_level: LoggedLevel = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    heartbeat_file: Path | None = None
    """File that is touched while the service can do its work; empty: none. For health checks."""
    metrics_host: str = "127.0.0.1"
    """Address of the Prometheus endpoint."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the Prometheus endpoint; 0: none."""
    mqtt_host: str = "127.0.0.1"
    """Address of the broker on the device."""
    mqtt_port: Port = 1883
    """Port of the broker."""
    mqtt_username: str | None = None
    """User at the broker, if it asks for one."""
    mqtt_password_file: Path | None = None
    """File with that user's password."""
    mqtt_ca_file: Path | None = None
    """CA certificate; set it to speak TLS to the broker."""

    @field_validator("heartbeat_file")
    @classmethod
    def _heartbeat_can_be_written(cls, value: Path | None) -> Path | None:
        if value and not os.access(value.parent, os.W_OK | os.X_OK):
            raise ValueError("its directory must be there and writable for this user; /tmp/heartbeat will do")
        return value


def service_settings(prefix: str) -> SettingsConfigDict:
    """The model_config of a service's settings class, such as `service_settings("CAPTURE_")`."""
    return SettingsConfigDict(
        env_prefix=prefix, env_ignore_empty=True, frozen=True, use_attribute_docstrings=True, extra="forbid"
    )


Settings = TypeVar("Settings", bound=BaseSettings)


def load(settings: type[Settings], *, is_whole: bool = True) -> Settings:
    """The settings of this process. Prints what is wrong and exits with 2 when they can't be used.

    `is_whole=False`: for a command that reads a part of a service's settings; what it does not know is the service's.
    """
    problems = unknown_variables(settings) if is_whole else []
    try:
        loaded = settings()
    except ValidationError as error:
        problems += [_told(settings, dict(problem)) for problem in error.errors()]
    if problems:
        for problem in problems:
            print(problem, file=sys.stderr)
        sys.exit(EXIT_BAD_SETTINGS)
    return loaded


def unknown_variables(settings: type[BaseSettings]) -> list[str]:
    """A message for each variable that has the prefix but names no setting."""
    prefix = settings.model_config.get("env_prefix", "")
    known = {(prefix + name).upper() for name in settings.model_fields}
    messages = []
    for name in sorted(os.environ):
        if not name.upper().startswith(prefix.upper()) or name.upper() in known:
            continue
        near = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else "remove it, or see the service's README for the names"
        messages.append(f"{name}: there is no such setting; {hint}")
    return messages


def _told(settings: type[BaseSettings], problem: dict[str, object]) -> str:
    prefix = settings.model_config.get("env_prefix", "")
    location = problem["loc"]
    name = str(location[0]) if isinstance(location, tuple) and location else ""
    field = settings.model_fields.get(name)
    variable = (prefix + name).upper()
    meaning = f" ({field.description})" if field and field.description else ""
    if problem["type"] == "missing":
        return f"{variable}: it must be set{meaning}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    # A check over several settings names the variable itself.
    return f"{variable}: {message}, got {problem['input']!r}{meaning}" if field else message
