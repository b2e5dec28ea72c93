# SPDX-License-Identifier: Apache-2.0
"""Random changes of a training cell that leave its verdict's meaning alone: camera, material, busbars, framing."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from crack_drawing import draw_crack
from dataset import Cell, Imprint
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Random = np.random.Generator

GRAIN_SIZE = 512  # px of a grain texture
#: A class counts as present when it covers 20 px of a 400 px cell, as in the labels.
PRESENT_SHARE = 20.0 / (400.0 * 400.0)


def _blurred_noise(rng: Random, sigma: float, size: int = GRAIN_SIZE) -> Plane:
    shrink = max(1, int(sigma / 2))
    noise = rng.standard_normal((size // shrink + 1, size // shrink + 1)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigma / shrink).astype(np.float32)
    noise = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), dtype=np.float32)


def _dislocations(rng: Random) -> Plane:
    """Dark blotches in clusters, as in grainy multicrystalline silicon; 0 = none, about 1 = dark."""
    fine = _blurred_noise(rng, float(rng.uniform(2.0, 5.0)))
    where = _blurred_noise(rng, float(rng.uniform(15.0, 50.0)))
    return np.clip(fine - 0.4, 0.0, 2.0) * np.clip(0.5 + 0.7 * where, 0.0, 1.5) / 2.0


def _grains(rng: Random) -> Plane:
    """Crystal grains: a patchwork of brightness, each patch even; about -1..1."""
    count = int(rng.integers(30, 250))
    seeds = np.full((GRAIN_SIZE, GRAIN_SIZE), 255, np.uint8)
    seeds[rng.integers(0, GRAIN_SIZE, count), rng.integers(0, GRAIN_SIZE, count)] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    levels = rng.uniform(-1.0, 1.0, int(labels.max()) + 1).astype(np.float32)
    return cv2.GaussianBlur(levels[labels], (0, 0), float(rng.uniform(0.5, 2.0))).astype(np.float32)


def grain_bank(rng: Random, count: int) -> list[tuple[str, Plane]]:
    """Textures made once, because making one takes longer than a training step's share."""
    return [
        ("dislocations", _dislocations(rng)) if index % 3 else ("grains", _grains(rng))
        for index in range(count)
    ]


def add_grain(level: Plane, bank: Sequence[tuple[str, Plane]], rng: Random) -> Plane:
    """Lay a random piece of a random texture over the cell."""
    kind, texture = bank[int(rng.integers(len(bank)))]
    height, width = level.shape
    top, left = rng.integers(0, GRAIN_SIZE - height), rng.integers(0, GRAIN_SIZE - width)
    patch = texture[top : top + height, left : left + width]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    strength = rng.uniform(0.15, 0.7) if kind == "dislocations" else -rng.uniform(0.03, 0.15)
    return np.asarray(level * np.clip(1.0 - strength * patch, 0.15, 1.3), dtype=np.float32)


def add_busbars(level: Plane, busbars: NDArray[np.uint8], rng: Random) -> Plane:
    """Draw another product's busbars on a cell whose own were erased; `busbars` (0/255) is updated in place."""
    height, width = level.shape
    count = int(rng.integers(2, 13))
    thick = int(rng.integers(2, 14)) if count < 6 else int(rng.integers(1, 5))
    factor = np.ones(level.shape, np.float32)
    depth = float(rng.uniform(0.05, 0.75))
    dashed = rng.random() < 0.4
    offset = rng.uniform(-0.08, 0.08)
    uneven = (
        rng.random() < 0.4
    )  # bands between busbars differ in brightness, with a straight step at the busbar
    for index in range(count):
        y = max(0, int(((index + 0.5) / count + offset) * height))
        if uneven:
            factor[y:] = rng.uniform(0.82, 1.08)
    for index in range(count):
        y = max(0, int(((index + 0.5) / count + offset) * height))
        factor[y : y + thick] = depth
        busbars[y : y + thick] = 255
        if dashed:
            pads = int(rng.integers(3, 7))
            for pad in range(pads):
                x = int((pad + 0.3) / pads * width)
                factor[max(0, y - 2) : y + thick + 2, x : x + width // (2 * pads)] = depth * 0.5
                busbars[max(0, y - 2) : y + thick + 2, x : x + width // (2 * pads)] = 255
    factor = cv2.GaussianBlur(factor, (0, 0), float(rng.uniform(0.5, 2.0))).astype(np.float32)
    return level * factor


def add_finger_interruptions(level: Plane, rng: Random) -> Plane:
    """Faint stripes across the busbars where a finger is broken: common on good cells, no defect."""
    height, width = level.shape
    factor = np.ones(level.shape, np.float32)
    for _ in range(int(rng.integers(1, 9))):
        x, w = int(rng.integers(0, width)), int(rng.integers(2, 18))
        y, h = int(rng.integers(0, height)), int(rng.integers(20, 140))
        ramp = np.linspace(1.0, float(rng.uniform(0.7, 0.95)), h, dtype=np.float32)[:, None]
        if rng.random() < 0.5:
            ramp = ramp[::-1]
        view = factor[y : y + h, x : x + w]
        view *= ramp[: view.shape[0]]
    return level * cv2.GaussianBlur(factor, (0, 0), float(rng.uniform(0.6, 2.0))).astype(np.float32)


def paste_imprint(level: Plane, masks: NDArray[np.uint8], imprint: Imprint, rng: Random) -> Plane:
    """Put another cell's defect on this one, turned or mirrored; `masks` is updated in place."""
    turn = int(rng.integers(4))
    mirror = rng.random() < 0.5
    ratio, alpha, extra = (np.rot90(a, turn) for a in (imprint.ratio, imprint.alpha, imprint.masks))
    if mirror:
        ratio, alpha, extra = ratio[:, ::-1], alpha[:, ::-1], extra[:, ::-1]
    if ratio.shape != level.shape:
        return level
    np.maximum(masks[..., :3], extra, out=masks[..., :3])
    deepen = float(rng.uniform(0.7, 1.15))
    changed = np.clip(1.0 - deepen * (1.0 - ratio), 0.02, 1.2)
    return np.ascontiguousarray(level * (1.0 - alpha + alpha * changed), dtype=np.float32)


def _framing(side: int, size: int, strength: float, rng: Random) -> NDArray[np.float64]:
    """Affine map from a `side` px cell to `size` px: quarter turns, mirror, small turn, scale, shift."""
    to_centre = np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 1.0]])
    # Busbars lie across in all cells seen: quarter turns belong to the strong views.
    turns = int(rng.integers(4)) if rng.random() < strength else 2 * int(rng.integers(2))
    angle = np.pi / 2 * turns + np.deg2rad(rng.normal(0, 0.4 + 0.8 * strength))
    scale_x, scale_y = size / side * np.exp(rng.normal(0, 0.03 + 0.04 * strength, 2))
    if rng.random() < 0.5:
        scale_x = -scale_x
    c, s = np.cos(angle), np.sin(angle)
    linear = np.array([[c * scale_x, -s * scale_y, 0], [s * scale_x, c * scale_y, 0], [0, 0, 1.0]])
    shift = rng.normal(0, 0.01 + 0.015 * strength, 2) * size + size / 2
    back = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    return np.asarray((back @ linear @ to_centre)[:2], dtype=np.float64)


def change_camera(level: Plane, strength: float, rng: Random) -> Plane:
    """Exposure, gamma, vignette, blur, noise, coarse sampling, compression of another camera."""
    height, width = level.shape
    often = 0.4 + 0.6 * strength
    x = np.clip(level / 255.0, 0.0, None)
    x = x ** np.float32(np.exp(rng.normal(0, 0.25 * often)))
    if rng.random() < 0.4 * often:
        slope_y, slope_x = rng.uniform(-0.35, 0.35, 2)
        rows = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
        columns = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
        dip = rng.uniform(-0.2, 0.7)
        x = x * (1.0 + slope_y * rows + slope_x * columns - dip * (rows**2 + columns**2))
    x = x * np.float32(np.exp(rng.normal(-0.05, 0.3))) + np.float32(rng.normal(0, 0.03))
    bright = float(np.quantile(x[::8, ::8], 0.9))
    if bright > 0.9:  # exposure is set so that a cell seldom saturates
        x = x * np.float32(rng.uniform(0.7, 1.03) / bright)
    if rng.random() < 0.35 * often:
        x = cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.4, 1.8)))
    elif rng.random() < 0.25:
        x = x + float(rng.uniform(0.3, 1.2)) * (x - cv2.GaussianBlur(x, (0, 0), 2.0))
    if rng.random() < 0.15 * often:
        shrink = float(rng.uniform(0.45, 0.9))
        small = cv2.resize(x.astype(np.float32), None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        x = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5 * often:
        noise = rng.standard_normal((height, width), dtype=np.float32)
        x = x + noise * np.float32(rng.uniform(0.003, 0.04)) * np.sqrt(np.clip(x, 0.02, 1.0))
    grey = np.clip(x * 255.0, 0, 255).astype(np.uint8)
    if rng.random() < 0.25 * often:
        packed = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 90))])[1]
        grey = cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE).astype(np.uint8)
    return grey.astype(np.float32)


def training_view(
    cell: Cell,
    imprints: Sequence[Imprint],
    bank: Sequence[tuple[str, Plane]],
    size: int,
    strength: float,
    rng: Random,
) -> tuple[Plane, Plane, Plane]:
    """One random view: grey [size,size] 0..255, heat target [4,size/2,size/2] 0..1, labels [4] any and classes.

    `strength` 0..1 scales how often a cell is changed: real cells are learned best when most stay what they are.
    """
    masks = cell.masks.copy()
    level = cell.grey.astype(np.float32)
    choice = rng.random() / max(strength, 1e-6)
    if choice < 0.4:
        level = cell.without_busbars.astype(np.float32)
        masks[..., 3] = 0
        if choice < 0.3:
            busbars = np.zeros(level.shape, np.uint8)
            level = add_busbars(level, busbars, rng)
            masks[..., 3] = busbars
    if rng.random() < 0.25 * strength:
        level = add_grain(level, bank, rng)
    if rng.random() < 0.25 * strength:
        level = add_finger_interruptions(level, rng)
    if rng.random() < strength * (0.10 if cell.image.is_defect else 0.15):
        level = paste_imprint(level, masks, imprints[int(rng.integers(len(imprints)))], rng)
    if rng.random() < strength * (0.10 if cell.image.is_defect else 0.20):
        level = draw_crack(level, masks, rng)
    frame = _framing(level.shape[0], size, strength, rng)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    # The line shrinks by area; here a light blur before the linear warp stands for it.
    level = cv2.GaussianBlur(level, (0, 0), float(rng.uniform(0.2, 0.45)) * level.shape[0] / size)
    level = cv2.warpAffine(
        level, frame, (size, size), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=(20.0,)
    )
    level = change_camera(level.astype(np.float32), strength, rng)
    half = size // 2
    half_frame = frame * 0.5
    half_frame[:, 2] -= 0.25  # centre of a place of two pixels
    targets = (
        cv2.warpAffine(masks, half_frame, (half, half), flags=cv2.INTER_LINEAR).astype(np.float32) / 255.0
    )
    share = targets[..., :3].mean(axis=(0, 1)) / PRESENT_SHARE
    classes = np.clip(share, 0.0, 1.0)
    labels = np.concatenate([[classes.max()], classes]).astype(np.float32)
    return level, np.ascontiguousarray(targets.transpose(2, 0, 1)), labels
