# SPDX-License-Identifier: Apache-2.0
"""The graph's outputs as a verdict, by the thresholds of the package. Pure."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from linewatch_inference.errors import ModelFault
from linewatch_inference.metadata import Description, Thresholds
from linewatch_inference.verdict import Floats, Pixels, Region, Result, TimeToFailure, Verdict

MAX_REGIONS = 16
MIN_REGION_PX = 10.0
"""Smaller places, in pixels of the source, are noise of the heat map; vision_metrics counts blobs from here on, too."""

Outputs = Mapping[str, NDArray[np.generic]]
"""By role, each with the batch of one part in front."""


def judge(
    description: Description, outputs: Outputs, source_size: tuple[int, int], flags: tuple[str, ...]
) -> Verdict:
    """The verdict of one part.

    Args:
        description: of the package.
        outputs: what the graph gave.
        source_size: (height, width) of the frame; regions are scaled to it.
        flags: input-quality flags, passed on.

    Raises:
        ModelFault: the outputs are no answer, such as NaN or of another shape.
    """
    match description.model_type:
        case "segmentation":
            return _segmentation(description, outputs, source_size, flags)
        case "classification":
            return _classification(description, outputs, flags)
        case "prognostics":
            return _prognostics(description, outputs, flags)


def _segmentation(
    description: Description, outputs: Outputs, source_size: tuple[int, int], flags: tuple[str, ...]
) -> Verdict:
    score = _share(_part(outputs, "score", 1)[0])
    defects = _part(outputs, "class_scores", len(description.defects))
    result = disposition(description.thresholds, score)
    strongest = int(defects.argmax())
    label = description.good[0] if result is Result.OK else description.defects[strongest]
    class_scores = [
        (description.good[0], 1.0 - score),
        *zip(description.defects, map(_share, defects), strict=True),
    ]
    return Verdict(
        result, label, score,
        severity=_share(defects[strongest]),
        failure_mode=description.failure_modes.get(label) if result is not Result.OK else None,
        class_scores=tuple(class_scores),
        regions=() if result is Result.OK else regions(description, heat(description, outputs), source_size),
        quality_flags=flags,
    )  # fmt: skip


def _classification(description: Description, outputs: Outputs, flags: tuple[str, ...]) -> Verdict:
    labels = description.output_classes
    if "logits" in outputs:
        logits = _part(outputs, "logits", len(labels))
        raised = np.exp(logits - logits.max())
        shares = raised / raised.sum()
    else:
        shares = _part(outputs, "probabilities", len(labels))
    class_scores = tuple(zip(labels, map(_share, shares), strict=True))
    of_defects = {label: share for label, share in class_scores if label in description.defects}
    if not of_defects:
        raise ModelFault("every class is a good one")
    strongest = max(of_defects, key=lambda label: of_defects[label])
    if description.good:
        score = min(1.0, sum(of_defects.values()))
        result = disposition(description.thresholds, score)
    else:
        # A sorter: every part has a defect, the question is which one. Unsure goes to a person.
        score = 1.0
        sure = of_defects[strongest] >= description.thresholds.class_.get(strongest, 0.0)
        result = Result.NG if sure else Result.REVIEW
    good = [(share, label) for label, share in class_scores if label in description.good]
    label = max(good)[1] if result is Result.OK else strongest
    return Verdict(
        result, label, score,
        severity=of_defects[strongest],
        failure_mode=description.failure_modes.get(label) if result is not Result.OK else None,
        class_scores=class_scores,
        quality_flags=flags,
    )  # fmt: skip


def _prognostics(description: Description, outputs: Outputs, flags: tuple[str, ...]) -> Verdict:
    p10, p50, p90 = np.sort(_part(outputs, "rul", 3)).tolist()
    meaning = description.horizon
    modes = _part(outputs, "failure_mode_prob", len(description.output_classes))
    told = _part(outputs, "severity", 1)[0] if "severity" in outputs else 1.0 - p50 / meaning.horizon
    severity = _share(told)
    result = disposition(description.thresholds, severity)
    class_scores = tuple(zip(description.output_classes, map(_share, modes), strict=True))
    of_defects = {label: share for label, share in class_scores if label in description.defects}
    strongest = max(of_defects, key=lambda label: of_defects[label], default=description.good[0])
    label = description.good[0] if result is Result.OK else strongest
    return Verdict(
        result, label, severity, severity,
        failure_mode=description.failure_modes.get(label) if result is not Result.OK else None,
        class_scores=class_scores,
        # Half a unit: what would be printed as the horizon is beyond it.
        time_to_failure=TimeToFailure(
            p10, p50, p90, meaning.unit, meaning.horizon, beyond_horizon=p50 >= meaning.horizon - 0.5
        ),
        quality_flags=flags,
    )  # fmt: skip


def disposition(thresholds: Thresholds, score: float) -> Result:
    """OK < review <= REVIEW < ng <= NG."""
    if score >= thresholds.ng:
        return Result.NG
    return Result.REVIEW if score >= thresholds.review else Result.OK


def heat(description: Description, outputs: Outputs) -> Floats:
    """The heat map (defect classes, h, w), 0..1."""
    planes = np.asarray(outputs["heatmap"][0], np.float32)
    if planes.ndim != 3 or len(planes) != len(description.defects):
        raise ModelFault(f"output heatmap: shape {planes.shape}, {len(description.defects)} planes expected")
    if not np.isfinite(planes).all():
        raise ModelFault("output heatmap: no finite number")
    return planes


def heat_for_people(description: Description, outputs: Outputs) -> Pixels | None:
    """(h, w) 0..255, the highest class at each cell; None for a model without places."""
    if "heatmap" not in outputs:
        return None
    return np.asarray(np.rint(heat(description, outputs).max(axis=0).clip(0.0, 1.0) * 255.0), np.uint8)


def regions(description: Description, planes: Floats, source_size: tuple[int, int]) -> tuple[Region, ...]:
    """Connected places (8 neighbours) with heat >= the class's region threshold, highest score first, at most 16."""
    found: list[Region] = []
    height, width = source_size
    for label, plane in zip(description.defects, planes, strict=True):
        threshold = description.thresholds.region.get(label, 0.5)
        scale_x, scale_y = width / plane.shape[1], height / plane.shape[0]
        marked = np.asarray(plane >= threshold, np.uint8)
        count, places, stats, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
        for place in range(1, count):
            left, top, wide, high, area = (int(value) for value in stats[place])
            if area * scale_x * scale_y < MIN_REGION_PX:
                continue
            box = np.s_[top : top + high, left : left + wide]
            peak = float(plane[box][places[box] == place].max())
            found.append(
                Region(
                    label, _share(peak), left * scale_x, top * scale_y, wide * scale_x, high * scale_y,
                    area * scale_x * scale_y,
                )
            )  # fmt: skip
    found.sort(key=lambda region: (region.score, region.area_px), reverse=True)
    return tuple(found[:MAX_REGIONS])


def _part(outputs: Outputs, role: str, count: int) -> NDArray[np.float64]:
    """The one part's `count` values of a role."""
    values = np.asarray(outputs[role], np.float64).reshape(-1)
    if values.size != count:
        raise ModelFault(f"output {role}: {values.size} values, {count} expected")
    if not np.isfinite(values).all():
        raise ModelFault(f"output {role}: no finite number")
    return values


def _share(value: float | np.floating) -> float:
    """Within 0..1: float32 arithmetic may overshoot by an epsilon."""
    return min(1.0, max(0.0, float(value)))


__all__: Sequence[str] = ("disposition", "heat", "heat_for_people", "judge", "regions")
