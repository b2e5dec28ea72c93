# SPDX-License-Identifier: Apache-2.0
"""Versions of a released model package for a test, signed by a key of the test's own: sound ones and bad ones."""

import json
import shutil
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from linewatch_fleet.recipes import archive
from linewatch_models import signing

ROOT = Path(__file__).resolve().parents[2]


class Maker:
    """Writes packages as artifacts of a local deployment."""

    def __init__(self, artifacts: Path) -> None:
        self._artifacts = artifacts
        self._key = Ed25519PrivateKey.generate()

    @property
    def trusted(self) -> str:
        """The public key as the configuration of inference takes it."""
        lines = signing.public_pem(self._key.public_key()).decode().splitlines()
        return "".join(line for line in lines if not line.startswith("-----"))

    def make(self, model: str, version: str, *, spoiled: bool = False) -> None:
        """The released package under another version; spoiled: with a graph that is not the one that was signed."""
        released = max((ROOT / "models" / model / "releases").iterdir())
        package = self._artifacts / f"{model}-{version}"
        shutil.copytree(released, package)
        metadata = package / "metadata.json"
        text = json.dumps({**json.loads(metadata.read_text()), "model_version": version}, indent=2).encode()
        metadata.write_bytes(text)
        (package / "metadata.json.sig").write_bytes(signing.sign(text, self._key))
        if spoiled:
            graph = bytearray((package / "model.onnx").read_bytes())
            graph[len(graph) // 2] ^= 0xFF
            (package / "model.onnx").write_bytes(graph)
        into = self._artifacts / f"io.linewatch.model.{model}" / version
        into.mkdir(parents=True)
        (into / archive.file_name(model, version)).write_bytes(archive.packed(package))
        shutil.rmtree(package)
