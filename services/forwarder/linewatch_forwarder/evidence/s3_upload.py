# SPDX-License-Identifier: Apache-2.0
"""One file into the bucket, under its digest, whole or not at all; begun anew after a kill only where nothing was done.

Key: `evidence/{thing}/sha256/{2 hex digits}/{64 hex digits}{ending}`, so the digest in the event finds it. Every request
carries the SHA-256 of its bytes, which S3 compares before it takes them. A key is written once (If-None-Match): what the
cloud has already is not written again, whatever this device has forgotten.

A file from MULTIPART_FROM on goes in parts. Which upload was begun is on disk before its first part; S3 is asked which
parts it has, and only the others are sent. An upload whose file is gone is ended. One whose beginning a kill kept from
the disk is ended by the bucket's lifecycle rule.
"""

import base64
import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from linewatch_forwarder.evidence.files import EvidenceFile
from linewatch_forwarder.evidence.s3_failures import Failure, failure_of, status_of

log = logging.getLogger(__name__)

PART_BYTES = 5 * 1024 * 1024
"""S3's smallest part, but for the last one. What a pause may cost is one part."""
MULTIPART_FROM = PART_BYTES

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 20.0


class Interrupted(Exception):
    """Events are waiting; what was done is kept."""


class Vanished(Exception):
    """Capture has let the file go."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A multipart upload, as it is on disk."""

    path: str
    bucket: str
    key: str
    upload_id: str


class Pace:
    """Lets bytes through at a rate, and stops at once when it is told."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self.sent_bytes = 0
        self.stop = threading.Event()

    def take(self, size: int) -> None:
        """Waits until `size` more bytes may go. Raises Interrupted."""
        self._free_at = max(self._free_at, time.monotonic() - 0.1) + size / self._bytes_per_s
        if self.stop.wait(max(0.0, self._free_at - time.monotonic())):
            raise Interrupted
        self.sent_bytes += size


class S3Upload:
    """Uploads to one bucket. For one thread at a time."""

    def __init__(self, session: Any, bucket: str, prefix: str, record_file: Path, pace: Pace) -> None:
        """`session`: a boto3.Session; `record_file`: where the upload in hand is kept."""
        self._session = session
        self._bucket = bucket
        self._prefix = prefix
        self._record_file = record_file
        self._pace = pace
        self._made: Any = None

    @property
    def begun(self) -> Path | None:
        """The file of which some parts may be in the cloud already."""
        record = self._record()
        return Path(record.path) if record else None

    def upload(self, file: EvidenceFile) -> int:
        """Returns its bytes once the cloud has it.

        Raises:
            Interrupted: `pace.stop` was set.
            Vanished: the file is gone.
            Failure: the cloud did not take it.
            OSError: the disk did not give it.
        """
        with _opened(file.path) as content:
            size = os.fstat(content.fileno()).st_size
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            key = f"{self._prefix}sha256/{digest[:2]}/{digest}{file.path.suffix}"
            about = {"Bucket": self._bucket, "Key": key}
            with failure_of(self._bucket, key):
                if size < MULTIPART_FROM:
                    content.seek(0)
                    self._put(about, content.read(), file.media_type)
                else:
                    self._put_parts(about, content, size, file)
            return size

    def forget(self, path: Path) -> None:
        """Ends the upload of a file that is gone. Raises Failure."""
        record = self._record()
        if record is None or record.path != str(path):
            return
        with failure_of(self._bucket, record.key):
            self._abort(record)

    def _put(self, about: dict[str, str], body: bytes, media_type: str) -> None:
        with _already_there():
            self._client.put_object(
                **about, Body=body, ContentType=media_type, ChecksumSHA256=_checksum(body), IfNoneMatch="*"
            )

    def _put_parts(
        self, about: dict[str, str], content: BufferedReader, size: int, file: EvidenceFile
    ) -> None:
        record = self._record()
        done: dict[int, dict[str, Any]] = {}
        if record and (record.bucket, record.key) == (self._bucket, about["Key"]):
            done = self._parts_of(record)
        else:
            if record:
                self._abort(record)
            record = None
        if record is None or not done:
            record = self._begin(about, file)
        parts = []
        for number in range(1, -(-size // PART_BYTES) + 1):
            content.seek((number - 1) * PART_BYTES)
            body = content.read(PART_BYTES)
            checksum = _checksum(body)
            there = done.get(number)
            if there is None or (there["Size"], there.get("ChecksumSHA256")) != (len(body), checksum):
                there = self._client.upload_part(
                    **about, UploadId=record.upload_id, PartNumber=number, Body=body, ChecksumSHA256=checksum
                )
            parts.append({"PartNumber": number, "ETag": there["ETag"], "ChecksumSHA256": checksum})
        with _already_there() as found:
            self._client.complete_multipart_upload(
                **about, UploadId=record.upload_id, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            )
        if found:
            self._abort(record)
        self._record_file.unlink(missing_ok=True)

    def _begin(self, about: dict[str, str], file: EvidenceFile) -> _Begun:
        began = self._client.create_multipart_upload(
            **about, ContentType=file.media_type, ChecksumAlgorithm="SHA256"
        )
        record = _Begun(str(file.path), about["Bucket"], about["Key"], began["UploadId"])
        unfinished = self._record_file.with_name(f".{self._record_file.name}")
        with unfinished.open("w") as written:
            json.dump(asdict(record), written)
            written.flush()
            os.fsync(written.fileno())
        unfinished.replace(self._record_file)
        return record

    def _parts_of(self, record: _Begun) -> dict[int, dict[str, Any]]:
        """The parts that S3 has; empty when it knows nothing of this upload (any more)."""
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=record.bucket, Key=record.key, UploadId=record.upload_id
        )
        try:
            return {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}
        except self._client.exceptions.NoSuchUpload:
            return {}

    def _abort(self, record: _Begun) -> None:
        # Another bucket's, or ended long ago: its lifecycle rule ends it.
        with contextlib.suppress(self._client.exceptions.NoSuchUpload, self._client.exceptions.ClientError):
            self._client.abort_multipart_upload(
                Bucket=record.bucket, Key=record.key, UploadId=record.upload_id
            )
        self._record_file.unlink(missing_ok=True)

    def _record(self) -> _Begun | None:
        try:
            return _Begun(**json.loads(self._record_file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            log.warning("upload_record_unreadable", extra={"reason": str(error)})
            return None

    @property
    def _client(self) -> Any:
        """Made at its first use: that may ask for credentials."""
        if self._made is None:
            from botocore.config import Config

            # Tries and time are ours to give: a retry inside would not stop for events.
            config = Config(
                retries={"total_max_attempts": 1, "mode": "standard"},
                connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S,
            )  # fmt: skip
            made = self._session.client("s3", config=config)
            for operation in ("PutObject", "UploadPart"):
                made.meta.events.register(f"before-send.s3.{operation}", self._pace_body)
            self._made = made
        return self._made

    def _pace_body(self, request: Any, **_: object) -> None:
        # After signing, which reads the body, too.
        content = request.body.read() if hasattr(request.body, "read") else request.body
        request.body = _PacedBody(content, self._pace)


class _PacedBody:
    """A body that the HTTP client reads piece by piece."""

    def __init__(self, content: bytes, pace: Pace) -> None:
        self._left = memoryview(content)
        self._pace = pace

    def read(self, size: int = -1) -> bytes:
        piece = self._left[: size if size >= 0 else len(self._left)]
        self._left = self._left[len(piece) :]
        self._pace.take(len(piece))
        return bytes(piece)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """Held open, it can be read to its end even when capture lets it go meanwhile. Raises Vanished."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Vanished from None
    with os.fdopen(number, "rb") as content:
        yield content


@contextlib.contextmanager
def _already_there() -> Iterator[list[str]]:
    """412 is success: the key is the digest. The list then says so."""
    from botocore.exceptions import ClientError

    found: list[str] = []
    try:
        yield found
    except ClientError as error:
        if status_of(error) != 412:
            raise
        found.append("there")


def _checksum(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


__all__ = ["Failure", "Interrupted", "Pace", "S3Upload", "Vanished"]
