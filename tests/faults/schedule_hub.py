# SPDX-License-Identifier: Apache-2.0
"""Runs several callers of the product at once in one thread, in virtual time, interleaved by a seed.

Each actor is a greenlet. At every call boundary it hands the baton back, and the hub chooses who goes on: among all that
could go on at this moment, by chance. Time passes only where nobody can go on. So a seed is a schedule, to the last step.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from greenlet import getcurrent, greenlet


class DiedError(BaseException):
    """The process of the actor ends here: no handler of the code under test sees it."""


@dataclass(slots=True, eq=False)
class Actor:
    """One running invocation."""

    name: str
    run: greenlet
    # Virtual seconds at which its Lambda is ended.
    ends_at: float
    wakes_at: float
    faults: bool = True


@dataclass(slots=True)
class Hub:
    """The clock, the actors and what is to happen later."""

    chance: random.Random
    now: float
    actors: list[Actor] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    steps: int = 0
    _later: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0

    def clock(self) -> float:
        """Seconds since 1970."""
        return self.now

    def at(self, moment: float, what: Callable[[], None]) -> None:
        """Has something happen at that moment; it must not call the product itself, but may start an actor."""
        self._count += 1
        heapq.heappush(self._later, (moment, self._count, what))

    def start(self, name: str, work: Callable[[], None], longest_s: float) -> Actor:
        """Begins an invocation of at most `longest_s`."""
        actor = Actor(name, greenlet(work), self.now + longest_s, self.now)
        self.actors.append(actor)
        return actor

    def current(self) -> Actor | None:
        """Who has the baton; None for the hub itself, as in the test's own looking."""
        running = getcurrent()
        return next((actor for actor in self.actors if actor.run is running), None)

    def sleep(self, seconds: float) -> None:
        """The actor goes on after so many virtual seconds, unless its Lambda has ended by then."""
        actor = self.current()
        if actor is None:
            return
        actor.wakes_at = self.now + seconds
        self.steps += 1
        actor.run.parent.switch()
        if self.now >= actor.ends_at:
            self.log.append(f"{self.now:.1f} {actor.name} is ended by its time-out")
            raise DiedError

    def run_until(self, moment: float) -> None:
        """Goes on until then, or until nothing is left to happen."""
        while True:
            ready = [actor for actor in self.actors if actor.wakes_at <= self.now]
            if self._later and self._later[0][0] <= self.now:
                heapq.heappop(self._later)[2]()
                continue
            if ready:
                self._resume(self.chance.choice(ready))
                continue
            coming = [actor.wakes_at for actor in self.actors] + [entry[0] for entry in self._later[:1]]
            following = min(coming, default=moment)
            if following > moment or not coming:
                self.now = max(self.now, moment)
                return
            self.now = following

    def _resume(self, actor: Actor) -> None:
        try:
            actor.run.switch()
        except DiedError:
            pass
        finally:
            if actor.run.dead:
                self.actors.remove(actor)
