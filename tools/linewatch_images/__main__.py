# SPDX-License-Identifier: Apache-2.0
"""`make images`: builds every image, pushes it to a registry where there is one, and writes down what came of it.

Leaves build/images.json and build/sbom/. The variables are those of docs/images.md.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from linewatch_images.layout import NotSaved, Saved
from linewatch_images.sbom import bill_of_materials, wanted

ROOT: Final = Path(__file__).resolve().parents[2]
SCHEMA: Final = "linewatch.images/v1"
LOCAL_REGISTRY: Final = "127.0.0.1:5000"
"""That of tools/containers/engine."""
ALL_PLATFORMS: Final = ("linux/amd64", "linux/arm64")
"""What PLATFORMS=all stands for, where the engine and a registry can hold both; else the host's own."""
IMAGES: Final = ("broker", "capture", "console", "forwarder", "inference")
FURTHER: Final = ("inference-jetson", "plant")
"""Built when named in ONLY."""


class CannotBuild(Exception):
    """With the reason, for the person who called."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is built: a commit, and whether the tree differs from it."""

    commit: str
    dirty: bool
    committed: datetime
    version: str


def main(environment: Mapping[str, str]) -> int:
    """0, or 1 with a line that says why not."""
    try:
        build_all(environment)
    except CannotBuild as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def build_all(environment: Mapping[str, str]) -> None:
    """Builds, and writes build/images.json when all is done."""
    source = source_of_build()
    names = tuple(sorted(environment.get("ONLY", "").replace(",", " ").split())) or IMAGES
    if unknown := set(names) - {*IMAGES, *FURTHER}:
        raise CannotBuild(
            f"ONLY: no image {', '.join(sorted(unknown))}; there are {', '.join(IMAGES + FURTHER)}"
        )
    platforms = environment.get("PLATFORMS", "").replace(",", " ").split()
    registry = registry_to_push_to(environment)
    if platforms == ["all"]:
        platforms = list(ALL_PLATFORMS) if registry and keeps_foreign_images() else []
    digests = bake(names, platforms, registry, source, environment)
    prefix = f"{registry}/" if registry else ""
    saved = Saved(wanted)
    target = ROOT / "build" / "images.json"
    images: dict[str, Any] = _still_valid(target, registry, source)
    for name in names:
        repository = f"linewatch/{name}"
        # By tag: an engine without a registry knows no digest.
        images[name] = {
            "repository": repository,
            "digest": digests[name],
            **described(saved, f"{prefix}{repository}:{source.version}", name, source),
        }
    written = {
        "schema": SCHEMA, "commit": source.commit, "dirty": source.dirty, "version": source.version,
        "registry": registry, "images": dict(sorted(images.items())),
    }  # fmt: skip
    target.with_suffix(".new").write_text(json.dumps(written, indent=2) + "\n")
    target.with_suffix(".new").replace(target)
    print(table(images))
    print(f"images: build/images.json, commit {source.commit[:12]}{' and changes' if source.dirty else ''}")


def _still_valid(path: Path, registry: str, source: Source) -> dict[str, Any]:
    """What an earlier call built from the same commit: ONLY adds to it."""
    try:
        written = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    told = (written["schema"], written["commit"], written["dirty"], written["version"], written["registry"])
    kept: dict[str, Any] = written["images"]
    return kept if told == (SCHEMA, source.commit, source.dirty, source.version, registry) else {}


def source_of_build() -> Source:
    """Raises CannotBuild outside a git checkout."""
    commit = _run("git", "rev-parse", "HEAD").strip()
    committed = datetime.fromtimestamp(int(_run("git", "show", "-s", "--format=%ct", "HEAD")), UTC)
    dirty = bool(_run("git", "status", "--porcelain").strip())
    return Source(commit, dirty, committed, (ROOT / "VERSION").read_text().strip())


def registry_to_push_to(environment: Mapping[str, str]) -> str:
    """REGISTRY; the local one where it runs; "" for none: the images then lie in the engine only."""
    if "REGISTRY" in environment:
        return environment["REGISTRY"].strip().rstrip("/")
    try:
        with urllib.request.urlopen(f"http://{LOCAL_REGISTRY}/v2/", timeout=3):
            return LOCAL_REGISTRY
    except (urllib.error.URLError, OSError):
        return ""


def keeps_foreign_images() -> bool:
    """Whether the engine's store takes images of more platforms than its own."""
    return "containerd.snapshotter" in _run("docker", "info", "--format", "{{.DriverStatus}}")


def bake(
    names: Sequence[str],
    platforms: Sequence[str],
    registry: str,
    source: Source,
    environment: Mapping[str, str],
) -> dict[str, str]:
    """Image -> digest of its index, or of its manifest where there is one platform."""
    started = time.monotonic()
    created = source.committed.strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {
        "PREFIX": f"{registry}/" if registry else "", "VERSION": source.version, "REVISION": source.commit,
        "CREATED": created, "SOURCE_DATE_EPOCH": str(int(source.committed.timestamp())),
        "SOURCE": environment.get("SOURCE_URL") or "unknown", "CA_BUNDLE": ca_bundle(environment),
    }  # fmt: skip
    output = f"type=image,oci-mediatypes=true,compression=gzip,push={'true' if registry else 'false'}"
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "metadata.json"
        done = subprocess.run(
            [
                "docker", "buildx", "bake", "--file", "docker-bake.hcl", "--provenance=false", "--metadata-file", str(told),
                "--set", f"*.output={output}", *(["--set", f"*.platform={','.join(platforms)}"] if platforms else []),
                *names,
            ],
            cwd=ROOT, env={**environment, **values}, check=False,
        )  # fmt: skip
        if done.returncode:
            raise CannotBuild("docker buildx bake failed; see above, and docs/images.md")
        metadata = json.loads(told.read_text())
    print(f"images: built {', '.join(names)} in {time.monotonic() - started:.0f} s")
    return {name: str(metadata[name]["containerimage.digest"]) for name in names}


def ca_bundle(environment: Mapping[str, str]) -> str:
    """As docker-compose.yml takes it."""
    return environment.get("LINEWATCH_CA_BUNDLE") or environment.get("SSL_CERT_FILE") or "/dev/null"


def described(saved: Saved, reference: str, name: str, source: Source) -> dict[str, Any]:
    """Sizes by platform, and the SBOMs' files."""
    (ROOT / "build" / "sbom").mkdir(parents=True, exist_ok=True)
    platforms: dict[str, Any] = {}
    sboms: dict[str, str] = {}
    try:
        images = saved.images(reference)
    except NotSaved as error:
        raise CannotBuild(str(error)) from error
    for image in images:
        platforms[image.platform] = {
            "digest": image.digest,
            "added_gzip_bytes": image.added_gzip_bytes,
            "total_gzip_bytes": image.total_gzip_bytes,
        }
        sboms[image.platform] = path = f"build/sbom/{name}-{image.platform.replace('/', '-')}.cdx.json"
        text = bill_of_materials(
            saved.files(image), name=f"linewatch/{name}", version=source.version, digest=image.digest,
            created=source.committed,
        )  # fmt: skip
        (ROOT / path).write_text(text)
    return {"platforms": platforms, "sbom": sboms}


def table(images: Mapping[str, Any]) -> str:
    """Megabytes that a device loads."""
    lines = [f"{'image':18} {'platform':14} {'added':>8} {'in all':>8}   MB, gzip"]
    lines += [
        f"{name:18} {platform:14} {sizes['added_gzip_bytes'] / 1e6:8.1f} {sizes['total_gzip_bytes'] / 1e6:8.1f}"
        for name, image in images.items()
        for platform, sizes in image["platforms"].items()
    ]
    return "\n".join(lines)


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuild(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(os.environ))
