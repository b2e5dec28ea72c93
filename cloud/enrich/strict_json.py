# SPDX-License-Identifier: Apache-2.0
"""JSON that every reader understands the same way: finite numbers, real text, each key once, few levels. Pure.

Python's reader takes NaN, lone surrogates, a key twice, and a number of a thousand digits; DynamoDB, SQS and a browser take
some of them otherwise or not at all. What is found here is told with its place and never reaches them.
"""

import json
import math
from collections import Counter
from collections.abc import ItemsView, Iterator
from typing import Any

from dead_letters.poison import PoisonError

DEEPEST = 32
"""Levels of an event, as the forwarder has it; our own have fewer than ten."""


class Repeated(dict[str, Any]):
    """An object with a key twice. It is written as it was read, so that its dead letter is what came."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Every pair, the repeated ones too: json.dumps asks a subclass for them."""
        return _Pairs(self)


class _Pairs(ItemsView[str, Any]):
    def __init__(self, repeated: Repeated) -> None:
        super().__init__(repeated)
        self._pairs = repeated.pairs

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


def parse(body: str) -> Any:
    """The JSON value. What is odd in it is found by `check`. Raises PoisonError `not_json`."""
    try:
        return json.loads(body, object_pairs_hook=_object)
    except RecursionError as error:
        raise PoisonError("not_json", "the body has more levels than can be read") from error
    except ValueError as error:
        raise PoisonError("not_json", f"the body is not JSON: {error}") from error


def check(document: Any) -> None:
    """Raises PoisonError `too_deep`, `duplicate_key`, `not_finite` or `bad_text`, naming the place."""
    waiting: list[tuple[str, Any, int]] = [("the event", document, 1)]
    while waiting:
        place, value, level = waiting.pop()
        if isinstance(value, str):
            _check_text(place, value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise PoisonError("not_finite", f"{place} is {value}, which is no number of JSON")
        elif isinstance(value, dict | list):
            if level > DEEPEST:
                raise PoisonError("too_deep", f"{place} lies more than {DEEPEST} levels deep")
            if isinstance(value, Repeated):
                # Counted once: an object of 64 KB has some ten thousand keys.
                times = Counter(key for key, _ in value.pairs)
                twice = next(key for key, many in times.items() if many > 1)
                raise PoisonError("duplicate_key", f"{place} has the key {twice!r} {times[twice]} times")
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in inside:
                if isinstance(key, str):
                    _check_text(f"a key of {place}", key)
                waiting.append((_within(place, key), inner, level + 1))


def _within(place: str, key: str | int) -> str:
    name = f"{place}[{key}]" if isinstance(key, int) else f"{place}.{key}" if place != "the event" else key
    return name[:200]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeated(pairs)


def _check_text(place: str, text: str) -> None:
    if "\0" in text:
        raise PoisonError("bad_text", f"{place} holds the character NUL")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            why = f"{place} holds half of a surrogate pair at character {error.start}"
            raise PoisonError("bad_text", why) from error
