# SPDX-License-Identifier: Apache-2.0
"""Vision models on labelled folders, from the file's bytes to the verdict."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linewatch_inference.model import Model
from linewatch_inference.preprocess import decode
from linewatch_inference.verdict import Encoded, Result, Timings
from linewatch_models import vision_metrics
from linewatch_models.vision_metrics import PV_MASK_VALUES, JudgedImage, LabelledImage, Thresholds

SUFFIXES = (".jpg", ".jpeg", ".png")


def segmentation_figures(model: Model, data_dir: Path, split: str) -> dict[str, Any]:
    """The metrics of vision_metrics, and latency.

    Raises:
        FileNotFoundError, ValueError: the folder has no labels.csv and masks for this model's classes.
    """
    description = model.description
    unknown = set(description.defects) - PV_MASK_VALUES.keys()
    if unknown:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: no mask value is known for this class; see vision_metrics.PV_MASK_VALUES"
        )
    timings: list[Timings] = []
    judged: list[JudgedImage] = []
    results: list[Result] = []
    for image in vision_metrics.read_labels(data_dir, split, description.defects):
        verdict, outputs, taken = model.judged(Encoded((data_dir / image.file).read_bytes()))
        timings.append(taken)
        results.append(verdict.result)
        heatmap, class_scores = outputs["heatmap"][0], np.asarray(outputs["class_scores"][0], np.float64)
        judged.append(
            _compared(model, data_dir, image, verdict.score, class_scores, np.asarray(heatmap, np.float32))
        )
    levels = description.thresholds
    thresholds = Thresholds(
        levels.ng, np.array([levels.class_.get(label, 0.5) for label in description.defects])
    )
    figures = vision_metrics.evaluate(judged, description.defects, thresholds)
    figures["review_rate"] = results.count(Result.REVIEW) / len(results)
    figures["latency_ms"] = latency_ms(timings)
    return figures


def _compared(
    model: Model, data_dir: Path, image: LabelledImage, score: float,
    class_scores: vision_metrics.Floats, heatmap: np.typing.NDArray[np.float32],
) -> JudgedImage:  # fmt: skip
    defects = model.description.defects
    size = _size(data_dir / image.file)
    mask = vision_metrics.read_mask(data_dir, image, size)
    region = model.description.thresholds.region
    counts = vision_metrics.count_regions(
        heatmap,
        mask,
        [PV_MASK_VALUES[label] for label in defects],
        [region.get(label, 0.5) for label in defects],
    )
    return JudgedImage(image, score, class_scores, counts)


def _size(path: Path) -> tuple[int, int]:
    height, width = decode(path.read_bytes(), grey=True).shape[:2]
    return height, width


def classification_figures(model: Model, data_dir: Path, split: str) -> dict[str, Any]:
    """Accuracy and macro F1 over data_dir/split/<class>/, and latency.

    Raises:
        FileNotFoundError: there is no folder of any of the model's classes.
    """
    labels = model.description.output_classes
    true: list[int] = []
    told: list[int] = []
    timings: list[Timings] = []
    for index, label in enumerate(labels):
        for path in sorted((data_dir / split / label).glob("*")):
            if path.suffix.lower() in SUFFIXES:
                verdict, _, taken = model.judged(Encoded(path.read_bytes()))
                timings.append(taken)
                true.append(index)
                told.append(max(range(len(labels)), key=lambda one: verdict.class_scores[one][1]))
    if not true:
        raise FileNotFoundError(f"{data_dir / split}: has no folder with images of {', '.join(labels)}")
    per_class = {label: {"f1": _f1(true, told, index)} for index, label in enumerate(labels)}
    scores = [figures["f1"] for figures in per_class.values() if figures["f1"] is not None]
    return {
        "accuracy": sum(one == other for one, other in zip(true, told, strict=True)) / len(true),
        "macro_f1": sum(scores) / len(scores),
        "per_class": per_class,
        "latency_ms": latency_ms(timings),
        "n": len(true),
    }


def _f1(true: Sequence[int], told: Sequence[int], index: int) -> float | None:
    hits = sum(one == other == index for one, other in zip(true, told, strict=True))
    claims = true.count(index) + told.count(index)
    return 2.0 * hits / claims if claims else None


def latency_ms(timings: Sequence[Timings]) -> dict[str, float]:
    """Percentiles of a part's whole way through the device's code."""
    spent = [1000.0 * (one.preprocess_s + one.predict_s + one.postprocess_s) for one in timings]
    return {f"p{rank}": round(float(np.percentile(spent, rank)), 3) for rank in (50, 95, 99)}
