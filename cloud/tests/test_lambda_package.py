# SPDX-License-Identifier: Apache-2.0
"""The layer for Lambda's own Python: the locked packages, for its processor, without what no function imports."""

import zipfile
from pathlib import Path

import lambda_package
import pytest


@pytest.mark.parametrize(("architecture", "machine"), [("x86_64", "x86_64"), ("arm64", "aarch64")])
def test_the_layer_holds_the_locked_packages_for_the_functions_processor(
    architecture: str, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lambda_package, "BUILD", tmp_path)
    try:
        layer = lambda_package.runtime_layer_zip(architecture)
    except lambda_package.PackageError as error:
        pytest.skip(f"no package index: {error}")

    names = zipfile.ZipFile(layer).namelist()
    assert layer == lambda_package.runtime_layer(architecture)
    for package in ("aws_lambda_powertools", "google/protobuf", "oauthlib", "urllib3", "certifi", "jmespath"):
        assert any(name.startswith(f"python/{package}/") for name in names), package
    native = [name for name in names if name.endswith(".so")]
    assert native
    assert all(machine in name or "abi3" in name for name in native)
    assert not [name for name in names if "event_handler" in name or name.startswith("python/bin/")]


def test_each_processor_has_a_layer_of_its_own_and_nothing_is_built_to_know_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lambda_package, "BUILD", tmp_path)

    assert lambda_package.runtime_layer("x86_64") != lambda_package.runtime_layer("arm64")
    assert not list(tmp_path.iterdir())


def test_what_can_not_be_fetched_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lambda_package, "BUILD", tmp_path)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("requests==2.34.2 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setattr(lambda_package, "REQUIREMENTS", requirements)
    # From a folder: where the network swallows what is sent, pip tries for longer than PIP_S.
    (tmp_path / "requests-2.34.2-py3-none-any.whl").write_bytes(b"of another digest")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(lambda_package.PackageError, match=r"(?s)pip can't fetch.*Expected sha256 0{64}"):
        lambda_package.runtime_layer_zip("x86_64")
    assert not list(tmp_path.glob("*.zip"))
