# SPDX-License-Identifier: Apache-2.0
"""A masked picture before a released model: the verdict is that of the pixels that are left, and nothing else changes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from linewatch_capture.mask import mask_of
from linewatch_capture.masking import Masking
from linewatch_inference.model import Model, open_model
from linewatch_inference.package import read_package, read_trusted_keys
from linewatch_inference.preprocess import decode
from linewatch_inference.session import SessionOptions
from linewatch_inference.verdict import Encoded, Raw, Result

MODELS = Path(__file__).resolve().parents[2] / "models"
RELEASE = MODELS / "pv-el-cells" / "releases" / "1.0.0"
CELLS = MODELS.parent / "plant" / "sample" / "pv-el-cells" / "images"
SAMPLES = sorted((RELEASE / "golden").glob("*.jpg"))
EDGE = "0,0,0.06,1"


@pytest.fixture(scope="module")
def model() -> Model:
    package = read_package(RELEASE, read_trusted_keys(MODELS / "trusted-keys"))
    return open_model(package, "fp32", SessionOptions())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
@pytest.mark.parametrize("mask", [EDGE, "0.25,0.25,0.5,0.5"])
def test_inference_sees_the_golden_samples_own_pixels_with_the_areas_black(
    model: Model, sample: Path, mask: str
) -> None:
    file = sample.read_bytes()
    by_hand = decode(file, grey=True).copy()
    for area in mask_of(mask):
        by_hand[area.pixels(by_hand.shape[1], by_hand.shape[0])] = 0

    masked = Masking(mask_of(mask))(file)

    assert (decode(masked, grey=True) == by_hand).all()
    verdict, outputs, _ = model.judged(Encoded(masked))
    expected, expected_outputs, _ = model.judged(Raw(by_hand))
    assert verdict == expected
    assert all(np.array_equal(outputs[role], expected_outputs[role]) for role in expected_outputs)


def test_a_mask_at_the_edge_leaves_the_golden_verdicts_as_they_are(model: Model) -> None:
    """Of this model and these samples; a mask over what a model looks at changes its verdict, as the page says."""
    verdicts = {sample.stem: judged(model, sample, EDGE) for sample in SAMPLES}

    assert len(verdicts) == 5
    assert {stem: masked for stem, (_, masked) in verdicts.items()} == {
        stem: plain for stem, (plain, _) in verdicts.items()
    }
    assert {plain for plain, _ in verdicts.values()} >= {Result.OK, Result.NG}


def judged(model: Model, sample: Path, mask: str) -> tuple[Result, Result]:
    """Without and with the mask."""
    file = sample.read_bytes()
    parts: list[Callable[[bytes], bytes]] = [bytes, Masking(mask_of(mask))]
    plain, masked = (model.judged(Encoded(way(file)))[0].result for way in parts)
    return plain, masked


def test_a_mask_over_the_defect_hides_it_from_the_model_too(model: Model) -> None:
    """What the mask costs: a defect below it is not found."""
    found = [judged(model, sample, "0,0,1,0.98") for sample in SAMPLES]

    assert [masked for plain, masked in found if plain == Result.NG] == [Result.OK] * 3


def test_evidence_of_the_samples_cells_is_three_times_as_large() -> None:
    cells = [file.read_bytes() for file in sorted(CELLS.rglob("*.jpg"))]
    masking = Masking(mask_of(EDGE))

    assert len(cells) == 60
    assert 2.5 < sum(len(masking(cell)) for cell in cells) / sum(map(len, cells)) < 3.5


@pytest.mark.parametrize("grey", [True, False])
def test_a_colourful_jpeg_is_the_same_in_colour_and_within_two_levels_in_grey(*, grey: bool) -> None:
    """Grey of a JPEG is its own brightness plane; of the masked PNG it is worked out from the colours again."""
    y, x = np.mgrid[:120, :160]
    colours = np.stack([60 + x // 2, 200 - y, 100 + (x + y) // 4], axis=-1).astype(np.uint8)
    file = simplejpeg.encode_jpeg(np.ascontiguousarray(colours), 95)

    difference = np.abs(
        decode(Masking(mask_of("0,0,0.1,0.1"))(file), grey=grey).astype(int) - decode(file, grey=grey)
    )[12:, 16:]

    assert difference.max() <= (2 if grey else 0)
