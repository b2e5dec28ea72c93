# SPDX-License-Identifier: Apache-2.0
"""A source that plays sensor records: one part per operating cycle, the window of the last records of that machine.

The file is a CSV (plain or .gz) with a header: `engine`, `cycle`, then one column per channel; machine after machine.
A value that is no number becomes NaN, which inference refuses with "not_finite".
"""

import asyncio
import contextlib
import csv
import gzip
import itertools
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TextIO, cast

from linewatch_capture.pace import Pace
from linewatch_capture.parts import NotInspected, Part, Window

PERIODS_KEPT = 20
"""Periods in the rolling mean of the machine's pace."""


class UnfitRecords(Exception):
    """The file is no CSV of sensor records, or it is empty."""


@dataclass(frozen=True, slots=True)
class SensorRecord:
    """One operating cycle of one machine. `cycle` is None when the counter is no whole number."""

    engine: str
    cycle: int | None
    values: tuple[float, ...]


def channels_of(path: Path) -> tuple[str, ...]:
    """The channels' names, from the header. Raises UnfitRecords, also when no record follows."""
    try:
        with _opened(path) as lines:
            header = next(lines, [])
            if header[:2] != ["engine", "cycle"] or len(header) < 3:
                raise UnfitRecords(
                    f"{path}: the header must be engine,cycle,<channels>, it is {','.join(header)[:80]!r}"
                )
            if next(lines, None) is None:
                raise UnfitRecords(f"{path} has a header and no record")
            return tuple(header[2:])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnfitRecords(f"{path} can't be read: {error}") from error


def read_records(path: Path, channels: int) -> Iterator[SensorRecord]:
    """The records in the file's order. A row that is short or holds no number is filled with NaN, never left out."""
    with _opened(path) as lines:
        next(lines)
        for row in lines:
            engine, cycle, *values = ([*row, "", ""])[: max(2, len(row))]
            numbers = [_number(text) for text in values[:channels]]
            numbers += [math.nan] * (channels - len(numbers))
            yield SensorRecord(engine, int(cycle) if cycle.isdecimal() else None, tuple(numbers))


class MachineWindow:
    """The last records of one machine. A new machine starts a new window; nothing is mixed across the change."""

    def __init__(self, rows: int, channels: tuple[str, ...]) -> None:
        self._rows = rows
        self._channels = channels
        self._engine: str | None = None
        self._recent: deque[SensorRecord] = deque(maxlen=rows)

    def add(self, record: SensorRecord) -> Window | NotInspected:
        """The window that ends with this record, left-padded with the machine's first one while it is young.

        A record whose cycle does not count up is refused and stays out of later windows.
        """
        if record.engine != self._engine:
            self._engine = record.engine
            self._recent.clear()
        last = self._recent[-1].cycle if self._recent else None
        if record.cycle is None or (last is not None and record.cycle <= last):
            message = (
                f"cycle {record.cycle} after {last}; the counter must rise, check the machine's recorder"
            )
            return NotInspected("cycle_order", message)
        self._recent.append(record)
        padding = self._rows - len(self._recent)
        filled = [self._recent[0]] * padding + list(self._recent)
        return Window(
            records=tuple(row.values for row in filled),
            channels=self._channels,
            cycles=tuple(row.cycle or 0 for row in filled),
            padded_rows=padding,
        )

    def restart(self) -> None:
        """Forgets the machine: the file begins again."""
        self._engine = None
        self._recent.clear()


class PlayedRecords:
    """Plays a file of records, once or for ever. The position counts parts."""

    def __init__(
        self, path: Path, rows: int, rate: float, stop: asyncio.Event,
        *, live: bool = False, loop: bool = False, limit: int = 0, cycle_period_s: float = 0.0,
    ) -> None:  # fmt: skip
        """Raises UnfitRecords. `rows` is the window's length; `limit` ends at that position, 0: none."""
        self.name = f"records:{path.resolve()}"
        self.can_wait = not live
        self._path = path
        self._channels = channels_of(path)
        self._window = MachineWindow(rows, self._channels)
        self._pace = Pace(rate, by_the_clock=live)
        self._stop = stop
        self._loop = loop
        self._limit = limit
        self._fixed_period_s = cycle_period_s or None
        self._periods: deque[float] = deque(maxlen=PERIODS_KEPT)
        self._last_taken: float | None = None

    async def parts(self, position: int) -> AsyncIterator[Part]:
        """The records from `position` on; those before it are read again, for their place in the window."""
        for index, record in self._passes(position):
            if self._limit and index >= self._limit:
                return
            window = self._window.add(record)
            if index < position:
                if index % 1000 == 0:
                    await asyncio.sleep(0)
                continue
            if not await self._pace.next(self._stop):
                return
            refused = window if isinstance(window, NotInspected) else None
            content = None if isinstance(window, NotInspected) else window
            part_id = f"{record.engine} cycle {record.cycle if record.cycle is not None else '?'}"
            yield Part(part_id, content, index + 1, refused, cycle_period_s=self._cycle_period_s())

    def _passes(self, position: int) -> Iterator[tuple[int, SensorRecord]]:
        """Every record with its place in the whole play, from the beginning of the round that holds `position`."""
        index = itertools.count()
        if self._loop:
            length = sum(1 for _ in read_records(self._path, len(self._channels)))
            index = itertools.count(position // length * length)
        while True:
            for record in read_records(self._path, len(self._channels)):
                yield next(index), record
            if not self._loop:
                return
            self._window.restart()

    def _cycle_period_s(self) -> float | None:
        """The machine's period as set, else the mean of the last ones; None before the second record."""
        now = time.monotonic()
        if self._last_taken is not None:
            self._periods.append(now - self._last_taken)
        self._last_taken = now
        return self._fixed_period_s or (fmean(self._periods) if self._periods else None)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Iterator[list[str]]]:
    """A CSV file as rows; empty lines are none."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as text:
        yield (row for row in csv.reader(cast("TextIO", text)) if row)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
