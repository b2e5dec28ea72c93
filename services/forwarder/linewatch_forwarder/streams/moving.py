# SPDX-License-Identifier: Apache-2.0
"""Brings along what waits in the other kind of streams after FORWARDER_STREAMS was changed.

Guarantee: an event leaves the old streams only after `append` to the new ones has returned. A crash in between finds it
in both; the new ones know it by its id.
"""

import asyncio
import logging
from collections import defaultdict

from linewatch_forwarder.streams.port import DurableStreams, StreamsUnavailable
from linewatch_runtime.records import Record, SpoolFull

log = logging.getLogger(__name__)

AT_ONCE = 100
RETRY_S = 2.0


async def move(old: DurableStreams, new: DurableStreams) -> int:
    """Moves all that waits, and tries again while one of the two is away or full. Returns how many were moved.

    Alarms come first; behind events that the new streams already hold, each class keeps its order.
    """
    moved, trouble = 0, ""
    while True:
        try:
            waiting = await old.next(AT_ONCE)
            if not waiting:
                break
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
            await asyncio.sleep(RETRY_S)
    if moved:
        log.info("streams_moved", extra={"events": moved})
    return moved
