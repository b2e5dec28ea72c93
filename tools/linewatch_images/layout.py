# SPDX-License-Identifier: Apache-2.0
"""An image as the engine saves it: an OCI layout in a tar. Manifests, what a Dockerfile added, and files out of it.

Layers lie in it as they are sent to a device (with the containerd image store) or unpacked (without).
"""

import gzip
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Final

OUR_FIRST_STEP: Final = "ARG BASE"
"""Where a Dockerfile of ours begins in an image's history; what comes before is the base image's."""
_HEAD: Final = 512
_GZIP: Final = b"\x1f\x8b"


class NotSaved(Exception):
    """With what the engine said."""


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


class Saved:
    """Images as `docker save` writes them, read in one pass. Layers that several images share are read once."""

    def __init__(self, wanted: Callable[[PurePosixPath], bool]) -> None:
        """`wanted` names the files to keep of each layer."""
        self._wanted = wanted
        self._layers: dict[str, _Content] = {}

    def images(self, reference: str) -> list[PlatformImage]:
        """Each platform that the engine has of the image, by name; attestations are none.

        Raises:
            NotSaved: the engine does not hand it out.
        """
        with subprocess.Popen(
            ["docker", "save", reference], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                documents = self._read(process.stdout)
            except tarfile.ReadError as error:
                raise NotSaved(f"{reference}: {process.stderr.read().decode().strip()}") from error
        (entry,) = json.loads(documents["index.json"])["manifests"]
        found = [self._image(documents, digest) for digest in _manifests(documents, entry["digest"])]
        return sorted(found, key=lambda image: image.platform)

    def files(self, image: PlatformImage) -> dict[PurePosixPath, bytes]:
        """The wanted files that the image shows: later layers cover earlier ones, and take away."""
        seen: dict[PurePosixPath, bytes] = {}
        for layer in image.layers:
            content = self._layers[layer.digest]
            seen = {path: data for path, data in seen.items() if not content.gone & {path, *path.parents}}
            seen |= content.files
        return seen

    def _read(self, stream: IO[bytes]) -> dict[str, bytes]:
        """JSON documents by name; layers are kept."""
        documents: dict[str, bytes] = {}
        with tarfile.open(fileobj=stream, mode="r|") as outer:
            for member in outer:
                digest = member.name.removeprefix("blobs/").replace("/", ":")
                if not member.isfile() or digest in self._layers:
                    continue
                data = outer.extractfile(member)
                assert data is not None
                head = data.read(_HEAD)
                if head[:1] in {b"{", b"["}:
                    documents[member.name] = head + data.read()
                elif member.size > len(head) or head[:2] == _GZIP:
                    self._layers[digest] = self._layer(_Rejoined(head, data), member.size)
        return documents

    def _layer(self, data: "_Rejoined", size: int) -> "_Content":
        files, gone = {}, set()
        packed = None if data.head[:2] == _GZIP else _Packed(data)
        stream: Any = packed or data  # it is read and nothing else
        with tarfile.open(fileobj=stream, mode="r|*") as content:
            for member in content:
                path = PurePosixPath("/") / member.name
                if path.name.startswith(".wh."):
                    gone.add(path.with_name(path.name[4:]))
                elif member.isfile() and self._wanted(path):
                    found = content.extractfile(member)
                    assert found is not None
                    files[path] = found.read()
        return _Content(packed.bytes() if packed else size, files, gone)

    def _image(self, documents: Mapping[str, bytes], digest: str) -> PlatformImage:
        manifest = json.loads(documents[_blob(digest)])
        config = json.loads(documents[_blob(manifest["config"]["digest"])])
        history = config["history"]
        begin = max(
            (at for at, step in enumerate(history) if step.get("created_by", "").startswith(OUR_FIRST_STEP)),
            default=0,
        )
        # A step that changed no file has no layer.
        ours = [at > begin for at, step in enumerate(history) if not step.get("empty_layer")]
        layers = tuple(
            Layer(layer["digest"], self._layers[layer["digest"]].gzip_bytes, mine)
            for layer, mine in zip(manifest["layers"], ours, strict=True)
        )
        return PlatformImage(f"{config['os']}/{config['architecture']}", digest, config, layers)


def _manifests(documents: Mapping[str, bytes], digest: str) -> Iterator[str]:
    content = json.loads(documents[_blob(digest)])
    if "manifests" not in content:
        yield digest
        return
    for manifest in content["manifests"]:
        attested = manifest.get("platform", {}).get("os") == "unknown"
        if not attested and _blob(manifest["digest"]) in documents:
            yield manifest["digest"]


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


@dataclass(frozen=True, slots=True)
class _Content:
    """Of a layer: what it weighs packed, the wanted files, and what it takes away."""

    gzip_bytes: int
    files: dict[PurePosixPath, bytes]
    gone: set[PurePosixPath]


class _Rejoined:
    """A stream whose first bytes were looked at."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self.head = head
        self._begin = head
        self._rest = rest

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        if self._begin:
            data, self._begin = self._begin[:size], self._begin[size:]
            return data + self._rest.read(size - len(data))
        return self._rest.read(size)


class _Packed:
    """A stream that is packed on the way, to see what it weighs."""

    def __init__(self, data: _Rejoined) -> None:
        self._data = data
        self._count = _Count()
        self._gzip = gzip.GzipFile(fileobj=self._count, mode="wb", compresslevel=6)

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        data = self._data.read(size)
        self._gzip.write(data)
        return data

    def bytes(self) -> int:
        """What all that was read weighs."""
        self._gzip.close()
        return self._count.bytes


class _Count:
    """A file that keeps nothing but its length."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""
