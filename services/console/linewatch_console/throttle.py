# SPDX-License-Identifier: Apache-2.0
"""Slows guessing down without locking anybody out who has signed in from this browser before.

A browser that signed in as somebody carries a mark of that (a device cookie); its tries are counted by themselves. All
others are counted by name and address, by name, and by address. So a stranger who guesses at a name, or from the address
that a whole plant shares, ends the tries of strangers only. A name counts whether it is known or not.
"""

import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

WINDOW_S = 15 * 60.0
WRONG_PER_BROWSER = 8
WRONG_PER_NAME_AND_ADDRESS = 5
WRONG_PER_NAME = 20
WRONG_PER_ADDRESS = 40
MOST_COUNTED = 4096

Counted = tuple[str, ...]


class Throttle:
    """Wrong tries of the last quarter of an hour, bounded. `clock` gives monotonic seconds; `key` marks browsers."""

    def __init__(self, clock: Callable[[], float], key: bytes) -> None:
        self._clock = clock
        self._key = key
        self._wrong: OrderedDict[Counted, deque[float]] = OrderedDict()

    def mark(self, name: str) -> str:
        """What a browser carries that has signed in as `name`."""
        return hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()

    def wait_s(self, name: str, address: str, mark: str) -> float:
        """Seconds until this browser may try again; 0 when it may now."""
        return max(self._wait(counted, most) for counted, most in self._counted(name, address, mark))

    def wrong(self, name: str, address: str, mark: str) -> None:
        """Counts a wrong try."""
        now = self._clock()
        for counted, most in self._counted(name, address, mark):
            tries = self._wrong.setdefault(counted, deque(maxlen=most))
            tries.append(now)
            self._wrong.move_to_end(counted)
        while len(self._wrong) > MOST_COUNTED:
            self._wrong.popitem(last=False)

    def right(self, name: str, address: str, mark: str) -> None:
        """A right one, which `wrong` had counted before it was known, ends the count of this name from here."""
        own, *shared = [counted for counted, _ in self._counted(name, address, mark)]
        self._wrong.pop(own, None)
        for counted in shared:
            if tries := self._wrong.get(counted):
                tries.pop()

    def _counted(self, name: str, address: str, mark: str) -> Sequence[tuple[Counted, int]]:
        address = _network(address)
        if mark and hmac.compare_digest(mark.encode(), self.mark(name).encode()):
            return [(("browser", name, address), WRONG_PER_BROWSER)]
        return [
            (("both", name, address), WRONG_PER_NAME_AND_ADDRESS),
            (("name", name), WRONG_PER_NAME),
            (("address", address), WRONG_PER_ADDRESS),
        ]

    def _wait(self, counted: Counted, most: int) -> float:
        tries = self._wrong.get(counted, ())
        now = self._clock()
        recent = [at for at in tries if at > now - WINDOW_S]
        return recent[0] + WINDOW_S - now if len(recent) >= most else 0.0


def _network(address: str) -> str:
    """The address; of IPv6 the network that one customer gets, or each try would come from another address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else address


def browser_key(state_dir: Path) -> bytes:
    """The key that marks browsers, kept over restarts; where it can't be kept, marks last as long as this process."""
    path = state_dir / "browser-key"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
            key = file.read()
            if len(key) != 32:
                key = secrets.token_bytes(32)
                file.seek(0)
                file.truncate()
                file.write(key)
    except OSError as error:
        log.warning("browser_key_not_kept", extra={"reason": error.strerror})
        return secrets.token_bytes(32)
    return key
