# SPDX-License-Identifier: Apache-2.0
"""Which ERP it is, from a Lambda's environment: the one place that names the adapters."""

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from erp.atlas import REFUSALS, AtlasErp, AtlasSettings
from erp.http import Http
from erp.login import BearerLogin, Caller, Login, SecretLogin
from erp.maximo import MaximoErp, MaximoSettings
from erp.oauth import Tokens
from erp.odoo import OdooErp, OdooSettings
from erp.port import Erp
from erp.rest import HttpErp, RestSettings
from erp.sap import SapErp, SapSettings
from erp.secret import Secret, field
from erp.settings import Common, SettingsError, read
from erp.transcript import Hidden

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the ERP is and what opens it."""

    base_url: str
    timeout_s: float
    secret: Secret
    hidden: Hidden
    # ERP_SETTINGS as it stands.
    settings: str


def _rest(place: Place) -> Erp:
    settings = read(RestSettings, place.settings)
    token_url = settings.token_url or place.base_url + "/oauth/token"
    tokens = _tokens(place, settings, token_url, settings.audience)
    return HttpErp(_caller(place, settings, BearerLogin(tokens)), settings)


def _sap(place: Place) -> Erp:
    settings = read(SapSettings, place.settings)
    login: Login = SecretLogin(place.secret, _basic, place.hidden)
    if settings.auth == "oauth":
        if not settings.token_url:
            raise SettingsError('ERP_SETTINGS: token_url must be set with "auth": "oauth"')
        login = BearerLogin(_tokens(place, settings, settings.token_url))
    return SapErp(_caller(place, settings, login), settings, place.hidden)


def _odoo(place: Place) -> Erp:
    settings = read(OdooSettings, place.settings)
    login = SecretLogin(place.secret, lambda value: {"Authorization": f"bearer {_key(value)}"}, place.hidden)
    return OdooErp(_caller(place, settings, login), settings)


def _maximo(place: Place) -> Erp:
    settings = read(MaximoSettings, place.settings)
    login = SecretLogin(place.secret, lambda value: {"apikey": _key(value)}, place.hidden)
    return MaximoErp(_caller(place, settings, login), settings)


def _atlas(place: Place) -> Erp:
    settings = read(AtlasSettings, place.settings)
    login = SecretLogin(place.secret, lambda value: {"X-API-Key": _key(value)}, place.hidden)
    return AtlasErp(_caller(place, settings, login, REFUSALS), settings)


ADAPTERS: Mapping[str, Callable[[Place], Erp]] = {
    "rest": _rest, "sap": _sap, "odoo": _odoo, "maximo": _maximo, "atlas": _atlas,
}  # fmt: skip
"""By ERP_KIND. Each opens no connection before its first call."""


def _tokens(place: Place, settings: RestSettings | SapSettings, token_url: str, audience: str = "") -> Tokens:
    return Tokens(
        checked_url(token_url, "ERP_SETTINGS token_url"),
        place.secret,
        place.timeout_s,
        place.hidden,
        scope=settings.scope,
        audience=audience,
        client_auth=settings.client_auth,
        ca_pem=settings.ca_pem,
    )


def _caller(
    place: Place, settings: Common, login: Login, refusals: frozenset[int] = frozenset({401})
) -> Caller:
    return Caller(Http(place.base_url, place.timeout_s, place.hidden, settings.ca_pem), login, refusals)


def _basic(value: Mapping[str, str]) -> Mapping[str, str]:
    pair = f"{field(value, 'user')}:{field(value, 'password')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _key(value: Mapping[str, str]) -> str:
    return field(value, "api_key")


def erp_of(environment: Mapping[str, str], secrets_manager: Any) -> Erp:
    """The ERP of ERP_KIND, ERP_BASE_URL, ERP_SECRET_ID, ERP_TIMEOUT_S and ERP_SETTINGS.

    Raises:
        SettingsError: a value can't be used; it names the variable and the remedy.
        KeyError: a variable is missing.
    """
    kind = environment.get("ERP_KIND") or "rest"
    if kind not in ADAPTERS:
        raise SettingsError(f"ERP_KIND is {kind!r}; it must be one of {sorted(ADAPTERS)}")
    hidden = Hidden()
    return ADAPTERS[kind](
        Place(
            checked_url(environment["ERP_BASE_URL"].rstrip("/"), "ERP_BASE_URL"),
            _seconds(environment["ERP_TIMEOUT_S"]),
            Secret(secrets_manager, environment["ERP_SECRET_ID"], hidden),
            hidden,
            environment.get("ERP_SETTINGS", "{}"),
        )
    )


def checked_url(url: str, name: str) -> str:
    """The address, if it is one that credentials may be sent to. Raises SettingsError."""
    try:
        parts = urlsplit(url)
        is_good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good or parts.username or parts.query or parts.fragment:
        raise SettingsError(f"{name} is {url!r}; it must be an address such as https://erp.example.com/api")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise SettingsError(f"{name} is {url!r}; credentials go over https only, plain http to loopback")
    return url


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 60:
        raise SettingsError(f"ERP_TIMEOUT_S is {text!r}; it must be a number of seconds up to 60")
    return seconds
