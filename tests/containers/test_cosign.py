# SPDX-License-Identifier: Apache-2.0
"""The real cosign and we understand each other: a release's signature in both directions, an image's after promotion."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from shops import Shop

from linewatch_fleet.manifest import Image
from linewatch_fleet.signing import make_keys, signer
from linewatch_plant import oci_registry

pytestmark = pytest.mark.containers

Cosign = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cosign(tmp_path: Path) -> Cosign:
    """Runs cosign in the test's folder, where it has a key pair of its own."""
    if shutil.which("cosign") is None:
        pytest.skip("not run: cosign is not on the PATH (Debian 13: apt-get install cosign)")
    environment = {**os.environ, "COSIGN_PASSWORD": "test", "DOCKER_CONFIG": str(tmp_path / "docker")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["cosign", *arguments], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
        )

    assert run("generate-key-pair").returncode == 0
    return run


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path, environment={"DOCKER_CONFIG": str(tmp_path / "docker")})
    make_keys(tmp_path / "keys" / "release.key", tmp_path / "keys" / "release.pem", None)
    made.images["capture"] = Image(
        repository="linewatch/capture", digest="sha256:" + "3" * 64, platforms=["linux/amd64"]
    )
    return made


def test_cosign_verifies_our_signature_and_refuses_a_changed_release(cosign: Cosign, shop: Shop) -> None:
    shop.release()
    verify = (
        "verify-blob",
        "--key",
        "keys/release.pem",
        "--signature",
        "release.yaml.sig",
        "--insecure-ignore-tlog=true",
        "release.yaml",
    )

    assert "Verified OK" in cosign(*verify).stderr
    with (shop.place / "release.yaml").open("a") as file:
        file.write("# changed\n")
    assert cosign(*verify).returncode != 0


def test_we_verify_what_cosign_signs(cosign: Cosign, shop: Shop) -> None:
    shop.release(is_signed=False)
    release = shop.place / "release.yaml"

    done = cosign(
        "sign-blob",
        "--yes",
        "--tlog-upload=false",
        "--key",
        "cosign.key",
        "--output-signature",
        "release.yaml.sig",
        "release.yaml",
    )

    assert done.returncode == 0, done.stderr
    signature = (shop.place / "release.yaml.sig").read_bytes()
    assert signer(release.read_bytes(), signature, [shop.place / "cosign.pub"])
    assert not signer(release.read_bytes() + b"#", signature, [shop.place / "cosign.pub"])


def test_an_images_own_cosign_signature_and_those_of_its_platforms_are_good_where_it_was_promoted_to(
    cosign: Cosign, shop: Shop
) -> None:
    if not oci_registry.is_installed():
        pytest.skip("not run: docker-registry is not installed (Debian: apt-get install docker-registry)")
    with (
        oci_registry.serving(shop.place / "source") as source,
        oci_registry.serving(shop.place / "target") as target,
    ):
        writer = shop.add_image("capture", source)
        amd64 = writer.platform(writer.repository, "amd64")["digest"]
        reference = f"linewatch/capture@{shop.images['capture'].digest}"
        signed = cosign(
            "sign",
            "--yes",
            "--recursive",
            "--tlog-upload=false",
            "--key",
            "cosign.key",
            "--allow-http-registry",
            f"{source}/{reference}",
        )
        assert signed.returncode == 0, signed.stderr
        shop.release()
        shop.fleet(
            {
                "name": "dev",
                "account": "111111111111",
                "region": "eu-central-1",
                "registry": target,
                "gate": {"scan": "off"},
            }
        )
        verify = ("verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry")
        assert cosign(*verify, f"{target}/{reference}").returncode != 0, "it is not there yet"

        done = shop.run("promote", "dev", "--source", source)

        assert done.returncode == 0, done.stderr
        for one in (reference, f"linewatch/capture@{amd64}"):
            assert cosign(*verify, f"{target}/{one}").returncode == 0
