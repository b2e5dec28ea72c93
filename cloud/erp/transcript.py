# SPDX-License-Identifier: Apache-2.0
"""What was said to the ERP and what it answered, for the records of an order; without secrets.

    with recorded() as calls:
        place(...)

`calls` then holds every HTTP call that was made below it in this thread of control. Nothing is kept outside of it.
"""

import base64
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

# Of one recording; a loop of retries must not fill an order's records. Further calls are made and not listed.
MAX_CALLS = 50
# Of an answer and of a path; enough to recognise them.
EXCERPT = 300
# Secrets that are remembered at once: tokens change every hour, nothing of yesterday's is sent any more.
MAX_HIDDEN = 64
# A piece of a secret that is written as it is everywhere.
PLAIN = re.compile(r"[A-Za-z0-9]{6,}")
# Shorter than this it would take ordinary words out of every answer.
SHORTEST_SECRET = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call."""

    method: str
    # With its query.
    path: str
    # The HTTP status, such as "201", or why none came, such as "ReadTimeoutError".
    outcome: str
    ms: int
    # "sha256:…" of the body that was sent, empty where there was none or where it held a secret.
    request_digest: str
    # First characters of the answer; empty where it held a secret.
    answer: str


_calls: ContextVar[list[Call] | None] = ContextVar("erp_calls", default=None)


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """The calls made inside, oldest first, at most MAX_CALLS."""
    calls: list[Call] = []
    outer = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(outer)


def record(call: Call) -> None:
    """Adds the call where somebody listens."""
    calls = _calls.get()
    if calls is not None and len(calls) < MAX_CALLS:
        calls.append(call)


class Hidden:
    """Secrets that must not be read in a log line, an exception or a record."""

    def __init__(self) -> None:
        self._forms: deque[str] = deque(maxlen=MAX_HIDDEN * 8)
        self._lock = threading.Lock()

    def add(self, secret: str) -> None:
        """Hides this value from now on, also as it is written in URLs, in JSON and in base64."""
        if len(secret) < SHORTEST_SECRET:
            return
        forms = {
            secret,
            quote(secret, safe=""),
            quote_plus(secret),
            json.dumps(secret)[1:-1],
            base64.b64encode(secret.encode()).decode(),
            # However its other characters are escaped where it is shown.
            *PLAIN.findall(secret),
        }
        with self._lock:
            if secret not in self._forms:
                self._forms.extend(forms)

    def out_of(self, text: str) -> str:
        """The text with *** in the place of each secret."""
        # The longest first: one may be a part of another.
        with self._lock:
            forms = sorted(self._forms, key=len, reverse=True)
        for form in forms:
            text = text.replace(form, "***")
        return text

    def excerpt(self, text: str) -> str:
        """The text's beginning, on one line. What is hidden is taken out before the cut could halve it."""
        shown = " ".join(self.out_of(text[: EXCERPT * 40]).split())
        return shown if len(shown) <= EXCERPT else shown[: EXCERPT - 1] + "…"
