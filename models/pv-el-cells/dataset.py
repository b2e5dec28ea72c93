# SPDX-License-Identifier: Apache-2.0
"""The cell pictures of one split with what augmentation needs: masks, busbar-free pictures, defects as ratios."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from linewatch_models.vision_metrics import LabelledImage, product_family, read_labels, read_mask

Grey = NDArray[np.uint8]
Plane = NDArray[np.float32]

MASK_VALUES = (3, 2, 1, 4)  # crack, cross, dark, busbar: the order of the heat-map channels


@dataclass(frozen=True, slots=True)
class Imprint:
    """A defect taken off its cell: brightness relative to the sound cell around it, so that it fits any exposure.

    `ratio` and `alpha` are [H,W], 0..1.2 and 0..1; `masks` is [H,W,3] of crack, cross, dark.
    """

    ratio: Plane
    alpha: Plane
    masks: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Cell:
    """One training picture; `masks` is [H,W,4] of 0 or 255 in the order of MASK_VALUES."""

    image: LabelledImage
    grey: Grey
    masks: NDArray[np.uint8]
    without_busbars: Grey
    imprint: Imprint | None


def _imprint(grey: Grey, masks: NDArray[np.uint8]) -> Imprint | None:
    defect = masks[..., :3].max(axis=2)
    if not defect.any():
        return None
    grown = cv2.dilate(defect, np.ones((9, 9), np.uint8))
    sound = ((grown == 0) & (masks[..., 3] == 0)).astype(np.float32)
    level = grey.astype(np.float32)
    background = np.zeros_like(level)
    for sigma in (60.0, 15.0):  # the wide average stands in where a large dark area leaves no near neighbour
        weight = cv2.GaussianBlur(sound, (0, 0), sigma)
        local = cv2.GaussianBlur(level * sound, (0, 0), sigma) / np.maximum(weight, 1e-3)
        trust = np.clip(weight / 0.15, 0.0, 1.0) if sigma < 60.0 else np.ones_like(level)
        background = trust * local + (1.0 - trust) * background
    ratio = np.clip(level / np.maximum(background, 4.0), 0.0, 1.2).astype(np.float32)
    edge = cv2.dilate(defect, np.ones((5, 5), np.uint8))
    alpha = cv2.GaussianBlur(edge.astype(np.float32) / 255.0, (0, 0), 1.5)
    # A busbar is the receiving cell's own: it does not travel with the defect.
    alpha[masks[..., 3] > 0] = 0.0
    return Imprint(ratio, alpha.astype(np.float32), np.ascontiguousarray(masks[..., :3]))


def _read_cell(root: Path, image: LabelledImage) -> Cell:
    grey: Any = cv2.imread(str(root / image.file), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError(f"cannot decode {image.file}")
    mask = read_mask(root, image, grey.shape)
    masks = np.stack([(mask == value).astype(np.uint8) * 255 for value in MASK_VALUES], axis=2)
    busbars = cv2.dilate(masks[..., 3], np.ones((7, 7), np.uint8))
    without = cv2.inpaint(grey, busbars, 3, cv2.INPAINT_TELEA)
    return Cell(image, grey, masks, without.astype(np.uint8), _imprint(grey, masks))


def read_cells(root: Path, split: str) -> list[Cell]:
    """All cells of one split, in the order of labels.csv."""
    return [_read_cell(root, image) for image in read_labels(root, split)]


def sampling_weights(cells: list[Cell]) -> NDArray[np.float64]:
    """Draw probabilities that even out families and verdicts: else the camera itself predicts the verdict."""
    groups = [(product_family(c.image.module), c.image.is_defect) for c in cells]
    counts = {group: groups.count(group) for group in set(groups)}
    weights = np.array([counts[group] ** -0.5 for group in groups])
    return np.asarray(weights / weights.sum(), dtype=np.float64)
