# SPDX-License-Identifier: Apache-2.0
"""The port to the cloud: what every uplink offers to the flow out (delivery.py), and how it says what became of a batch."""

from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from linewatch_runtime.records import Record


@dataclass(slots=True)
class Outcome:
    """What became of a batch. Events in none of the lists are tried again.

    Attributes:
        accepted: event ids that the cloud has.
        handed_over: event ids that somebody took who may still lose them, such as the nucleus. The flow keeps them for
            the uplink's `resend_window_s`, and sends them again when its `session` changes before that.
        refused: what it will never take, with the reasons.
        troubled: streams of which it refused something for now, with the reason.
        trouble: what kept the connection as a whole from delivering.
        publishes: how many requests this took, for the pace.
        sent_bytes: payload bytes that went out, for the pace.
        took: streams of which it answered for an event just now, though another way may still have to take it; None:
            those of the lists.
    """

    accepted: list[str] = field(default_factory=list)
    handed_over: list[str] = field(default_factory=list)
    refused: list[tuple[Record, str]] = field(default_factory=list)
    troubled: dict[str, str] = field(default_factory=dict)
    trouble: str = ""
    publishes: int = 0
    sent_bytes: int = 0
    took: set[str] | None = None

    @property
    def answered(self) -> list[str]:
        """Event ids of the lists."""
        return [*self.accepted, *self.handed_over, *(record.event_id for record, _ in self.refused)]


class Uplink(Protocol):
    """A way to the cloud."""

    @property
    def is_connected(self) -> bool:
        """Whether the cloud is reached now."""

    @property
    def trouble(self) -> str:
        """Why it is not, for people; empty while it is."""

    @property
    def session(self) -> int:
        """Rises whenever what was handed over and not accepted may have been lost."""

    @property
    def resend_window_s(self) -> float:
        """Seconds after which what was handed over counts as accepted; 0 where success is delivery."""

    @property
    def held(self) -> Collection[str]:
        """Event ids that it can do nothing with now; they are not offered until they leave this set."""

    async def run(self) -> None:
        """Connects, and connects again, until it is cancelled."""

    def ready(self) -> Coroutine[None, None, object]:
        """Returns when there is a connection."""

    async def send(self, records: Sequence[Record]) -> Outcome:
        """Sends the records in order. Never raises for what the network or the cloud does."""
