# SPDX-License-Identifier: Apache-2.0
"""The turbofan network: raw engineering units in, remaining life, failure type and risk out.

Everything the device would otherwise have to know is in the graph: which of six operating regimes a record was taken
in, the normalisation within it, the average over the members, and the calibration of intervals and probabilities.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

WINDOW = 50  # cycles
RUL_CAP = 125.0  # cycles
REGIMES = ((0.0, 0.0, 100.0), (10.0, 0.25, 100.0), (20.0, 0.70, 100.0), (25.0, 0.62, 60.0), (35.0, 0.84, 100.0), (42.0, 0.84, 100.0))  # fmt: skip
REGIME_SCALE = (10.0, 0.25, 20.0)  # kft, Mach, %: makes the three settings weigh alike in the distance
SENSORS = (
    2,
    3,
    4,
    7,
    8,
    9,
    11,
    12,
    13,
    14,
    15,
    17,
    20,
    21,
)  # s-numbers of the 14 channels that carry information
FEATURES = len(SENSORS) + len(REGIMES)
HEADS = 3 + 3 + 1  # mid, width below, width above; none, HPC, FAN; fails within 30 cycles


class Normaliser(nn.Module):
    """Turn raw records [..., 24] into 14 within-regime z-scores and the regime one-hot [..., 20]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.tensor(REGIMES) / torch.tensor(REGIME_SCALE))
        self.register_buffer("setting_scale", torch.tensor(REGIME_SCALE))
        self.register_buffer("mean", torch.zeros(len(REGIMES), len(SENSORS)))
        self.register_buffer("inverse_std", torch.ones(len(REGIMES), len(SENSORS)))

    def regime(self, records: Tensor) -> Tensor:
        """Return the one-hot [..., 6] of the nearest operating point."""
        gap = (records[..., :3] / self.setting_scale).unsqueeze(-2) - self.centroids
        nearest = (gap * gap).sum(-1).argmin(-1, keepdim=True)
        return (nearest == torch.arange(len(REGIMES), device=records.device)).float()

    def fit(self, records: Tensor) -> None:
        """Learn mean and standard deviation of each channel within each regime."""
        regime = self.regime(records).argmax(-1)
        sensors = records[:, [2 + number for number in SENSORS]].double()
        for index in range(len(REGIMES)):
            inside = sensors[regime == index]
            self.mean[index] = inside.mean(0).float()
            self.inverse_std[index] = (1 / inside.std(0).clamp_min(1e-4)).float()

    def forward(self, records: Tensor) -> Tensor:
        """Return features [..., 20] of records [..., 24]."""
        one_hot = self.regime(records)
        sensors = torch.cat([records[..., 2 + number : 3 + number] for number in SENSORS], dim=-1)
        # The two products pick the regime's row: no gather, and rows of other regimes are multiplied by exactly 0.
        scores = (sensors - one_hot @ self.mean) * (one_hot @ self.inverse_std)
        return torch.cat([scores.clamp(-8.0, 8.0), one_hot], dim=-1)


class TrendMember(nn.Module):
    """Learned averages and slopes over the window for each channel, then a small perceptron."""

    def __init__(self, filters: int = 12, hidden: int = 96, dropout: float = 0.2) -> None:
        super().__init__()
        self.time = nn.Linear(WINDOW, filters, bias=False)
        with torch.no_grad():
            age = torch.arange(WINDOW - 1, -1, -1).float()
            for row in range(filters):
                reach = (3.0, 6.0, 12.0, 25.0, 50.0, 100.0)[row % 6]
                weight = torch.exp(-age / reach)
                if row >= 6:  # a slope: recent minus older
                    weight = (
                        weight / weight.sum()
                        - torch.exp(-age / (2 * reach)) / torch.exp(-age / (2 * reach)).sum()
                    )
                    weight = weight / weight.abs().sum()
                else:
                    weight = weight / weight.sum()
                self.time.weight[row] = weight + 0.002 * torch.randn(WINDOW)
        self.body = nn.Sequential(
            nn.Linear(filters * FEATURES, hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, 64), nn.GELU(), nn.Dropout(dropout), nn.Linear(64, HEADS),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Return heads [N, 7] of features [N, 50, 20]."""
        return self.body(self.time(features.transpose(1, 2)).flatten(1))


class ConvMember(nn.Module):
    """Dilated convolutions over the cycles, pooled over several reaches back from the present."""

    def __init__(self, width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(FEATURES, width, 5, padding=2), nn.GELU(),
            nn.Conv1d(width, width, 5, padding=4, dilation=2), nn.GELU(),
            nn.Conv1d(width, width, 5, padding=8, dilation=4), nn.GELU(),
        )  # fmt: skip
        pooling = torch.zeros(WINDOW, 5)
        for column, reach in enumerate((3, 8, 16, 30, 50)):
            pooling[-reach:, column] = 1 / reach
        self.pooling = nn.Parameter(pooling)
        self.body = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(5 * width, 96),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(96, HEADS),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return heads [N, 7] of features [N, 50, 20]."""
        return self.body((self.convolutions(features.transpose(1, 2)) @ self.pooling).flatten(1))


MEMBERS = {"trend": TrendMember, "conv": ConvMember}


def ordered_rul(heads: Tensor) -> Tensor:
    """Return [N, 3] p10 <= mid <= p90 in cycles from the first three heads."""
    mid = RUL_CAP * (0.6 + heads[:, 0:1])
    below = 20.0 * nn.functional.softplus(heads[:, 1:2])
    above = 20.0 * nn.functional.softplus(heads[:, 2:3])
    return torch.cat([mid - below, mid, mid + above], dim=1)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted on validation engines; interval widths are scaled, linearly in the mid value, to a true 80 %."""

    below: tuple[float, float] = (1.0, 1.0)  # width factor at mid 0 and at mid 125
    above: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0  # cycles added to the mid value
    fail_slope: float = 1.0  # Platt scaling of the logit of p_fail_30
    fail_offset: float = 0.0
    mode_slope: float = 1.0  # inverse temperature of failure_mode_prob


class Ensemble(nn.Module):
    """The exported graph: `window` [N, 50, 24] to rul, failure_mode_prob, p_fail_30, severity."""

    def __init__(self, normaliser: Normaliser, members: list[nn.Module], calibration: Calibration) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.members = nn.ModuleList(members)
        self.calibration = calibration

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return rul [N, 3], failure_mode_prob [N, 3], p_fail_30 [N], severity [N]."""
        features = self.normaliser(window)
        raw = [member(features) for member in self.members]
        rul = self.calibrated_rul(torch.stack([ordered_rul(heads) for heads in raw]).mean(0))
        mode = torch.stack([heads[:, 3:6] for heads in raw]).mean(0) * self.calibration.mode_slope
        fail = torch.stack([heads[:, 6] for heads in raw]).mean(0)
        p_fail = torch.sigmoid(self.calibration.fail_slope * fail + self.calibration.fail_offset)
        return rul, torch.softmax(mode, dim=1), p_fail, 1.0 - rul[:, 1] / RUL_CAP

    def calibrated_rul(self, rul: Tensor) -> Tensor:
        """Return p10, p50, p90 within 0..125; the order holds because both widths stay positive."""
        calibration = self.calibration
        mid = (rul[:, 1:2] + calibration.shift).clamp(0.0, RUL_CAP)
        share = mid / RUL_CAP
        below = calibration.below[0] + (calibration.below[1] - calibration.below[0]) * share
        above = calibration.above[0] + (calibration.above[1] - calibration.above[0]) * share
        low = mid - below * (rul[:, 1:2] - rul[:, 0:1])
        high = mid + above * (rul[:, 2:3] - rul[:, 1:2])
        return torch.cat([low, mid, high], dim=1).clamp(0.0, RUL_CAP)
