# SPDX-License-Identifier: Apache-2.0
"""A model package as the file that goes to devices: the same package gives the same bytes, on any machine.

A tar, because our own script unpacks it: Greengrass unpacks only zips, only of artifacts that it downloads itself, and
few devices have a program for them. Not compressed, because a compressor's bytes change with its version.
"""

import hashlib
import io
import tarfile
from pathlib import Path


def file_name(model: str, version: str) -> str:
    """The file's name in the component's folder."""
    return f"{model}-{version}.tar"


def packed(package: Path) -> bytes:
    """The package's files, sorted, with fixed owners, modes and times."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(package.rglob("*"), key=lambda path: path.relative_to(package).as_posix()):
            entry = tarfile.TarInfo(path.relative_to(package).as_posix())
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            elif path.is_file():
                content = path.read_bytes()
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def digest(package: Path) -> str:
    """The file's digest, as release.yaml pins it."""
    return f"sha256:{hashlib.sha256(packed(package)).hexdigest()}"
