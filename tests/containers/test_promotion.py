# SPDX-License-Identifier: Apache-2.0
"""The images of `make images`, released and promoted, and pulled by an engine from where they were promoted to."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from built_images import LABEL, ROOT, Built, build, docker
from shops import Shop

from linewatch_fleet.copying import Place, read_content
from linewatch_fleet.manifest import Image
from linewatch_fleet.registry import Registry
from linewatch_fleet.signing import make_keys
from linewatch_plant import oci_registry

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def built(engine: None) -> Built:
    """As they lie there, or else built: another test may need both platforms of build/images.json."""
    present = ROOT / "build" / "images.json"
    made = Built(json.loads(present.read_text())) if present.exists() else build()
    if not made.told["registry"]:
        pytest.skip(
            "not run: the images lie in the engine only: no registry on loopback, see tools/containers/engine"
        )
    if not oci_registry.is_installed():
        pytest.skip("not run: docker-registry is not installed (Debian: apt-get install docker-registry)")
    return made


@contextlib.contextmanager
def pulled(reference: str) -> Iterator[dict[str, object]]:
    docker("pull", "--quiet", reference)
    try:
        yield json.loads(docker("image", "inspect", reference))[0]
    finally:
        subprocess.run(["docker", "image", "rm", reference], check=False, capture_output=True)


def test_a_promoted_image_is_the_built_one_and_an_engine_pulls_and_runs_it_by_digest(
    built: Built, tmp_path: Path
) -> None:
    shop = Shop(tmp_path, environment={"DOCKER_CONFIG": str(tmp_path / "docker")})
    make_keys(tmp_path / "keys" / "release.key", tmp_path / "keys" / "release.pem", None)
    for name in ("broker", "forwarder"):
        image = built.told["images"][name]
        shop.images[name] = Image(
            repository=image["repository"], digest=image["digest"], platforms=sorted(image["platforms"])
        )
    shop.release()
    source = built.told["registry"]
    with oci_registry.serving(tmp_path / "registry") as target:
        gate = {"scan": "off", "platforms": ["linux/amd64"]}
        shop.fleet({"name": "dev", "account": "111111111111", "region": "eu-central-1", "registry": target,
                    "repository_prefix": "dev/", "gate": gate})  # fmt: skip

        done = shop.run("promote", "dev", "--source", source, "--verify-layers")

        assert done.returncode == 0, done.stdout + done.stderr
        for image in shop.images.values():
            before = read_content(Place(Registry(source, lambda: None), image.repository), image.digest)
            after = read_content(
                Place(Registry(target, lambda: None), f"dev/{image.repository}"), image.digest
            )
            assert after.manifests == before.manifests
            assert after.blobs == before.blobs
        reference = f"{target}/dev/linewatch/broker@{shop.images['broker'].digest}"
        with pulled(reference) as described:
            assert reference in described["RepoDigests"]  # type: ignore[operator]
            # Its help ends with code 3.
            command = [
                "docker",
                "run",
                "--rm",
                "--label",
                LABEL,
                "--entrypoint",
                "/usr/sbin/mosquitto",
                reference,
                "-h",
            ]
            said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            assert "mosquitto version" in said.stdout
