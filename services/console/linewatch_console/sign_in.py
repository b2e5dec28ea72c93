# SPDX-License-Identifier: Apache-2.0
"""Who somebody is, by what they offer: a name and a password of the local list, or the console's one password.

Reckoning an Argon2 hash takes 32 MB and a tenth of a second, so one runs at a time and few wait: a flood of sign-ins
can't take the memory or the cores from the page.
"""

import asyncio
import hmac
import unicodedata
from dataclasses import dataclass

from prometheus_client import Counter

from linewatch_console.people import Person, is_name
from linewatch_console.throttle import Throttle
from linewatch_console.user_list import LONGEST_PASSWORD, User, UserList, is_password

MOST_WAITING = 8

sign_ins = Counter("linewatch_console_sign_ins", "Tries to sign in", ["outcome"])


class NotSignedIn(Exception):
    """The text says why, and nothing of whether the name is known."""

    status = 401


class WrongPassword(NotSignedIn):
    """The name or the password is not right."""


class TooMany(NotSignedIn):
    """Too many wrong ones, or too many at once."""

    status = 429


class NoList(NotSignedIn):
    """The list of users can't be read."""

    status = 503


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody who has shown who they are. `stamp`: the state of the list that this stands on."""

    person: Person
    stamp: str


class SignIn:
    """`kind` is none, password, users or oidc: what the page offers first."""

    def __init__(
        self, kind: str, throttle: Throttle, users: UserList | None, password: str, operator: str
    ) -> None:
        self.kind = kind
        self.users = users
        self.throttle = throttle
        self._password = password
        self._operator = operator
        self._one_at_a_time = asyncio.Semaphore(1)
        self._waiting = 0

    @property
    def asks_password(self) -> bool:
        """Whether there is a password to sign in with, with a name or without."""
        return self.users is not None or bool(self._password)

    async def by_password(self, name: str, offered: str, address: str, mark: str) -> Known:
        """Whoever has this name and password; `mark` is what the browser carries. Raises NotSignedIn."""
        # One password for all has no names: made-up ones must not be counted apart.
        name = unicodedata.normalize("NFC", name.strip())[:100] if self.users is not None else ""
        wait_s = self.throttle.wait_s(name, address, mark)
        if wait_s:
            sign_ins.labels("throttled").inc()
            minutes = int(wait_s // 60) + 1
            raise TooMany(f"Too many wrong passwords. Try again in {minutes} min.")
        if self._waiting >= MOST_WAITING:
            sign_ins.labels("busy").inc()
            raise TooMany("Too many people sign in at this moment. Try again.")
        # Counted before it is reckoned: tries at the same moment can't all pass the limit.
        self.throttle.wrong(name, address, mark)
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                known = await self._known(name, offered[: LONGEST_PASSWORD + 1])
        finally:
            self._waiting -= 1
        if known is None:
            sign_ins.labels("wrong").inc()
            raise WrongPassword(
                "That name and password do not belong together."
                if self.users is not None
                else "That is not the password."
            )
        self.throttle.right(name, address, mark)
        sign_ins.labels("right").inc()
        return known

    def stands(self, how: str, person: Person, stamp: str) -> bool:
        """Whether somebody who signed in by `how` is still who they were: same role, same password."""
        return how != "users" or self.users is None or _stamp(self.users.get(person.name)) == stamp

    async def _known(self, name: str, offered: str) -> Known | None:
        if self.users is None:
            is_right = bool(self._password) and hmac.compare_digest(offered.encode(), self._password.encode())
            return Known(Person(self._operator, "approver"), "") if is_right else None
        self.users.look()
        if self.users.problem:
            raise NoList("The list of users can't be read; ask whoever runs this console (its log says why).")
        user = self.users.get(name) if is_name(name) else None
        if not await asyncio.to_thread(is_password, user, offered, self.users.any()) or user is None:
            return None
        # Of whom the password was of: the list may have been read anew meanwhile.
        return Known(user.person, _stamp(user))


def _stamp(user: User | None) -> str:
    return f"{user.role} {user.password}" if user else ""
