# SPDX-License-Identifier: Apache-2.0
"""One image from one repository to another: the whole index with every child, attestation, referrer and signature.

Nothing is pulled apart or put together: manifests are copied byte for byte, so every digest stays what it was. The tag
is written last, so a tag that is there says that everything is. What is there is not sent again, so a copy that was
killed goes on when it is run again, and two at once do no harm.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import requests

from linewatch_fleet.errors import CommandFailed
from linewatch_fleet.oci import NO_PLATFORM, Descriptor, Manifest
from linewatch_fleet.registry import Registry, hashed

COSIGN_SUFFIXES: Final = (".sig", ".att", ".sbom")
DEPTH: Final = 4
"""Indexes in indexes, and referrers of referrers; deeper is no image of ours."""


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of a registry."""

    registry: Registry
    repository: str

    def __str__(self) -> str:
        return f"{self.registry.host}/{self.repository}"


@dataclass(slots=True)
class Content:
    """All that one image consists of, in the order in which a registry takes it: what is pointed to goes first."""

    index: Manifest
    platforms: dict[str, Manifest] = field(default_factory=dict)
    """The image of each platform, without attestations."""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    """Every manifest by digest, the index and its children first, then what refers to them."""
    blobs: dict[str, Descriptor] = field(default_factory=dict)
    tags: dict[str, Manifest] = field(default_factory=dict)
    """Tags that cosign and registries without a referrers API keep signatures and attestations under."""

    @property
    def size(self) -> int:
        """Bytes of everything."""
        return sum(blob.size for blob in self.blobs.values()) + sum(
            len(one.content) for one in self.manifests.values()
        )


@dataclass(slots=True)
class Copy:
    """What there is to do for one image."""

    image: str
    source: Place
    target: Place
    tag: str
    content: Content
    blobs: list[Descriptor]
    """Blobs that the target lacks."""
    manifests: list[Manifest]
    """Manifests that the target lacks."""
    is_tagged: bool
    """The release's tag is there, and points to this image."""
    held: dict[str, str] = field(default_factory=dict)
    """Repositories of the target's registry that are known to have a blob, by digest; shared by a release's copies."""
    conflict: str = ""
    """The other image that the release's tag points to: this one can't be copied."""

    @property
    def is_done(self) -> bool:
        """Nothing is left to do."""
        return self.is_tagged and not self.blobs and not self.manifests

    @property
    def bytes_left(self) -> int:
        """Bytes that are to be sent."""
        return sum(blob.size for blob in self.blobs)


def read_content(source: Place, digest: str) -> Content:
    """What an image consists of, as its source has it. Raises CommandFailed when the source hasn't got it all."""
    index = source.registry.manifest(source.repository, digest)
    if index is None:
        raise CommandFailed(
            f"{source} has no {digest}; promote to that environment first, or push what was built"
        )
    content = Content(index)
    _add(content, source, index, DEPTH)
    for manifest in list(content.manifests.values()):
        _add_attached(content, source, manifest, DEPTH)
    content.platforms = dict(_platforms(content, source))
    return content


def _add(content: Content, source: Place, manifest: Manifest, depth: int) -> None:
    """Adds a manifest behind all that it points to."""
    if depth == 0:
        raise CommandFailed(f"{source}: {content.index.digest} is nested too deep")
    for child in manifest.children:
        found = source.registry.manifest(source.repository, child.digest)
        if found is None:
            raise CommandFailed(
                f"{source}: the index lists {child.digest} ({child.platform or 'no platform'}), which is not there; "
                "build the image again"
            )
        _add(content, source, found, depth - 1)
    content.blobs.update({blob.digest: blob for blob in manifest.blobs if not blob.is_elsewhere})
    content.manifests.setdefault(manifest.digest, manifest)


def _add_attached(content: Content, source: Place, manifest: Manifest, depth: int) -> None:
    """Adds signatures, attestations and SBOMs of a manifest: from the referrers API, or below the tags that stand in."""
    base = manifest.digest.replace(":", "-")
    listed = source.registry.referrers(source.repository, manifest.digest)
    if listed is None:
        listed = source.registry.manifest(source.repository, base)
    attached = listed.children if listed else []
    if listed and attached:
        content.tags[base] = listed
    for suffix in COSIGN_SUFFIXES:
        if signature := source.registry.manifest(source.repository, base + suffix):
            content.tags[base + suffix] = signature
            _add(content, source, signature, DEPTH)
    for one in attached:
        if one.digest in content.manifests:
            continue
        found = source.registry.manifest(source.repository, one.digest)
        if found is None:
            raise CommandFailed(f"{source}: {one.digest} refers to {manifest.digest} and is not there")
        _add(content, source, found, depth - 1)
        _add_attached(content, source, found, depth - 1)


def _platforms(content: Content, source: Place) -> Iterator[tuple[str, Manifest]]:
    if content.index.is_index:
        for child in content.index.children:
            if child.platform and child.platform != NO_PLATFORM:
                yield child.platform, content.manifests[child.digest]
        return
    config = content.index.config
    if config is None:
        raise CommandFailed(f"{source}: {content.index.digest} is no image: it has no configuration")
    said = Manifest(b"".join(_read(source, config)), config.media_type).document
    yield f"{said.get('os', '')}/{said.get('architecture', '')}", content.index


def _read(place: Place, blob: Descriptor) -> Iterator[bytes]:
    """A blob's bytes, checked. Raises CommandFailed."""
    try:
        with place.registry.blob(place.repository, blob.digest) as pieces:
            yield from hashed(pieces, blob, lambda _: None)
    except requests.RequestException as error:
        raise CommandFailed(
            f"{place}: reading {blob.digest} broke off: {error}; run the command again"
        ) from error


def plan_copy(
    image: str, content: Content, source: Place, target: Place, tag: str, held: dict[str, str]
) -> Copy:
    """What the target lacks. `held` is one for all copies of a release."""
    present = target.registry.tag(target.repository, tag)
    return Copy(
        image, source, target, tag, content,
        blobs=[one for one in content.blobs.values() if target.registry.blob_size(target.repository, one.digest) != one.size],
        manifests=[one for one in content.manifests.values() if target.registry.manifest(target.repository, one.digest) is None],
        is_tagged=present == content.index.digest,
        held=held,
        conflict=present if present and present != content.index.digest else "",
    )  # fmt: skip


def carry_out(
    copy: Copy, advance: Callable[[int], None], say: Callable[[str], None], *, layers: bool
) -> None:
    """Copies, and reads back what was written. `advance` gets bytes sent, negative where a layer is begun anew."""
    for blob in copy.blobs:
        _copy_blob(copy, blob, advance)
    for manifest in copy.manifests:
        copy.target.registry.put_manifest(copy.target.repository, manifest.digest, manifest)
    _tag_attached(copy, say)
    if not copy.is_tagged:
        copy.target.registry.put_manifest(copy.target.repository, copy.tag, copy.content.index)
    verify(copy, layers=layers)


def _copy_blob(copy: Copy, blob: Descriptor, advance: Callable[[int], None]) -> None:
    source, target = copy.source, copy.target
    within = source.repository if source.registry.host == target.registry.host else copy.held.get(blob.digest)
    if within and target.registry.mount(target.repository, blob.digest, within):
        advance(blob.size)
        return
    sent = 0

    def count(size: int) -> None:
        nonlocal sent
        sent += size
        advance(size)

    @contextmanager
    def read() -> Iterator[Iterator[bytes]]:
        nonlocal sent
        advance(-sent)
        sent = 0
        with source.registry.blob(source.repository, blob.digest) as pieces:
            yield hashed(pieces, blob, count)

    target.registry.upload(target.repository, blob, read)
    copy.held[blob.digest] = target.repository


def _tag_attached(copy: Copy, say: Callable[[str], None]) -> None:
    """Writes the tags of signatures. One that the target has with other content stays: its tags are immutable.

    Referrers need none where the target has the referrers API: it lists them by itself.
    """
    for tag, manifest in copy.content.tags.items():
        target = copy.target
        is_fallback = not tag.endswith(COSIGN_SUFFIXES)
        if is_fallback and target.registry.referrers(target.repository, tag.replace("-", ":", 1)) is not None:
            continue
        present = target.registry.tag(target.repository, tag)
        if present is None:
            target.registry.put_manifest(target.repository, tag, manifest)
        elif present != manifest.digest:
            say(
                f"{target}:{tag} stays {present}: the source has other signatures or attestations since, and tags are immutable"
            )


def verify(copy: Copy, *, layers: bool) -> None:
    """Reads back from the target: manifests byte by byte, blobs by size, or byte by byte too. Raises CommandFailed.

    A registry takes a blob only under its right digest, and ours was computed from the bytes that were sent, so the
    layers' own bytes are read back on request only.
    """
    target = copy.target
    for digest, manifest in copy.content.manifests.items():
        found = target.registry.manifest(target.repository, digest)
        if found is None or found.content != manifest.content:
            raise CommandFailed(
                f"{target}: {digest} was written and {'is not there' if found is None else 'differs'}"
            )
    for blob in copy.content.blobs.values():
        size = target.registry.blob_size(target.repository, blob.digest)
        if size != blob.size:
            raise CommandFailed(f"{target}: {blob.digest} has {size} bytes, not {blob.size}")
        if layers:
            for _ in _read(target, blob):
                pass
    tagged = target.registry.tag(target.repository, copy.tag)
    if tagged != copy.content.index.digest:
        raise CommandFailed(f"{target}:{copy.tag} is {tagged}, not {copy.content.index.digest}")
