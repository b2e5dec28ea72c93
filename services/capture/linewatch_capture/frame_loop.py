# SPDX-License-Identifier: Apache-2.0
"""THE FLOW: for each part, ask, keep what people will want to see, record.

Guarantee: a part is recorded once (its event, the counts and the source's position in one transaction on disk), or it
comes again after a restart. So sent = judged + not_inspected + skipped holds after any kill, and no part that keeps is
lost or doubled. Publishing is not the flow's: linewatch_runtime.publisher moves events from the spool to the forwarder.

Proved by: services/capture/tests/test_process.py
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from linewatch.v1 import event_pb2
from linewatch_capture.parts import Outcome, Part, Stopped
from linewatch_runtime.events import new_event_id


class Source(Protocol):
    """Where parts come from."""

    name: str
    """Kind and place; its position is kept under this name."""
    can_wait: bool
    """True when nothing is lost by waiting, because the parts lie on disk. False: the newest part wins."""

    def parts(self, position: int) -> AsyncIterator[Part]:
        """Parts from `position` on (0: the beginning), until the end or a stop."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """A part to judge, and how many were skipped since the one before, by reason (event.proto, PartsSkipped).

    `skipped_marks`: of the skipped parts, which are recorded with this one.
    """

    part: Part
    skipped: Mapping[str, int] = field(default_factory=dict)
    skipped_marks: Sequence[str] = ()


class Inspector(Protocol):
    """Who judges."""

    async def inspect(self, event_id: str, part: Part) -> Outcome:
        """The outcome, in bounded time. Raises Stopped when a stop was asked first."""
        ...


class EvidenceStore(Protocol):
    """What people can look at afterwards."""

    async def keep(self, event_id: str, part: Part, outcome: Outcome) -> Sequence[event_pb2.Evidence]:
        """What was kept, on disk when this returns. Never raises for a full or broken disk: it keeps nothing then."""
        ...

    def close(self) -> None:
        """Lets its files go, once nothing is kept any more."""
        ...


class Ledger(Protocol):
    """What happened, on disk."""

    async def record(
        self, event_id: str, arrival: Arrival, outcome: Outcome, evidence: Sequence[event_pb2.Evidence]
    ) -> None:
        """Returns once it is on disk. Waits while there is no room. Raises Stopped when a stop was asked first."""
        ...


async def inspect_parts(
    arrivals: AsyncIterator[Arrival], inspector: Inspector, evidence: EvidenceStore, ledger: Ledger
) -> bool:
    """Records one event per part. True when the source has ended, False when a stop came first.

    A part that could not be judged is recorded without a verdict: a gap is data, silence is not.
    """
    async for arrival in arrivals:
        part, event_id = arrival.part, new_event_id()
        try:
            outcome = part.refused or await inspector.inspect(event_id, part)
            kept = await evidence.keep(event_id, part, outcome)
            await ledger.record(event_id, arrival, outcome, kept)
        except Stopped:
            return False
    return True
