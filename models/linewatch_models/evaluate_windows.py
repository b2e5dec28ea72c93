# SPDX-License-Identifier: Apache-2.0
"""Sensor models on run-to-failure records, with the device's own guards and post-processing."""

import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linewatch_inference.errors import PartRefused
from linewatch_inference.golden import padded_rows
from linewatch_inference.model import Model
from linewatch_inference.verdict import Timings, Window
from linewatch_inference.windows import checked_window
from linewatch_models import prognostics_data, prognostics_metrics
from linewatch_models.evaluate_images import latency_ms

TIMED_WINDOWS = 1000


def figures(model: Model, data_dir: Path, split: str) -> dict[str, Any]:
    """The metrics of prognostics_metrics, latency, and how many windows the guards would refuse, by reason."""
    horizon = model.description.horizon.horizon

    def predict(windows: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        outputs = dict(model.by_role(windows))
        rul = np.asarray(outputs["rul"], np.float64)
        severity = outputs.get("severity")
        return {
            "rul": rul,
            "failure_mode_prob": outputs["failure_mode_prob"],
            "p_fail_30": outputs.get("p_fail_30", np.full(len(rul), np.nan)),
            "severity": 1.0 - rul[:, 1] / horizon if severity is None else severity,
        }

    found = dict(prognostics_metrics.evaluate(predict, data_dir, split))
    engines = prognostics_data.read_engines(data_dir, split)
    refused: Counter[str] = Counter()
    timings: list[Timings] = []
    for values in itertools.chain.from_iterable(prognostics_data.windows(engine) for engine in engines):
        window = Window(values, padded_rows(values))
        try:
            checked_window(model.description, window)
        except PartRefused as error:
            refused[error.reason] += 1
            continue
        if len(timings) < TIMED_WINDOWS:
            timings.append(model.judged(window)[2])
    found["refused_windows"] = dict(refused)
    if timings:
        found["latency_ms"] = latency_ms(timings)
    return found
