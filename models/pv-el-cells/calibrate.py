# SPDX-License-Identifier: Apache-2.0
"""Turn logits into probabilities and choose the thresholds, on the validation split only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from linewatch_models.vision_metrics import Bools, Floats

#: At most this share of all parts may lie in the grey zone that a person looks at.
REVIEW_SHARE = 0.10
#: Below this probability a part is never sent to review, however empty the grey zone is.
REVIEW_FLOOR = 0.05


@dataclass(frozen=True, slots=True)
class Platt:
    """probability = sigmoid(slope * logit + offset)."""

    slope: float
    offset: float

    def __call__(self, logits: Floats) -> Floats:
        """Logits -> probabilities."""
        return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * logits + self.offset))), dtype=np.float64)


def fit_platt(logits: Floats, true: Bools) -> Platt:
    """Maximum likelihood with Platt's softened targets, by Newton's steps, damped.

    The softened targets, (n+ + 1)/(n+ + 2) and 1/(n- + 2), keep a split without errors from calibrating to certainty.
    """
    n_true, n_false = int(true.sum()), int((~true).sum())
    target = np.where(true, (n_true + 1.0) / (n_true + 2.0), 1.0 / (n_false + 2.0))
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-(design @ weights)))
        gradient = design.T @ (p - target)
        curvature = (design * (p * (1.0 - p) + 1e-6)[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-4 * np.eye(2), gradient)
        weights = weights - step * min(1.0, 2.0 / (np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return Platt(float(weights[0]), float(weights[1]))


def f1_threshold(true: Bools, scores: Floats) -> float:
    """Threshold of the best F1 for calibrated scores: half the best F1 that they reach.

    That is where F1 is best in expectation (Lipton, Elkan, Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize
    F1 Measure", ECML 2014). The place of the maximum itself hangs on single parts: a split holds a few dozen bad ones, and
    on val F1 differs by less than one part between .45 and .8.
    """
    levels = np.unique(scores)
    hits = np.array([np.sum(true & (scores >= cut)) for cut in levels])
    rejected = np.array([np.sum(scores >= cut) for cut in levels])
    return float(np.max(2.0 * hits / (rejected + true.sum())) / 2.0)


def review_threshold(scores: Floats, ng: float) -> float:
    """Lower end of the grey zone: as low as REVIEW_SHARE of the parts allows, never under REVIEW_FLOOR."""
    below = np.sort(scores[scores < ng])[::-1]
    room = int(REVIEW_SHARE * scores.size)
    lowest = float(below[room]) if room < below.size else 0.0
    return float(min(max(lowest + 1e-3, REVIEW_FLOOR), ng))


def calibration_error(true: Bools, probabilities: Floats, bins: int = 10) -> float:
    """Expected calibration error over equally filled bins: mean |share of bad parts - mean probability|."""
    order = np.argsort(probabilities)
    parts = np.array_split(order, bins)
    gaps = [abs(true[part].mean() - probabilities[part].mean()) * part.size for part in parts if part.size]
    return float(sum(gaps) / true.size)
