# SPDX-License-Identifier: Apache-2.0
"""AWS credentials for what the forwarder asks of services other than IoT Core: the event bus, the evidence's bucket.

Two ways. With FORWARDER_CREDENTIALS_HOST the uplink's own certificate is changed into credentials of a role, by IoT's
credential provider over mutual TLS: a container on a bridge network can't reach the token exchange service, which
listens on the host's loopback. Without it boto3's own chain is asked, which knows the token exchange service by
AWS_CONTAINER_CREDENTIALS_FULL_URI.

Nothing is fetched before it is needed, and a failure ends nothing: who asked gets CredentialRetrievalError and asks
again; until old credentials expire they are used on.
"""

import datetime
import http.client
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from linewatch_forwarder.uplinks.settings import UplinkSettings
from linewatch_runtime.mqtt import Tls

log = logging.getLogger(__name__)

METHOD = "iot-certificate"
TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024
"""An answer has about 1.5 KB."""

LONGEST_BACKOFF_S = 60.0

LAST_S = 30.0
"""With less life than this left credentials are not used: a call's retries have to end within it."""


def aws_session(settings: UplinkSettings) -> Any:
    """A boto3.Session whose credentials refresh themselves. Asks nobody; making a client of it may.

    Sessions are for one thread, clients for all.
    """
    import boto3
    import botocore.session
    from botocore.credentials import CredentialResolver

    # It tells each failure with a traceback, of which there is one for each call; we tell a change.
    logging.getLogger("botocore.credentials").setLevel(logging.ERROR)
    core = botocore.session.get_session()
    if settings.credentials_host:
        exchange = CertificateExchange(settings)
        core.register_component("credential_provider", CredentialResolver([_Provider(exchange)]))
    return boto3.Session(botocore_session=core, region_name=settings.aws_region or None)


class NoCredentials(Exception):
    """IoT's credential provider did not give any; the message has the remedy."""


class CertificateExchange:
    """Asks IoT's credential provider for credentials of the role behind the role alias.

    After a failure it is not asked again before a backoff has passed, however many calls want credentials.
    """

    def __init__(
        self,
        settings: UplinkSettings,
        now: Callable[[], float] = time.monotonic,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`now`: seconds of a clock that never jumps."""
        assert settings.uplink_ca_file is not None  # settings check it
        # Read anew for each request, so that a renewed certificate is used.
        self._tls = Tls(settings.uplink_ca_file, settings.uplink_certificate_file, settings.uplink_key_file)
        self._host = settings.credentials_host
        self._path = f"/role-aliases/{quote(settings.role_alias, safe='')}/credentials"
        self._thing = settings.client_id
        self._now = now
        self._timeout_s = timeout_s
        self._failures = 0
        self._not_before = 0.0
        self._trouble = ""

    def fetch(self) -> dict[str, str]:
        """New credentials, as botocore takes them. Raises CredentialRetrievalError."""
        from botocore.exceptions import CredentialRetrievalError

        if self._now() < self._not_before:
            raise CredentialRetrievalError(provider=METHOD, error_msg=self._trouble)
        try:
            given = self._ask()
        except (OSError, http.client.HTTPException, NoCredentials) as error:
            self._failed(str(error) if isinstance(error, NoCredentials) else f"{self._host}: {error!r}")
            raise CredentialRetrievalError(provider=METHOD, error_msg=self._trouble) from error
        self._failures, self._not_before = 0, 0.0
        if self._trouble:
            log.info("credentials_refreshed", extra={"host": self._host})
        self._trouble = ""
        return given

    def _failed(self, reason: str) -> None:
        if reason != self._trouble:
            log.warning("credentials_not_refreshed", extra={"host": self._host, "reason": reason})
        self._trouble = reason
        self._failures = min(self._failures + 1, 10)
        self._not_before = self._now() + random.uniform(0.5, min(LONGEST_BACKOFF_S, 2.0**self._failures))  # noqa: S311

    def _ask(self) -> dict[str, str]:
        connection = http.client.HTTPSConnection(
            self._host, timeout=self._timeout_s, context=self._tls.context()
        )
        try:
            connection.request("GET", self._path, headers={"x-amzn-iot-thingname": self._thing})
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER_BYTES)
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise NoCredentials(self._told(answer.status, body))
        try:
            given = json.loads(body)["credentials"]
            made = {
                "access_key": str(given["accessKeyId"]), "secret_key": str(given["secretAccessKey"]),
                "token": str(given["sessionToken"]), "expiry_time": str(given["expiration"]),
            }  # fmt: skip
            life_s = _life_s(made)
        except (ValueError, KeyError, TypeError):
            # Without the cause: the body may hold half of a secret.
            raise NoCredentials(
                f"FORWARDER_CREDENTIALS_HOST: {self._host} answers, but with no credentials;"
                " is it the account's credential provider endpoint?"
            ) from None
        if life_s <= 0:
            raise NoCredentials(
                f"{self._host} gave credentials that ended at {made['expiry_time']}: is this device's clock right?"
            )
        return made

    def _told(self, status: int, body: bytes) -> str:
        remedy = _REMEDIES.get(status, "it is tried again")
        try:
            said = str(json.loads(body)["message"])[:200]
        except (ValueError, KeyError, TypeError):
            said = "no reason"
        return f"{self._host}: HTTP {status}, {said}; {remedy}"


_REMEDIES = {
    403: (
        "the certificate must be active and attached to the thing of FORWARDER_UPLINK_CLIENT_ID, its policy must allow"
        " iot:AssumeRoleWithCertificate on the role alias, and the role must trust credentials.iot.amazonaws.com"
    ),
    404: "FORWARDER_ROLE_ALIAS must name a role alias of this account and region",
}


def _life_s(given: dict[str, str]) -> float:
    """Seconds that credentials are valid still, by this device's clock. Raises ValueError."""
    ends = datetime.datetime.fromisoformat(given["expiry_time"])
    return (ends - datetime.datetime.now(datetime.UTC)).total_seconds()


class _Provider:
    """A link of botocore's chain, and the only one: nothing of the environment goes before the certificate."""

    METHOD = METHOD
    CANONICAL_NAME = None

    def __init__(self, exchange: CertificateExchange) -> None:
        self._exchange = exchange
        self._made: Any = None
        self._making = threading.Lock()

    def load(self) -> Any:
        with self._making:
            self._made = self._made or _refreshing(self._exchange)
            return self._made


def _refreshing(exchange: CertificateExchange) -> Any:
    """Credentials that are fetched at their first use and then before they expire, by one caller at a time.

    botocore refreshes from 15 minutes before the end, which is the whole life of the shortest that IoT gives. Here it
    is a part of their life, another one at each refresh: devices that were started together do not ask together.
    """
    from botocore.credentials import DeferredRefreshableCredentials

    class Refreshing(DeferredRefreshableCredentials):  # type: ignore[misc]
        _mandatory_refresh_timeout = LAST_S

        def refresh(self) -> dict[str, str]:
            given = exchange.fetch()
            life_s = _life_s(given)
            self._mandatory_refresh_timeout = min(LAST_S, life_s * 0.1)
            self._advisory_refresh_timeout = life_s * random.uniform(0.2, 0.4)  # noqa: S311
            return given

        def __init__(self) -> None:
            super().__init__(self.refresh, METHOD)

    return Refreshing()
