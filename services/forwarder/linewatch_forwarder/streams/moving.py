# SPDX-License-Identifier: Apache-2.0
"""Brings along what waits in the other kind of streams after FORWARDER_STREAMS was changed.

Guarantee: an event leaves the old streams only after `append` to the new ones has returned. A crash in between finds it
in both; the new ones know it by its id.
"""

import asyncio
import logging
import time
from collections import defaultdict
from pathlib import Path

from linewatch_forwarder.streams.port import DurableStreams, StreamsUnavailable
from linewatch_runtime.records import Record, SpoolFull
from linewatch_runtime.spool import BURIED_KEPT

log = logging.getLogger(__name__)

AT_ONCE = 100
RETRY_S = 2.0


async def move(old: DurableStreams, new: DurableStreams) -> int:
    """Moves all that waits, then the dead letters; tries again while one of the two is away or full.

    Alarms come first; behind events that the new streams already hold, each class keeps its order. The old streams
    remember what was moved as delivered, so they must not be used again: put them aside.

    Returns how many events were moved.
    """
    moved, trouble = 0, ""
    while True:
        try:
            waiting = await old.next(AT_ONCE)
            if not waiting and not any(one.events for one in await old.streams()):
                for letter in reversed(await old.dead_letters(BURIED_KEPT)):
                    await new.bury(letter.record, letter.reason)
                await old.discard()
                log.info("streams_moved", extra={"events": moved})
                return moved
            by_stream: dict[str, list[Record]] = defaultdict(list)
            for one in waiting:
                by_stream[one.record.stream].append(one.record)
            for records in by_stream.values():
                await new.append(records)
                await old.settle([one.event_id for one in records])
                moved += len(records)
        except (StreamsUnavailable, SpoolFull) as error:
            if str(error) != trouble:
                log.warning("streams_not_moved_yet", extra={"reason": str(error), "moved": moved})
            trouble = str(error)
            waiting = []
        if not waiting:
            await asyncio.sleep(RETRY_S)


def left_behind(path: Path, *, is_chosen: bool) -> Path | None:
    """The file that is to be moved out of, if there is one; `is_chosen`: `path` itself is in use.

    It is renamed before anything is moved, because it remembers what was moved as delivered. Under its own name it would
    be used again when the choice is taken back half-way, would know what comes back to it, and lose it.
    """
    taken = path.with_name(f"{path.name}.moving")
    if not taken.exists():
        if is_chosen or not path.exists():
            return None
        _rename(path, taken)
    return taken


def put_aside(path: Path) -> None:
    """Renames a file whose events have all been moved; nothing is deleted."""
    _rename(path, path.with_name(f"{path.name.removesuffix('.moving')}.moved-{time.time_ns()}"))


def _rename(path: Path, to: Path) -> None:
    # What SQLite keeps beside it goes first: the database without it would be an older one.
    for ending in ("-wal", "-shm", ""):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(to.with_name(to.name + ending))
