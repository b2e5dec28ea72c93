# SPDX-License-Identifier: Apache-2.0
"""A spool whose file can't take one page more, as on a full volume; and a place for files that no disk holds up."""

import itertools
import shutil
import sqlite3
from pathlib import Path

from linewatch_runtime.spool import Spool


def fill_to_the_last_page(spool: Spool) -> None:
    """Run it in the spool's thread. `PRAGMA max_page_count` with a larger number makes room again."""
    db = spool._db
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}").fetchall()
    try:
        for number in itertools.count():  # shorter than an event's id: where this has no room, that has none
            db.execute("INSERT INTO settled (event_id) VALUES (?)", (f"{number:08}",))
    except sqlite3.OperationalError as error:
        assert error.sqlite_errorcode == sqlite3.SQLITE_FULL  # noqa: PT017 - the loop ends in no other way


def in_memory(room: int = 512 * 1024 * 1024) -> Path | None:
    """A folder in memory, where there is one with so many bytes free: a container's may have 64 MB."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free >= room else None
