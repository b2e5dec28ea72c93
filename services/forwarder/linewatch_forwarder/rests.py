# SPDX-License-Identifier: Apache-2.0
"""Streams whose events the cloud refuses for now: each is left alone for a while, with a backoff of its own."""

import logging
import random
import time
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from linewatch_forwarder.uplinks.port import Outcome

log = logging.getLogger(__name__)

LONGEST_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class _Rest:
    """A stream that is left alone until `until`, on the monotonic clock."""

    failures: int
    until: float
    reason: str


class Rests:
    """Who rests, until when, and why."""

    def __init__(self) -> None:
        self._rests: dict[str, _Rest] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """Stream -> why."""
        return {name: rest.reason for name, rest in self._rests.items()}

    @property
    def resting(self) -> list[str]:
        """Streams to leave alone now."""
        now = time.monotonic()
        return [name for name, rest in self._rests.items() if rest.until > now]

    def note(self, outcome: Outcome, took: AbstractSet[str]) -> None:
        """Lets the streams in trouble rest, and forgets the trouble of those of which something was taken and nothing
        refused.
        """
        for name, reason in outcome.troubled.items():
            before = self._rests.get(name)
            if before is None or before.reason != reason:
                log.warning("stream_troubled", extra={"stream": name, "reason": reason})
            failures = before.failures + 1 if before else 1
            self._rests[name] = _Rest(failures, time.monotonic() + backoff_s(failures), reason)
        if not outcome.trouble:
            for name in took - outcome.troubled.keys():
                if self._rests.pop(name, None):
                    log.info("stream_delivers", extra={"stream": name})

    def keep(self, names: Collection[str]) -> None:
        """Forgets every other stream: one that is due and has nothing left is in no trouble."""
        self._rests = {name: rest for name, rest in self._rests.items() if name in names}


def backoff_s(failures: int) -> float:
    """Full jitter."""
    longest = min(LONGEST_BACKOFF_S, 0.5 * 2 ** min(failures, 10))  # 2**1024 would be no float
    return random.uniform(0, longest)  # noqa: S311
