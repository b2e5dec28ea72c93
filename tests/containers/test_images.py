# SPDX-License-Identifier: Apache-2.0
"""The images that `make images` builds: small, labelled, the same from the same commit, and each stands on its own."""

import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from brokers import wait_for
from built_images import (
    BUILD_S,
    PLATFORMS,
    PRODUCT,
    ROOT,
    WITHOUT_SHELL,
    Built,
    Container,
    build,
    container,
    docker,
)  # fmt: skip
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from linewatch.v1 import inspector_pb2, inspector_pb2_grpc

pytestmark = pytest.mark.containers

HERE = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}[platform.machine()]
GRACE_S = 12
START_S = 400
"""Emulated on a busy machine; a tenth of it otherwise."""
MEGABYTE = 1_000_000
# What we add to the base image, gzip: what a device with the base image loads.
BUDGET_MB = {
    ("inference", "linux/amd64"): 95, ("inference", "linux/arm64"): 80, ("capture", "linux/amd64"): 75,
    ("capture", "linux/arm64"): 75, ("forwarder", "linux/amd64"): 18, ("forwarder", "linux/arm64"): 18,
    ("console", "linux/amd64"): 25, ("console", "linux/arm64"): 25, ("broker", "linux/amd64"): 1,
    ("broker", "linux/arm64"): 1,
}  # fmt: skip
EACH = pytest.mark.parametrize("platform", PLATFORMS)
EVERY = pytest.mark.parametrize("name", PRODUCT)

SAMPLES = ROOT / "plant" / "sample" / "pv-el-cells" / "images"
CRACKED = SAMPLES / "1-steady" / "FSEC_5GC47_22.jpg"
MODELS = ("--volume", f"{ROOT / 'models'}:/var/lib/linewatch/models:ro")
STATE = ("--volume", "/var/lib/linewatch/state")
# What each says once it runs, though nothing that it talks to is there.
STANDING_ALONE = {
    "capture": (
        "mqtt_unreachable",
        (
            *STATE, "--volume", f"{SAMPLES}:/source:ro", "--env", "CAPTURE_LINE=line-1", "--env", "CAPTURE_STATION=station-1",
            "--env", "CAPTURE_PATH=/source", "--env", "CAPTURE_MODEL=pv-el-cells", "--volume", "/var/lib/linewatch/evidence",
        ),
    ),
    "console": ("mqtt_unreachable", STATE),
    "forwarder": ("mqtt_unreachable", (*STATE, "--env", "FORWARDER_UPLINK=none")),
    "inference": ("model_loaded", (*STATE, *MODELS)),
}  # fmt: skip


@pytest.fixture(scope="module")
def built(engine: None) -> Built:
    """For both platforms where the engine keeps both; build/images.json is then this build's."""
    store = docker("info", "--format", "{{.DriverStatus}}")
    both = "containerd.snapshotter" in store and is_registry_there()
    return build(PLATFORMS=",".join(PLATFORMS) if both else "")


def is_registry_there() -> bool:
    done = subprocess.run(
        ["docker", "buildx", "imagetools", "inspect", "--raw", "127.0.0.1:5000/library/python:3.13-slim-trixie"],
        capture_output=True, check=False,
    )  # fmt: skip
    return b"arm64" in done.stdout


@pytest.fixture(scope="module")
def configs(built: Built) -> dict[tuple[str, str], dict[str, Any]]:
    """(image, platform) -> the image's configuration, pulled into the engine."""
    found = {}
    for name, image in built.told["images"].items():
        for one in image["platforms"]:
            reference = built.reference(name, one)
            if built.told["registry"]:
                docker("pull", "--quiet", "--platform", one, reference)
            found[name, one] = json.loads(docker("image", "inspect", reference))[0]
    return found


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


@pytest.mark.parametrize("name", STANDING_ALONE)
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


def runnable(built: Built, name: str, platform: str) -> str:
    """The image's reference; skips where it can't be run."""
    built.has(name, platform)
    if platform != HERE and not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        pytest.skip(f"not run: no emulator for {platform} programs; tools/containers/engine sets it up")
    return built.reference(name, platform)


# The other platform's inference takes a minute to start, and runs this way below.
@pytest.mark.parametrize(
    ("name", "platform"),
    [(name, one) for name in STANDING_ALONE for one in PLATFORMS if name != "inference" or one == HERE],
)
def test_a_service_runs_without_a_shell_and_stops_when_told_though_nothing_answers_it(
    built: Built, configs: Any, name: str, platform: str
) -> None:
    told, options = STANDING_ALONE[name]
    reference = runnable(built, name, platform)
    with container(reference, "--platform", platform, *WITHOUT_SHELL, *options) as running:
        running.until(told, START_S)
        # 1: not healthy yet, and it says so; 126 and 127 would be: there is no such command.
        assert running.health() in {0, 1}
        code, took_s = running.stop(GRACE_S)

    assert code == 0
    assert took_s < GRACE_S


@EACH
def test_the_broker_makes_its_secrets_is_healthy_and_stops_when_told(
    built: Built, configs: Any, platform: str
) -> None:
    reference = runnable(built, "broker", platform)
    volume = f"linewatch-test-images-{os.getpid()}"
    try:
        docker(
            "run",
            "--rm",
            "--platform",
            platform,
            "--network",
            "none",
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--volume",
            f"{volume}:/secrets",
            reference,
            "make-secrets",
            "x",
        )
        secrets = f"type=volume,source={volume},target=/run/linewatch,volume-subpath=broker,readonly"
        with container(
            reference,
            "--platform",
            platform,
            "--tmpfs",
            "/mosquitto/log",
            "--volume",
            "/mosquitto/data",
            "--mount",
            secrets,
        ) as broker:
            wait_for(lambda: broker.health() == 0, "the broker lets its own health check in", START_S)
            code, took_s = broker.stop(GRACE_S)
    finally:
        docker("volume", "rm", "--force", volume)

    assert code == 0
    assert took_s < GRACE_S


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


@pytest.fixture(scope="module")
def answers(built: Built, configs: Any) -> dict[str, inspector_pb2.InspectResponse]:
    """Platform -> what its inference image says of the same part. An image serves only what passes its golden samples."""
    part = CRACKED.read_bytes()
    found = {}
    for one in PLATFORMS:
        runnable(built, "inference", one)
        options = ("--env", "INFERENCE_HOST=0.0.0.0", "--network", "bridge", "--publish", "127.0.0.1::8001")
        trusted = ("--env", "INFERENCE_TRUSTED_KEYS_DIR=/var/lib/linewatch/models/trusted-keys")
        with container(
            built.reference("inference", one),
            "--platform",
            one,
            *STATE,
            *MODELS,
            *WITHOUT_SHELL,
            *options,
            *trusted,
        ) as running:
            for model in ("pv-el-cells", "turbofan"):
                running.until(f'"event": "model_loaded", "model": "{model}"', START_S)
            found[one] = inspected(running, part)
            assert running.health() == 0
            code, took_s = running.stop(GRACE_S)
            assert (code, took_s < GRACE_S) == (0, True)
    return found


def inspected(running: Container, part: bytes) -> inspector_pb2.InspectResponse:
    (binding,) = running.inspect()["NetworkSettings"]["Ports"]["8001/tcp"]
    with grpc.insecure_channel(f"127.0.0.1:{binding['HostPort']}") as channel:
        request = inspector_pb2.InspectRequest(
            id="1",
            model_name="pv-el-cells",
            encoded_image=inspector_pb2.EncodedImage(data=part),
            with_heatmap=True,
        )
        answer: inspector_pb2.InspectResponse = inspector_pb2_grpc.InspectorStub(channel).Inspect(
            request, timeout=60
        )
    return answer


def test_the_arm64_image_judges_as_the_amd64_image_does(answers: Any) -> None:
    amd64, arm64 = (answers[one] for one in PLATFORMS)

    assert amd64.verdict.regions
    assert arm64.verdict.result == amd64.verdict.result
    assert arm64.verdict.score == pytest.approx(amd64.verdict.score, abs=1e-4)
    assert [region.label for region in arm64.verdict.regions] == [
        region.label for region in amd64.verdict.regions
    ]
    heat = list(zip(arm64.heatmap.values, amd64.heatmap.values, strict=True))
    assert heat
    assert max(abs(one - other) for one, other in heat) <= 1
