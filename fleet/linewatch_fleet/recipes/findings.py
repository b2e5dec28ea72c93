# SPDX-License-Identifier: Apache-2.0
"""What the linter says, and the register of its rules."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from linewatch_fleet.recipes.reading import Recipe

Severity = Literal["error", "warning"]

Place = tuple[str, str]
"""Where (a path such as `Manifests[0].Platform`) and what was found there."""

Check = Callable[[Recipe], Iterable[Place]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must hold."""

    id: str
    severity: Severity
    reason: str
    """What goes wrong on a device."""
    remedy: str
    check: Check


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a rule does not hold."""

    rule: str
    severity: Severity
    path: str
    found: str
    reason: str
    remedy: str

    def as_json(self) -> dict[str, str]:
        """As it stands in a --json document."""
        return {name: getattr(self, name) for name in self.__slots__}


RULES: dict[str, Rule] = {}


def rule(id_: str, severity: Severity, reason: str, remedy: str) -> Callable[[Check], Check]:
    """Registers the function below as the check of a rule."""

    def register(check: Check) -> Check:
        assert id_ not in RULES, id_
        RULES[id_] = Rule(id_, severity, reason, remedy, check)
        return check

    return register


def findings(recipe: Recipe) -> Iterator[Finding]:
    """Everything that the rules find, each place once for a rule."""
    for one in RULES.values():
        for path, found in dict.fromkeys(one.check(recipe)):
            yield Finding(one.id, one.severity, path, found, one.reason, one.remedy)
