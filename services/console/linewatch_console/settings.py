# SPDX-License-Identifier: Apache-2.0
"""Every environment variable of the console."""

import ipaddress
import json
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from linewatch_console.people import ROLES, Person, Role, is_name
from linewatch_console.user_list import SHORTEST_PASSWORD
from linewatch_runtime.settings import Port, ServiceSettings, service_settings


class Settings(ServiceSettings):
    """The console's settings; prefix CONSOLE_."""

    model_config = service_settings("CONSOLE_")

    host: str = "127.0.0.1"
    """Address that the page is served on. Anything but loopback needs a way to sign in."""
    port: Port = 8080
    """Port of the page."""
    public_url: str = ""
    """Address under which people reach the page through a TLS proxy, such as https://console.plant.example: cookies are then for TLS only, and no other name is answered. Empty: the name that a request came to."""
    trusted_proxies: str = ""
    """Addresses of proxies, separated by commas, whose X-Forwarded-For is believed for limits and the audit log. Empty: none."""
    users_file: Path | None = None
    """List of users with roles, made by `python -m linewatch_console.users`, and read again when it changes. Takes the place of CONSOLE_PASSWORD_FILE."""
    password_file: Path | None = None
    """File with one password for all, at least 12 characters; who has it is an approver."""
    operator_name: str = Field(default="supervisor", min_length=1, max_length=80)
    """Who approves and rejects where people do not sign in by name, as the work order records it."""
    session_hours: float = Field(default=12.0, gt=0, le=720)
    """Hours after which one has to sign in again; who is removed at the identity provider stays signed in here until then."""
    session_idle_minutes: float = Field(default=240.0, gt=0)
    """Minutes without use after which one has to sign in again; a page that a viewer leaves open counts as use."""
    oidc_issuer: str = ""
    """Address of the OpenID Connect provider that people sign in with. Empty: none. Needs CONSOLE_PUBLIC_URL."""
    oidc_client_id: str = ""
    """Name of this console at that provider; CONSOLE_PUBLIC_URL/oidc/callback has to be registered there."""
    oidc_client_secret_file: Path | None = None
    """File with the client's secret. Empty: a public client, by PKCE alone."""
    oidc_scopes: str = "openid,profile,email"
    """What the provider is asked for, separated by commas."""
    oidc_name_claim: str = "email"
    """Claim of the ID token that decisions are recorded under, one that people can't change themselves; preferred_username and sub stand in for it."""
    oidc_role_claim: str = "roles"
    """Claim of the ID token that holds the person's groups or roles: a text or a list; a.b names b within a."""
    oidc_role_map: str = ""
    """Which value of that claim is viewer, approver or admin: `group=approver,other-group=admin`, or the same as a JSON object. The highest counts; who has none is refused, unless `*` is mapped."""
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
    audit_max_mb: int = Field(default=32, ge=1, le=4096)
    """Megabytes that the audit log may take in CONSOLE_STATE_DIR; its oldest eighth goes when it is full."""

    @property
    def sign_in(self) -> Literal["none", "password", "users", "oidc"]:
        """What the page offers first."""
        if self.oidc_issuer:
            return "oidc"
        if self.users_file:
            return "users"
        return "password" if self.password_file else "none"

    @property
    def local(self) -> Person | None:
        """Who everybody is where nobody signs in."""
        return Person(self.operator_name, "approver") if self.sign_in == "none" else None

    @property
    def roles(self) -> dict[str, Role]:
        """CONSOLE_OIDC_ROLE_MAP."""
        return _role_map(self.oidc_role_map)

    @field_validator("public_url")
    @classmethod
    def _is_an_origin(cls, value: str) -> str:
        address = urlsplit(value.rstrip("/"))
        if not value:
            return value
        is_safe = address.scheme == "https" or (
            address.scheme == "http" and is_loopback(address.hostname or "")
        )
        if (
            not is_safe
            or not address.hostname
            or address.path
            or address.query
            or address.fragment
            or address.username
        ):
            raise ValueError(
                "it must be https://host or https://host:port, without a path (http:// for loopback only)"
            )
        return value.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        for one in (part.strip() for part in value.split(",") if part.strip()):
            try:
                ipaddress.ip_network(one)
            except ValueError as error:
                raise ValueError(
                    f"{one!r} is no IP address or network, such as 10.0.0.5 or 10.0.0.0/24"
                ) from error
        return value

    @field_validator("operator_name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError("a name has 1 to 80 visible characters and no blank at its ends")
        return value

    @field_validator("oidc_role_map")
    @classmethod
    def _maps_to_roles(cls, value: str) -> str:
        _role_map(value)
        return value

    @model_validator(mode="after")
    def _is_safe_to_serve(self) -> "Settings":
        if not is_loopback(self.host) and self.sign_in == "none":
            raise ValueError(
                f"CONSOLE_USERS_FILE, CONSOLE_PASSWORD_FILE or CONSOLE_OIDC_ISSUER must be set, because CONSOLE_HOST="
                f"{self.host} can be reached from other machines and this page approves work orders; set one, or use "
                "CONSOLE_HOST=127.0.0.1"
            )
        if self.password_file is not None and len(read_secret(self.password_file)) < SHORTEST_PASSWORD:
            raise ValueError(
                f"CONSOLE_PASSWORD_FILE: {self.password_file} must hold a password of at least "
                f"{SHORTEST_PASSWORD} characters"
            )
        if self.oidc_issuer:
            self._check_oidc()
        if self.cloud_api_url and not self.cloud_api_url.startswith(("http://", "https://")):
            raise ValueError(
                f"CONSOLE_CLOUD_API_URL must start with http:// or https://, got {self.cloud_api_url!r}"
            )
        if self.cloud_api_url and self.cloud_api_token_file is None:
            raise ValueError("CONSOLE_CLOUD_API_TOKEN_FILE must be set with CONSOLE_CLOUD_API_URL")
        return self

    def _check_oidc(self) -> None:
        address = urlsplit(self.oidc_issuer)
        if address.scheme != "https" and not (
            address.scheme == "http" and is_loopback(address.hostname or "")
        ):
            raise ValueError(f"CONSOLE_OIDC_ISSUER must start with https://, got {self.oidc_issuer!r}")
        for name in ("public_url", "oidc_client_id"):
            if not getattr(self, name):
                raise ValueError(f"CONSOLE_{name.upper()} must be set with CONSOLE_OIDC_ISSUER")
        if "openid" not in self.oidc_scopes.replace(",", " ").split():
            raise ValueError("CONSOLE_OIDC_SCOPES must contain openid")
        if not self.roles:
            raise ValueError(
                "CONSOLE_OIDC_ROLE_MAP must be set with CONSOLE_OIDC_ISSUER: without it nobody could do anything"
            )
        if self.oidc_client_secret_file is not None and not read_secret(self.oidc_client_secret_file):
            raise ValueError(
                f"CONSOLE_OIDC_CLIENT_SECRET_FILE: {self.oidc_client_secret_file} holds no secret"
            )


def _role_map(text: str) -> dict[str, Role]:
    """Raises ValueError."""
    wrong = ValueError(
        "it must be such as linewatch-approvers=approver,linewatch-admins=admin, or the same as JSON"
    )
    if not text.strip().startswith("{"):
        pairs = [part.strip().rpartition("=") for part in text.split(",") if part.strip()]
        content: Any = {value.strip(): role.strip() for value, _, role in pairs}
    else:
        try:
            content = json.loads(text)
        except ValueError as error:
            raise wrong from error
    if not isinstance(content, dict) or not all(name and role in ROLES for name, role in content.items()):
        raise wrong
    return content


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
