# SPDX-License-Identifier: Apache-2.0
"""The archive: the same bytes for the same content, a sum for every file, and one signature over the sums.

Guarantee: what `verify` accepts holds exactly the files that were signed, no more and no fewer.
Proved by: fleet/tests/test_bundle.py.
"""

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from linewatch_fleet import signing
from linewatch_fleet.errors import BadInput, GateRefused

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
PIECE_BYTES = 1 << 20
MAX_SUMS_BYTES = 4 << 20
PROGRAMS = ("install.sh", "doctor.pyz")


def sums(directory: Path) -> bytes:
    """What `sha256sum -c` reads: every file of the folder but the sums themselves."""
    lines = []
    for path in _files(directory):
        with path.open("rb") as file:
            lines.append(
                f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(directory).as_posix()}\n"
            )
    return "".join(lines).encode()


def pack(directory: Path, out: Path, made_at: int) -> None:
    """Writes the folder as a tar file. Not compressed: the layers in it are."""
    partial = out.with_name(f".{out.name}.partial")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in [
            *_files(directory),
            *(directory / name for name in (SUMS, SIGNATURE) if (directory / name).is_file()),
        ]:
            name = path.relative_to(directory).as_posix()
            entry = tarfile.TarInfo(f"{directory.name}/{name}")
            entry.size, entry.mtime = path.stat().st_size, made_at
            entry.mode = 0o755 if name in PROGRAMS else 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    partial.rename(out)


def verify(path: Path, keys: Sequence[Path]) -> dict[str, bytes]:
    """Reads the whole archive and gives back its small text files by name.

    Raises:
        BadInput: it is no bundle.
        GateRefused: a file differs, is missing or is too many, or none of the keys signed it.
    """
    found: dict[str, str] = {}
    small: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for name, file in _members(archive, path):
                digest, head = hashlib.sha256(), b""
                while piece := file.read(PIECE_BYTES):
                    digest.update(piece)
                    head = head + piece if len(head) < MAX_SUMS_BYTES else head
                if name in found:
                    raise GateRefused(f"{path}: {name} is in it twice")
                found[name] = digest.hexdigest()
                if len(head) <= MAX_SUMS_BYTES and not name.startswith("images/blobs/"):
                    small[name] = head
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BadInput(f"{path}: can't be read as a bundle: {error}") from error
    _check(path, found, small, keys)
    return small


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for member in archive:
        parts = PurePosixPath(member.name).parts
        if not member.isfile() or len(parts) < 2 or ".." in parts or member.name.startswith("/"):
            raise GateRefused(f"{path}: {member.name!r} is no plain file within one folder")
        file = archive.extractfile(member)
        assert file is not None
        yield "/".join(parts[1:]), file


def _check(path: Path, found: dict[str, str], small: dict[str, bytes], keys: Iterable[Path]) -> None:
    text = small.get(SUMS)
    if text is None:
        raise BadInput(f"{path}: holds no {SUMS}; make it with `linewatch bundle make`")
    trusted = list(keys)
    if trusted and signing.signer(text, small.get(SIGNATURE, b""), trusted) is None:
        names = ", ".join(str(key) for key in trusted)
        raise GateRefused(f"{path}: {SIGNATURE} is not a signature by any of {names}; don't install it")
    told = {}
    for line in text.decode().splitlines():
        digest, _, name = line.partition("  ")
        told[name] = digest
    here = {name: digest for name, digest in found.items() if name not in {SUMS, SIGNATURE}}
    wrong = sorted(name for name in told.keys() | here.keys() if told.get(name) != here.get(name))
    if wrong:
        what = {True: "is missing", False: "differs from its sum"}
        said = [
            f"{name} {'is not in the sums' if name not in told else what[name not in here]}"
            for name in wrong[:5]
        ]
        raise GateRefused(f"{path}: {'; '.join(said)}; copy the bundle again")


def _files(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and path.relative_to(directory).as_posix() not in {SUMS, SIGNATURE}
    )
