# SPDX-License-Identifier: Apache-2.0
"""Reads `<models_dir>/<name>/active`, and sees whether a package's files changed. Both are written by others, at any time.

An active file is the version, and on a second line, if whoever writes it waits for the outcome, a word of its own by
which it knows that outcome again.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from linewatch_inference.package import is_version

ACTIVE = "active"

_MAX_BYTES = 128
_ASKING = re.compile(r"[A-Za-z0-9-]{1,64}")

Files = tuple[object, ...]
"""Changes when a file of a package is written anew."""

Stamp = tuple[int | bytes, ...]
"""Changes when a file is written anew: time of change, inode, content."""


@dataclass(frozen=True, slots=True)
class Active:
    """What an active file says: a version, or the problem with it."""

    stamp: Stamp
    version: str = ""
    problem: str = ""
    asking: str = ""
    """The second line, for the outcome's second line; empty when there is none."""


def read_active(path: Path) -> Active | None:
    """What an active file says; None when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Active((error.errno or 0,), problem=f"{path}: can't be read: {error.strerror}")
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            return Active((info.st_mtime_ns, info.st_ino), problem=f"{path}: is no plain file")
        data = os.read(descriptor, _MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    # The content too: an inode is used again, and clocks are coarse.
    stamp = (info.st_mtime_ns, info.st_ino, data)
    text = data.decode("utf-8", "replace").strip()
    version, is_asked, asking = text.partition("\n")
    if not is_version(version) or (is_asked and not _ASKING.fullmatch(asking)) or len(data) > _MAX_BYTES:
        return Active(stamp, problem=f"{path}: must hold one line, a version such as 1.2.0, not {text!r}")
    return Active(stamp, version, asking=asking)


def files_of(package: Path | None) -> Files:
    """What changes when a file of a package is written anew; nothing when there is no package."""
    if package is None:
        return ()
    found: list[object] = []
    try:
        for folder in (package, package / "golden"):
            with os.scandir(folder) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    found.append((folder.name, entry.name, info.st_size, info.st_mtime_ns, info.st_ino))
    except OSError:
        found.append("unreadable")
    return tuple(sorted(found, key=str))
