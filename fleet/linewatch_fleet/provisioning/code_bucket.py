# SPDX-License-Identifier: Apache-2.0
"""The bucket that CloudFormation reads the template and the Lambda code from. It is there before the stack, so it is not in
the template.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import CommandFailed, GateRefused
from linewatch_fleet.plan import Plan
from linewatch_fleet.provisioning.marks import code, is_ours, tags

# DeleteObjects takes no more at once.
_BATCH = 1000
_BLOCKED = dict.fromkeys(
    ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
)


class Bucket:
    """A bucket of this account. Every call names the owner, so that a bucket of somebody else's is never written to."""

    def __init__(self, account: Account, name: str) -> None:
        self.name = name
        self.environment = account.environment
        self._s3 = account.client("s3")
        self._owned = {"Bucket": name, "ExpectedBucketOwner": account.environment.account}

    def exists(self) -> bool:
        """Whether it is there. Raises CommandFailed where the name is somebody else's."""
        try:
            self._s3.head_bucket(**self._owned)
        except ClientError as error:
            if code(error) in ("404", "NoSuchBucket"):
                return False
            if code(error) in ("403", "AccessDenied"):
                raise CommandFailed(f"bucket {self.name} may not be used, or is another account's") from error
            with explained():
                raise
        return True

    def is_ours(self) -> bool:
        """Whether provision made it: by its tags, or empty and without any, as a cut leaves it."""
        found = self._read("get_bucket_tagging", "TagSet")
        if found is None:
            with explained():
                if not self._s3.list_object_versions(**self._owned, MaxKeys=1).get("Versions"):
                    return True
            # Another run that is making it tags it before it puts anything there.
            found = self._read("get_bucket_tagging", "TagSet")
        return found is not None and is_ours(found, self.environment.name)

    def has(self, key: str) -> bool:
        """Whether an object of that key is there."""
        try:
            self._s3.head_object(**self._owned, Key=key)
        except ClientError as error:
            if code(error) in ("404", "NoSuchKey", "NoSuchBucket"):
                return False
            with explained():
                raise
        return True

    def upload(self, key: str, path: Path) -> None:
        """Puts a file there."""
        with explained(), path.open("rb") as content:
            self._s3.put_object(**self._owned, Key=key, Body=content)

    def address(self, key: str) -> str:
        """Where CloudFormation finds an object: with the bucket in the path, as the AWS CLI writes it."""
        return f"{self._s3.meta.endpoint_url}/{self.name}/{key}"

    def create(self) -> None:
        """Creates it."""
        region = self.environment.region
        # The oldest region takes no name of a region.
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._s3.create_bucket(Bucket=self.name, **where)
        except ClientError as error:
            # Another run was quicker.
            if code(error) != "BucketAlreadyOwnedByYou":
                with explained():
                    raise

    def missing(self) -> list[str]:
        """What it lacks of the settings that it must have."""
        versioning = self._s3.get_bucket_versioning(**self._owned).get("Status")
        policy = self._read("get_bucket_policy", "Policy")
        lacks = {
            "tags": self._read("get_bucket_tagging", "TagSet") is None,
            "versioning": versioning != "Enabled",
            "encryption": self._read("get_bucket_encryption", "ServerSideEncryptionConfiguration") is None,
            "no public access": self._read("get_public_access_block", "PublicAccessBlockConfiguration")
            != _BLOCKED,
            "TLS only": policy is None or "aws:SecureTransport" not in policy,
        }
        return [name for name, is_lacking in lacks.items() if is_lacking]

    def configure(self) -> None:
        """Sets all settings; tags first, so that a cut leaves nothing that is not known as ours."""
        with explained():
            self._s3.put_bucket_tagging(**self._owned, Tagging={"TagSet": tags(self.environment.name)})
            self._s3.put_bucket_versioning(**self._owned, VersioningConfiguration={"Status": "Enabled"})
            rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
            self._s3.put_bucket_encryption(**self._owned, ServerSideEncryptionConfiguration={"Rules": [rule]})
            self._s3.put_public_access_block(**self._owned, PublicAccessBlockConfiguration=_BLOCKED)
            self._s3.put_bucket_policy(**self._owned, Policy=json.dumps(self._tls_only()))

    def empty(self, told: Callable[[int], None] = lambda _: None) -> None:
        """Deletes every version of every object, and the markers of deleted ones."""
        with explained():
            pages = self._s3.get_paginator("list_object_versions").paginate(
                **self._owned, PaginationConfig={"PageSize": _BATCH}
            )
            gone = 0
            for page in pages:
                entries = [
                    {"Key": entry["Key"], "VersionId": entry["VersionId"]}
                    for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
                ]
                if not entries:
                    continue
                answer = self._s3.delete_objects(**self._owned, Delete={"Objects": entries, "Quiet": True})
                for failed in answer.get("Errors", ()):
                    raise CommandFailed(
                        f"s3://{self.name}/{failed['Key']} can't be deleted: {failed['Message']}"
                    )
                gone += len(entries)
                told(gone)

    def delete(self) -> None:
        """Deletes the empty bucket; one that is gone already is fine."""
        try:
            self._s3.delete_bucket(**self._owned)
        except ClientError as error:
            if code(error) != "NoSuchBucket":
                with explained():
                    raise

    def _read(self, operation: str, key: str) -> Any:
        try:
            return getattr(self._s3, operation)(**self._owned)[key]
        except ClientError as error:
            # AWS's way to say "not set": NoSuchTagSet, NoSuchBucketPolicy, ...NotFoundError.
            if code(error).startswith("NoSuch") or code(error).endswith("NotFoundError"):
                return None
            with explained():
                raise

    def _tls_only(self) -> dict[str, Any]:
        arn = f"arn:{self._s3.meta.partition}:s3:::{self.name}"
        refusal = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        return {"Version": "2012-10-17", "Statement": [refusal]}


def code_bucket(account: Account) -> Bucket:
    """The environment's bucket for code. A bucket's name is unique in the world: account and region make it so."""
    environment = account.environment
    return Bucket(account, f"linewatch-{environment.name}-code-{environment.account}-{environment.region}")


def plan_code(bucket: Bucket, plan: Plan, packages: dict[str, Callable[[], Path]]) -> bool:
    """Plans the bucket and the upload of packages, keyed by object name; one that is there is not even built.

    Returns whether the bucket is there and bears its tags, so that an object put there before the plan is carried out makes
    it no stranger's.
    """
    is_there = is_tagged = bucket.exists()
    if is_there and not bucket.is_ours():
        raise GateRefused(
            f"bucket {bucket.name} is there and was not made by linewatch provision; rename or remove it"
        )

    def make() -> None:
        if not is_there:
            bucket.create()
        bucket.configure()

    what = f"bucket {bucket.name}"
    if not is_there:
        plan.add("create", what, "versioned, encrypted, no public access, TLS only", make)
    elif lacking := bucket.missing():
        is_tagged = "tags" not in lacking
        plan.add("update", what, ", ".join(lacking), make)
    else:
        plan.add("keep", what)
    for key, build in packages.items():
        if is_there and bucket.has(key):
            plan.add("keep", f"s3://{bucket.name}/{key}")
        else:
            plan.add("copy", f"s3://{bucket.name}/{key}", "", partial(_upload, bucket, key, build))
    return is_tagged


def _upload(bucket: Bucket, key: str, build: Callable[[], Path]) -> None:
    bucket.upload(key, build())
