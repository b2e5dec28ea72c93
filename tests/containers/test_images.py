# SPDX-License-Identifier: Apache-2.0
"""The images that `make images` builds: small, labelled, the same from the same commit, and each stands on its own."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from built_images import (
    BUILD_S,
    PLATFORMS,
    PRODUCT,
    ROOT,
    Built,
    docker,
)  # fmt: skip
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

pytestmark = pytest.mark.containers

MEGABYTE = 1_000_000
SECOND_NS = 1_000_000_000
# What we add to the base image, gzip: what a device with the base image loads.
BUDGET_MB = {
    ("inference", "linux/amd64"): 95, ("inference", "linux/arm64"): 80, ("capture", "linux/amd64"): 75,
    ("capture", "linux/arm64"): 75, ("forwarder", "linux/amd64"): 18, ("forwarder", "linux/arm64"): 18,
    ("console", "linux/amd64"): 25, ("console", "linux/arm64"): 25, ("broker", "linux/amd64"): 1,
    ("broker", "linux/arm64"): 1,
}  # fmt: skip
EACH = pytest.mark.parametrize("platform", PLATFORMS)
EVERY = pytest.mark.parametrize("name", PRODUCT)


@EVERY
@EACH
def test_what_we_add_stays_within_its_budget(built: Built, name: str, platform: str) -> None:
    added = built.has(name, platform)["added_gzip_bytes"]

    assert 0 < added <= BUDGET_MB[name, platform] * MEGABYTE


@EVERY
@EACH
def test_the_page_tells_the_sizes_and_budgets_as_they_are(built: Built, name: str, platform: str) -> None:
    page = (ROOT / "docs" / "images.md").read_text()
    (row,) = re.findall(
        rf"^\| {name} \| ([\d.]+) \| ([\d.]+) \| (\d+) / (\d+) \| ([\d.]+) / ([\d.]+) \|$", page, re.MULTILINE
    )
    added, budget, whole = (float(number) for number in row[PLATFORMS.index(platform) :: 2])
    sizes = built.has(name, platform)

    assert budget == BUDGET_MB[name, platform]
    assert sizes["added_gzip_bytes"] / MEGABYTE == pytest.approx(added, rel=0.05, abs=0.01)
    # The stand-ins' packages get Debian's updates.
    assert sizes["total_gzip_bytes"] / MEGABYTE == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize("name", [name for name in PRODUCT if name != "broker"])
@EACH
def test_an_update_of_our_code_alone_loads_little(built: Built, name: str, platform: str) -> None:
    built.has(name, platform)
    if not built.told["registry"]:
        pytest.skip("not run: no registry on loopback to ask for the layers; see tools/containers/engine")
    manifest = docker("buildx", "imagetools", "inspect", "--raw", built.reference(name, platform))

    *_, libraries, code, _working_directory = (layer["size"] for layer in json.loads(manifest)["layers"])
    assert 0 < code < MEGABYTE / 2 < libraries


@EVERY
@EACH
def test_an_image_says_what_it_is(built: Built, configs: Any, name: str, platform: str) -> None:
    built.has(name, platform)
    image = configs[name, platform]
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in image["Config"]["Labels"].items()
    }

    assert f"{image['Os']}/{image['Architecture']}" == platform
    assert labels["title"] == f"linewatch-{name}"
    assert labels["version"] == built.told["version"]
    assert labels["revision"] == built.told["commit"]
    assert labels["licenses"].startswith("Apache-2.0")
    assert labels["base.name"] == (
        "eclipse-mosquitto:2.0.21" if name == "broker" else "python:3.13-slim-trixie"
    )
    committed = subprocess.run(
        ["git", "show", "-s", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", built.told["commit"]],
        cwd=ROOT, env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert labels["created"] == committed
    assert image["Created"] == committed
    assert {"description", "source"} <= labels.keys()


@EVERY
@EACH
def test_nothing_in_an_image_is_started_by_a_shell_or_as_root(
    built: Built, configs: Any, name: str, platform: str
) -> None:
    built.has(name, platform)
    config = configs[name, platform]["Config"]

    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    for command in (config.get("Entrypoint") or [], config["Cmd"], config["Healthcheck"]["Test"][1:]):
        assert not {"sh", "/bin/sh", "bash", "/bin/bash"} & set(command)


@EVERY
@EACH
def test_a_slow_machine_has_minutes_for_a_start_and_a_quick_one_is_healthy_at_once(
    built: Built, configs: Any, name: str, platform: str
) -> None:
    """Inference, which proves its models first, was "unhealthy" after 105 s of a busy machine, and `compose up` failed."""
    built.has(name, platform)
    check = configs[name, platform]["Config"]["Healthcheck"]

    assert check["StartPeriod"] >= (120 if name == "broker" else 300) * SECOND_NS
    assert check["StartInterval"] == SECOND_NS


def bake(target: str, folder: Path, *options: str, **values: str) -> tuple[str, list[str]]:
    """The image's digest, and its layers as they are unpacked."""
    told = folder / "metadata.json"
    done = subprocess.run(
        [
            "docker", "buildx", "bake", "--file", "docker-bake.hcl", "--provenance=false", "--metadata-file", told,
            "--set", "*.output=type=image,oci-mediatypes=true", *options, target,
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False,
        env={**os.environ, "CA_BUNDLE": os.environ.get("SSL_CERT_FILE", "/dev/null"), **values},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    tag = f"{values['PREFIX']}linewatch/{target}:{values['VERSION']}"
    layers = json.loads(docker("image", "inspect", tag))[0]["RootFS"]["Layers"]
    return str(json.loads(told.read_text())[target]["containerimage.digest"]), layers


@pytest.mark.parametrize("name", ["forwarder", "broker"])
def test_the_same_commit_makes_the_same_image_and_another_commit_the_same_layers(
    built: Built, name: str, tmp_path: Path
) -> None:
    prefix = f"linewatch-test-{os.getpid()}/"
    commit = {"PREFIX": prefix, "VERSION": "1", "REVISION": "a" * 40, "SOURCE_DATE_EPOCH": "1795000000"}
    another = {**commit, "REVISION": "b" * 40, "SOURCE_DATE_EPOCH": "1795009999"}
    # Another checkout has other times; they must not matter.
    copied = (ROOT / "runtime/linewatch_runtime/health.py", ROOT / "services/broker/mosquitto.conf")
    try:
        first = bake(name, tmp_path, "--no-cache", **commit)
        for file in copied:
            os.utime(file)
        other = bake(name, tmp_path, "--no-cache", **another)
        again = bake(name, tmp_path, **commit)
    finally:
        docker("image", "rm", "--force", f"{prefix}linewatch/{name}:1")

    assert other[1] == first[1]
    assert other[0] != first[0]
    assert again == first


@EVERY
@EACH
def test_the_bill_of_materials_is_valid_and_names_what_is_pinned(
    built: Built, name: str, platform: str
) -> None:
    built.has(name, platform)
    text = (ROOT / built.told["images"][name]["sbom"][platform]).read_text()

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    assert bom["metadata"]["component"]["hashes"][0]["content"] == built.has(name, platform)["digest"][7:]
    purls = {component["purl"] for component in bom["components"]}
    assert any(purl.startswith(("pkg:deb/debian/libc6@", "pkg:apk/alpine/musl@")) for purl in purls)
    requirements = ROOT / "services" / name / "requirements.txt"
    lines = requirements.read_text().splitlines() if requirements.exists() else []
    pinned = {
        f"pkg:pypi/{line.split()[0].replace('==', '@')}"
        for line in lines
        if "==" in line and " ; " not in line
    }
    assert pinned <= purls
