# SPDX-License-Identifier: Apache-2.0
"""The browsers that are signed in. In memory and bounded: a restart of the console ends them all.

A session ends when it was not used for a while, when it is old, when its owner signs out or is no longer on the list of
users as they were, and when newer ones need its place. Whatever ends it, its open streams end with it.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import Gauge

from linewatch_console.people import Person

MOST_SESSIONS = 256
MOST_OF_ONE_PERSON = 16

open_sessions = Gauge("linewatch_console_sessions", "Browsers that are signed in")


@dataclass(eq=False, slots=True)
class Session:
    """One browser. `token` goes into each request that changes something.

    `stamp` is the state of the list of users that this session stands on; `how` is none, password, users or oidc;
    `leave_url` is where the identity provider ends its own session. Times are monotonic seconds.
    """

    key: str
    token: str
    person: Person
    how: str
    stamp: str
    began_at: float
    seen_at: float
    leave_url: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """Use it from one event loop. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float], idle_s: float, longest_s: float) -> None:
        self._clock = clock
        self._idle_s = idle_s
        self.longest_s = longest_s
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def open(self, person: Person, how: str, stamp: str = "", leave_url: str = "") -> Session:
        """A new session with a key that nobody has seen; the oldest of this person, or of all, makes room."""
        now = self._clock()
        own = [one for one in self._sessions.values() if one.person.name == person.name and one.how == how]
        if how != "none" and len(own) >= MOST_OF_ONE_PERSON:
            self.end(own[0])
        session = Session(
            secrets.token_urlsafe(32), secrets.token_urlsafe(32), person, how, stamp, now, now, leave_url
        )
        self._sessions[session.key] = session
        while len(self._sessions) > MOST_SESSIONS:
            self.end(next(iter(self._sessions.values())))
        open_sessions.set(len(self._sessions))
        return session

    def of(self, key: str) -> Session | None:
        """The session with this key, if it has not ended; does not count as a use."""
        session = self._sessions.get(key)
        if session is not None and self._is_over(session):
            self.end(session)
            return None
        return session

    def use(self, session: Session) -> None:
        """A person did something with it."""
        session.seen_at = self._clock()

    def end(self, session: Session) -> None:
        """Ends it and its streams. Harmless when it has ended."""
        self._sessions.pop(session.key, None)
        session.ended.set()
        open_sessions.set(len(self._sessions))

    def sweep(self, stands: Callable[[Session], bool]) -> list[Session]:
        """Ends what is over and what no longer `stands`, and gives those of the second kind."""
        for session in [one for one in self._sessions.values() if self._is_over(one)]:
            self.end(session)
        fallen = [one for one in self._sessions.values() if not stands(one)]
        for session in fallen:
            self.end(session)
        return fallen

    def _is_over(self, session: Session) -> bool:
        now = self._clock()
        is_idle = session.how != "none" and now - session.seen_at > self._idle_s
        return is_idle or now - session.began_at > self.longest_s
