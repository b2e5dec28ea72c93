# SPDX-License-Identifier: Apache-2.0
"""A policy document as typed values: the numbers and words that a plant changes without touching code.

The release brings policy.json; `linewatch policy put` stores others (policies.py). A document that contradicts itself
is refused with the place and the remedy (policy_reading.py), where it is put, and not understood where it is read.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from work_orders.policy import Band, Rule
from work_orders.quiet_hours import QuietHours

OnExpiry = Literal["reject", "create", "keep"]
"""What becomes of an approval that nobody gave: closed without an order, created, or kept waiting."""


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
class Pilot:
    """While it lasts, every order awaits approval."""

    is_on: bool
    # Its last day, by UTC; None: until somebody ends it.
    until: date | None

    def holds(self, today: date) -> bool:
        """Whether orders of this day await approval."""
        return self.is_on and (self.until is None or today <= self.until)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Most orders that one asset may get without a person's word; what comes above awaits approval."""

    orders: int
    hours: float


@dataclass(frozen=True, slots=True)
class Approval:
    """How long an order waits for a person, and what happens when none comes."""

    remind_after_hours: float
    expire_after_hours: float
    on_expiry: OnExpiry


@dataclass(frozen=True, slots=True)
class PolicyData:
    """The whole of a policy document."""

    version: str
    # sha256 of the canonical document: two texts of one content have one digest.
    digest: str
    # By kind of station, "machine" or "product".
    rules: Mapping[str, Rule]
    # By criticality: the bands that hold instead of the rules' own.
    bands_by_criticality: Mapping[str, tuple[Band, ...]]
    # A product's weight by its result, "NG", "REVIEW" or "OK".
    weights: Mapping[str, float]
    # Observations kept per station; a later arrival than this is too old to count.
    remember: int
    pilot: Pilot
    quiet_hours: tuple[QuietHours, ...]
    rate_limit: RateLimit
    approval: Approval
    severity_words: tuple[tuple[float, str], ...]
    failure_modes: Mapping[str, FailureMode]
    unlisted: FailureMode

    def rule(self, kind: str, criticality: str | None) -> Rule:
        """The rule for a kind of station and an asset's criticality. KeyError for an unknown kind."""
        bands = self.bands_by_criticality.get(criticality or "")
        return self.rules[kind] if bands is None else replace(self.rules[kind], bands=bands)

    def failure_mode(self, code: str) -> FailureMode:
        """The words for a failure-mode code; general ones when it is not listed."""
        return self.failure_modes.get(code, self.unlisted)

    def severity_word(self, risk: float) -> str:
        """One of "urgent", "high", "medium" or "low"."""
        return next(word for at_least, word in self.severity_words if risk >= at_least)

    def is_worse(self, word: str, than: str) -> bool:
        """Whether one severity word stands above another; an unknown one stands below all."""
        order = [listed for _, listed in self.severity_words]
        places = {listed: place for place, listed in enumerate(order)}
        return places.get(word, len(order)) < places.get(than, len(order))


PATH = Path(__file__).with_name("policy.json")


@cache
def load(path: Path = PATH) -> PolicyData:
    """The policy of a file. Raises PolicyError: a Lambda that can't know its policy must not run."""
    from work_orders.policy_reading import parse

    return parse(json.loads(path.read_text()))


def digest_of(document: Mapping[str, Any]) -> str:
    """Is "sha256:" and 64 hex digits over the canonical JSON."""
    text = json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
