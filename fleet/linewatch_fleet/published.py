# SPDX-License-Identifier: Apache-2.0
"""The component bucket: artifacts of components, and for each release the versions that its components got.

`releases/<version>.json` is written last: a release without it is not published, whatever is there already. Nothing in
the bucket is ever overwritten with other content.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, ValidationError

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import CommandFailed, GateRefused
from linewatch_fleet.manifest import Digest, Version

_ABSENT = ("404", "NoSuchKey", "NotFound")
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")


class Record(BaseModel):
    """One published release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: Version
    manifest: Digest
    """The digest of release.yaml."""
    components: dict[str, Version]
    """Component versions by name; one that did not change has an earlier release's."""

    def text(self) -> bytes:
        """As it lies in the bucket."""
        return json.dumps(self.model_dump(), indent=2, sort_keys=True).encode() + b"\n"


def manifest_digest(release_file: Path) -> str:
    """The digest of a release.yaml."""
    return f"sha256:{hashlib.sha256(release_file.read_bytes()).hexdigest()}"


def stack_outputs(account: Account) -> dict[str, str]:
    """The outputs of the environment's stack. Raises CommandFailed when `linewatch provision` has not been run."""
    return {one["OutputKey"]: one["OutputValue"] for one in _stack(account).get("Outputs", [])}


def stack_parameters(account: Account) -> dict[str, str]:
    """The parameters that the environment's stack runs with; those that a later release brings are not there."""
    return {one["ParameterKey"]: one["ParameterValue"] for one in _stack(account).get("Parameters", [])}


def _stack(account: Account) -> dict[str, Any]:
    environment = account.environment
    with explained():
        try:
            told = account.reader("cloudformation").describe_stacks(StackName=environment.stack)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":
                raise CommandFailed(
                    f"there is no stack {environment.stack}; make it with `linewatch provision {environment.name}`"
                ) from error
            raise
    found: dict[str, Any] = told["Stacks"][0]
    return found


@dataclass(slots=True)
class Bucket:
    """The component bucket of an environment."""

    name: str
    _s3: Any

    @classmethod
    def of(cls, account: Account) -> "Bucket":
        """The bucket that the environment's stack names."""
        name = stack_outputs(account).get("ComponentBucketName")
        if not name:
            raise CommandFailed(
                f"stack {account.environment.stack} has no ComponentBucketName; bring it up to date with "
                f"`linewatch provision {account.environment.name}`"
            )
        return cls(name, account.client("s3"))

    def digest(self, key: str) -> str | None:
        """The digest of what lies under a key; None when nothing does."""
        with explained():
            try:
                found = self._s3.head_object(Bucket=self.name, Key=key)
                told = found.get("Metadata", {}).get("sha256")
                if told:
                    return f"sha256:{told}"
                # Put there by another tool: only its bytes tell.
                seen = hashlib.sha256()
                for piece in self._s3.get_object(Bucket=self.name, Key=key)["Body"].iter_chunks(1024 * 1024):
                    seen.update(piece)
            except ClientError as error:
                if error.response["Error"]["Code"] in _ABSENT:
                    return None
                raise
        return f"sha256:{seen.hexdigest()}"

    def put(self, key: str, content: bytes, content_type: str) -> None:
        """Stores an object under a key that is free. Raises GateRefused when other content lies there."""
        digest = hashlib.sha256(content).hexdigest()
        try:
            self._s3.put_object(
                Bucket=self.name,
                Key=key,
                Body=content,
                ContentType=content_type,
                Metadata={"sha256": digest},
                ChecksumAlgorithm="SHA256",
                IfNoneMatch="*",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in _TAKEN:
                with explained():
                    raise
            if self.digest(key) != f"sha256:{digest}":
                raise GateRefused(
                    f"s3://{self.name}/{key} holds other content, and nothing is overwritten; raise the version"
                ) from error

    def record(self, version: str) -> Record | None:
        """What was published for a release; None when it was not."""
        with explained():
            try:
                content = self._s3.get_object(Bucket=self.name, Key=record_key(version))["Body"].read()
            except ClientError as error:
                if error.response["Error"]["Code"] in _ABSENT:
                    return None
                raise
        try:
            return Record.model_validate_json(content)
        except ValidationError as error:
            raise CommandFailed(
                f"s3://{self.name}/{record_key(version)} was not written by this version of linewatch: {error}"
            ) from error


def record_key(version: str) -> str:
    """Where the record of a release lies."""
    return f"releases/{version}.json"
