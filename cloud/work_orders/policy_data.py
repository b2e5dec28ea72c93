# SPDX-License-Identifier: Apache-2.0
"""policy.json as typed values: the numbers and words that a plant changes without touching code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from work_orders.policy import Band, Rule


@dataclass(frozen=True, slots=True)
class FailureMode:
    """What people call a failure mode and what to do about it."""

    failure_type: str
    # (risk from which it is advised, action), worst first.
    actions: tuple[tuple[float, str], ...]

    def action(self, risk: float) -> str:
        """The recommended maintenance action at this risk."""
        return next(action for at_least, action in self.actions if risk >= at_least)


@dataclass(frozen=True, slots=True)
class PolicyData:
    """The whole of policy.json."""

    version: str
    # By kind of station, "machine" or "product".
    rules: Mapping[str, Rule]
    # A product's weight by its result, "NG", "REVIEW" or "OK".
    weights: Mapping[str, float]
    # Observations kept per station; a later arrival than this is too old to count.
    remember: int
    severity_words: tuple[tuple[float, str], ...]
    failure_modes: Mapping[str, FailureMode]
    unlisted: FailureMode

    def failure_mode(self, code: str) -> FailureMode:
        """The words for a failure-mode code; general ones when it is not listed."""
        return self.failure_modes.get(code, self.unlisted)

    def severity_word(self, risk: float) -> str:
        """One of "urgent", "high", "medium" or "low"."""
        return next(word for at_least, word in self.severity_words if risk >= at_least)


PATH = Path(__file__).with_name("policy.json")


@cache
def load(path: Path = PATH) -> PolicyData:
    """Reads the policy. A missing or misspelt key raises KeyError: a Lambda that can't know its policy must not run."""
    raw = json.loads(path.read_text())
    bands = tuple(Band(b["name"], b["on"], b["on_inclusive"], b["off"]) for b in raw["bands"])
    rules = {
        kind: Rule(bands, raw["observations"], raw["needed"], raw["clear_after"], risk["window"])
        for kind, risk in raw["risk"].items()
    }
    return PolicyData(
        version=raw["version"],
        rules=rules,
        weights=raw["risk"]["product"]["weights"],
        remember=raw["remember"],
        severity_words=tuple((entry["at_least"], entry["word"]) for entry in raw["severity_words"]),
        failure_modes={code: _failure_mode(entry) for code, entry in raw["failure_modes"].items()},
        unlisted=_failure_mode(raw["unlisted_failure_mode"]),
    )


def _failure_mode(entry: Mapping[str, Any]) -> FailureMode:
    return FailureMode(entry["failure_type"], tuple((a["at_least"], a["action"]) for a in entry["actions"]))
