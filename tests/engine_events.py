# SPDX-License-Identifier: Apache-2.0
"""How containers stopped, by the engine's own events and clock: neither the machine's load nor a client's start counts."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from brokers import wait_for

TOLD_S = 60.0
"""How long the engine's last event may be on its way."""


@dataclass(slots=True)
class Stop:
    """Of one container. Times are the engine's, in seconds."""

    asked_at: float | None = None
    """When it was sent SIGTERM first; None: it never was."""
    ended_at: float = 0.0
    code: int = -1

    @property
    def took_s(self) -> float:
        """From the first SIGTERM to the end."""
        assert self.asked_at is not None, "it ended without a SIGTERM"
        return self.ended_at - self.asked_at


@dataclass(slots=True)
class Stops:
    """Container's name -> its end, for those whose names begin with the prefix."""

    prefix: str
    ended: dict[str, Stop] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)

    def heard(self, line: str) -> None:
        """An event as the engine tells it."""
        event = json.loads(line)
        attributes = event["Actor"]["Attributes"]
        name, at = attributes["name"], event["timeNano"] / 1e9
        if not name.startswith(self.prefix):
            return
        if event["Action"] == "kill" and attributes["signal"] == "15":
            self._asked.setdefault(name, at)
        elif event["Action"] == "die":
            self.ended[name] = Stop(self._asked.pop(name, None), at, int(attributes["exitCode"]))

    def wait(self, *names: str) -> dict[str, Stop]:
        """The ends, once these containers have ended."""
        wait_for(lambda: self.ended.keys() >= set(names), f"{names} have ended; {self.ended}", TOLD_S)
        return dict(self.ended)


@contextmanager
def stops(prefix: str) -> Iterator[Stops]:
    """What ends from now on."""
    made = Stops(prefix)
    # Since now: what happens before this client is connected is told, too.
    with subprocess.Popen(
        ["docker", "events", "--since", f"{time.time():.9f}", "--filter", "type=container", "--filter", "event=kill",
         "--filter", "event=die", "--format", "{{json .}}"],
        stdout=subprocess.PIPE, text=True,
    ) as events:  # fmt: skip
        assert events.stdout is not None
        lines = events.stdout

        def listen() -> None:
            for line in lines:
                made.heard(line)

        thread = threading.Thread(target=listen, name="engine events", daemon=True)
        thread.start()
        try:
            yield made
        finally:
            events.terminate()
            thread.join(TOLD_S)
