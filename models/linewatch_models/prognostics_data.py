# SPDX-License-Identifier: Apache-2.0
"""Read engines laid out like the C-MAPSS folder, whole or truncated, and build the windows that a device builds.

Layout: data/<split>.csv.gz (engine, cycle, 24 channels), engines.csv (engine, split, life_cycles, failure_mode)
and test_points.csv (engine, cut_cycle, true_rul).
"""

import csv
import gzip
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WINDOW = 50  # cycles
CHANNELS = 24


@dataclass(frozen=True, slots=True)
class Engine:
    """One machine's records; `life_cycles` is None where nobody knows when it failed."""

    name: str
    cycles: NDArray[np.int64]
    records: NDArray[np.float32]  # [T, 24]
    life_cycles: int | None
    failure_mode: str | None

    @property
    def run_to_failure(self) -> bool:
        """Whether the records reach the failure."""
        return self.life_cycles is not None and self.life_cycles <= int(self.cycles[-1])

    @property
    def subset(self) -> str:
        """FD001 to FD004, the part of the name before the dash."""
        return self.name.split("-", maxsplit=1)[0]

    def remaining(self) -> NDArray[np.float64]:
        """Return the cycles left at each record, NaN where unknown."""
        if self.life_cycles is None:
            return np.full(len(self.cycles), np.nan)
        return (self.life_cycles - self.cycles).astype(np.float64)


@dataclass(frozen=True, slots=True)
class CutPoint:
    """A question: records up to `cut_cycle` are seen, `true_rul` cycles are left."""

    engine: str
    cut_cycle: int
    true_rul: float


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _records_file(data_dir: Path, split: str) -> Path:
    for path in (data_dir / "data" / f"{split}.csv.gz", data_dir / f"{split}.csv.gz"):
        if path.exists():
            return path
    raise FileNotFoundError(
        f"no data/{split}.csv.gz under {data_dir}: give a folder laid out like data/cmapss"
    )


def read_engines(data_dir: Path, split: str) -> list[Engine]:
    """Read the engines of one split, records in order of cycle.

    Raises:
        FileNotFoundError: there is no such split.
        ValueError: a row has not 24 channels.
    """
    told = {row["engine"]: row for row in _rows(data_dir / "engines.csv")}
    split_is_told = any(row.get("split") == split for row in told.values())
    ends = {point.engine: point.cut_cycle + point.true_rul for point in read_test_points(data_dir)}
    engines: list[Engine] = []
    with gzip.open(_records_file(data_dir, split), "rt", encoding="utf-8") as file:
        rows = itertools.islice(file, 1, None)
        for name, group in itertools.groupby(rows, key=lambda line: line.split(",", 1)[0]):
            row = told.get(name, {})
            if split_is_told and row and row.get("split") != split:
                continue
            table = np.array([line.rstrip().split(",")[1:] for line in group], dtype=np.float64)
            if table.shape[1] != 1 + CHANNELS:
                raise ValueError(f"{name}: {table.shape[1] - 1} channels, {CHANNELS} expected")
            table = table[np.argsort(table[:, 0], kind="stable")]
            life = max(float(row.get("life_cycles") or 0), ends.get(name, 0.0))
            engines.append(
                Engine(
                    name=name,
                    cycles=table[:, 0].astype(np.int64),
                    records=table[:, 1:].astype(np.float32),
                    life_cycles=int(life) or None,
                    failure_mode=row.get("failure_mode") or None,
                )
            )
    return engines


def read_test_points(data_dir: Path) -> list[CutPoint]:
    """Read test_points.csv; a folder without one has none."""
    rows = _rows(data_dir / "test_points.csv")
    return [CutPoint(row["engine"], int(row["cut_cycle"]), float(row["true_rul"])) for row in rows]


def make_cut_points(engines: Sequence[Engine]) -> list[CutPoint]:
    """Cut each engine run to failure once, at 35 to 95 % of its life, the same cycle on every run."""
    whole = sorted((engine for engine in engines if engine.run_to_failure), key=lambda engine: engine.name)
    points = []
    for index, engine in enumerate(whole):
        share = 0.35 + 0.60 * (
            (index * 0.6180339887) % 1.0
        )  # golden ratio: even spread without a random source
        cut = int(engine.cycles[max(0, round(share * len(engine.cycles)) - 1)])
        points.append(CutPoint(engine.name, cut, float((engine.life_cycles or 0) - cut)))
    return points


def windows(engine: Engine) -> NDArray[np.float32]:
    """Return [T, 50, 24]: for each record the last 50 up to it, left-padded with the first record."""
    padded = np.concatenate([np.repeat(engine.records[:1], WINDOW - 1, axis=0), engine.records])
    view = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=0)
    return np.ascontiguousarray(view.transpose(0, 2, 1))
