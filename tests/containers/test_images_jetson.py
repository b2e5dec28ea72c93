# SPDX-License-Identifier: Apache-2.0
"""The Jetson variant of inference: the same Dockerfile with another base image and another build of ONNX Runtime.

NVIDIA's base image can't be had here, so a copy of the plain one under another name stands in for it, and another
release of plain ONNX Runtime for the one with a GPU. What a Jetson's GPU does with it is not tested anywhere.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from built_images import BUILD_S, EMULATOR, ROOT, docker

pytestmark = pytest.mark.containers

REGISTRY = "127.0.0.1:5000"
JETSON = "linux/arm64"
OTHER = "1.30.0"
REQUIREMENTS = "services/inference/requirements-jetson.txt"
READ_BY_A_BUILD = (
    "docker-bake.hcl", ".dockerignore", "tools/containers/layer", "tools/containers/absent.py", "protos/linewatch",
    "protos/open_inference", "runtime/linewatch_runtime", "services/inference",
)  # fmt: skip


@pytest.fixture
def checkout(engine: None, tmp_path: Path) -> Path:
    """What the build reads, to be changed."""
    for name in READ_BY_A_BUILD:
        source, target = ROOT / name, tmp_path / "checkout" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        else:
            shutil.copy2(source, target)
    return tmp_path / "checkout"


@pytest.fixture
def base(engine: None) -> str:
    """The base image under another name."""
    name = f"{REGISTRY}/linewatch-test/jetson-base:{os.getpid()}"
    done = subprocess.run(
        ["docker", "buildx", "imagetools", "create", "--tag", name, f"{REGISTRY}/library/python:3.13-slim-trixie"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(
            "not run: no registry on loopback with an arm64 base image; tools/containers/engine starts one"
        )
    return name


def bake(checkout: Path, base: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "LINEWATCH_JETSON_IMAGE": base, "LINEWATCH_JETSON_REQUIREMENTS": REQUIREMENTS, "VERSION": str(os.getpid()),
        "PREFIX": "linewatch-test/", "CA_BUNDLE": os.environ.get("SSL_CERT_FILE", "/dev/null"),
    }  # fmt: skip
    return subprocess.run(
        ["docker", "buildx", "bake", "--file", "docker-bake.hcl", "--provenance=false", "--load", "inference-jetson"],
        cwd=checkout, env={**os.environ, **settings}, capture_output=True, text=True, timeout=BUILD_S, check=False,
    )  # fmt: skip


def with_onnxruntime(requirements: str, version: str, digest: str) -> str:
    """The requirements with another release of ONNX Runtime, pinned as the others are."""
    changed, count = re.subn(
        r"^onnxruntime==.*?(?=^\S)", f"onnxruntime=={version} --hash=sha256:{digest}\n", requirements,
        flags=re.MULTILINE | re.DOTALL,
    )  # fmt: skip
    assert count == 1
    return changed


def test_another_base_image_and_another_onnx_runtime_make_the_variant(
    checkout: Path, base: str, tmp_path: Path
) -> None:
    wheel = downloaded(tmp_path / "wheel", f"onnxruntime=={OTHER}", "3.13")
    pinned = (checkout / "services/inference/requirements.txt").read_text()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (checkout / REQUIREMENTS).write_text(with_onnxruntime(pinned, OTHER, digest))

    done = bake(checkout, base)

    assert done.returncode == 0, done.stderr[-3000:]
    image = f"linewatch-test/linewatch/inference-jetson:{os.getpid()}"
    try:
        described = json.loads(docker("image", "inspect", image))[0]
        assert described["Architecture"] == "arm64"
        assert described["Config"]["Labels"]["org.opencontainers.image.base.name"] == base
        if platform.machine() != "aarch64" and not EMULATOR.exists():
            pytest.skip(
                f"not run, only built: no emulator for {JETSON} programs; tools/containers/engine sets it up"
            )
        told = docker(
            "run", "--rm", "--platform", JETSON, "--network", "none", "--read-only", image,
            "python3", "-c", "import platform, onnxruntime as o; print(platform.machine(), o.__version__)",
        )  # fmt: skip
    finally:
        docker("image", "rm", "--force", image)
    assert told.split() == ["aarch64", OTHER]


def test_a_wheel_whose_hash_is_not_the_pinned_one_builds_nothing(checkout: Path, base: str) -> None:
    pinned = (checkout / "services/inference/requirements.txt").read_text()
    (checkout / REQUIREMENTS).write_text(with_onnxruntime(pinned, OTHER, "0" * 64))

    done = bake(checkout, base)

    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stdout + done.stderr


def test_every_pinned_library_has_a_wheel_for_a_jetson_s_python(tmp_path: Path) -> None:
    downloaded(
        tmp_path / "wheels",
        "--require-hashes",
        "-r",
        str(ROOT / "services/inference/requirements.txt"),
        "3.12",
    )

    assert len(list((tmp_path / "wheels").glob("onnxruntime-*-cp312-*_aarch64.whl"))) == 1


def downloaded(folder: Path, *what: str) -> Path:
    """Wheels for arm64 and the C library of Ubuntu 24.04; the last argument is the Python's version. One of them."""
    *wanted, python = what
    platforms = [
        part for minor in range(39, 16, -1) for part in ("--platform", f"manylinux_2_{minor}_aarch64")
    ]
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder),
            "--python-version", python, "--implementation", "cp", "--abi", f"cp{python.replace('.', '')}", "--abi", "abi3",
            "--abi", "none", *platforms, "--platform", "manylinux2014_aarch64", *wanted,
        ],
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.iterdir())
