# SPDX-License-Identifier: Apache-2.0
"""A part, and what the model says of it, in this service's own words; messages turns them into protobuf."""

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A JPEG or PNG file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """Pixels (height, width) grey or (height, width, 3) in the order B, G, R."""

    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Window:
    """Records (rows, channels), oldest first; the first `padded_rows` repeat the first real one."""

    values: Floats
    padded_rows: int = 0


Part = Encoded | Raw | Window


class Result(enum.StrEnum):
    """The part's disposition."""

    OK = "OK"
    NG = "NG"
    REVIEW = "REVIEW"


@dataclass(frozen=True, slots=True)
class Region:
    """One connected place of a defect, in pixels of the source; `score` is the highest heat inside."""

    label: str
    score: float
    x: float
    y: float
    width: float
    height: float
    area_px: float


@dataclass(frozen=True, slots=True)
class TimeToFailure:
    """p10 <= p50 <= p90 in `unit`."""

    p10: float
    p50: float
    p90: float
    unit: str
    horizon: float
    beyond_horizon: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model says of one part; the fields mean what verdict.proto says."""

    result: Result
    label: str
    score: float
    severity: float
    failure_mode: str | None
    class_scores: tuple[tuple[str, float], ...]
    regions: tuple[Region, ...] = ()
    time_to_failure: TimeToFailure | None = None
    quality_flags: tuple[str, ...] = ()

    @property
    def is_anomalous(self) -> bool:
        """Whether it is anything but OK."""
        return self.result is not Result.OK


@dataclass(frozen=True, slots=True)
class Reference:
    """Which model judged."""

    name: str
    version: str
    digest: str
    variant: str
    execution_provider: str
    # "sha256:" and 64 hex digits; empty where the package does not state its training data.
    training_data_digest: str = ""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds."""

    queue_s: float = 0.0
    preprocess_s: float = 0.0
    predict_s: float = 0.0
    postprocess_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Inspected:
    """A judged part. `heatmap` is (h, w) 0..255, the highest class at each cell, where the model has one."""

    verdict: Verdict
    timings: Timings
    heatmap: Pixels | None = field(default=None, repr=False)
