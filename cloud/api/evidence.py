# SPDX-License-Identifier: Apache-2.0
"""Lets a console that is not on the device show a frame: an address in the evidence bucket that is good for a minute.

A path is folders and a file whose name begins with its event's id: line-1/20261121/0198….review.jpg. Only a file that
this event names is shown, under the digest that the event gives, so nobody can ask for an object of another name.
"""

import os
import re
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from api.errors import BadRequestError, NotFoundError
from api.request import Request
from api.summaries import asset_of
from work_orders.observing import Desk
from work_orders.shadow import FORWARDER

GOOD_FOR_S = 60
_PATH = re.compile(r"(?:[A-Za-z0-9_-]{1,64}/){0,5}[A-Za-z0-9-]{1,80}(?:\.[A-Za-z0-9_-]{1,40}){1,4}")
_THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@cache
def _s3() -> Any:
    return boto3.client("s3", config=Config(connect_timeout=3, read_timeout=10, signature_version="s3v4"))


def address(request: Request, desk: Desk) -> tuple[int, Any]:
    """?path=&thing=: `thing` is the device that took the picture; left out, the one that the registry names."""
    path, thing = request.query.get("path", ""), request.query.get("thing", "")
    if not _PATH.fullmatch(path):
        raise BadRequestError("path", "a file's name as an event gives it is due")
    if thing and not _THING.fullmatch(thing):
        raise BadRequestError("thing", "a thing's name is due")
    event = next(iter(desk.events.get([PurePosixPath(path).name.partition(".")[0]])), None)
    evidence = (event or {}).get("data", {}).get("evidence", ())
    named = next((one for one in evidence if one.get("path") == path), None)
    digest = _DIGEST.fullmatch(str((named or {}).get("digest", "")))
    if event is None or named is None or digest is None:
        raise NotFoundError("no event names this file")
    # The forwarder uploads below its own name, which is the device's with this ending (docs/decisions/0015).
    forwarder = (thing or _thing(event, desk)).removesuffix(FORWARDER) + FORWARDER
    key = f"evidence/{forwarder}/sha256/{digest[1][:2]}/{digest[1]}{PurePosixPath(path).suffix}"
    where = {"Bucket": os.environ["EVIDENCE_BUCKET"], "Key": key}
    try:
        _s3().head_object(**where)
    except ClientError as error:
        # Without the right to list a bucket, S3 answers 403 for what is not there.
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
            raise NotFoundError("the file is not uploaded, not yet or not any more") from error
        raise
    shown = {**where, "ResponseContentType": named.get("media_type") or "application/octet-stream"}
    return 200, {"url": _s3().generate_presigned_url("get_object", Params=shown, ExpiresIn=GOOD_FOR_S)}


def _thing(event: dict[str, Any], desk: Desk) -> str:
    origin = event["data"]["origin"]
    asset = asset_of(f"{origin['site']}/{origin['line']}/{origin['station']}", desk) or {}
    name = str(asset.get("thing_name", ""))
    if not _THING.fullmatch(name):
        raise BadRequestError("thing", "the registry names no device for this station: say which")
    return name
