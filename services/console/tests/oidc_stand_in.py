# SPDX-License-Identifier: Apache-2.0
"""An OpenID Connect provider of our own, for what a well-behaved one does not do: it can be told to lie.

Checks what a strict provider checks (redirect address, PKCE, client secret, a code once). Its sibling in the tests is
oidc-provider-mock, which others wrote.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "linewatch", "the client's secret: ü"


def new_key() -> RSAKey:
    return RSAKey.generate_key(2048, parameters={"use": "sig", "alg": "RS256"}, auto_kid=True)


@dataclass
class StandInProvider:
    url: str
    redirect_uri: str
    person: dict[str, Any] = field(default_factory=dict)
    """The claims of whoever signs in."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Claims of the ID token that are not as they should be; None: left out."""
    key: RSAKey = field(default_factory=new_key)
    told_key: RSAKey | None = None
    """What the key set says, where it is not the key that signs."""
    algorithm: str = "RS256"
    issuer_in_answer: str = ""
    metadata_changes: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    key_reads: int = 0
    holds_keys: bool = False
    """Takes its time over the key set."""
    tokens: int = 0
    """How many it has given."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._metadata),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/keys", self._keys),
            ]
        )

    async def _metadata(self, _request: Request) -> Response:
        told = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "end_session_endpoint": f"{self.url}/leave",
        }
        return JSONResponse(told | self.metadata_changes)

    async def _keys(self, _request: Request) -> Response:
        self.key_reads += 1
        while self.holds_keys:  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.01)
        return JSONResponse({"keys": [(self.told_key or self.key).as_dict(private=False)]})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        if asked["client_id"] != CLIENT_ID or asked["redirect_uri"] != self.redirect_uri:
            return JSONResponse({"error": "unauthorized_client"}, 400)
        if asked["code_challenge_method"] != "S256" or "openid" not in asked["scope"].split():
            return JSONResponse({"error": "invalid_request"}, 400)
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"]}
        answer |= {"iss": self.issuer_in_answer} if self.issuer_in_answer else {}
        return RedirectResponse(f"{self.redirect_uri}?{urlencode(answer)}", 303)

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = self.codes.pop(form.get("code", ""), None)
        given = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic ")).decode()
        encoded = "the%20client%27s%20secret%3A%20%C3%BC"
        if given != f"{CLIENT_ID}:{encoded}":
            return JSONResponse({"error": "invalid_client"}, 401)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).decode().rstrip("=")
        if (
            asked is None
            or challenge != asked["code_challenge"]
            or form["redirect_uri"] != asked["redirect_uri"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.tokens += 1
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "s-1",
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": asked["nonce"],
        }
        claims |= self.person | self.changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return JSONResponse({"access_token": "a", "token_type": "Bearer", "id_token": self._signed(claims)})

    def _signed(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.algorithm, "kid": self.key.kid}
        if self.algorithm in {"none", "HS256"}:  # HS256: signed with what everybody knows, the public key
            parts = [_encoded(json.dumps(one).encode()) for one in (header, claims)]
            known = hmac.new(
                self.key.as_pem(private=False), ".".join(parts).encode(), hashlib.sha256
            ).digest()
            return ".".join([*parts, _encoded(known) if self.algorithm == "HS256" else ""])
        return jwt.encode(header, claims, self.key)


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
