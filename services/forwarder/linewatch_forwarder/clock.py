# SPDX-License-Identifier: Apache-2.0
"""Tells the cloud when a part was really taken, once this device knows the time.

A device that starts without a network stamps its events by a wall clock that may be years off, and says so
(`clock.synchronised` is false). Beside it stands the time since boot, which no wall clock moves. Once the wall clock is
synchronised, within the same boot, the two give the true moment; it goes into the event as `data.origin.corrected_at`
right before it is sent. On disk the event stays as it came. An event of an earlier boot, or one that is sent before the
clock is known, goes out as it is, and says the same of itself as before.
"""

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from google.protobuf.timestamp_pb2 import Timestamp

from linewatch_runtime.clocks import boot_id, clock_synchronised, since_boot
from linewatch_runtime.events import MAX_EVENT_BYTES
from linewatch_runtime.records import Record

_NOT_SYNCHRONISED = re.compile(rb'"synchronised"\s*:\s*false')
"""Inside a JSON text quotes are escaped, so no part's name can look like this."""

_ORIGIN = re.compile(r'"origin"\s*:\s*')


@dataclass(frozen=True, slots=True)
class DeviceClock:
    """What this device knows of the time.

    Attributes:
        wall: seconds since 1970, by a clock that may jump.
        since_boot: seconds since boot, CLOCK_BOOTTIME; never jumps, and runs on while the device sleeps.
        boot_id: the kernel's id of this boot; empty where it can't be read, and then nothing is corrected.
        synchronised: whether the kernel says that `wall` is synchronised; None where it can't be asked.
    """

    wall: Callable[[], float] = time.time
    since_boot: Callable[[], float] = since_boot
    boot_id: Callable[[], str] = boot_id
    synchronised: Callable[[], bool | None] = clock_synchronised

    def corrected(self, record: Record) -> Record:
        """The record with `corrected_at`, or the record itself where there is nothing to correct. Never raises."""
        if not _NOT_SYNCHRONISED.search(record.payload) or not self.synchronised():
            return record
        try:
            text = record.payload.decode()
            event = json.loads(text)
            origin = event["data"]["origin"]
            taken_at = self._taken_at(origin)
            stamp = Timestamp()
            stamp.FromMilliseconds(round(taken_at * 1000))
            origin["corrected_at"] = stamp.ToJsonString()
            payload = _added(text, event)
        except (ValueError, OverflowError, KeyError, TypeError, RecursionError):
            return record  # no event of the contract; the cloud says what it thinks of it
        return replace(record, payload=payload) if len(payload) <= MAX_EVENT_BYTES else record

    def _taken_at(self, origin: dict[str, object]) -> float:
        """Seconds since 1970. Raises ValueError, KeyError or TypeError where that can't be told."""
        clock = origin["clock"]
        if not isinstance(clock, dict) or clock["synchronised"] is not False or "corrected_at" in origin:
            raise ValueError("nothing to correct")
        if not clock["boot_id"] or clock["boot_id"] != self.boot_id():
            raise ValueError("of another boot")
        age_s: float = self.since_boot() - clock["monotonic_s"]
        if not (math.isfinite(age_s) and age_s >= 0):
            raise ValueError("taken in the future of this boot")
        return self.wall() - age_s


def _added(text: str, wanted: dict[str, object]) -> bytes:
    """The text with origin's new last member, and no other byte changed. Raises ValueError if it can't be placed."""
    member = f',"corrected_at":"{wanted["data"]["origin"]["corrected_at"]}"'  # type: ignore[index]
    for found in _ORIGIN.finditer(text):
        value, end = json.JSONDecoder().raw_decode(text, found.end())
        if isinstance(value, dict) and value:
            tried = text[: end - 1] + member + text[end - 1 :]
            if json.loads(tried) == wanted:  # another object called origin may stand in the event
                return tried.encode()
    raise ValueError("origin is not written in a way that can be added to")


THIS_DEVICE = DeviceClock()
