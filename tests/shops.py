# SPDX-License-Identifier: Apache-2.0
"""A release in a folder of its own, and its operator: for tests of what is done with releases."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from linewatch_fleet.manifest import Image, Release, Template, TestReport, release_text
from linewatch_fleet.signing import read_private_key, sign, signature_path
from linewatch_plant.oci_images import ImageWriter

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VERSION = "1.2.3"


@dataclass
class Shop:
    """A folder with fleet.yaml, release.yaml, its signature and the keys; run() is the operator."""

    place: Path
    images: dict[str, Image] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def add_image(self, name: str, host: str, *, repository: str = "", platforms: Any = ("linux/amd64", "linux/arm64"),
                  architectures: tuple[str, ...] = ("amd64", "arm64"), **how: int) -> ImageWriter:  # fmt: skip
        repository = repository or f"linewatch/{name}"
        writer = ImageWriter(host, repository)
        self.images[name] = Image(
            repository=repository, digest=writer.image(architectures, **how), platforms=list(platforms)
        )
        return writer

    def release(self, *, is_signed: bool = True, **changed: Any) -> Release:
        """Writes the manifest, and signs it."""
        report = TestReport(digest="sha256:" + "1" * 64, passed=10, failed=0, skipped=1)
        content = {
            "version": VERSION, "commit": COMMIT, "created": datetime(2026, 11, 20, tzinfo=UTC), "images": self.images,
            "cloud": Template(path="cloud/template.yaml", digest="sha256:" + "2" * 64), "test_report": report, **changed,
        }  # fmt: skip
        release = Release(**content)
        path = self.place / "release.yaml"
        path.write_bytes(release_text(release))
        signature_path(path).unlink(missing_ok=True)
        if is_signed:
            key = read_private_key(self.place / "keys" / "release.key", None)
            signature_path(path).write_bytes(sign(path.read_bytes(), key))
        return release

    def fleet(self, *environments: dict[str, Any]) -> None:
        content = {"trusted_keys": ["keys/release.pem"], "environments": list(environments)}
        (self.place / "fleet.yaml").write_text(yaml.safe_dump(content))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "linewatch_fleet.cli", *arguments], cwd=self.place, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **self.environment},
        )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)
