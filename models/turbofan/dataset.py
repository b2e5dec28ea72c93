# SPDX-License-Identifier: Apache-2.0
"""Windows of train or val engines with their labels, and the disturbances they are trained under."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from network import SENSORS, Normaliser
from torch import Tensor

from linewatch_models.prognostics_data import WINDOW, read_engines
from linewatch_models.prognostics_metrics import LABELS, RUL_CAP

FAILS_SOON = 30  # cycles
SHORT_HISTORY = 0.05  # share of training windows that are given only their last 10 to 49 records


@dataclass(frozen=True, slots=True)
class Windows:
    """Records of all engines end to end; a window is the 50 records up to one of them, never across engines."""

    features: Tensor  # [R, 20] normalised
    first: Tensor  # [R] row of the engine's first record
    engine: Tensor  # [R] number of the engine
    subset: Tensor  # [R] 1..4
    left: Tensor  # [R] cycles left, uncapped
    rul: Tensor  # [R] capped at 125
    mode: Tensor  # [R] 0 none, 1 HPC, 2 FAN
    soon: Tensor  # [R] 1.0 if it fails within 30 cycles

    def __len__(self) -> int:
        return len(self.rul)

    def window(self, rows: Tensor, oldest: Tensor | None = None) -> Tensor:
        """Return [N, 50, 20]; rows before `oldest` (default: the engine's first) repeat it."""
        start = self.first[rows] if oldest is None else oldest
        index = rows[:, None] + torch.arange(1 - WINDOW, 1)
        return self.features[torch.maximum(index, start[:, None])]


def read_windows(
    data_dir: Path, split: str, normaliser: Normaliser | None = None
) -> tuple[Windows, Normaliser]:
    """Read a split; the normaliser is fitted on it unless one is given."""
    engines = read_engines(data_dir, split)
    records = torch.from_numpy(np.concatenate([engine.records for engine in engines]))
    if normaliser is None:
        normaliser = Normaliser()
        normaliser.fit(records)
    lengths = torch.tensor([len(engine.cycles) for engine in engines])
    starts = torch.cumsum(lengths, 0) - lengths
    left = torch.from_numpy(np.concatenate([engine.remaining() for engine in engines])).float()
    mode = torch.tensor([LABELS.index(engine.failure_mode or "none") for engine in engines])
    subset = torch.tensor([int(engine.subset[-1]) for engine in engines])
    with torch.no_grad():
        features = normaliser(records)
    return Windows(
        features=features,
        first=starts.repeat_interleave(lengths),
        engine=torch.arange(len(engines)).repeat_interleave(lengths),
        subset=subset.repeat_interleave(lengths),
        left=left,
        rul=left.clamp_max(float(RUL_CAP)),
        mode=torch.where(left > RUL_CAP, 0, mode.repeat_interleave(lengths)),
        soon=(left <= FAILS_SOON).float(),
    ), normaliser


def sampling_weights(data: Windows) -> Tensor:
    """Weigh windows so that subsets and engines count more alike and the long healthy time less."""
    counts = torch.bincount(data.subset, minlength=5).float()
    weight = counts[data.subset].rsqrt()
    return weight * torch.where(data.left > RUL_CAP + 10, 0.6, 1.0)


def disturbed(data: Windows, rows: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Return training windows with channel noise, a small offset per channel and, some of them, a short history."""
    count = len(rows)
    oldest = data.first[rows]
    if SHORT_HISTORY > 0:
        cut = torch.rand(count, generator=generator) < SHORT_HISTORY
        kept = torch.randint(10, WINDOW, (count,), generator=generator)
        oldest = torch.where(cut, torch.maximum(oldest, rows - kept + 1), oldest)
    windows = data.window(rows, oldest)
    channels = len(SENSORS)
    spread = torch.randn(count, WINDOW, channels, generator=generator) * noise
    offset = torch.randn(count, 1, channels, generator=generator) * (0.3 * noise)
    windows[:, :, :channels] += spread + offset
    return windows
