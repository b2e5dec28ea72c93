# SPDX-License-Identifier: Apache-2.0
"""A damaged spool: everything that can be read goes into a new file, the damaged one is kept beside it.

Guarantee: nothing is deleted, and a kill or a power cut at any point loses nothing. The new file is built beside the
damaged one, which is only read; it is synced, renamed to `<file>.salvaged-<n>`, and that name means: complete. Then the
damaged set (file, -wal, -shm) is renamed to `<file>.damaged-<n>…`, the new one takes its place, and what a kill left of
that is done at the next start. On a full disk everything stays as it was.
Bounded: QUARANTINE_KEPT damaged files are kept; then a person has to look before another one is salvaged.

Proved by: runtime/tests/test_spool_salvage.py.
"""

import contextlib
import logging
import os
import sqlite3
import time
from pathlib import Path

from linewatch_runtime.records import SpoolDamaged
from linewatch_runtime.spool_rebuild import Salvaged, build

log = logging.getLogger(__name__)

QUARANTINE_KEPT = 5
"""Damaged files beside the spool, each at most as large as the spool's own cap."""

_SIDES = ("", "-wal", "-shm")


def finish(path: Path) -> None:
    """Ends what a kill interrupted; nothing to do as a rule. Raises OSError."""
    for complete in path.parent.glob(f"{path.name}.salvaged-*"):
        slot = complete.name.rpartition("-")[2]
        if path.exists() and path.with_name(f"{path.name}.damaged-{slot}").exists():
            # Somebody made a new file between two of our renames. Neither may go.
            log.error("salvaged_file_left", extra={"file": str(complete)})
            continue
        _swap(path, complete, slot)


def salvage(path: Path, reason: str) -> Salvaged:
    """Puts a new file in the damaged one's place. Nobody may have the file open.

    Raises:
        SpoolDamaged: it could not be done, and everything is as it was.
    """
    slot = _free_slot(path)
    building = path.with_name(f"{path.name}.salvaging")
    started = time.monotonic()
    try:
        _discard(building)  # of a salvage that was killed: begun anew, the damaged file has everything
        result = build(path, building)
        _sync(building)
        complete = path.with_name(f"{path.name}.salvaged-{slot}")
        building.rename(complete)
        _sync(path.parent)
        _swap(path, complete, str(slot))
    except (OSError, sqlite3.OperationalError) as error:
        with contextlib.suppress(OSError):
            _discard(building)
        raise SpoolDamaged(
            f"{path}: {reason}; it can't be salvaged now: {error}. Nothing was changed; make room on the volume for a"
            " second file of its size, and see that its directory can be written"
        ) from error
    log.error(
        "spool_salvaged",
        extra={
            "file": str(path), "reason": reason, "kept_as": f"{path.name}.damaged-{slot}", "events": result.events,
            "set_aside": result.set_aside, "seconds": round(time.monotonic() - started, 3),
            "lost": "unknown" if result.lost is None else sum(result.lost.values()),
        },
    )  # fmt: skip
    return result


def _free_slot(path: Path) -> int:
    for slot in range(1, QUARANTINE_KEPT + 1):
        if not any(path.with_name(f"{path.name}.damaged-{slot}{side}").exists() for side in _SIDES):
            return slot
    raise SpoolDamaged(
        f"{path}: damaged, and quarantine_full: {QUARANTINE_KEPT} damaged files are kept already, {path.name}.damaged-1"
        f" to -{QUARANTINE_KEPT}; look at the disk, move them away and keep them"
    )


def _swap(path: Path, complete: Path, slot: str) -> None:
    """Every step may have been done before. The log goes first: beside the new file it would be applied to it."""
    for side in reversed(_SIDES):
        old = path.with_name(path.name + side)
        if old.exists():
            old.rename(path.with_name(f"{path.name}.damaged-{slot}{side}"))
    _sync(path.parent)
    complete.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """To the disk: a file's bytes, or a directory's names."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _discard(building: Path) -> None:
    for side in (*_SIDES, "-journal"):
        building.with_name(building.name + side).unlink(missing_ok=True)
