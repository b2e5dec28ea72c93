# SPDX-License-Identifier: Apache-2.0
"""`linewatch promote` through two AWS accounts' ECR: repositories, tokens, findings, and the policy of the docs.

What ministack's ECR lacks of the real one is added in front of it; linewatch_plant/standin_ecr.py lists what.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from shops import VERSION, Shop

from linewatch_plant.ministack_process import REGION, end, launched
from linewatch_plant.oci_images import INDEX
from linewatch_plant.standin_ecr import StandinEcr, scanned

ROOT = Path(__file__).resolve().parents[2]
DEV, PROD = "111111111111", "222222222222"


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, port, _ = launched(tmp_path_factory.mktemp("ministack"), enforce_policies=False)
    yield f"http://127.0.0.1:{port}"
    end(process)


@pytest.fixture
def ecr(ministack: str) -> Iterator[StandinEcr]:
    standin = StandinEcr(ministack, REGION, (DEV, PROD))
    yield standin
    for account in (DEV, PROD):
        client = boto3.client("ecr", **session(ecr_url=standin.url, account=account))
        for one in client.describe_repositories()["repositories"]:
            client.delete_repository(repositoryName=one["repositoryName"], force=True)
    standin.stop()


def session(ecr_url: str, account: str) -> dict[str, str]:
    return {
        "endpoint_url": ecr_url,
        "region_name": REGION,
        "aws_access_key_id": account,
        "aws_secret_access_key": "x",
    }


@pytest.fixture
def promoted(shop: Shop, registry: Callable[..., str], ecr: StandinEcr) -> Shop:
    """A shop whose release is in dev, an ECR, and can go to prod, another account's."""
    credentials = shop.place / "credentials"
    credentials.write_text("".join(f"[{name}]\naws_access_key_id={account}\naws_secret_access_key=x\n"
                                   for name, account in (("dev", DEV), ("prod", PROD))))  # fmt: skip
    shop.environment |= {"AWS_ENDPOINT_URL": ecr.url, "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
                         "AWS_CONFIG_FILE": str(shop.place / "none")}  # fmt: skip
    source = registry()
    writer = shop.add_image("capture", source)
    writer.cosign_signature(shop.images["capture"].digest)
    index = {"mediaType": INDEX, "digest": shop.images["capture"].digest, "size": 1}
    writer.referrer(index)
    shop.release()
    shop.fleet(
        environment("dev", DEV, gate={"scan": "if-present"}), environment("prod", PROD, promotes_from="dev")
    )
    done = shop.run("promote", "dev", "--source", source)
    assert done.returncode == 0, done.stderr
    return shop


def environment(name: str, account: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "account": account, "region": REGION, "profile": name, **more}


def platform_digests(ecr: StandinEcr, account: str, digest: str) -> list[str]:
    """Of the two platforms; their attestations are not scanned."""
    index = json.loads(ecr.accounts[account].manifests["linewatch/capture", digest])
    return [child["digest"] for child in index["manifests"][:2]]


def test_the_repository_is_made_with_immutable_tags_scan_and_encryption_and_no_lifecycle_policy(
    promoted: Shop, ecr: StandinEcr
) -> None:
    client = boto3.client("ecr", **session(ecr.url, DEV))

    made = client.describe_repositories(repositoryNames=["linewatch/capture"])["repositories"][0]

    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}
    assert made["encryptionConfiguration"] == {"encryptionType": "AES256"}
    assert not [action for action, _ in ecr.accounts[DEV].calls if "Lifecycle" in action]


def test_everything_is_there_and_is_found_by_tag_and_by_referrer(promoted: Shop, ecr: StandinEcr) -> None:
    client = boto3.client("ecr", **session(ecr.url, DEV))
    digest = promoted.images["capture"].digest

    found = client.batch_get_image(repositoryName="linewatch/capture", imageIds=[{"imageTag": VERSION}])[
        "images"
    ]

    assert [one["imageId"]["imageDigest"] for one in found] == [digest]
    tags = {one.get("imageTag") for one in client.list_images(repositoryName="linewatch/capture")["imageIds"]}
    assert tags >= {VERSION, digest.replace(":", "-") + ".sig"}
    assert digest.replace(":", "-") not in tags, (
        "ECR has the referrers API: the tag that stands in for it is not written"
    )
    assert any("subject" in json.loads(content) for content in ecr.accounts[DEV].manifests.values())


def test_a_mutable_repository_becomes_immutable(promoted: Shop, ecr: StandinEcr) -> None:
    client = boto3.client("ecr", **session(ecr.url, PROD))
    client.create_repository(repositoryName="linewatch/capture")
    clean(promoted, ecr)

    done = promoted.run("promote", "prod")

    assert done.returncode == 0, done.stderr
    repository = client.describe_repositories(repositoryNames=["linewatch/capture"])["repositories"][0]
    assert repository["imageTagMutability"] == "IMMUTABLE"


def test_a_key_of_ones_own_encrypts_a_new_repository(promoted: Shop, ecr: StandinEcr) -> None:
    key = f"arn:aws:kms:{REGION}:{PROD}:key/11111111-2222-3333-4444-555555555555"
    promoted.fleet(
        environment("dev", DEV),
        environment("prod", PROD, promotes_from="dev", kms_key=key, gate={"scan": "off"}),
    )

    assert promoted.run("promote", "prod").returncode == 0

    client = boto3.client("ecr", **session(ecr.url, PROD))
    made = client.describe_repositories(repositoryNames=["linewatch/capture"])["repositories"][0]
    assert made["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": key}


def test_without_scans_in_the_source_account_the_gate_refuses_and_makes_nothing(
    promoted: Shop, ecr: StandinEcr
) -> None:
    refused = promoted.run("promote", "prod", "--json")

    assert refused.returncode == 3
    unmet = [one for one in json.loads(refused.stdout)["gate"] if not one["met"]]
    assert [one["about"] for one in unmet] == ["capture linux/amd64", "capture linux/arm64"]
    assert all("there is no scan" in one["detail"] for one in unmet)
    assert boto3.client("ecr", **session(ecr.url, PROD)).describe_repositories()["repositories"] == []


@pytest.mark.parametrize("status", ["IN_PROGRESS", "FAILED", "UNSUPPORTED_IMAGE", "SCAN_ELIGIBILITY_EXPIRED"])
def test_a_scan_that_has_no_result_is_no_scan(promoted: Shop, ecr: StandinEcr, status: str) -> None:
    clean(promoted, ecr)
    arm64 = platform_digests(ecr, DEV, promoted.images["capture"].digest)[1]
    ecr.accounts[DEV].scans["linewatch/capture", arm64] = scanned(status=status)

    refused = promoted.run("promote", "prod")

    assert refused.returncode == 3
    assert f"the scan is {status}" in refused.stdout


def test_a_critical_finding_of_one_platform_refuses_and_is_named(promoted: Shop, ecr: StandinEcr) -> None:
    clean(promoted, ecr)
    arm64 = platform_digests(ecr, DEV, promoted.images["capture"].digest)[1]
    ecr.accounts[DEV].scans["linewatch/capture", arm64] = scanned(
        ("CVE-2026-9", "CRITICAL"), ("CVE-2026-8", "LOW")
    )

    refused = promoted.run("promote", "prod", "--json")

    assert refused.returncode == 3
    unmet = [one for one in json.loads(refused.stdout)["gate"] if not one["met"]]
    assert [one["about"] for one in unmet] == ["capture linux/arm64"]
    assert "1 CRITICAL, at most 0; such as CVE-2026-9" in unmet[0]["detail"]


def test_enhanced_findings_count_too(promoted: Shop, ecr: StandinEcr) -> None:
    clean(promoted, ecr)
    amd64 = platform_digests(ecr, DEV, promoted.images["capture"].digest)[0]
    finding = {"severity": "HIGH", "status": "ACTIVE", "title": "CVE-2026-7 - openssl",
               "packageVulnerabilityDetails": {"vulnerabilityId": "CVE-2026-7", "vulnerablePackages": [{"name": "openssl"}]}}  # fmt: skip
    closed = {**finding, "status": "CLOSED", "severity": "CRITICAL"}
    scan = {
        "imageScanStatus": {"status": "ACTIVE"},
        "imageScanFindings": {"enhancedFindings": [finding, closed]},
    }
    ecr.accounts[DEV].scans["linewatch/capture", amd64] = scan

    refused = promoted.run("promote", "prod")

    assert refused.returncode == 3
    assert "1 HIGH, at most 0; such as CVE-2026-7" in refused.stdout
    assert "CRITICAL" not in refused.stdout


@pytest.mark.parametrize(("until", "code"), [("2099-01-01", 0), ("2020-01-01", 3)])
def test_a_waiver_takes_a_finding_out_until_its_day(
    promoted: Shop, ecr: StandinEcr, until: str, code: int
) -> None:
    clean(promoted, ecr)
    amd64 = platform_digests(ecr, DEV, promoted.images["capture"].digest)[0]
    ecr.accounts[DEV].scans["linewatch/capture", amd64] = scanned(("CVE-2026-9", "CRITICAL"))
    waiver = {"id": "CVE-2026-9", "reason": "the code in question is never reached", "until": until}
    promoted.fleet(
        environment("dev", DEV), environment("prod", PROD, promotes_from="dev", gate={"waivers": [waiver]})
    )

    done = promoted.run("promote", "prod")

    assert done.returncode == code, done.stderr
    assert ("waived: CVE-2026-9" if code == 0 else "ran out on 2020-01-01") in done.stdout


def test_credentials_of_another_account_are_refused(promoted: Shop) -> None:
    promoted.fleet(
        environment("dev", PROD) | {"profile": "dev"}, environment("prod", PROD, promotes_from="dev")
    )

    failed = promoted.run("promote", "prod")

    assert failed.returncode == 1
    assert f"these credentials belong to account {DEV}" in failed.stderr


def test_the_policies_of_the_docs_are_what_is_called_and_no_more(promoted: Shop, ecr: StandinEcr) -> None:
    clean(promoted, ecr)
    client = boto3.client("ecr", **session(ecr.url, PROD))

    for account in ecr.accounts.values():
        account.calls.clear()

    done = promoted.run("promote", "prod")

    assert done.returncode == 0, done.stderr
    client.put_image_tag_mutability(repositoryName="linewatch/capture", imageTagMutability="MUTABLE")
    assert promoted.run("promote", "prod").returncode == 0
    for account, name in ((DEV, "source"), (PROD, "target")):
        assert called(ecr, account) == allowed(name), name


def called(ecr: StandinEcr, account: str) -> dict[str, set[str]]:
    """IAM actions by what they are done to: "*", or a repository of ours."""
    found: dict[str, set[str]] = {"*": set(), "linewatch/*": set()}
    for action, repository in ecr.accounts[account].calls:
        found["*" if repository == "*" else "linewatch/*"].add(action)
        assert repository == "*" or repository.startswith("linewatch/")
    return found


def allowed(name: str) -> dict[str, set[str]]:
    """The policy `name` of docs/promoting.md: actions by resource."""
    text = (ROOT / "docs" / "promoting.md").read_text()
    block = re.search(rf"<!-- policy: {name} -->\n```json\n(.*?)```", text, re.DOTALL)
    assert block, f"docs/promoting.md has no policy {name}"
    found: dict[str, set[str]] = {}
    for statement in json.loads(block[1])["Statement"]:
        assert statement["Effect"] == "Allow"
        resource = statement["Resource"].rpartition(":repository/")[2]
        found[resource] = set(statement["Action"])
    return found


def clean(shop: Shop, ecr: StandinEcr) -> None:
    """Scans of dev that found nothing."""
    for digest in platform_digests(ecr, DEV, shop.images["capture"].digest):
        ecr.accounts[DEV].scans["linewatch/capture", digest] = scanned()
