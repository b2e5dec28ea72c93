# SPDX-License-Identifier: Apache-2.0
"""Golden samples: parts whose outputs must come out again on every machine and provider that loads the package.

Large outputs are kept at every n-th value (MAX_KEPT at most), enough to see another decoder, layout or instruction set.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linewatch_inference.errors import PackageRefused, UnreadableImage
from linewatch_inference.verdict import Encoded, Part, Window

MAX_KEPT = 256

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
WINDOW_SUFFIX = ".csv"


def sample_part(name: str, data: bytes) -> Part:
    """A golden file as a part: JPEG, PNG, or a window as CSV with a header row.

    Raises:
        UnreadableImage: the file is neither.
    """
    if name.lower().endswith(IMAGE_SUFFIXES):
        return Encoded(data)
    if name.lower().endswith(WINDOW_SUFFIX):
        rows = list(csv.reader(io.StringIO(data.decode())))[1:]
        values = np.array(rows, dtype=np.float32)
        return Window(values, padded_rows(values))
    raise UnreadableImage(f"{name}: a sample is a .jpg, .png or .csv file")


def padded_rows(values: NDArray[np.float32]) -> int:
    """How many leading rows repeat the first real record; all but the last where there is only one record."""
    differs = np.flatnonzero((values != values[0]).any(axis=1))
    return int(differs[0]) - 1 if differs.size else len(values) - 1


def kept(outputs: Mapping[str, NDArray[np.generic]]) -> dict[str, Any]:
    """What is written down of the outputs, by role."""
    told = {}
    for role, values in sorted(outputs.items()):
        flat = np.asarray(values, np.float64).reshape(-1)
        told[role] = {
            "shape": list(values.shape),
            "values": [round(float(value), 7) for value in flat[:: _step(flat.size)]],
        }
    return told


def differences(outputs: Mapping[str, NDArray[np.generic]], expected: Mapping[str, Any]) -> dict[str, float]:
    """Largest |value - expected| / (1 + |expected|) by role; infinite where shape or values don't compare."""
    found = {}
    for role, told in expected.items():
        values = np.asarray(outputs[role], np.float64) if role in outputs else np.empty(0)
        wanted = np.asarray(told["values"], np.float64)
        flat = values.reshape(-1)[:: _step(values.size)]
        if list(values.shape) != told["shape"] or flat.shape != wanted.shape or not np.isfinite(flat).all():
            found[role] = float("inf")
        else:
            found[role] = float((np.abs(flat - wanted) / (1.0 + np.abs(wanted))).max(initial=0.0))
    return found


def expectations(text: bytes, where: str, variant: str) -> list[tuple[str, Mapping[str, Any]]]:
    """(sample's file, expected outputs) of a variant. Raises PackageRefused when the file can't be used."""
    try:
        samples = json.loads(text)["samples"]
        found = [(str(sample["file"]), sample["variants"][variant]["outputs"]) for sample in samples]
    except (ValueError, KeyError, TypeError) as error:
        raise PackageRefused(f"{where}: is not the expectation file of a package: {error!r}") from error
    if not found:
        raise PackageRefused(f"{where}: holds no sample; package the model again with golden samples")
    return found


def worst(found: Iterable[dict[str, float]]) -> dict[str, float]:
    """The largest difference by role over many samples."""
    total: dict[str, float] = {}
    for one in found:
        for role, difference in one.items():
            total[role] = max(total.get(role, 0.0), difference)
    return total


def _step(size: int) -> int:
    return max(1, -(-size // MAX_KEPT))
