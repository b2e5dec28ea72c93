# SPDX-License-Identifier: Apache-2.0
"""Hand-made engines whose figures can be worked out on paper."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from linewatch_models import prognostics_data as data
from linewatch_models import prognostics_metrics as metrics


def write_folder(root: Path, lives: dict[str, tuple[int, int | None, str]], points: str = "") -> Path:
    """Lay out engines {name: (records, life, mode)}; channel 0 tells the cycle, channel 1 the cycles left."""
    (root / "data").mkdir(parents=True)
    lines = ["engine,cycle," + ",".join(f"c{i}" for i in range(24))]
    told = ["engine,split,life_cycles,failure_mode,label_margin"]
    for name, (records, life, mode) in lives.items():
        left_from = life if life is not None else 1000
        lines += [f"{name},{c},{c},{left_from - c}," + ",".join(["1.5"] * 22) for c in range(1, records + 1)]
        if life is not None:
            told.append(f"{name},test,{life},{mode},0.5")
    with gzip.open(root / "data" / "test.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    (root / "engines.csv").write_text("\n".join(told) + "\n")
    if points:
        (root / "test_points.csv").write_text("engine,cut_cycle,true_rul\n" + points)
    return root


def oracle(windows):
    """Answers from channel 1, which is the truth."""
    left = np.minimum(windows[:, -1, 1].astype(float), 125)
    none = windows[:, -1, 1] > 125
    return {
        "rul": np.stack([left - 5, left, left + 5], axis=1),
        "failure_mode_prob": np.stack([none, ~none, np.zeros(len(none))], axis=1),
        "p_fail_30": (left <= 30).astype(float),
        "severity": 1 - left / 125,
    }


def test_a_late_answer_costs_more_than_an_early_one():
    assert metrics.nasa_score(np.array([10.0]), np.array([0.0])) == pytest.approx(math.e - 1)
    assert metrics.nasa_score(np.array([0.0]), np.array([13.0])) == pytest.approx(math.e - 1)
    assert metrics.rmse(np.array([3.0, 0.0]), np.array([0.0, 4.0])) == pytest.approx(math.sqrt(12.5))


def test_macro_f1_averages_the_classes_that_occur():
    guess, truth = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert metrics.macro_f1(guess, truth) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert math.isnan(metrics.macro_f1(np.array([], dtype=int), np.array([], dtype=int)))


def test_roc_area_counts_ties_one_half():
    positive = np.array([False, False, True, True])
    assert metrics.area_under_roc(np.array([0.1, 0.5, 0.5, 0.9]), positive) == pytest.approx(0.875)


@pytest.mark.parametrize(
    ("risk", "raised"),
    [
        ([0.9, 0.9, 0.9, 0.1, 0.1, 0.1], []),
        ([0.9, 0.9, 0.1, 0.9, 0.9, 0.9], [4]),
        ([0.8] * 8, []),
        ([0.9] * 4 + [0.1] * 4 + [0.9] * 4, [3]),
        ([0.9] * 4 + [0.1] * 5 + [0.9] * 4, [3, 12]),
        ([0.9] * 4 + [0.7] * 9 + [0.9] * 4, [3]),
    ],
    ids=[
        "three is too few",
        "four of five",
        "on the threshold",
        "four do not clear",
        "cleared, again",
        "0.7 holds",
    ],
)
def test_alarm_needs_four_of_five_and_clears_after_five(risk, raised):
    assert metrics.alarms(np.array(risk)) == raised


def test_window_is_the_last_fifty_left_padded_with_the_first_record():
    records = np.arange(60 * 24, dtype=np.float32).reshape(60, 24)
    engine = data.Engine("FD001-001", np.arange(1, 61), records, 60, "HPC")
    built = data.windows(engine)
    assert built.shape == (60, 50, 24)
    assert (built[0] == records[0]).all()
    assert (built[2, :48] == records[0]).all()
    assert (built[2, 49] == records[2]).all()
    assert (built[59] == records[10:]).all()


def test_an_oracle_gets_the_figures_of_an_oracle(tmp_path):
    folder = write_folder(tmp_path / "d", {"FD001-001": (200, 200, "HPC")}, "FD001-001,150,50\n")
    figures = metrics.evaluate(oracle, folder, "test")
    assert figures["rmse"] == {"FD001": 0.0}
    assert figures["nasa_score"] == {"FD001": 0.0}
    assert figures["failure_type_macro_f1"] == 1.0
    assert figures["interval_coverage"] == 1.0
    # severity > 0.8 is fewer than 25 cycles left: 24, 23, 22, 21 make four, the alarm comes with 21 left.
    assert figures["announced"] == {">=10": 1.0, ">=20": 1.0, ">=30": 0.0}
    assert figures["announced_plan"] == {">=10": 1.0, ">=20": 1.0, ">=30": 1.0}
    assert figures["median_lead"] == 21
    assert figures["false_alarms_per_1000_cycles"] == 0.0
    assert figures["ettf_mae_at_alarm"] == 0.0
    assert figures["n"]["run_to_failure"] == 1


def test_false_alarms_count_over_cycles_with_more_than_60_left(tmp_path):
    folder = write_folder(tmp_path / "d", {"FD002-001": (160, 160, "HPC")})

    def always(windows):
        return oracle(windows) | {"severity": np.ones(len(windows))}

    figures = metrics.evaluate(always, folder, "test")
    assert figures["false_alarms_per_1000_cycles"] == pytest.approx(
        1000 / 99
    )  # cycles 1..99 have 61 or more left
    assert figures["first_alarm_over_60"] == 1
    assert figures["ettf_mae_at_alarm"] == 0.0  # the answer at the cap is judged at the cap


def test_truncated_engines_count_where_their_life_is_known(tmp_path):
    lives = {
        "FD001-001": (150, 150, "HPC"),
        "FD003-T01": (80, None, ""),  # truncated, told by its test point only
        "FD004-T02": (40, 190, "FAN"),  # life beyond its records
        "FD004-T03": (30, None, ""),  # nothing known at all
    }
    folder = write_folder(tmp_path / "d", lives, "FD001-001,100,50\nFD003-T01,80,920\nFD004-T02,40,150\n")
    engines = {engine.name: engine for engine in data.read_engines(folder, "test")}
    assert [name for name, engine in engines.items() if engine.run_to_failure] == ["FD001-001"]
    assert engines["FD003-T01"].remaining()[-1] == 920
    assert np.isnan(engines["FD004-T03"].remaining()).all()
    figures = metrics.evaluate(oracle, folder, "test")
    assert figures["n"]["cut_points"] == {"FD001": 1, "FD003": 1, "FD004": 1}
    assert figures["rmse"] == {"FD001": 0.0, "FD003": 0.0, "FD004": 0.0}
    assert figures["n"]["run_to_failure"] == 1
    assert figures["announced"][">=10"] == 1.0


def test_without_engines_run_to_failure_nothing_is_announced(tmp_path):
    folder = write_folder(tmp_path / "d", {"FD001-T01": (40, None, "")})
    figures = metrics.evaluate(oracle, folder, "test")
    assert math.isnan(figures["announced"][">=10"])
    assert math.isnan(figures["interval_coverage"])
    assert figures["rmse"] == {}


def test_a_split_without_test_points_is_cut_the_same_way_each_time(tmp_path):
    lives = {f"FD001-{i:03}": (100 + i, 100 + i, "HPC") for i in range(8)}
    folder = write_folder(tmp_path / "d", lives)
    engines = data.read_engines(folder, "test")
    points = data.make_cut_points(engines)
    assert points == data.make_cut_points(list(reversed(engines)))
    for point in points:
        life = lives[point.engine][1]
        assert point.cut_cycle + point.true_rul == life
        assert 0.34 <= point.cut_cycle / life <= 0.96
    assert metrics.evaluate(oracle, folder, "test")["cut_points"].startswith("made")


def test_a_missing_split_names_the_file(tmp_path):
    folder = write_folder(tmp_path / "d", {"FD001-001": (60, 60, "HPC")})
    with pytest.raises(FileNotFoundError, match=r"data/val\.csv\.gz"):
        data.read_engines(folder, "val")
