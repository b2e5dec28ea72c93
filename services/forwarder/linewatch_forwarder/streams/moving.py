# SPDX-License-Identifier: Apache-2.0
"""Brings along what waits in the other kind of streams after FORWARDER_STREAMS was changed.

Guarantee: an event leaves the old streams only after `append` to the new ones has returned. A crash in between finds it
in both; the new ones know it by its id. A dead letter is buried by its id once. Losses that nobody upstream was told of
become events first, and are moved as these.
Order: intake begins after the move (`hold`), so what is moved comes before what is fresh.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from linewatch_forwarder.streams.port import DurableStreams, StreamsUnavailable
from linewatch_runtime.records import DropReport, Record, SpoolFull
from linewatch_runtime.spool import BURIED_KEPT

log = logging.getLogger(__name__)

AT_ONCE = 100
RETRY_S = 2.0

HOLD_S = 600.0
"""How long intake waits for the move at most. Producers keep their events meanwhile, but their spools are bounded and a
full one stops judging: a line that stands costs more than an order that is broken once, and said. Ten minutes are far
above a restart of Stream Manager and below what fills a producer's spool."""


@dataclass
class Moving:
    """How far the move is, for the status.

    Attributes:
        events: what still waits in the old kind.
        reason: why it does not move now; empty while it does.
        is_order_broken: intake did not wait for the end: fresh events come before moved ones.
    """

    kind: str = ""
    events: int = 0
    reason: str = ""
    is_order_broken: bool = False

    def told(self) -> Mapping[str, object]:
        """What the status says; empty while nothing is moved."""
        if not self.kind:
            return {}
        return {
            "from": self.kind,
            "events": self.events,
            "reason": self.reason[:300],
            "order_broken": self.is_order_broken,
        }


async def hold(moved: "asyncio.Task[None]", moving: Moving) -> None:
    """Returns when the move has ended, after HOLD_S at the latest: then the order breaks, which is told."""
    await asyncio.wait([moved], timeout=HOLD_S)
    if not moved.done():
        moving.is_order_broken = True
        log.error("order_broken", extra={"reason": moving.reason, "events": moving.events})


async def move(old: DurableStreams, new: DurableStreams, make: DropReport, moving: Moving) -> int:
    """Moves all that waits, then the dead letters; tries again while one of the two is away or full.

    Alarms come first; behind events that the new streams already hold, each class keeps its order. The old streams
    remember what was moved as delivered, so they must not be used again: put them aside.

    `make`: makes the event for losses that nobody upstream was told of. Returns how many events were moved.
    """
    moved, trouble = 0, ""
    while True:
        try:
            moving.events = sum(one.events for one in await old.streams())
            waiting = await old.next(AT_ONCE)
            if not waiting and not any(one.events for one in await old.streams()):
                if await old.take_unreported_drops(make):
                    continue
                await _move_dead_letters(old, new)
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
            moving.reason = ""
        except (StreamsUnavailable, SpoolFull) as error:
            if str(error) != trouble:
                log.warning("streams_not_moved_yet", extra={"reason": str(error), "moved": moved})
            trouble = moving.reason = str(error)
            waiting = []
        if not waiting:
            await asyncio.sleep(RETRY_S)


async def _move_dead_letters(old: DurableStreams, new: DurableStreams) -> None:
    """Each once by its id: a move that died after this begins again."""
    buried = {one.record.event_id for one in await new.dead_letters(BURIED_KEPT)}
    for letter in reversed(await old.dead_letters(BURIED_KEPT)):
        if letter.record.event_id not in buried:
            await new.bury(letter.record, letter.reason)


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
