# SPDX-License-Identifier: Apache-2.0
"""What S3's refusals and a bad network mean for an upload: whether a later try may do better, and who has to act."""

import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

REASONS = ("network", "credentials", "busy", "refused", "damaged")
"""Words of the metric: no way there; nobody vouches for us; S3 asks us to come later; it never will; not what we sent."""

_REMEDIES = {
    "AccessDenied": "the role of these credentials must allow s3:PutObject on {bucket}/{key}: does"
    " FORWARDER_EVIDENCE_THING name the thing that they are for? The bucket's own policy must let it in, too",
    "AllAccessDisabled": "the bucket {bucket} is closed; open it, or name another one in FORWARDER_EVIDENCE_BUCKET",
    "NoSuchBucket": "FORWARDER_EVIDENCE_BUCKET must name a bucket that is there: {bucket} is not",
    "PermanentRedirect": "FORWARDER_AWS_REGION must be the region of the bucket {bucket}",
    "AuthorizationHeaderMalformed": "FORWARDER_AWS_REGION must be the region of the bucket {bucket}",
    "IllegalLocationConstraintException": "FORWARDER_AWS_REGION must be the region of the bucket {bucket}",
    "InvalidAccessKeyId": "the credentials are of no account; see FORWARDER_CREDENTIALS_HOST",
    "SignatureDoesNotMatch": "the credentials' key does not fit; see FORWARDER_CREDENTIALS_HOST",
    "KMS.DisabledException": "the key that encrypts the bucket {bucket} is disabled",
}
_LATER = frozenset({
    "SlowDown", "RequestTimeout", "ConditionalRequestConflict", "ExpiredToken", "RequestTimeTooSkewed", "NoSuchUpload",
    "OperationAborted", "RequestLimitExceeded", "Throttling", "InternalError", "ServiceUnavailable",
})  # fmt: skip
_DAMAGED = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
)


class Failure(Exception):
    """The cloud did not take a file.

    Attributes:
        reason: one of REASONS.
        heals: a later try may do better by itself; otherwise somebody has to act, and the message says how.
        of_file: it concerns this file, not the bucket: others may pass.
    """

    def __init__(self, reason: str, told: str, *, heals: bool, of_file: bool = False) -> None:
        super().__init__(told)
        self.reason = reason
        self.heals = heals
        self.of_file = of_file


def status_of(error: Any) -> int:
    """The HTTP status of a ClientError."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def failure_of(bucket: str, key: str) -> Iterator[None]:
    """Turns what boto3 raises into Failure; what the pace raises inside of it comes out as it was."""
    from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, NoCredentialsError

    from linewatch_forwarder.evidence.s3_upload import Interrupted

    try:
        yield
    except ClientError as error:
        raise _refusal(error, bucket, key) from error
    except (NoCredentialsError, CredentialRetrievalError) as error:
        raise Failure("credentials", str(error), heals=True) from error
    except BotoCoreError as error:
        if _was_interrupted(error, Interrupted):
            raise Interrupted from None
        raise Failure("network", str(error), heals=True) from error
    except (OSError, Interrupted, Failure):
        raise
    except Exception as error:
        # A portal that answers for S3 with pages and redirects makes boto3 raise nearly anything, RecursionError too.
        raise Failure("network", f"not S3's answer: {type(error).__name__}: {error}", heals=True) from error


def _refusal(error: Any, bucket: str, key: str) -> Failure:
    code, status = str(error.response.get("Error", {}).get("Code", "")), status_of(error)
    told = f"{error.operation_name}: HTTP {status} {code}"
    if code in _DAMAGED:
        return Failure("damaged", f"{told}; what arrived is not what was sent", heals=True, of_file=True)
    if code in _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return Failure("busy", told, heals=True)
    if code in _REMEDIES:
        return Failure("refused", f"{told}; {_REMEDIES[code].format(bucket=bucket, key=key)}", heals=False)
    known_by_status = {301: "PermanentRedirect", 403: "AccessDenied"}.get(status)
    if known_by_status:
        remedy = _REMEDIES[known_by_status].format(bucket=bucket, key=key)
        return Failure("refused", f"{told}; {remedy}", heals=False)
    return Failure("refused", f"{told}: {error}", heals=False, of_file=True)


def _was_interrupted(error: BaseException | None, interrupted: type[BaseException]) -> bool:
    """botocore wraps what the body raises; how deep is its own business."""
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, interrupted):
            return True
        wrapped = getattr(error, "kwargs", {}).get("error")
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__ or error.__context__
        seen += 1
    return False
