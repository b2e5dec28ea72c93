# SPDX-License-Identifier: Apache-2.0
"""The vision metrics against cases worked out by hand."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from linewatch_models.vision_metrics import (
    JudgedImage,
    LabelledImage,
    RegionCounts,
    Thresholds,
    auroc,
    average_precision,
    count_regions,
    evaluate,
    f1_score,
    product_family,
    read_labels,
    read_mask,
    recall_at_false_reject_rate,
)

BAD = np.array([True, True, True, False, False, False])
SCORES = np.array([0.9, 0.8, 0.3, 0.7, 0.3, 0.1])


def test_auroc_counts_pairs_and_halves_ties() -> None:
    # 0.9 and 0.8 beat all three good parts; 0.3 beats 0.1, ties 0.3, loses to 0.7: 3 + 3 + 1.5 of 9.
    assert auroc(BAD, SCORES) == pytest.approx(7.5 / 9)


def test_auroc_of_one_kind_is_unknown() -> None:
    assert auroc(np.array([True, True]), np.array([0.1, 0.2])) is None


def test_average_precision_takes_equal_scores_as_one_step() -> None:
    # Steps: 0.9 (1/1), 0.8 (2/2), 0.7 adds no bad part, 0.3 finds the third among five rejected.
    assert average_precision(BAD, SCORES) == pytest.approx((1 + 1 + 3 / 5) / 3)


def test_average_precision_without_a_bad_part_is_unknown() -> None:
    assert average_precision(np.array([False]), np.array([0.5])) is None


def test_f1_counts_escapes_and_overkill_alike() -> None:
    assert f1_score(BAD, SCORES >= 0.5) == pytest.approx(2 * 2 / (3 + 3))


def test_f1_of_nothing_is_unknown() -> None:
    assert f1_score(np.array([False]), np.array([False])) is None


@pytest.mark.parametrize(("rate", "recall"), [(0.0, 2 / 3), (0.34, 2 / 3), (0.67, 1.0), (1.0, 1.0)])
def test_recall_at_a_false_reject_rate_never_rejects_more_good_parts(rate: float, recall: float) -> None:
    # One good part in three may go at 34 %: a cut at 0.3 would reject two, so the third bad part stays unfound.
    assert recall_at_false_reject_rate(BAD, SCORES, rate) == pytest.approx(recall)


def test_family_is_the_module_without_its_serial() -> None:
    assert product_family("FSEC_5GC12") == "FSEC_5GC"
    assert product_family("EL100") == "EL"


def test_regions_count_pixels_and_blobs_per_class() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[4:12, 4:12] = 3  # 64 px, found
    mask[24:32, 24:32] = 3  # 64 px, missed
    mask[20, 2:6] = 3  # 4 px: too small to count as a blob
    mask[0:4, 30:34] = 1  # another class
    heatmap = np.zeros((2, 40, 40), np.float32)
    heatmap[0, 4:12, 8:16] = 0.9  # half on the first patch
    counts = count_regions(heatmap, mask, [3, 1], [0.5, 0.5])
    assert counts.true_px.tolist() == [132, 16]
    assert counts.predicted_px.tolist() == [64, 0]
    assert counts.shared_px.tolist() == [32, 0]
    assert counts.blobs.tolist() == [2, 1]
    assert counts.found_blobs.tolist() == [1, 0]


def test_regions_scale_a_coarse_heat_map_to_the_mask() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 1
    heatmap = np.zeros((1, 10, 10), np.float32)
    heatmap[0, :, 5:] = 1.0
    counts = count_regions(heatmap, mask, [1], [0.5])
    assert counts.shared_px.tolist() == counts.predicted_px.tolist() == counts.true_px.tolist() == [800]


def _judged(module: str, score: float, *classes: str) -> JudgedImage:
    image = LabelledImage(f"{module}.jpg", "test", module, bool(classes), frozenset(classes))
    one, none = np.array([10], np.int64), np.array([0], np.int64)
    regions = RegionCounts(one if classes else none, one, one if classes else none, one // 10, one // 10)
    return JudgedImage(image, score, np.array([score]), regions)


def test_evaluation_pools_and_splits_by_family() -> None:
    judged = [
        _judged("A1", 0.9, "crack"),
        _judged("A2", 0.2),
        _judged("B1", 0.4, "crack"),
        _judged("B2", 0.6),
    ]
    metrics = evaluate(judged, ["crack"], Thresholds(ng=0.5, classes=np.array([0.3])))
    assert metrics["n"] == 4
    assert metrics["auroc"] == pytest.approx(3 / 4)
    assert metrics["escape_rate"] == metrics["overkill_rate"] == pytest.approx(0.5)
    assert metrics["f1"] == pytest.approx(0.5)
    assert set(metrics["recall_at_frr"]) == {"0.01", "0.02", "0.05"}
    assert metrics["per_class"]["crack"] == pytest.approx(
        {"f1": 2 * 2 / (2 + 3), "blob_recall": 1.0, "pixel_f1": 2 * 20 / (40 + 20)}
    )
    assert set(metrics["per_family"]) == {"A", "B"}
    assert metrics["per_family"]["A"]["f1"] == 1.0
    assert metrics["per_family"]["B"]["escape_rate"] == 1.0


def _dataset(root: Path) -> None:
    (root / "masks" / "test").mkdir(parents=True)
    (root / "labels.csv").write_text(
        "file,split,verdict,crack,cross,dark,crack_px,cross_px,dark_px,module\n"
        "test/defect/EL1_2.jpg,test,defect,1,0,1,30,0,40,EL1\n"
        "train/ok/EL2_1.jpg,train,ok,0,0,0,0,0,0,EL2\n"
    )
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4] = 3
    cv2.imwrite(str(root / "masks" / "test" / "EL1_2.png"), mask)


def test_reader_takes_one_split(tmp_path: Path) -> None:
    _dataset(tmp_path)
    (image,) = read_labels(tmp_path, "test")
    assert image == LabelledImage("test/defect/EL1_2.jpg", "test", "EL1", True, frozenset({"crack", "dark"}))
    assert (read_mask(tmp_path, image, (8, 8)) == 3).sum() == 16


def test_reader_names_an_empty_split(tmp_path: Path) -> None:
    _dataset(tmp_path)
    with pytest.raises(ValueError, match="'val'"):
        read_labels(tmp_path, "val")


def test_reader_refuses_a_mask_of_another_size(tmp_path: Path) -> None:
    _dataset(tmp_path)
    (image,) = read_labels(tmp_path, "test")
    with pytest.raises(ValueError, match=r"EL1_2\.png"):
        read_mask(tmp_path, image, (9, 9))


def test_an_image_without_mask_file_is_background(tmp_path: Path) -> None:
    image = LabelledImage("test/ok/EL9_9.jpg", "test", "EL9", False, frozenset())
    assert not read_mask(tmp_path, image, (8, 8)).any()
