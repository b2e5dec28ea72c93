# SPDX-License-Identifier: Apache-2.0
"""The images as `make images` leaves them, and a container of one, confined as on a device, without anything beside it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_events import stops

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("broker", "capture", "console", "forwarder", "inference")
PLATFORMS = ("linux/amd64", "linux/arm64")
LABEL = "io.linewatch.test=images"
BUILD_S = 3000
EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")

CONFINED = (
    "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "128", "--memory", "1g",
    "--network", "none", "--tmpfs", "/tmp:mode=1777,size=16m", "--label", LABEL,
)  # fmt: skip
WITHOUT_SHELL = ("--volume", "/dev/null:/usr/bin/dash:ro", "--volume", "/dev/null:/usr/bin/bash:ro")
"""What /bin/sh and /bin/bash are in the base images; a null device is no program."""


@dataclass(frozen=True, slots=True)
class Built:
    """build/images.json."""

    told: dict[str, Any]

    def reference(self, name: str, platform: str = "") -> str:
        """By digest; the index's, or that of one platform."""
        image = self.told["images"][name]
        digest = image["platforms"][platform]["digest"] if platform else image["digest"]
        prefix = f"{self.told['registry']}/" if self.told["registry"] else ""
        return f"{prefix}{image['repository']}@{digest}"

    def has(self, name: str, platform: str) -> dict[str, Any]:
        """The image's sizes; skips where this engine builds for itself only."""
        platforms: dict[str, Any] = self.told["images"][name]["platforms"]
        if platform not in platforms:
            pytest.skip(
                f"not run: {platform} is not built here: no registry on loopback, see tools/containers/engine"
            )
        return platforms[platform]


def build(**environment: str) -> Built:
    """`make images` without its setup."""
    subprocess.run([ROOT / "tools/containers/bases"], check=True, timeout=BUILD_S, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-m", "linewatch_images"], cwd=ROOT, check=False, timeout=BUILD_S, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools"), **environment},
    )  # fmt: skip
    if done.returncode:
        pytest.fail(done.stdout + done.stderr[-4000:])
    return Built(json.loads((ROOT / "build" / "images.json").read_text()))


def is_registry_there() -> bool:
    """Whether the registry on loopback has a base image for both platforms."""
    done = subprocess.run(
        ["docker", "buildx", "imagetools", "inspect", "--raw", "127.0.0.1:5000/library/python:3.13-slim-trixie"],
        capture_output=True, check=False,
    )  # fmt: skip
    return b"arm64" in done.stdout


@dataclass(frozen=True, slots=True)
class Container:
    """A running container."""

    id: str

    def inspect(self) -> dict[str, Any]:
        """What the engine knows of it."""
        described: dict[str, Any] = json.loads(docker("inspect", self.id))[0]
        return described

    def until(self, told: str, deadline_s: float) -> None:
        """Waits for a text in its log, without asking again and again. Fails with the log when it ends before."""
        with subprocess.Popen(
            ["docker", "logs", "--follow", self.id],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as following:
            late = threading.Timer(deadline_s, following.kill)
            late.start()
            assert following.stdout is not None
            seen = []
            for line in following.stdout:
                seen.append(line)
                if told in line:
                    late.cancel()
                    following.kill()
                    return
            late.cancel()
        ending = "ended early" if following.returncode == 0 else f"did not say {told} within {deadline_s:g} s"
        pytest.fail(f"{ending}:\n{''.join(seen)}")

    def health(self) -> int:
        """Runs its own health command; the exit code."""
        kind, *command = self.inspect()["Config"]["Healthcheck"]["Test"]
        assert kind == "CMD"
        return subprocess.run(
            ["docker", "exec", self.id, *command], capture_output=True, check=False
        ).returncode

    def stop(self, grace_s: int) -> tuple[int, float]:
        """SIGTERM, and SIGKILL after the grace: the exit code, and the seconds it took by the engine's clock."""
        name = self.inspect()["Name"].removeprefix("/")
        with stops(name) as told:
            docker("stop", "--time", str(grace_s), self.id)
            ended = told.wait(name)[name]
        return ended.code, ended.took_s


@contextmanager
def container(reference: str, *options: str) -> Iterator[Container]:
    """Confined, removed at the end with its volumes."""
    started = Container(docker("run", "--detach", *CONFINED, *options, reference).strip())
    try:
        yield started
    finally:
        docker("rm", "--force", "--volumes", started.id)


def docker(*arguments: str) -> str:
    """Standard output; fails the test with what it said on an error."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        pytest.fail(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
