# SPDX-License-Identifier: Apache-2.0
"""Small images of several platforms, written into a registry blob by blob: no engine, and nothing of the product's."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from typing import Any

import requests

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
IN_TOTO = "application/vnd.in-toto+json"
COSIGN = "application/vnd.dev.cosign.simplesigning.v1+json"


class ImageWriter:
    """Writes into one repository of a registry without a password."""

    def __init__(self, host: str, repository: str) -> None:
        self.base = f"http://{host}/v2/{repository}"
        self.repository = repository

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Stores bytes; returns their descriptor."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        begun = requests.post(f"{self.base}/blobs/uploads/", timeout=60)
        begun.raise_for_status()
        done = requests.put(begun.headers["Location"], params={"digest": digest}, data=content, timeout=60)
        done.raise_for_status()
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def manifest(self, content: dict[str, Any], tag: str | None = None) -> dict[str, Any]:
        """Stores a manifest or an index, with a layout of our own: whoever copies it must not write it anew."""
        text = json.dumps(content, indent=3).encode() + b"\n"
        digest = "sha256:" + hashlib.sha256(text).hexdigest()
        headers = {"Content-Type": content["mediaType"]}
        for reference in [digest, *([tag] if tag else [])]:
            requests.put(
                f"{self.base}/manifests/{reference}", data=text, headers=headers, timeout=60
            ).raise_for_status()
        return {"mediaType": content["mediaType"], "digest": digest, "size": len(text)}

    def platform(
        self, name: str, architecture: str, layers: int = 2, layer_bytes: int = 4096
    ) -> dict[str, Any]:
        """One platform's image, its layers of random bytes; the first layer is the same for every architecture."""
        stored = [
            self.blob(
                _layer(f"{self.repository} {architecture if number else ''} {number}", layer_bytes), LAYER
            )
            for number in range(layers)
        ]
        config = {"os": "linux", "architecture": architecture, "config": {"Labels": {"name": name}},
                  "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in stored]}}  # fmt: skip
        descriptor = self.manifest({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": self.blob(json.dumps(config).encode(), CONFIG), "layers": stored,
        })  # fmt: skip
        return {**descriptor, "platform": {"os": "linux", "architecture": architecture}}

    def attestation(self, of: dict[str, Any]) -> dict[str, Any]:
        """What buildx puts beside a platform in the index: its provenance."""
        config = self.blob(json.dumps({"architecture": "unknown", "os": "unknown"}).encode(), CONFIG)
        layer = self.blob(
            json.dumps({"subject": of["digest"], "predicateType": "provenance"}).encode(), IN_TOTO
        )
        descriptor = self.manifest(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
        )
        reference = {
            "vnd.docker.reference.digest": of["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        }
        return {
            **descriptor,
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": reference,
        }

    def image(self, architectures: tuple[str, ...] = ("amd64", "arm64"), **how: int) -> str:
        """An index with the platforms and an attestation of each; returns its digest."""
        platforms = [self.platform(self.repository, architecture, **how) for architecture in architectures]
        attestations = [self.attestation(one) for one in platforms]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*platforms, *attestations]}
        return str(self.manifest(index)["digest"])

    def cosign_signature(self, digest: str) -> str:
        """A signature where cosign keeps one; returns its tag."""
        layer = self.blob(
            json.dumps({"critical": {"image": {"docker-manifest-digest": digest}}}).encode(), COSIGN
        )
        config = self.blob(json.dumps({"architecture": "", "os": ""}).encode(), CONFIG)
        tag = digest.replace(":", "-") + ".sig"
        self.manifest({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}, tag)
        return tag

    def referrer(self, subject: dict[str, Any]) -> str:
        """An SBOM that refers to a manifest, listed under the tag for registries without a referrers API."""
        layer = self.blob(
            json.dumps({"bomFormat": "CycloneDX", "of": subject["digest"]}).encode(),
            "application/vnd.cyclonedx+json",
        )
        empty = self.blob(b"{}", "application/vnd.oci.empty.v1+json")
        descriptor = self.manifest({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.cyclonedx+json",
                                    "config": empty, "layers": [layer], "subject": subject})  # fmt: skip
        tag = subject["digest"].replace(":", "-")
        self.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]}, tag)
        return str(descriptor["digest"])


def _layer(seed: str, size: int) -> bytes:
    """A gzipped tar with one file of so many bytes that don't compress."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        content = random.Random(seed).randbytes(size)
        entry = tarfile.TarInfo("content")
        entry.size = size
        tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(made.getvalue(), 1, mtime=0)
