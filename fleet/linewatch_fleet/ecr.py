# SPDX-License-Identifier: Apache-2.0
"""What promotion needs of Amazon ECR's own API: the token, repositories, and what its scans found."""

import base64
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.findings import Finding, Scan, known_severity

SCANNED: Final = ("COMPLETE", "ACTIVE")
"""ACTIVE: enhanced scanning keeps watching an image; what it found so far is there."""


class Ecr:
    """The private registry of one account and region."""

    def __init__(self, account: Account) -> None:
        self.registry_id = account.environment.account
        self._client = account.client("ecr")

    def sign_in(self) -> tuple[str, tuple[str, str]]:
        """The registry's host, and user and password for it (good for 12 hours)."""
        with explained():
            data = self._client.get_authorization_token()["authorizationData"][0]
        user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        return urlsplit(data["proxyEndpoint"]).netloc, (user, password)

    def repository(self, name: str) -> dict[str, Any] | None:
        """The repository as ECR describes it; None when there is none."""
        try:
            found = self._client.describe_repositories(registryId=self.registry_id, repositoryNames=[name])
        except ClientError as error:
            if error.response["Error"]["Code"] == "RepositoryNotFoundException":
                return None
            with explained():
                raise
        repository: dict[str, Any] = found["repositories"][0]
        return repository

    def create_repository(self, name: str, kms_key: str) -> None:
        """A repository with immutable tags, scan on push and encryption. It has no lifecycle policy: nothing expires
        that a device may have to pull again for a rollback.
        """
        encryption = {"encryptionType": "KMS", "kmsKey": kms_key} if kms_key else {"encryptionType": "AES256"}
        try:
            self._client.create_repository(
                registryId=self.registry_id,
                repositoryName=name,
                imageTagMutability="IMMUTABLE",
                imageScanningConfiguration={"scanOnPush": True},
                encryptionConfiguration=encryption,
            )
        except ClientError as error:
            # Somebody who promotes at the same time was quicker.
            if error.response["Error"]["Code"] != "RepositoryAlreadyExistsException":
                with explained():
                    raise

    def make_immutable(self, name: str) -> None:
        """Lets no tag of the repository be moved any more."""
        with explained():
            self._client.put_image_tag_mutability(
                registryId=self.registry_id, repositoryName=name, imageTagMutability="IMMUTABLE"
            )

    def scan(self, image: str, platform: str, repository: str, digest: str) -> Scan:
        """What ECR's scan of one platform's manifest found. ECR doesn't scan an index."""
        request = {
            "registryId": self.registry_id,
            "repositoryName": repository,
            "imageId": {"imageDigest": digest},
        }
        origin = f"ECR {self.registry_id}/{repository}"
        findings: list[Finding] = []
        status, description = "", ""
        try:
            for page in self._client.get_paginator("describe_image_scan_findings").paginate(**request):
                status = page.get("imageScanStatus", {}).get("status", "")
                description = page.get("imageScanStatus", {}).get("description", "")
                findings += _findings(page.get("imageScanFindings", {}))
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in {"ScanNotFoundException", "ImageNotFoundException", "RepositoryNotFoundException"}:
                with explained():
                    raise
            return Scan(
                image,
                platform,
                origin,
                missing="there is no scan; turn on scan on push, or start one by hand",
            )
        if status not in SCANNED:
            return Scan(
                image,
                platform,
                origin,
                missing=f"the scan is {status or 'without a status'} {description}".strip(),
            )
        return Scan(image, platform, origin, findings)


def _findings(page: dict[str, Any]) -> list[Finding]:
    basic = [
        Finding(one.get("name", "?"), known_severity(one.get("severity")), _attribute(one, "package_name"))
        for one in page.get("findings", [])
    ]
    enhanced = [
        Finding(
            (one.get("packageVulnerabilityDetails") or {}).get("vulnerabilityId") or one.get("title", "?"),
            known_severity(one.get("severity")),
            ", ".join(
                package.get("name", "")
                for package in (one.get("packageVulnerabilityDetails") or {}).get("vulnerablePackages", [])
            ),
        )
        for one in page.get("enhancedFindings", [])
        # Suppressed by the account's own rules, or closed.
        if one.get("status", "ACTIVE") == "ACTIVE"
    ]
    return basic + enhanced


def _attribute(finding: dict[str, Any], key: str) -> str:
    return next((one.get("value", "") for one in finding.get("attributes", []) if one.get("key") == key), "")


def credentials_of(ecr: Ecr) -> Callable[[], tuple[str, str]]:
    """For a Registry: a fresh token each time that it asks."""
    return lambda: ecr.sign_in()[1]
