# SPDX-License-Identifier: Apache-2.0
"""An image as the engine saves it: an OCI layout in a tar. Manifests, what a Dockerfile added, and files out of it.

Layers lie in it as they are sent to a device (with the containerd image store) or unpacked (without).
"""

import gzip
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Final, Self

OUR_FIRST_STEP: Final = "ARG BASE"
"""Where a Dockerfile of ours begins in an image's history; what comes before is the base image's."""
_CHUNK: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; the size is what a device loads, in bytes."""

    digest: str
    gzip_bytes: int
    ours: bool


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """The image for one platform."""

    platform: str
    """Such as linux/arm64."""
    digest: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]

    @property
    def added_gzip_bytes(self) -> int:
        """What we add to the base image."""
        return sum(layer.gzip_bytes for layer in self.layers if layer.ours)

    @property
    def total_gzip_bytes(self) -> int:
        """What a device without the base image loads."""
        return sum(layer.gzip_bytes for layer in self.layers)


class Layout:
    """The file that `save` made; a context manager."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    def images(self) -> list[PlatformImage]:
        """Each platform that was saved, by name. Attestations are none."""
        (entry,) = self._json("index.json")["manifests"]
        found = [self._image(digest) for digest in self._manifests(entry)]
        return sorted(found, key=lambda image: image.platform)

    def files(
        self, image: PlatformImage, wanted: Callable[[PurePosixPath], bool]
    ) -> dict[PurePosixPath, bytes]:
        """The files that the image shows at these paths: later layers cover earlier ones, and take away."""
        seen: dict[PurePosixPath, bytes] = {}
        for layer in image.layers:
            blob = self._tar.extractfile(_blob(layer.digest))
            with tarfile.open(fileobj=blob, mode="r:*") as content:
                for member in content:
                    path = PurePosixPath("/") / member.name
                    if path.name.startswith(".wh."):
                        gone = path.with_name(path.name[4:])
                        for covered in [p for p in seen if p == gone or gone in p.parents]:
                            del seen[covered]
                    elif member.isfile() and wanted(path):
                        data = content.extractfile(member)
                        assert data is not None
                        seen[path] = data.read()
        return seen

    def _manifests(self, entry: dict[str, Any]) -> Iterator[str]:
        content = self._json(_blob(entry["digest"]))
        if "manifests" not in content:
            yield entry["digest"]
            return
        names = set(self._tar.getnames())
        for manifest in content["manifests"]:
            attested = manifest.get("platform", {}).get("os") == "unknown"
            if not attested and _blob(manifest["digest"]) in names:
                yield manifest["digest"]

    def _image(self, digest: str) -> PlatformImage:
        manifest = self._json(_blob(digest))
        config = self._json(_blob(manifest["config"]["digest"]))
        history = config["history"]
        begin = max(
            (at for at, step in enumerate(history) if step.get("created_by", "").startswith(OUR_FIRST_STEP)),
            default=0,
        )
        # A step that changed no file has no layer.
        ours = [at > begin for at, step in enumerate(history) if not step.get("empty_layer")]
        layers = tuple(
            Layer(layer["digest"], self._gzip_bytes(layer), mine)
            for layer, mine in zip(manifest["layers"], ours, strict=True)
        )
        return PlatformImage(f"{config['os']}/{config['architecture']}", digest, config, layers)

    def _gzip_bytes(self, layer: dict[str, Any]) -> int:
        blob = self._tar.extractfile(_blob(layer["digest"]))
        assert blob is not None
        if blob.read(2) == _GZIP:
            return int(layer["size"])
        blob.seek(0)
        count = _Count()
        with gzip.GzipFile(fileobj=count, mode="wb", compresslevel=6) as packed:
            while chunk := blob.read(_CHUNK):
                packed.write(chunk)
        return count.bytes

    def _json(self, name: str) -> dict[str, Any]:
        member = self._tar.extractfile(name)
        assert member is not None
        content: dict[str, Any] = json.load(member)
        return content


class _Count:
    """A file that keeps nothing but its length."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def save(reference: str, path: Path) -> None:
    """Has the engine write the image there. Raises CalledProcessError."""
    subprocess.run(["docker", "save", "--output", str(path), reference], check=True, capture_output=True)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
