# SPDX-License-Identifier: Apache-2.0
"""Reads evidence files for the page, and nothing else on this machine.

A request can name only plain path segments that end in a known kind of picture or table; the file that they lead to,
with every link resolved, must still lie below the evidence directory. Proved by tests/test_evidence.py.
"""

import re
from dataclasses import dataclass
from pathlib import Path

MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".csv": "text/csv; charset=utf-8",
}
LARGEST_FILE_BYTES = 32 * 1024 * 1024

_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}){0,5}")


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """A file's content with what a browser needs to keep it."""

    content: bytes
    media_type: str
    etag: str


def is_evidence_path(path: str) -> bool:
    """Whether `path` may name an evidence file: plain segments, no dot first, a known ending."""
    return _PATH.fullmatch(path) is not None and Path(path).suffix in MEDIA_TYPES


def read_evidence(root: Path, path: str) -> EvidenceFile | None:
    """The file at `path` below `root`; None when there is none that may be shown."""
    if not is_evidence_path(path):
        return None
    try:
        found = (root / path).resolve(strict=True)
        if not found.is_relative_to(root.resolve(strict=True)) or found.suffix not in MEDIA_TYPES:
            return None
        state = found.stat()
        if not found.is_file() or state.st_size > LARGEST_FILE_BYTES:
            return None
        content = found.read_bytes()
    except (OSError, ValueError):
        return None
    # Written anew and renamed for each part, so inode, time and size tell two files apart.
    etag = f'"{state.st_ino:x}-{state.st_mtime_ns:x}-{state.st_size:x}"'
    return EvidenceFile(content, MEDIA_TYPES[found.suffix], etag)
