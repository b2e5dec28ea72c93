# SPDX-License-Identifier: Apache-2.0
"""Back-test of the pilot's exit on run-to-failure engines whose end is known.

    python tests/benchmarks/pilot_exit.py --data DIR [--model DIR] [--visit 10] [--risk 0.2] [--json FILE]

DIR is laid out like the C-MAPSS folder; its split `val` is played, never `test`. Every cycle goes through the released
model with the device's own post-processing, and through the released policy in its pilot: each order that it asks for is
approved, and a technician comes `--visit` cycles later. The technician confirms when the engine then has at most 60
cycles left (prognostics_metrics.FAR_FROM_FAILURE), else finds nothing and the next alarm is raised by later cycles. That
rule is ours: the data have no technicians.

First all engines as one pilot. Then many: half of the engines, drawn at random, are the pilot, and the orders of the
other half say how many of those above the threshold that it certified were wrong.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from linewatch_inference.golden import padded_rows
from linewatch_inference.model import Model, open_model
from linewatch_inference.package import locate, read_package
from linewatch_inference.session import SessionOptions
from linewatch_inference.verdict import Window
from linewatch_models.prognostics_data import Engine, read_engines, windows
from linewatch_models.prognostics_metrics import FAR_FROM_FAILURE
from outcomes.certifying import Candidate, Scored, certify, thresholds
from work_orders.observed import Part, to_observation
from work_orders.policy import Band, Latch, Observation, decide
from work_orders.policy_data import PolicyData, load

ROOT = Path(__file__).resolve().parents[2]
SPLIT, DRAWS, CONFIDENCE = "val", 1_000, 0.95
ASSET = {"asset_id": "engine", "kind": "machine", "criticality": "A", "failure_modes": {}}


@dataclass(frozen=True, slots=True)
class Found:
    """One order of one engine, as the technician left it."""

    engine: str
    risk: float
    cycles_left: float
    is_wrong: bool


def observations(model: Model, engine: Engine, data: PolicyData) -> list[Observation]:
    """The engine's cycles as the policy sees them."""
    seen = []
    for number, values in enumerate(windows(engine), 1):
        verdict = model.judged(Window(values, padded_rows(values)))[0]
        part = Part(
            epoch=1, sequence=number, event_id=f"{engine.name}-{number}", taken_at=None, result=str(verdict.result),
            label=verdict.label, failure_mode=verdict.failure_mode or "", severity=verdict.severity,
            score=verdict.score, model_version="",
        )  # fmt: skip
        seen.append(to_observation(part, ASSET, data))
    return seen


def orders(engine: Engine, seen: Sequence[Observation], data: PolicyData, visit: int) -> list[Found]:
    """What the policy orders for one engine until it is repaired or its records end."""
    rule, left = data.rule("machine", "A"), engine.remaining()
    found: list[Found] = []
    opened: tuple[int, str, float] | None = None
    latch = Latch()
    for now in range(len(seen)):
        known = seen[max(0, now + 1 - data.remember) : now + 1]
        if opened is None:
            asked = [
                (decided.risk, mode)
                for mode in {one.failure_mode for one in known if one.failure_mode}
                if (decided := decide(known, mode, rule, latch)).band
            ]
            if asked:
                risk, mode = max(asked)
                opened = (now, mode, risk)
            continue
        since, mode, risk = opened
        rises = decide(known, mode, rule, latch)
        # As the flow has it: noted is a rise into another band or priority.
        if (
            rises.band
            and rises.risk > risk
            and data.is_worse(data.severity_word(rises.risk), data.severity_word(risk))
        ):
            risk = rises.risk
        opened = (since, mode, risk)
        if now - since < visit and now + 1 < len(seen):
            continue
        is_wrong = bool(left[now] > FAR_FROM_FAILURE)
        found.append(Found(engine.name, risk, float(left[now]), is_wrong))
        if not is_wrong:
            break
        latch, opened = Latch(floor=seen[now].position), None
    return found


def created(
    engine: Engine, seen: Sequence[Observation], data: PolicyData, threshold: float, visit: int
) -> bool | None:
    """Whether the order that is created above the threshold is wrong by the time of the visit; None where none is."""
    rule = replace(
        data.rule("machine", "A"), bands=(Band("automatic", threshold, on_inclusive=False, off=0.0),)
    )
    left = engine.remaining()
    for now in range(len(seen)):
        known = seen[max(0, now + 1 - data.remember) : now + 1]
        modes = {one.failure_mode for one in known if one.failure_mode}
        if any(decide(known, mode, rule, Latch()).band for mode in modes):
            return bool(left[min(now + visit, len(seen) - 1)] > FAR_FROM_FAILURE)
    return None


def certified(found: Sequence[Found], risk: float, tried: Sequence[float], present: float) -> list[Candidate]:
    """The thresholds with their verdicts."""
    return certify([Scored(one.risk, one.is_wrong) for one in found], risk, 1 - CONFIDENCE, tried, present)


def loosest(candidates: Sequence[Candidate]) -> float | None:
    """The one that would be proposed."""
    return min((one.threshold for one in candidates if one.is_certified), default=None)


def plug_in(found: Sequence[Found], risk: float, tried: Sequence[float]) -> float | None:
    """The control: the loosest threshold at which the pilot's own orders look good enough."""
    good = [one for one in tried if (share := wrong_share(found, one)) is not None and share <= risk]
    return min(good, default=None)


def wrong_share(found: Sequence[Found], threshold: float) -> float | None:
    """Of the orders above it; None of none."""
    above = [one.is_wrong for one in found if one.risk > threshold]
    return sum(above) / len(above) if above else None


def drawn(
    by_engine: Sequence[Sequence[Found]], risk: float, tried: Sequence[float], present: float
) -> dict[str, Any]:
    """Many pilots of half of the engines, and what the other half's orders say of each choice."""
    chance = random.Random(20261121)
    chosen: dict[str, list[tuple[float, float]]] = {"certified": [], "plug-in": []}
    for _ in range(DRAWS):
        mixed = chance.sample(list(by_engine), len(by_engine))
        half = len(mixed) // 2
        pilot, later = ([one for own in part for one in own] for part in (mixed[:half], mixed[half:]))
        choices = {
            "certified": loosest(certified(pilot, risk, tried, present)),
            "plug-in": plug_in(pilot, risk, tried),
        }
        for name, threshold in choices.items():
            if threshold is not None and (share := wrong_share(later, threshold)) is not None:
                chosen[name].append((threshold, share))
    return {name: _summary(pairs, risk) for name, pairs in chosen.items()}


def _summary(pairs: Sequence[tuple[float, float]], risk: float) -> dict[str, Any]:
    if not pairs:
        return {"pilots": DRAWS, "chose": 0}
    return {
        "pilots": DRAWS,
        "chose": len(pairs),
        "threshold_median": statistics.median(threshold for threshold, _ in pairs),
        "later_wrong_mean": round(statistics.mean(share for _, share in pairs), 4),
        "later_above_risk": round(sum(share > risk for _, share in pairs) / DRAWS, 4),
    }


def main() -> int:
    """Prints the back-test; 1 where the data or the model are not there."""
    parser = argparse.ArgumentParser(description="Back-test of the pilot's exit on run-to-failure engines")
    parser.add_argument("--data", type=Path, required=True, help="a folder laid out like the C-MAPSS folder")
    parser.add_argument("--model", type=Path, help="the package; left out: the released turbofan")
    parser.add_argument("--visit", type=int, default=10, help="cycles until the technician comes")
    parser.add_argument(
        "--risk", type=float, default=0.2, help="of the many small pilots; the whole one is asked for 0.1 too"
    )
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    data = load()
    package = read_package((asked.model or locate(ROOT / "models", "turbofan")).resolve())
    model = open_model(package, "fp32", SessionOptions())
    engines = [engine for engine in read_engines(asked.data, SPLIT) if engine.run_to_failure]
    seen = [observations(model, engine, data) for engine in engines]
    by_engine = [orders(engine, own, data, asked.visit) for engine, own in zip(engines, seen, strict=True)]
    found = [one for own in by_engine for one in own]
    bands = data.rule("machine", "A").bands
    tried, present = thresholds(bands[0].on, bands[1].on), bands[0].on
    print(
        f"{package.metadata.model_name} {package.metadata.model_version}, policy {data.version}, {len(engines)} engines of "
        f"split {SPLIT}, technician after {asked.visit} cycles: {len(found)} orders, {sum(o.is_wrong for o in found)} wrong"
    )
    told: dict[str, Any] = {"engines": len(engines), "orders": len(found), "visit": asked.visit, "whole": {}}
    for risk in sorted({0.1, asked.risk}):
        candidates = certified(found, risk, tried, present)
        print(
            f"\nall engines as one pilot, risk {risk:g}, confidence {CONFIDENCE:g}: loosest certified {loosest(candidates)}"
        )
        for one in candidates:
            upper = "" if one.upper is None else f"at most {one.upper:.3f}"
            print(
                f"  above {one.threshold:4g}: {one.wrong:3} of {one.orders:3} wrong  {upper:15} {'certified' if one.is_certified else ''}"
            )
        told["whole"][f"{risk:g}"] = [
            {
                "threshold": one.threshold,
                "orders": one.orders,
                "wrong": one.wrong,
                "is_certified": one.is_certified,
            }
            for one in candidates
        ]
    told["drawn"] = {"risk": asked.risk, **drawn(by_engine, asked.risk, tried, present)}
    print(f"\n{DRAWS} pilots of half of the engines, risk {asked.risk:g}; the other half is what came later:")
    for name in ("certified", "plug-in"):
        print(f"  {name}: {told['drawn'][name]}")
    print(
        "\nwithout a pilot: created above the threshold, wrong when the technician comes so many cycles after that"
    )
    for threshold in (0.55, present):
        for visit in (0, 10, 20, 30):
            ends = [
                created(engine, own, data, threshold, visit)
                for engine, own in zip(engines, seen, strict=True)
            ]
            wrong, all_ = sum(end is True for end in ends), sum(end is not None for end in ends)
            print(f"  above {threshold:g}, after {visit:2}: {wrong:2} of {all_}")
            told.setdefault("created", []).append(
                {"threshold": threshold, "visit": visit, "orders": all_, "wrong": wrong}
            )
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
