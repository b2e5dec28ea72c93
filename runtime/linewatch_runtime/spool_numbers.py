# SPDX-License-Identifier: Apache-2.0
"""The two numbers of a spool that must never go back: the epoch of its producer's start, and the spool clock.

Both are kept twice, for one flipped bit in them would cost far more than itself: every event expired, or the cloud's
order turned back.
"""

import sqlite3
import time

LATEST_FIRST_EPOCH = 0xF000_0000
"""A broken clock must leave the counter room to rise within 32 bits."""

_LATEST_EPOCH = 0xFFFF_FFFE

_LITTLE_MS = 2**22
"""70 minutes: what is kept for days expires hardly sooner."""


def next_epoch(db: sqlite3.Connection) -> int:
    """One more than the last; of a new file, one more than the unix seconds. Inside a change."""
    # Of two the higher: a flipped bit may make it jump up, never go back.
    kept = [_number(db, name) for name in ("epoch", "epoch_again")]
    last = max([one for one in kept if 0 < one < _LATEST_EPOCH], default=0)
    epoch = (last or max(0, min(int(time.time()), LATEST_FIRST_EPOCH))) + 1
    db.executemany("INSERT OR REPLACE INTO numbers VALUES (?, ?)", [("epoch", epoch), ("epoch_again", epoch)])
    return epoch


def kept_clock(db: sqlite3.Connection) -> float:
    """Seconds at the last commit."""
    return _clock_ms(db) / 1000


def keep_clock(db: sqlite3.Connection, seconds: float) -> None:
    """Inside a change. Never back: a command that replays has a clock of its own."""
    # Both alike: a flip that stayed in one of them would differ by more bits later, and win.
    now = max(int(seconds * 1000), _clock_ms(db))
    db.executemany(
        "INSERT OR REPLACE INTO numbers VALUES (?, ?)", [("clock_ms", now), ("clock_ms_again", now)]
    )


def _clock_ms(db: sqlite3.Connection) -> int:
    """An older release moves only the first of the two. A single bit of difference is damage; then the lower one expires
    nothing wrongly. A low bit is worth little time, and is as likely an older release's: then the clock does not go back.
    """
    kept, again = _number(db, "clock_ms"), _number(db, "clock_ms_again")
    differ = kept ^ again
    if differ.bit_count() != 1:
        return kept
    return max(kept, again) if differ < _LITTLE_MS else min(kept, again)


def _number(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT value FROM numbers WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0
