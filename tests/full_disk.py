# SPDX-License-Identifier: Apache-2.0
"""A spool whose file can't take one page more, as on a full volume."""

import itertools
import sqlite3

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
