# SPDX-License-Identifier: Apache-2.0
"""Manifests and indexes as the OCI image specification has them (and Docker's older ones), without any network."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from linewatch_fleet.errors import CommandFailed

INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
OCI_INDEX: Final = INDEX_TYPES[0]

NO_PLATFORM: Final = "unknown/unknown"
"""What buildx gives an attestation for a platform."""


def digest_of(content: bytes) -> str:
    """The content's address."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of something it points to."""

    digest: str
    size: int
    media_type: str
    platform: str = ""
    """os/architecture, where it is said."""
    is_elsewhere: bool = False
    """The bytes are to be had from addresses of their own, not from the registry."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index, byte for byte: its digest is that of `content`."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """The content's address."""
        return digest_of(self.content)

    @property
    def document(self) -> dict[str, Any]:
        """What it says. Raises CommandFailed when that is no manifest."""
        try:
            document = json.loads(self.content)
        except ValueError as error:
            raise CommandFailed(f"{self.digest} is no manifest: {error}") from error
        if not isinstance(document, dict):
            raise CommandFailed(f"{self.digest} is no manifest: it is no JSON object")
        return document

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests."""
        return "manifests" in self.document

    @property
    def children(self) -> list[Descriptor]:
        """The manifests that an index lists, in its order."""
        return list(_descriptors(self, self.document.get("manifests", [])))

    @property
    def blobs(self) -> list[Descriptor]:
        """Configuration and layers of an image."""
        document = self.document
        config = [document["config"]] if "config" in document else []
        return list(_descriptors(self, [*config, *document.get("layers", [])]))

    @property
    def config(self) -> Descriptor | None:
        """The image's configuration."""
        return self.blobs[0] if "config" in self.document else None


def _descriptors(manifest: Manifest, listed: Any) -> Iterator[Descriptor]:
    try:
        for one in listed:
            platform = one.get("platform") or {}
            digest = one["digest"]
            if not digest.startswith("sha256:") or len(digest) != 71:
                raise ValueError(f"digest {digest!r} is not sha256")
            yield Descriptor(
                digest=digest,
                size=int(one["size"]),
                media_type=one["mediaType"],
                platform=f"{platform['os']}/{platform['architecture']}" if platform else "",
                is_elsewhere=bool(one.get("urls")),
            )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CommandFailed(f"{manifest.digest} is no manifest that can be read: {error!r}") from error
