# SPDX-License-Identifier: Apache-2.0
"""Metrics of a vision line, pooled and per product family, and the reader of the labelled folders they need.

The folder holds labels.csv (file, split, verdict, one 0/1 column per class, module) and masks/SPLIT/NAME.png.
Positive means defective throughout: an escape is a bad part passed, overkill a good part rejected.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
import cv2

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Mask value of each defect class of data/pv-el-cells.
PV_MASK_VALUES: Mapping[str, int] = {"crack": 3, "cross": 2, "dark": 1}
FALSE_REJECT_RATES = (0.01, 0.02, 0.05)
#: Smaller patches of a mask are left-overs of its drawing, not defects to be found (px of the source image).
MIN_BLOB_PX = 10


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One row of labels.csv; `classes` holds the names of the defect classes present."""

    file: str
    split: str
    module: str
    is_defect: bool
    classes: frozenset[str]


@dataclass(frozen=True, slots=True)
class RegionCounts:
    """Pixels and blobs of one image, each [K] in the order of the classes."""

    true_px: NDArray[np.int64]
    predicted_px: NDArray[np.int64]
    shared_px: NDArray[np.int64]
    blobs: NDArray[np.int64]
    found_blobs: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class JudgedImage:
    """What the model said of one image: calibrated score, class scores [K], regions against the mask."""

    image: LabelledImage
    score: float
    class_scores: Floats
    regions: RegionCounts


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Frozen before the evaluated split is seen: score that rejects a part, score that names a class [K]."""

    ng: float
    classes: Floats


def product_family(module: str) -> str:
    """Module name without its serial number: FSEC_5GC12 -> FSEC_5GC."""
    return re.sub(r"\d+$", "", module)


def read_labels(
    root: Path, split: str, classes: Sequence[str] = tuple(PV_MASK_VALUES)
) -> list[LabelledImage]:
    """Rows of one split in file order; ValueError names the split when it has none."""
    with (root / "labels.csv").open(newline="") as stream:
        images = [
            LabelledImage(
                file=row["file"],
                split=split,
                module=row["module"],
                is_defect=row["verdict"] != "ok",
                classes=frozenset(name for name in classes if row[name] == "1"),
            )
            for row in csv.DictReader(stream)
            if row["split"] == split
        ]
    if not images:
        raise ValueError(f"{root / 'labels.csv'} has no rows of split {split!r}")
    return images


def read_mask(root: Path, image: LabelledImage, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Mask [H,W] of an image; all background where no mask file was drawn. ValueError when its size differs."""
    path = root / "masks" / image.split / f"{Path(image.file).stem}.png"
    if not path.exists():
        return np.zeros((shape[0], shape[1]), np.uint8)
    mask: Any = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None or mask.shape != (shape[0], shape[1]):
        raise ValueError(f"{path.name}: not a mask of {shape[1]}x{shape[0]} px")
    return np.asarray(mask, dtype=np.uint8)


def count_regions(
    heatmap: NDArray[np.float32],
    mask: NDArray[np.uint8],
    mask_values: Sequence[int],
    thresholds: Sequence[float],
) -> RegionCounts:
    """Compare a heat map [K,h,w], scaled up to the mask, with the mask [H,W], class by class.

    A blob is a connected patch (8 neighbours) of at least MIN_BLOB_PX; it is found when one predicted pixel of its class touches it.
    """
    counts = np.zeros((5, len(mask_values)), np.int64)
    height, width = mask.shape
    for k, (value, threshold) in enumerate(zip(mask_values, thresholds, strict=True)):
        plane = cv2.resize(heatmap[k].astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        predicted = np.asarray(plane >= threshold)
        true = mask == value
        _, labels, stats, _ = cv2.connectedComponentsWithStats(true.astype(np.uint8), connectivity=8)
        large = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= MIN_BLOB_PX) + 1
        touched = np.unique(labels[predicted & true])
        found = np.intersect1d(large, touched).size
        counts[:, k] = (true.sum(), predicted.sum(), (true & predicted).sum(), large.size, found)
    return RegionCounts(*counts)


def auroc(is_defect: Bools, scores: Floats) -> float | None:
    """Chance that a bad part scores above a good one, ties half; None when one kind is missing."""
    bad, good = scores[is_defect], scores[~is_defect]
    if not bad.size or not good.size:
        return None
    above = (bad[:, None] > good[None]).mean()
    equal = (bad[:, None] == good[None]).mean()
    return float(above + 0.5 * equal)


def average_precision(is_defect: Bools, scores: Floats) -> float | None:
    """Precision summed over the steps of recall; equal scores are one step. None without a bad part."""
    if not is_defect.any():
        return None
    cuts = np.unique(scores)[::-1]
    found = np.array([(is_defect & (scores >= cut)).sum() for cut in cuts])
    rejected = np.array([(scores >= cut).sum() for cut in cuts])
    steps = np.diff(np.concatenate([[0], found])) / is_defect.sum()
    return float((steps * found / rejected).sum())


def f1_score(true: Bools, predicted: Bools) -> float | None:
    """2 TP / (2 TP + FP + FN); None when nothing is true and nothing predicted."""
    return _f1(int((true & predicted).sum()), int(predicted.sum()), int(true.sum()))


def _f1(shared: int, predicted: int, true: int) -> float | None:
    return 2.0 * shared / (predicted + true) if predicted + true else None


def recall_at_false_reject_rate(is_defect: Bools, scores: Floats, rate: float) -> float | None:
    """Largest share of bad parts rejected by any threshold that rejects at most `rate` of the good ones."""
    bad, good = scores[is_defect], np.sort(scores[~is_defect])[::-1]
    if not bad.size or not good.size:
        return None
    allowed = int(np.floor(rate * good.size + 1e-9))
    # Everything above the first good part that must pass may be rejected.
    return 1.0 if allowed >= good.size else float((bad > good[allowed]).mean())


def _class_metrics(
    judged: Sequence[JudgedImage], name: str, k: int, threshold: float
) -> dict[str, float | None]:
    true = np.array([name in j.image.classes for j in judged])
    predicted = np.array([j.class_scores[k] >= threshold for j in judged])
    blobs = sum(int(j.regions.blobs[k]) for j in judged)
    found = sum(int(j.regions.found_blobs[k]) for j in judged)
    shared, marked, drawn = (
        sum(int(px[k]) for px in planes)
        for planes in (
            [j.regions.shared_px for j in judged],
            [j.regions.predicted_px for j in judged],
            [j.regions.true_px for j in judged],
        )
    )
    return {
        "f1": f1_score(true, predicted),
        "blob_recall": found / blobs if blobs else None,
        "pixel_f1": _f1(shared, marked, drawn),
    }


def group_metrics(
    judged: Sequence[JudgedImage], class_names: Sequence[str], thresholds: Thresholds
) -> dict[str, Any]:
    """The keys of one group of parts; a figure the group cannot give (no bad part in it, say) is None."""
    is_defect = np.array([j.image.is_defect for j in judged], dtype=np.bool_)
    scores = np.array([j.score for j in judged], dtype=np.float64)
    rejected = scores >= thresholds.ng
    return {
        "auroc": auroc(is_defect, scores),
        "ap": average_precision(is_defect, scores),
        "f1": f1_score(is_defect, rejected),
        "escape_rate": float((~rejected[is_defect]).mean()) if is_defect.any() else None,
        "overkill_rate": float(rejected[~is_defect].mean()) if (~is_defect).any() else None,
        "recall_at_frr": {
            str(rate): recall_at_false_reject_rate(is_defect, scores, rate) for rate in FALSE_REJECT_RATES
        },
        "per_class": {
            name: _class_metrics(judged, name, k, float(thresholds.classes[k]))
            for k, name in enumerate(class_names)
        },
        "threshold": thresholds.ng,
        "n": len(judged),
    }


def evaluate(
    judged: Sequence[JudgedImage], class_names: Sequence[str], thresholds: Thresholds
) -> dict[str, Any]:
    """Pooled metrics, and the same per product family under `per_family`."""
    pooled = group_metrics(judged, class_names, thresholds)
    families = sorted({product_family(j.image.module) for j in judged})
    pooled["per_family"] = {
        family: group_metrics(
            [j for j in judged if product_family(j.image.module) == family], class_names, thresholds
        )
        for family in families
    }
    return pooled
