# SPDX-License-Identifier: Apache-2.0
"""A verb decides first and acts then: the plan is what --dry-run prints and what is carried out otherwise.

A step is idempotent: a command that was cut off is run again, and a step that is already done plans as "keep".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from linewatch_fleet import output

Action = Literal["create", "update", "delete", "keep", "copy", "sign", "write", "run"]


@dataclass(frozen=True, slots=True)
class Step:
    """One change. `do` carries it out; a step without `do` only says that nothing is to be changed."""

    action: Action
    what: str
    """The thing, in AWS's or the file system's own terms: `thing linewatch-dev-1`, `image linewatch/capture`."""
    detail: str = ""
    do: Callable[[], None] | None = None

    @property
    def changes(self) -> bool:
        """Whether carrying the step out changes anything."""
        return self.do is not None


@dataclass(slots=True)
class Plan:
    """Steps in the order in which they are carried out."""

    steps: list[Step] = field(default_factory=list)

    def add(self, action: Action, what: str, detail: str = "", do: Callable[[], None] | None = None) -> None:
        """Appends a step."""
        self.steps.append(Step(action, what, detail, do))

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @property
    def changes(self) -> list[Step]:
        """The steps that would change something."""
        return [step for step in self.steps if step.changes]

    def show(self) -> None:
        """Prints the plan as a table."""
        output.table(
            ("ACTION", "WHAT", "DETAIL"), ((step.action, step.what, step.detail) for step in self.steps)
        )

    def as_json(self) -> list[dict[str, str]]:
        """The plan as it stands in a --json document."""
        return [{"action": step.action, "what": step.what, "detail": step.detail} for step in self.steps]

    def apply(self, what: str) -> None:
        """Carries every step out, in order. The first that fails ends it; run the command again to go on from there."""
        with output.progress(what, len(self.changes)) as advance:
            for step in self.changes:
                assert step.do is not None
                step.do()
                advance(step.what)
