# SPDX-License-Identifier: Apache-2.0
"""Judge a prognostics model on engines laid out like the C-MAPSS folder: numpy and the standard library only.

An engine whose records stop before its failure, or whose life is not told, counts only where its remaining life is
known; `announced` asks for engines run to failure.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linewatch_models.prognostics_data import (
    CutPoint,
    Engine,
    make_cut_points,
    read_engines,
    read_test_points,
    windows,
)

Floats = NDArray[np.float64]
Predict = Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]

SUBSETS = ("FD001", "FD002", "FD003", "FD004")
LABELS = ("none", "HPC", "FAN")
RUL_CAP = 125  # cycles; the usual convention, above it nothing is to be seen yet
FAR_FROM_FAILURE = 60  # cycles left; an alarm before this is a false one
LEADS = (10, 20, 30)  # cycles
BATCH = 1024  # windows per call of predict


@dataclass(frozen=True, slots=True)
class AlarmPolicy:
    """Raise when `risk` > `on` in `count` of the last `window` records, clear after `window` records below `off`."""

    on: float
    off: float
    count: int = 4
    window: int = 5


DEFAULT_POLICY = AlarmPolicy(on=0.8, off=0.7)
PLAN_POLICY = AlarmPolicy(on=0.7, off=0.6)


@dataclass(frozen=True, slots=True)
class Track:
    """One engine with the model's answer at every record."""

    engine: Engine
    rul: Floats  # [T, 3] p10, p50, p90
    failure_mode_prob: Floats  # [T, 3] in the order of LABELS
    p_fail_30: Floats  # [T]
    severity: Floats  # [T]


# --- the model's answers -----------------------------------------------------------------------------------------


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def track(predict: Predict, engine: Engine) -> Track:
    """Ask the model at every record of an engine."""
    asked = windows(engine)
    answers = [predict(asked[part]) for part in _batches(len(asked))]

    def joined(role: str) -> Floats:
        return np.concatenate([np.asarray(answer[role], dtype=np.float64) for answer in answers])

    return Track(
        engine=engine,
        rul=joined("rul"),
        failure_mode_prob=joined("failure_mode_prob"),
        p_fail_30=joined("p_fail_30").reshape(-1),
        severity=joined("severity").reshape(-1),
    )


def alarms(risk: Floats, policy: AlarmPolicy = DEFAULT_POLICY) -> list[int]:
    """Return the record numbers at which an alarm is raised; it may be raised again once it has cleared."""
    raised: list[int] = []
    active = False
    last_clear = 0  # records before a clearing don't count for the next alarm
    for index in range(len(risk)):
        recent = risk[max(last_clear, index + 1 - policy.window) : index + 1]
        if not active and int((recent > policy.on).sum()) >= policy.count:
            raised.append(index)
            active, last_clear = True, index + 1
        elif active and len(recent) == policy.window and bool((recent < policy.off).all()):
            active, last_clear = False, index + 1
    return raised


# --- figures -----------------------------------------------------------------------------------------------------


def rmse(predicted: Floats, true: Floats) -> float:
    """Return the root mean square error in cycles."""
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def nasa_score(predicted: Floats, true: Floats) -> float:
    """Sum the PHM 2008 penalty; late answers cost more than early ones."""
    late = predicted - true
    return float(np.sum(np.where(late < 0, np.exp(-late / 13) - 1, np.exp(late / 10) - 1)))


def macro_f1(predicted: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    """Average F1 over the classes that occur in either; NaN where there is nothing to compare."""
    scores = []
    for label in sorted(set(predicted.tolist()) | set(true.tolist())):
        hits = int(((predicted == label) & (true == label)).sum())
        claims = int((predicted == label).sum()) + int((true == label).sum())
        scores.append(2 * hits / claims)
    return float(np.mean(scores)) if scores else float("nan")


def area_under_roc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the chance that a positive scores above a negative, ties counting one half."""
    values, group, sizes = np.unique(score, return_inverse=True, return_counts=True)
    if not len(values) or positive.all() or not positive.any():
        return float("nan")
    rank = (np.cumsum(sizes) - (sizes - 1) / 2)[group]
    n_pos = int(positive.sum())
    return float((rank[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * (len(score) - n_pos)))


def at_cut_points(tracks: Sequence[Track], points: Sequence[CutPoint]) -> dict[str, dict[str, float]]:
    """Return rmse, nasa_score and n by subset; labels capped at 125, points of absent engines left out."""
    by_name = {each.engine.name: each for each in tracks}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        if point.engine not in by_name:
            continue
        each = by_name[point.engine]
        at = int(np.searchsorted(each.engine.cycles, point.cut_cycle, side="right")) - 1
        if at >= 0:
            pairs.setdefault(each.engine.subset, []).append((each.rul[at, 1], min(point.true_rul, RUL_CAP)))
    figures: dict[str, dict[str, float]] = {"rmse": {}, "nasa_score": {}, "n": {}}
    for subset in sorted(pairs):
        predicted, true = np.array(pairs[subset]).T
        figures["rmse"][subset] = rmse(predicted, true)
        figures["nasa_score"][subset] = nasa_score(predicted, true)
        figures["n"][subset] = len(true)
    return figures


def early_warning(tracks: Sequence[Track], policy: AlarmPolicy) -> dict[str, Any]:
    """Return announced, ettf_mae_at_alarm and false_alarms_per_1000_cycles under one alarm policy.

    The first alarm is latched for `announced` (shares over engines run to failure, also an alarm that came far too
    early counts); every raise with more than 60 cycles left is a false alarm, on truncated engines as well.
    """
    leads: list[float] = []
    errors: list[float] = []
    false_alarms = far_cycles = 0
    for each in tracks:
        left = each.engine.remaining()
        raised = alarms(each.severity, policy)
        far_cycles += int((left > FAR_FROM_FAILURE).sum())
        false_alarms += sum(left[index] > FAR_FROM_FAILURE for index in raised)
        if each.engine.run_to_failure:
            leads.append(float(left[raised[0]]) if raised else -1.0)
            if raised:
                errors.append(abs(float(each.rul[raised[0], 1]) - min(float(left[raised[0]]), RUL_CAP)))
    lead = np.array(leads)
    return {
        "announced": {f">={k}": float((lead >= k).mean()) if len(lead) else float("nan") for k in LEADS},
        "first_alarm_over_60": int((lead > FAR_FROM_FAILURE).sum()),
        "median_lead": float(np.median(lead[lead >= 0])) if (lead >= 0).any() else float("nan"),
        "false_alarms_per_1000_cycles": 1000 * false_alarms / far_cycles if far_cycles else float("nan"),
        "ettf_mae_at_alarm": float(np.mean(errors)) if errors else float("nan"),
    }


def _pooled(tracks: Sequence[Track]) -> dict[str, Any]:
    """Return the figures over all records whose remaining life is known."""
    left = np.concatenate([each.engine.remaining() for each in tracks])
    rul = np.concatenate([each.rul for each in tracks])
    p_fail = np.concatenate([each.p_fail_30 for each in tracks])
    guess = np.concatenate([each.failure_mode_prob for each in tracks]).argmax(axis=1)
    mode = np.concatenate([np.full(len(each.rul), _label(each.engine)) for each in tracks])
    known, typed = np.isfinite(left), np.isfinite(left) & (mode >= 0)
    truth = np.where(left > RUL_CAP, 0, mode)
    capped = np.minimum(left, RUL_CAP)
    inside = (rul[:, 0] <= capped) & (capped <= rul[:, 2])

    def coverage(limit: float) -> float:
        near = known & (left <= limit)
        return float(inside[near].mean()) if near.any() else float("nan")

    soon = left[known] <= 30
    return {
        "rmse_every_cycle": rmse(rul[known, 1], capped[known]) if known.any() else float("nan"),
        "failure_type_macro_f1": macro_f1(guess[typed], truth[typed]),
        "failure_type_macro_f1_within_60": macro_f1(guess[typed & (left <= 60)], truth[typed & (left <= 60)]),
        "interval_coverage": coverage(RUL_CAP),
        "interval_coverage_within_60": coverage(60),
        "p_fail_30": {
            "auc": area_under_roc(p_fail[known], soon),
            "brier": float(np.mean((p_fail[known] - soon) ** 2)) if known.any() else float("nan"),
        },
    }


def _label(engine: Engine) -> int:
    return LABELS.index(engine.failure_mode) if engine.failure_mode in LABELS else -1


def evaluate(predict: Predict, data_dir: Path, split: str) -> dict[str, Any]:
    """Return the figures of VISION.md section 4 for one split.

    `predict` takes float32 [N, 50, 24] windows and returns by role `rul` [N, 3], `failure_mode_prob` [N, 3],
    `p_fail_30` [N] and `severity` [N]. A figure without anything to count is NaN.
    """
    engines = read_engines(data_dir, split)
    if not engines:
        raise ValueError(f"no engine of split {split} under {data_dir}")
    tracks = [track(predict, engine) for engine in engines]
    names = {engine.name for engine in engines}
    points = [point for point in read_test_points(data_dir) if point.engine in names]
    source = "test_points.csv" if points else "made: one per engine, 35 to 95 % of its life"
    cut = at_cut_points(tracks, points or make_cut_points(engines))
    plan = early_warning(tracks, PLAN_POLICY)
    return {
        "rmse": cut["rmse"],
        "nasa_score": cut["nasa_score"],
        "cut_points": source,
        **_pooled(tracks),
        **early_warning(tracks, DEFAULT_POLICY),
        **{f"{key}_plan": value for key, value in plan.items()},
        "n": {
            "engines": len(engines),
            "run_to_failure": sum(engine.run_to_failure for engine in engines),
            "records": sum(len(engine.cycles) for engine in engines),
            "cut_points": cut["n"],
        },
    }
