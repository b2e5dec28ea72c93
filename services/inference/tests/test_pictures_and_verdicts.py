# SPDX-License-Identifier: Apache-2.0
"""Pre- and post-processing against the same arithmetic written out."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from tiny_models import described, encoded, window

from linewatch_inference.errors import ModelFault, UnreadableImage
from linewatch_inference.golden import differences, kept, padded_rows
from linewatch_inference.metadata import Description
from linewatch_inference.postprocess import MAX_REGIONS, heat_for_people, judge, regions
from linewatch_inference.preprocess import decode, image_tensor
from linewatch_inference.verdict import Result

COLOURS = Description.model_validate(described("classification"))
SPOTS = Description.model_validate(described("segmentation"))
WEAR = Description.model_validate(described("prognostics"))


def test_tensor_is_rgb_planes_scaled_and_normalised() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)

    tensor = image_tensor(COLOURS, pixels)

    wanted = (pixels[:, :, ::-1].astype(np.float64) / 255 - 0.5) / 0.5
    assert (tensor.shape, tensor.dtype) == ((1, 3, 8, 8), np.float32)
    np.testing.assert_allclose(tensor[0], wanted.transpose(2, 0, 1), atol=1e-6)


def test_halving_by_area_is_the_mean_of_four_pixels() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (64, 64), dtype=np.uint8)

    tensor = image_tensor(SPOTS, pixels)

    means = pixels.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert (tensor.shape, tensor.dtype) == ((1, 32, 32, 1), np.uint8)
    assert np.abs(tensor[0, :, :, 0] - means).max() <= 0.5


def test_sixteen_bit_png_becomes_eight_bit() -> None:
    pixels = np.full((4, 4), 0x80FF, np.uint16)

    assert decode(encoded(pixels), grey=True).tolist() == np.full((4, 4), 0x80).tolist()


def mid_zeroed(data: bytes) -> bytes:
    third = len(data) // 3
    return data[:third] + bytes(third) + data[2 * third :]


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize(
    "damaged",
    [
        mid_zeroed,
        lambda data: data[: len(data) // 2] + b"\xff\xd9",
        lambda data: data[: len(data) // 2] + b"\xff\xd3" + data[len(data) // 2 + 2 :],
    ],
    ids=["middle third zeroed", "cut and closed", "stray marker"],
)
def test_jpeg_with_damaged_data_is_refused(damaged: Callable[[bytes], bytes], *, grey: bool) -> None:
    whole = encoded(np.random.default_rng(6).integers(0, 256, (64, 48, 3), dtype=np.uint8), ".jpg")
    assert decode(whole, grey=grey).shape == ((64, 48) if grey else (64, 48, 3))

    with pytest.raises(UnreadableImage, match="damaged"):
        decode(damaged(whole), grey=grey)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("grey", [True, False])
def test_whole_jpeg_has_the_pixels_that_opencv_gives(channels: int, *, grey: bool) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (64, 48, channels), dtype=np.uint8)
    data = encoded(cv2.GaussianBlur(pixels, (5, 5), 2), ".jpg")

    told = decode(data, grey=grey)

    wanted = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    assert np.abs(told.astype(int) - wanted).max() <= 1


def outputs(score: float, dark: float, bright: float) -> dict[str, np.ndarray]:
    heat = np.zeros((1, 2, 16, 16), np.float32)
    return {
        "score": np.array([score], np.float32),
        "class_scores": np.array([[dark, bright]], np.float32),
        "heatmap": heat,
    }


@pytest.mark.parametrize(
    ("score", "result"),
    [(0.79, Result.REVIEW), (0.8, Result.NG), (0.5, Result.REVIEW), (0.49, Result.OK), (0.0, Result.OK)],
)
def test_thresholds_belong_to_the_worse_side(score: float, result: Result) -> None:
    exact = {**outputs(score, score, 0.1), "score": np.array([score])}

    assert judge(SPOTS, exact, (64, 64), ()).result is result


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("role", ["score", "class_scores"])
def test_output_that_is_no_number_is_a_fault_never_a_verdict(role: str, value: float) -> None:
    spoilt = outputs(0.9, 0.9, 0.1)
    spoilt[role].flat[0] = value

    with pytest.raises(ModelFault, match=role):
        judge(SPOTS, spoilt, (64, 64), ())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_heat_map_that_is_no_number_is_a_fault_never_silence(value: float) -> None:
    spoilt = outputs(0.9, 0.9, 0.1)
    spoilt["heatmap"][0, 1, 3, 4] = value

    with pytest.raises(ModelFault, match="heatmap"):
        judge(SPOTS, spoilt, (64, 64), ())
    with pytest.raises(ModelFault, match="heatmap"):
        heat_for_people(SPOTS, spoilt)


def test_regions_are_the_highest_sixteen_of_both_classes() -> None:
    heat = np.zeros((2, 40, 40), np.float32)
    heat[0, 1::4, 1::4] = np.linspace(0.61, 0.99, 100).reshape(10, 10)
    heat[1, 30:33, 5] = 0.995

    found = regions(SPOTS, heat, (400, 800))

    assert len(found) == MAX_REGIONS
    assert (found[0].label, found[0].x, found[0].y, found[0].width, found[0].height) == (
        "bright",
        100,
        300,
        20,
        30,
    )
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@given(
    some.lists(some.floats(0, 1, width=32), min_size=64, max_size=64),
    some.integers(1, 500),
    some.integers(1, 500),
)
def test_every_region_lies_within_the_frame(heat: list[float], width: int, height: int) -> None:
    planes = np.array([heat, heat], np.float32).reshape(2, 8, 8)

    for one in regions(SPOTS, planes, (height, width)):
        assert 0 <= one.x < one.x + one.width <= width * (1 + 1e-9)
        assert 0 <= one.y < one.y + one.height <= height * (1 + 1e-9)
        assert 0 < one.area_px <= one.width * one.height * (1 + 1e-9)


def test_quantiles_are_told_in_order() -> None:
    crossed = {
        "rul": np.array([[30.0, 20.0, 25.0]]),
        "failure_mode_prob": np.array([[0.2, 0.8]]),
        "severity": np.array([0.8]),
    }

    told = judge(WEAR, crossed, (0, 0), ()).time_to_failure

    assert told
    assert (told.p10, told.p50, told.p90) == (20.0, 25.0, 30.0)


def test_severity_follows_from_the_median_where_the_graph_has_none() -> None:
    plain = {"rul": np.array([[5.0, 10.0, 15.0]]), "failure_mode_prob": np.array([[0.2, 0.8]])}

    assert judge(WEAR, plain, (0, 0), ()).severity == pytest.approx(0.9)


def test_sorter_without_a_good_class_asks_a_person_when_unsure() -> None:
    sorter = Description.model_validate(
        described("classification", ok_classes=[], outputs={"probabilities": "p"},
                  thresholds={"ng": 0.8, "review": 0.5, "class": {"red": 0.7, "green": 0.7, "blue": 0.7}})
    )  # fmt: skip

    sure = judge(sorter, {"probabilities": np.array([[0.8, 0.1, 0.1]])}, (8, 8), ())
    unsure = judge(sorter, {"probabilities": np.array([[0.4, 0.5, 0.1]])}, (8, 8), ())

    assert (sure.result, sure.label) == (Result.NG, "red")
    assert (unsure.result, unsure.label) == (Result.REVIEW, "green")


def test_kept_outputs_see_a_shifted_heat_map() -> None:
    heat = np.random.default_rng(5).random((1, 3, 72, 72)).astype(np.float32)
    told = kept({"heatmap": heat})

    assert len(told["heatmap"]["values"]) <= 256
    assert differences({"heatmap": heat}, told)["heatmap"] < 1e-6
    assert differences({"heatmap": np.roll(heat, 1, axis=3)}, told)["heatmap"] > 0.1
    assert differences({"heatmap": heat[:, :2]}, told)["heatmap"] == np.inf
    assert differences({"heatmap": heat * np.float32(np.nan)}, told)["heatmap"] == np.inf


def test_padding_is_counted_from_the_records() -> None:
    values = window(50.0)
    assert padded_rows(values) == 0
    values[:4] = values[3]
    assert padded_rows(values) == 3
    values[:] = values[0]
    assert padded_rows(values) == 7


def test_verdict_is_anomalous_unless_ok() -> None:
    verdict = judge(SPOTS, outputs(0.1, 0.1, 0.1), (64, 64), ())

    assert not verdict.is_anomalous
    assert replace(verdict, result=Result.REVIEW).is_anomalous
