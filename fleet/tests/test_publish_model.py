# SPDX-License-Identifier: Apache-2.0
"""`linewatch publish --model`: a package of one's own becomes a component if devices would take it."""

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from greengrass_account import AwsAccount

from linewatch_fleet.recipes import MODELS, archive
from linewatch_models import signing

PACKAGE = MODELS / "turbofan" / "releases" / "1.0.0"
KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy that is signed by a key that nobody knows."""
    place = tmp_path / "turbofan" / "1.0.0"
    shutil.copytree(PACKAGE, place)
    (place / "metadata.json.sig").write_bytes(signing.sign((place / "metadata.json").read_bytes(), KEY))
    return place


def body() -> str:
    pem = signing.public_pem(KEY.public_key()).decode()
    return "".join(line for line in pem.split("\n") if not line.startswith("-----"))


def test_a_package_that_the_release_keys_signed_is_published_and_only_once(aws: AwsAccount) -> None:
    result = aws.run("publish", aws.name, "--model", PACKAGE)
    assert result.exit_code == 0, result.stderr
    assert f"`linewatch deploy {aws.name} --with io.linewatch.model.turbofan=1.0.0`" in result.stderr
    key = "io.linewatch.model.turbofan/1.0.0/turbofan-1.0.0.tar"
    stored = aws.client("s3").get_object(Bucket=aws.bucket, Key=key)["Body"].read()
    assert stored == archive.packed(PACKAGE)
    again = aws.run("publish", aws.name, "--model", PACKAGE, "--json")
    assert {step["action"] for step in json.loads(again.stdout)["plan"]} == {"keep"}


def test_a_package_of_a_key_that_devices_do_not_trust_is_refused(aws: AwsAccount, package: Path) -> None:
    result = aws.run("publish", aws.name, "--model", package)
    assert result.exit_code == 3
    assert "none of the trusted keys signed" in result.stderr
    assert "io.linewatch.Inference: TrustedKeys" in result.stderr


def test_a_key_of_the_fleet_file_is_trusted(aws: AwsAccount, package: Path) -> None:
    aws.write_fleet(configuration={"io.linewatch.Inference": {"TrustedKeys": body()}})
    result = aws.run("publish", aws.name, "--model", package)
    assert result.exit_code == 0, result.stderr


def test_a_key_of_the_fleet_file_that_is_none_is_named(aws: AwsAccount, package: Path) -> None:
    aws.write_fleet(configuration={"io.linewatch.Inference": {"TrustedKeys": "nonsense"}})
    result = aws.run("publish", aws.name, "--model", package)
    assert result.exit_code == 2
    assert "TrustedKeys: nonsense... is no public key" in result.stderr


def test_a_changed_graph_is_refused(aws: AwsAccount, package: Path) -> None:
    shutil.rmtree(package)
    shutil.copytree(PACKAGE, package)
    graph = package / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    result = aws.run("publish", aws.name, "--model", package)
    assert result.exit_code == 3
    assert "model.onnx" in result.stderr
    assert not [name for name, _ in aws.greengrass.service.calls if name == "CreateComponentVersion"]


def test_what_is_no_package_is_a_usage_error(aws: AwsAccount, tmp_path: Path) -> None:
    result = aws.run("publish", aws.name, "--model", tmp_path / "nothing")
    assert result.exit_code == 2
    assert "is no model package" in result.stderr


def test_a_folder_that_devices_would_not_find_is_refused(aws: AwsAccount, package: Path) -> None:
    wrong = package.with_name("2.0.0")
    shutil.copytree(PACKAGE, wrong)
    result = aws.run("publish", aws.name, "--model", wrong)
    assert result.exit_code == 3
    assert "move it to <model_name>/<model_version>/" in result.stderr
