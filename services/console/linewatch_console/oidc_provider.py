# SPDX-License-Identifier: Apache-2.0
"""An OpenID Connect provider as its client sees it: its metadata, its keys, a code for an ID token that holds.

Nothing of a token is believed before its signature, issuer, audience, times and nonce are checked. Keys are fetched anew
when a token names one that is not known, so that the provider may change them at any time.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from linewatch_console.settings import Settings, is_loopback, read_secret

REQUEST_TIMEOUT_S = 10.0
LARGEST_ANSWER_BYTES = 512 * 1024
METADATA_LASTS_S = 3600.0
KEYS_AT_MOST_EVERY_S = 5.0
"""A token with a made-up key must not make us ask the provider without end."""
LEEWAY_S = 60
"""How far the provider's clock may be off."""
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
"""Signed with a key that only the provider has; never none, and none that our own secret could sign."""


class ProviderAway(Exception):
    """The provider gives no usable answer; the text says why, for people."""


class TokenRefused(Exception):
    """What the provider, or somebody in its name, sent does not hold; the text says why."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What we use of `/.well-known/openid-configuration`."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str
    token_endpoint_auth_methods: tuple[str, ...]
    has_issuer_in_answers: bool


class Provider:
    """One provider. Raises ProviderAway wherever it is asked."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._secret_file = settings.oidc_client_secret_file
        self._client = httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S, follow_redirects=False)
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: KeySet | None = None
        self._keys_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def metadata(self) -> Metadata:
        """Read again every hour; the last one holds while the provider is away."""
        now = time.monotonic()
        if self._metadata is not None and now - self._metadata[0] < METADATA_LASTS_S:
            return self._metadata[1]
        try:
            content = await self._asked("GET", self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            self._metadata = now, self._read(content)
        except ProviderAway:
            if self._metadata is None:
                raise
        return self._metadata[1]

    async def tokens(self, code: str, verifier: str, redirect_uri: str) -> Mapping[str, Any]:
        """The answer for an authorization code. Raises TokenRefused when the provider takes it not."""
        metadata = await self.metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        secret = read_secret(self._secret_file) if self._secret_file else ""
        login = None
        if secret and "client_secret_basic" in metadata.token_endpoint_auth_methods:
            # RFC 6749, 2.3.1: both are form-encoded first.
            login = (quote(self._client_id, safe=""), quote(secret, safe=""))
        else:
            form |= {"client_id": self._client_id, **({"client_secret": secret} if secret else {})}
        return await self._asked("POST", metadata.token_endpoint, form, login)

    async def claims(self, id_token: Any, nonce: str, access_token: Any) -> Mapping[str, Any]:
        """The claims of an ID token that holds. Raises TokenRefused."""
        if not isinstance(id_token, str) or len(id_token) > LARGEST_ANSWER_BYTES:
            raise TokenRefused("the provider sent no ID token; is openid in CONSOLE_OIDC_SCOPES?")
        token = await self._verified(id_token)
        params = {"nonce": nonce, "client_id": self._client_id, "access_token": access_token}
        options: Any = {
            "iss": {"essential": True, "value": self._issuer},
            "aud": {"essential": True, "value": self._client_id},
            "nonce": {"essential": True, "value": nonce},
        }
        try:
            CodeIDToken(token.claims, token.header, options, params).validate(int(time.time()), LEEWAY_S)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise TokenRefused(f"the ID token does not hold: {_told(error)}") from error
        return token.claims

    async def _verified(self, id_token: str) -> jwt.Token:
        """The token, its signature checked; with the keys as they are now where those at hand don't do."""
        error: Exception | None = None
        for _ in range(2):
            keys = self._keys
            if keys is not None:
                try:
                    return jwt.decode(id_token, keys, algorithms=list(ALGORITHMS))
                except (JoseError, ValueError) as first:
                    error = first
            if self._keys is keys and not await self._has_new_keys():
                break
        raise TokenRefused(f"the ID token's signature does not hold: {_told(error) if error else 'no key'}")

    async def _has_new_keys(self) -> bool:
        """Whether there is something new. Who comes while they are read waits for the same keys, or the same failure."""
        if self._reading is None or self._reading.done():
            now = time.monotonic()
            if now - self._keys_at < KEYS_AT_MOST_EVERY_S:
                return False
            self._keys_at = now
            self._reading = asyncio.create_task(self._read_keys(), name="keys")
            # Nobody asks for it where all who waited are gone; asyncio would tell of a failure that is none.
            self._reading.add_done_callback(lambda one: one.cancelled() or one.exception())
        await asyncio.shield(self._reading)
        return True

    async def _read_keys(self) -> None:
        content = await self._asked("GET", (await self.metadata()).jwks_uri)
        try:
            usable = [
                key
                for key in content["keys"]
                if key.get("kty") in {"RSA", "EC", "OKP"} and key.get("use", "sig") == "sig"
            ]
            self._keys = KeySet.import_key_set({"keys": usable})
        except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProviderAway("the identity provider's keys can't be read") from error

    async def _asked(
        self,
        method: str,
        address: str,
        form: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None,
    ) -> Mapping[str, Any]:
        content = b""
        try:
            async with self._client.stream(
                method,
                address,
                data=dict(form) if form else None,
                auth=login,
                headers={"Accept": "application/json"},
            ) as answer:
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > LARGEST_ANSWER_BYTES:
                        raise ProviderAway("the identity provider's answer is too large")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderAway("the identity provider does not answer") from error
        told = _object(content)
        if answer.status_code in {400, 401, 403} and method == "POST":
            raise TokenRefused(
                f"the identity provider refused the sign-in: {str(told.get('error', answer.status_code))[:80]}"
            )
        if answer.status_code != 200 or not told:
            raise ProviderAway(f"the identity provider answered with HTTP {answer.status_code}")
        return told

    def _read(self, content: Mapping[str, Any]) -> Metadata:
        if content.get("issuer") != self._issuer:
            raise ProviderAway("the identity provider names another issuer than CONSOLE_OIDC_ISSUER")
        addresses = [content.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        leaving = content.get("end_session_endpoint") or ""
        for address in (*addresses, *([leaving] if leaving else [])):
            if not isinstance(address, str) or not _is_safe(address):
                raise ProviderAway("the identity provider names an address that is not https")
        methods = content.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        first, token, keys = map(str, addresses)
        has_issuer = content.get("authorization_response_iss_parameter_supported") is True
        return Metadata(first, token, keys, str(leaving), tuple(map(str, methods)), has_issuer)


def _is_safe(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def _object(content: bytes) -> dict[str, Any]:
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _told(error: Exception) -> str:
    """The error's kind and claim, and nothing of the token."""
    return str(getattr(error, "description", "") or type(error).__name__)[:120]
