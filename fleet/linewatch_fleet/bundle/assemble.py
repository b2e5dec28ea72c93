# SPDX-License-Identifier: Apache-2.0
"""Puts a bundle's folder together: what goes where, in one place. The installer beside this file reads it back."""

import io
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from linewatch_fleet import doctor
from linewatch_fleet.bundle.layout import Loaded
from linewatch_fleet.recipes.render import Component

MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
"""What `uname -m` says there."""

README = """Linewatch for a device without a network.

Check it before you run anything of it, with the public key that came to you another way than this bundle:

    base64 -d SHA256SUMS.sig >/tmp/bundle.sig
    openssl dgst -sha256 -verify PUBLIC-KEY -signature /tmp/bundle.sig SHA256SUMS
    sha256sum --quiet -c SHA256SUMS

The second prints "Verified OK", the third nothing. Then, as root: sh install.sh --key PUBLIC-KEY
sh install.sh --help says more; docs/air-gapped.md of the project tells the whole way.
"""

_EARLIEST = (1980, 1, 1, 0, 0, 0)

_MAIN = b"import sys\nfrom linewatch_fleet.doctor.__main__ import main\nsys.exit(main())\n"


def doctor_program() -> bytes:
    """The doctor as one file for `python3 doctor.pyz`, the same bytes for the same source."""
    sources = {"__main__.py": _MAIN, "linewatch_fleet/__init__.py": b""}
    for path in sorted(Path(doctor.__file__).parent.glob("*.py")):
        sources[f"linewatch_fleet/doctor/{path.name}"] = path.read_bytes()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sources.items():
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), content)
    return b"#!/usr/bin/env python3\n" + made.getvalue()


def assemble(
    place: Path,
    release: Iterable[Path],
    platform: str,
    loaded: Mapping[str, Loaded],
    components: Iterable[Component],
) -> None:
    """Writes everything but the images, which `layout.fetch` has put into place/images.

    Args:
        place: the bundle's folder.
        release: the manifest and its signature.
        platform: the device's.
        loaded: the images, by name.
        components: rendered for local deployment.
    """
    for path in release:
        shutil.copyfile(path, place / path.name)
    shutil.copyfile(Path(__file__).with_name("install.sh"), place / "install.sh")
    (place / "doctor.pyz").write_bytes(doctor_program())
    (place / "machine").write_text(MACHINES[platform] + "\n")
    (place / "images.txt").write_text("".join(f"{one.reference}\n" for one in loaded.values()))
    recipes = place / "recipes"
    recipes.mkdir()
    lines = []
    for component in components:
        # The name that both nuclei look for.
        (recipes / f"{component.name}-{component.version}.json").write_text(component.text)
        for artifact in component.artifacts:
            path = place / "artifacts" / component.name / component.version / artifact.name
            path.parent.mkdir(parents=True)
            path.write_bytes(artifact.content())
        lines.append(f"{component.name}={component.version}\n")
    (place / "components.txt").write_text("".join(lines))
    (place / "README.txt").write_text(README)


def describe(small: Mapping[str, bytes]) -> dict[str, Any]:
    """What a verified bundle holds, from its small files."""
    return {
        "release": small["release.yaml"].decode() if "release.yaml" in small else None,
        "machine": small["machine"].decode().strip(),
        "images": small["images.txt"].decode().split(),
        "components": small["components.txt"].decode().split(),
    }
