# SPDX-License-Identifier: Apache-2.0
"""Signing in with an OpenID Connect provider: authorization code flow with PKCE, state and nonce.

A flow that was begun is kept here, not in the browser, for ten minutes, and is used once. The browser that comes back
must be the one that began it: it carries a secret of the flow in a cookie of its own.
"""

import hmac
import secrets
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from linewatch_console.oidc_provider import Provider, TokenRefused
from linewatch_console.people import LONGEST_NAME, ROLES, Person, Role, is_name
from linewatch_console.settings import Settings

FLOW_LASTS_S = 600.0
MOST_FLOWS = 1000
MOST_GROUPS = 2000


@dataclass(frozen=True, slots=True)
class Flow:
    """A sign-in that was begun. `browser` is the secret that its cookie holds."""

    nonce: str
    verifier: str
    browser: str
    began_at: float


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who the provider says that it is. `subject` is the provider's own name, for the audit log."""

    person: Person
    subject: str
    leave_url: str


class Oidc:
    """Flows with one provider. Every call may raise ProviderAway."""

    def __init__(self, settings: Settings, provider: Provider) -> None:
        self._settings = settings
        self.provider = provider
        self._redirect_uri = settings.public_url + "/oidc/callback"
        self._flows: OrderedDict[str, Flow] = OrderedDict()

    async def begin(self) -> tuple[str, str]:
        """Where to send the browser, and what its cookie is to hold."""
        metadata = await self.provider.metadata()
        state = secrets.token_urlsafe(32)
        flow = Flow(
            secrets.token_urlsafe(32), secrets.token_urlsafe(48), secrets.token_urlsafe(32), time.monotonic()
        )
        self._flows[state] = flow
        while len(self._flows) > MOST_FLOWS:
            self._flows.popitem(last=False)
        query = {
            "response_type": "code", "client_id": self._settings.oidc_client_id, "redirect_uri": self._redirect_uri,
            "scope": self._settings.oidc_scopes.replace(",", " "), "state": state, "nonce": flow.nonce,
            "code_challenge": create_s256_code_challenge(flow.verifier),  # type: ignore[no-untyped-call]
            "code_challenge_method": "S256",
        }  # fmt: skip
        joined = "&" if "?" in metadata.authorization_endpoint else "?"
        return metadata.authorization_endpoint + joined + urlencode(query), flow.browser

    async def end(self, query: Mapping[str, str], browser: str) -> SignedIn:
        """Who came back. Raises TokenRefused."""
        flow = self._flows.pop(query.get("state", ""), None)  # once, whatever comes of it
        # Some providers leave the state out here (RFC 6749, 4.1.2.1 asks for it). Whoever sends it signs nobody in.
        if query.get("error") == "access_denied" and "code" not in query:
            raise TokenRefused("signing in was declined at the identity provider (access_denied)")
        if flow is None or time.monotonic() - flow.began_at > FLOW_LASTS_S:
            raise TokenRefused("this sign-in was not begun here, or too long ago")
        if not hmac.compare_digest(flow.browser.encode(), browser.encode()):
            raise TokenRefused("this sign-in was begun in another browser")
        metadata = await self.provider.metadata()
        named = query.get("iss")
        if (named or metadata.has_issuer_in_answers) and named != self._settings.oidc_issuer:
            raise TokenRefused("the answer is of another identity provider")
        if "code" not in query:
            raise TokenRefused(
                f"the identity provider signed nobody in ({query.get('error', 'no code')[:60]})"
            )
        tokens = await self.provider.tokens(query["code"], flow.verifier, self._redirect_uri)
        claims = await self.provider.claims(tokens.get("id_token"), flow.nonce, tokens.get("access_token"))
        leaving = {
            "client_id": self._settings.oidc_client_id,
            "post_logout_redirect_uri": self._settings.public_url + "/login",
        }
        leave_url = (
            f"{metadata.end_session_endpoint}?{urlencode(leaving)}" if metadata.end_session_endpoint else ""
        )
        return SignedIn(self._person(claims), str(claims["sub"])[:200], leave_url)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        role = role_of(claims, self._settings.oidc_role_claim, self._settings.roles)
        name = name_of(claims, self._settings.oidc_name_claim)
        if role is None:
            raise TokenRefused(
                f"{name} has no role at this console; ask whoever runs it (CONSOLE_OIDC_ROLE_MAP)"
            )
        return Person(name, role)


def role_of(claims: Mapping[str, Any], claim: str, roles: Mapping[str, Role]) -> Role | None:
    """The highest role that the claim's values are mapped to, else that of "*"; None: no role."""
    value: Any = claims.get(claim)
    if value is None:
        value = claims
        for step in claim.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
    given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    mapped = [
        roles[one] for one in given[:MOST_GROUPS] if isinstance(one, str) and one in roles and one != "*"
    ]
    return max(mapped, key=ROLES.index) if mapped else roles.get("*")


def name_of(claims: Mapping[str, Any], claim: str) -> str:
    """The name that decisions are recorded under. An address that the provider did not verify is none."""
    for one in (claim, "email", "preferred_username", "sub"):
        value = claims.get(one)
        if one == "email" and claims.get("email_verified") is False:
            continue
        if isinstance(value, str):
            text = "".join(sign for sign in unicodedata.normalize("NFC", value) if sign.isprintable()).strip()
            if is_name(text[:LONGEST_NAME].strip()):
                return text[:LONGEST_NAME].strip()
    raise TokenRefused("the ID token names nobody")
