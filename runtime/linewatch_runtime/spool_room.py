# SPDX-License-Identifier: Apache-2.0
"""Who loses when a stream is full: the policies of `WhenFull`, for a batch at once.

Same outcome as one record after the other, oldest victims first; the work is by the victims, not by the backlog.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from linewatch_runtime.records import ROW_OVERHEAD, Record, SpoolFull, StreamLimit, WhenFull
from linewatch_runtime.spool_file import Change, Inconsistent

Victim = tuple[int, str, int]
"""position, stream, bytes of the payload"""


def fits(db: sqlite3.Connection, change: Change, limit: StreamLimit, records: Sequence[Record]) -> bool:
    """Makes room for the records, and says whether it could. For one record alone that does not fit it raises.

    Raises:
        SpoolFull: nothing that is in the stream may go for it.
    """
    sizes: dict[str, int] = {}
    for record in records:
        sizes[record.stream] = sizes.get(record.stream, 0) + record.size
    victims: list[Victim] = []
    for stream, size in sizes.items():
        excess = change.used(stream) + size - limit.max_bytes
        if excess <= 0:
            continue
        too_large = any(one.size > limit.max_bytes for one in records if one.stream == stream)
        if limit.when_full is WhenFull.REJECT or too_large:
            raise SpoolFull(stream, f"its {limit.max_bytes} bytes are used")
        for victim in sound(_in_turn(db, stream, alarms=limit.when_full is WhenFull.OVERWRITE_OLDEST)):
            if excess <= 0:
                break
            victims.append(victim)
            excess -= victim[2] + ROW_OVERHEAD
        if excess > 0:
            if len(records) > 1:
                return False  # what comes first in the batch may have to go for what comes later
            raise SpoolFull(stream, f"its {limit.max_bytes} bytes are used by alarms, which are never shed")
    drop(db, change, victims, "shed_good" if limit.when_full is WhenFull.SHED_GOOD else "overwritten")
    return True


def drop(db: sqlite3.Connection, change: Change, victims: Iterable[Victim], reason: str) -> None:
    """Takes events out, counted by reason, and as not yet reported."""
    victims = list(sound(victims))
    db.executemany("DELETE FROM events WHERE position = ?", [(position,) for position, _, _ in victims])
    for _, stream, length in victims:
        change.fill(stream, -1, -(length + ROW_OVERHEAD))
        count_drop(change, stream, reason)


def count_drop(change: Change, stream: str, reason: str) -> None:
    """Counts a drop that upstream is to be told of."""
    change.count(stream, f"dropped:{reason}", 1)
    change.count(stream, f"unreported:{reason}", 1)


def sound(victims: Iterable[Victim]) -> Iterator[Victim]:
    """The same; raises Inconsistent for one that damage has left without a stream or a payload."""
    for victim in victims:
        if not (isinstance(victim[1], str) and isinstance(victim[2], int)):
            raise Inconsistent("a row of events has values of other types")
        yield victim


def _in_turn(db: sqlite3.Connection, stream: str, *, alarms: bool) -> Iterator[Victim]:
    # One part per class, merged: each part comes in the index's order, so that only the victims are read.
    of_class = "SELECT position, stream, length(payload) FROM events WHERE stream = ?1 AND alarm = "
    rows: Iterator[Victim] = db.execute(
        of_class + (f"0 UNION ALL {of_class}1" if alarms else "0") + " ORDER BY position", (stream,)
    )
    return rows
