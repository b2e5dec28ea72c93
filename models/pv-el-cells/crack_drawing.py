# SPDX-License-Identifier: Apache-2.0
"""Cracks drawn on a cell: the train split shows few of those that are only a step in brightness.

A crack cuts fingers off from their busbar, so one side darkens; the line itself may be dark, bright or not seen at all.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Random = np.random.Generator

LABEL_WIDTH = 5  # px, as the cracks of the train split are drawn


def _course(side: int, rng: Random) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points [n,2] of a crack (x, y) and its unit normal; half of them run along the busbars."""
    along_busbars = rng.random() < 0.5
    angle = np.deg2rad(rng.normal(0.0, 8.0)) if along_busbars else rng.uniform(0.0, np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-direction[1], direction[0]])
    length = rng.uniform(0.12, 0.9) * side
    steps = max(4, int(length / 6.0))
    wander = np.cumsum(
        np.cumsum(rng.normal(0.0, rng.uniform(0.02, 0.25), steps)) * 0.2 + rng.normal(0.0, 0.6, steps)
    )
    along = np.linspace(-0.5, 0.5, steps) * length
    centre = rng.uniform(0.05, 0.95, 2) * side
    return centre + along[:, None] * direction + wander[:, None] * normal, normal


def _ribbon(
    shape: tuple[int, ...], points: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64]
) -> Plane:
    """1 between the course moved by `left` and the course moved by `right`."""
    outline = np.concatenate([points + left, (points + right)[::-1]])
    plane = np.zeros(shape, np.float32)
    cv2.fillPoly(plane, [np.round(outline * 16).astype(np.int32)], (1.0,), cv2.LINE_8, 4)
    return plane


def draw_crack(level: Plane, masks: NDArray[np.uint8], rng: Random) -> Plane:
    """Draw one crack, and on most the shade of the area it cuts off; `masks` is updated in place."""
    points, normal = _course(level.shape[0], rng)
    factor = np.ones(level.shape, np.float32)
    shaded = rng.random() < 0.65
    if shaded:
        depth = rng.uniform(15.0, 60.0)
        one_side = _ribbon(level.shape, points, 0.0 * normal, 2.5 * depth * normal)
        both_sides = _ribbon(level.shape, points, -depth * normal, depth * normal)
        fading = cv2.GaussianBlur(both_sides, (0, 0), float(rng.uniform(0.2, 0.5) * depth))
        factor -= np.float32(rng.uniform(0.1, 0.5)) * one_side * fading
    if not shaded or rng.random() < 0.5:
        bright = shaded and rng.random() < 0.3
        contrast = rng.uniform(0.05, 0.25) if bright else -rng.uniform(0.12, 0.6)
        line = np.zeros(level.shape, np.float32)
        course = [np.round(points * 16).astype(np.int32)]
        cv2.polylines(line, course, False, (1.0,), int(rng.integers(1, 4)), cv2.LINE_AA, 4)
        factor += np.float32(contrast) * cv2.GaussianBlur(line, (0, 0), float(rng.uniform(0.5, 1.0)))
    label = np.ascontiguousarray(masks[..., 0])
    cv2.polylines(label, [np.round(points).astype(np.int32)], False, (255,), LABEL_WIDTH)
    masks[..., 0] = label
    return np.asarray(
        level * cv2.GaussianBlur(factor, (0, 0), float(rng.uniform(0.4, 1.0))), dtype=np.float32
    )
