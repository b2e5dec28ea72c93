# SPDX-License-Identifier: Apache-2.0
"""Images of one platform as a folder that `docker load` takes, on old engines and new ones.

An OCI image layout (index.json, which Docker 25 and newer read) that is a `docker save` archive too (manifest.json, for
Docker 20.10). Layers stay compressed as the registry has them, and one that two images share is there once.

An image that was loaded has no repository digest on Docker's classic store, so a reference by digest would be pulled.
Each image therefore gets a tag that is its manifest's digest.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linewatch_fleet.errors import CommandFailed
from linewatch_fleet.manifest import Image
from linewatch_fleet.oci import OCI_INDEX, Descriptor, Manifest
from linewatch_fleet.registry import Registry, hashed

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image as it will be named on the device."""

    reference: str
    """`linewatch/<image>:sha256-<hex>`."""
    manifest: Manifest
    """Of the one platform."""


def fetch(
    images: Mapping[str, Image], registry: Registry, prefix: str, platform: str, place: Path, advance: Advance
) -> dict[str, Loaded]:
    """Writes the folder and says how each image is named. `advance` is called once an image.

    Raises:
        CommandFailed: an image is not in the registry, or not for this platform.
    """
    (place / "blobs/sha256").mkdir(parents=True)
    loaded = {}
    for name, image in images.items():
        manifest = _of_platform(registry, f"{prefix}{image.repository}", image.digest, platform)
        for blob in manifest.blobs:
            _fetch_blob(registry, f"{prefix}{image.repository}", blob, place)
        _blob_path(place, manifest.digest).write_bytes(manifest.content)
        loaded[name] = Loaded(f"{image.repository}:{manifest.digest.replace(':', '-')}", manifest)
        advance(name)
    _write_index(loaded, place)
    return loaded


def _of_platform(registry: Registry, repository: str, digest: str, platform: str) -> Manifest:
    found = registry.manifest(repository, digest)
    where = f"{registry.host}/{repository}@{digest}"
    if found is None:
        raise CommandFailed(
            f"{where} is not there; build it (make images), or name an environment that has it (--from)"
        )
    if not found.is_index:
        return found
    for child in found.children:
        if child.platform == platform and (manifest := registry.manifest(repository, child.digest)):
            return manifest
    there = ", ".join(child.platform for child in found.children if not child.platform.startswith("unknown"))
    raise CommandFailed(
        f"{where} is not built for {platform}, only for {there}; make images PLATFORMS={platform}"
    )


def _fetch_blob(registry: Registry, repository: str, blob: Descriptor, place: Path) -> None:
    path = _blob_path(place, blob.digest)
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    with registry.blob(repository, blob.digest) as pieces, partial.open("wb") as file:
        for piece in hashed(pieces, blob, lambda _: None):
            file.write(piece)
    partial.rename(path)


def _blob_path(place: Path, digest: str) -> Path:
    return place / "blobs" / digest.replace(":", "/")


def _write_index(loaded: Mapping[str, Loaded], place: Path) -> None:
    entries: list[dict[str, Any]] = []
    saved: list[dict[str, Any]] = []
    for one in loaded.values():
        manifest = one.manifest
        entries.append({
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": len(manifest.content),
            "annotations": {
                "io.containerd.image.name": f"docker.io/{one.reference}",
                "org.opencontainers.image.ref.name": one.reference.rpartition(":")[2],
            },
        })  # fmt: skip
        config, *layers = [f"blobs/{blob.digest.replace(':', '/')}" for blob in manifest.blobs]
        saved.append({"Config": config, "RepoTags": [one.reference], "Layers": layers})
    _write_json(place / "oci-layout", {"imageLayoutVersion": "1.0.0"})
    _write_json(place / "index.json", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    _write_json(place / "manifest.json", saved)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
