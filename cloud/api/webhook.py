# SPDX-License-Identifier: Apache-2.0
"""POST /erp/events: the ERP says that something happened to an order. Only a hint: the order is then asked for.

Nothing of what is sent is believed but the reference, so that a forged or repeated hint costs one look at the ERP. Open to
everybody who can sign: header `X-Linewatch-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`, at most
five minutes old; or the secret itself as bearer token, for products that can't sign.
"""

import hashlib
import hmac
import json
import os
import time
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger

from api.errors import UnauthorizedError
from api.request import Request, checked
from work_orders.aws import SHORT
from work_orders.observing import Desk

log = Logger(child=True)

SIGNATURE_S = 300
"""Seconds that a signature is good for, before and after its time."""
# A rotated secret is good after this long, seconds.
SECRET_CACHE_S = 60.0
# Signatures in one header: the old and the new secret during a rotation.
MOST_SIGNATURES = 4

_secret: tuple[float, str] = (float("-inf"), "")


@cache
def _secrets() -> Any:
    return boto3.client("secretsmanager", config=SHORT)


def _current_secret() -> str:
    global _secret  # noqa: PLW0603 - the process's cache of one value
    if time.monotonic() - _secret[0] > SECRET_CACHE_S:
        answer = _secrets().get_secret_value(SecretId=os.environ["WEBHOOK_SECRET_ID"])
        _secret = (time.monotonic(), str(json.loads(answer["SecretString"])["secret"]))
    return _secret[1]


def is_signed(header: str, raw: bytes, secret: str, now_s: float) -> bool:
    """Whether one of the header's signatures is ours and its time is near. Pure; compares in constant time."""
    fields = [field.strip().partition("=") for field in header[:1_000].split(",")]
    times = [value for name, _, value in fields if name == "t"]
    given = [value for name, _, value in fields if name == "v1"][:MOST_SIGNATURES]
    if (
        len(times) != 1
        or not (times[0].isascii() and times[0].isdigit() and len(times[0]) <= 12)
        or not secret
    ):
        return False
    if abs(now_s - int(times[0])) > SIGNATURE_S:
        return False
    due = hmac.new(secret.encode(), times[0].encode() + b"." + raw, hashlib.sha256).hexdigest().encode()
    # Every one is compared, so that the time taken says nothing.
    return any([hmac.compare_digest(one.encode(errors="replace"), due) for one in given])  # noqa: C419


def is_bearer(header: str, secret: str) -> bool:
    """Whether the header bears the secret itself; compares in constant time."""
    scheme, _, given = header.partition(" ")
    return (
        scheme.lower() == "bearer" and bool(secret) and hmac.compare_digest(given.encode(), secret.encode())
    )


def hint(request: Request, desk: Desk) -> tuple[int, Any]:
    """{"reference"}: 202, whether the order is known or not: who may not see orders learns nothing of them."""
    secret = _current_secret()
    signature = request.headers.get("x-linewatch-signature", "")
    bearer = request.headers.get("authorization", "")
    if not (
        is_signed(signature, request.raw, secret, request.at_s) if signature else is_bearer(bearer, secret)
    ):
        raise UnauthorizedError("the signature is missing, wrong, or older than five minutes")
    reference = request.content().get("reference")
    reference = checked("reference", reference if isinstance(reference, str) else "", most=80)
    return 202, {"polled": _poll(reference, desk)}


def _poll(reference: str, desk: Desk) -> bool:
    from outcomes.polling import poll_one

    try:
        poll_one(reference, desk)
    except Exception:
        # The poll that comes by the clock looks again; the sender need not repeat its hint.
        log.exception("hint_not_followed", extra={"reference": reference})
        return False
    return True
