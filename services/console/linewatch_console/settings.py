# SPDX-License-Identifier: Apache-2.0
"""Every environment variable of the console."""

import ipaddress
from pathlib import Path

from pydantic import Field, model_validator

from linewatch_runtime.settings import Port, ServiceSettings, service_settings

SHORTEST_PASSWORD = 12


class Settings(ServiceSettings):
    """The console's settings; prefix CONSOLE_."""

    model_config = service_settings("CONSOLE_")

    host: str = "127.0.0.1"
    """Address that the page is served on. Anything but loopback needs CONSOLE_PASSWORD_FILE."""
    port: Port = 8080
    """Port of the page."""
    password_file: Path | None = None
    """File with the password that the page asks for, at least 12 characters. Empty: none is asked, loopback only."""
    operator_name: str = Field(default="supervisor", min_length=1, max_length=80)
    """Who approves and rejects, as the work order records it."""
    evidence_dir: Path = Path("/var/lib/linewatch/evidence")
    """Directory in which capture keeps pictures, heat maps and sensor windows. Only read."""
    cloud_api_url: str = ""
    """Address of the cloud's HTTP API for work orders. Empty: the page shows the lines without work orders."""
    cloud_api_token_file: Path | None = None
    """File with the bearer token for that API; read again for each request, so that it can be renewed."""
    cloud_poll_s: float = Field(default=3.0, ge=0.1, le=300)
    """Seconds between two looks at the work orders."""
    stale_after_s: float = Field(default=10.0, gt=0)
    """Age of a station's last part, in seconds, from which its tile turns grey."""
    max_clients: int = Field(default=32, ge=1, le=1000)
    """Pages that may be open at once; one more is refused with 503."""

    @model_validator(mode="after")
    def _is_safe_to_serve(self) -> "Settings":
        if not is_loopback(self.host) and self.password_file is None:
            raise ValueError(
                f"CONSOLE_PASSWORD_FILE must be set, because CONSOLE_HOST={self.host} can be reached from other "
                "machines and this page approves work orders; set it, or use CONSOLE_HOST=127.0.0.1"
            )
        if self.password_file is not None and len(read_secret(self.password_file)) < SHORTEST_PASSWORD:
            raise ValueError(
                f"CONSOLE_PASSWORD_FILE: {self.password_file} must hold a password of at least "
                f"{SHORTEST_PASSWORD} characters"
            )
        if self.cloud_api_url and not self.cloud_api_url.startswith(("http://", "https://")):
            raise ValueError(
                f"CONSOLE_CLOUD_API_URL must start with http:// or https://, got {self.cloud_api_url!r}"
            )
        if self.cloud_api_url and self.cloud_api_token_file is None:
            raise ValueError("CONSOLE_CLOUD_API_TOKEN_FILE must be set with CONSOLE_CLOUD_API_URL")
        return self


def read_secret(path: Path) -> str:
    """The first line's text; empty when the file can't be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
