# SPDX-License-Identifier: Apache-2.0
"""Golden samples of a package: chosen by the caller, judged with the device's own code, written down."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from linewatch_inference.errors import InferenceRefused, ModelFault, PackageRefused
from linewatch_inference.golden import IMAGE_SUFFIXES, WINDOW_SUFFIX, differences, kept, sample_part, worst
from linewatch_inference.metadata import Description
from linewatch_inference.model import Model
from linewatch_inference.verdict import Result

MAX_SAMPLES = 32
EXPECTED = "golden/expected.json"


@dataclass(frozen=True, slots=True)
class Golden:
    """The files that go into the package, and what int8 does to the outputs (largest relative difference by role)."""

    files: Mapping[str, bytes]
    int8_differences: Mapping[str, float]
    int8_same_result: int


def read_samples(place: Path | None, description: Description) -> dict[str, bytes]:
    """Name in the package -> bytes, from a directory or from a text file with one path a line.

    Raises:
        PackageRefused: there are none, or too many.
    """
    if place is None:
        return {"golden/made.png": _made_picture(description)}
    suffixes = (WINDOW_SUFFIX,) if description.takes_windows else IMAGE_SUFFIXES
    if place.is_dir():
        paths = sorted(path for path in place.iterdir() if path.name.lower().endswith(suffixes))
    else:
        lines = (line.strip() for line in place.read_text().splitlines())
        paths = [place.parent / line for line in lines if line and not line.startswith("#")]
    if not 1 <= len(paths) <= MAX_SAMPLES:
        raise PackageRefused(
            f"golden: {len(paths)} samples ({', '.join(suffixes)}) in {place}; give 1 to {MAX_SAMPLES}"
        )
    return {f"golden/{path.name}": path.read_bytes() for path in paths}


def judge_samples(samples: Mapping[str, bytes], models: Mapping[str, Model]) -> Golden:
    """Runs every sample through each variant.

    Raises:
        PackageRefused: a sample can't be judged, or int8 turns an OK part of fp32 into NG or the other way round.
    """
    told: list[dict[str, Any]] = []
    gaps: list[dict[str, float]] = []
    same = 0
    for name, data in samples.items():
        variants: dict[str, Any] = {}
        results: dict[str, Result] = {}
        for variant, model in models.items():
            try:
                verdict, outputs, _ = model.judged(sample_part(name, data))
            except (InferenceRefused, ModelFault) as error:
                raise PackageRefused(f"{name}: the golden sample can't be judged: {error}") from error
            results[variant] = verdict.result
            variants[variant] = {
                "result": verdict.result.value,
                "label": verdict.label,
                "outputs": kept(outputs),
            }
            if variant != "fp32":
                gaps.append(differences(outputs, variants["fp32"]["outputs"]))
        told.append({"file": name, "variants": variants})
        if {Result.OK, Result.NG} <= set(results.values()):
            raise PackageRefused(
                f"{name}: fp32 says {results['fp32']}, int8 says {results['int8']}; quantise it anew"
            )
        same += len(set(results.values())) == 1
    text = json.dumps({"samples": told}, indent=1, sort_keys=True).encode() + b"\n"
    return Golden({**samples, EXPECTED: text}, worst(gaps), same)


def _made_picture(description: Description) -> bytes:
    """A picture of slopes and stripes in the model's own size, the same on every run, as PNG."""
    if description.takes_windows:
        raise PackageRefused(
            "golden: a sensor model needs samples of its own; give --golden with .csv windows"
        )
    height, width, _ = description.image_size
    slope = np.linspace(40, 215, width)[np.newaxis] + 30 * np.sin(np.arange(height) / 7.0)[:, np.newaxis]
    ok, data = cv2.imencode(".png", slope.clip(0, 255).astype(np.uint8))
    assert ok, "an array of uint8 can always be encoded"
    return bytes(data)


__all__: Sequence[str] = ("EXPECTED", "Golden", "judge_samples", "read_samples")
