# SPDX-License-Identifier: Apache-2.0
"""A value of a policy's document and where it stands: read as what it must be, or told as wrong with its place. Pure.

Who reads goes on after what is wrong, so that a person is told all of it at once; what a reader returns then is a filler
that nobody may use, and `refuse` sees to that. A check of one place against another asks first whether both are sound.
"""

import reprlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from zoneinfo import ZoneInfoNotFoundError

T = TypeVar("T")

MOST_TOLD = 50
"""Lines of a refusal; one more says that there is more. A hostile document of 64 KB holds thousands of mistakes."""
LONGEST_PATH = 200
_ABSENT = object()
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100


class PolicyError(ValueError):
    """The document can't be a policy; each line of the message names a place and what to do."""


class Place:
    """A value of the document and where it stands."""

    def __init__(self, value: Any, path: str, told: list[tuple[str | None, str]] | None = None) -> None:
        self.value = value
        self.path = path
        # Of the whole document: (the path that is not to be relied on, what a person is told).
        self._told: list[tuple[str | None, str]] = [] if told is None else told

    def tell(self, why: str) -> None:
        """Notes what is wrong with this place."""
        self._note(self.path, why)

    def refuse(self) -> None:
        """Raises PolicyError where anything of the document was told."""
        if self._told:
            raise PolicyError("\n".join(line for _, line in self._told))

    @property
    def is_sound(self) -> bool:
        """Whether nothing was told of this place or of one within it, so that it may be held against another."""
        is_told = any(
            path is not None and (path == self.path or path.startswith((f"{self.path}.", f"{self.path}[")))
            for path, _ in self._told
        )
        return self.value is not _ABSENT and not is_told and len(self._told) < MOST_TOLD

    def has(self, name: str) -> bool:
        """Whether it is an object with this key."""
        return isinstance(self.value, dict) and name in self.value

    def object(self, required: Sequence[str], optional: Sequence[str] = ()) -> Callable[[str], "Place"]:
        """Gives the places of its keys; every key must be one of these."""
        if self._is(dict, "must be an object"):
            known = ", ".join([*required, *optional])
            for name in sorted(set(self.value) - set(required) - set(optional)):
                self._note(None, f"unknown key {_short.repr(name)}; known: {known}")
            for name in required:
                if name not in self.value:
                    self._note(self._within(name), f"{name} is missing")
        return lambda name: self._at(self.value[name] if self.has(name) else _ABSENT, self._within(name))

    def items(self, most: int) -> list["Place"]:
        """The places of a list, in its order; none of a list that is too long."""
        why = f"must be a list of at most {most}"
        if not self._is(list, why):
            return []
        if len(self.value) > most:
            self.tell(why)
            return []
        return [self._at(value, f"{self.path}[{n}]") for n, value in enumerate(self.value)]

    def entries(self, most: int) -> list[tuple[str, "Place"]]:
        """Keys and the places of their values; none of an object that is too large."""
        why = f"must be an object of at most {most} keys"
        if not self._is(dict, why):
            return []
        if len(self.value) > most:
            self.tell(why)
            return []
        for name in self.value:
            if not _is_text(name):
                self.tell(
                    f"the key {_short.repr(name)} holds half of a surrogate pair; write the character whole"
                )
        return [(name, self._at(value, self._within(name))) for name, value in self.value.items()]

    def number(self, least: float, most: float) -> float:
        """A finite number within these, both included."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self._wrong(f"must be a number from {least} to {most}")
            return least
        return float(value)

    def whole(self, least: int, most: int) -> int:
        """A whole number within these, both included."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._wrong(f"must be a whole number from {least} to {most}")
            return least
        return value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self._wrong("must be true or false")
            return False
        return self.value

    def text(self, longest: int = 400) -> str:
        """A text that can be written down."""
        if not isinstance(self.value, str) or not 0 < len(self.value) <= longest:
            self._wrong(f"must be a text of 1 to {longest} characters", shows=False)
            return ""
        if not _is_text(self.value):
            self.tell(
                f"holds half of a surrogate pair in {_short.repr(self.value)}; write the character whole"
            )
            return ""
        return self.value

    def one_of(self, allowed: Sequence[str]) -> str:
        """One of these words."""
        if self.value not in allowed:
            self._wrong(f"must be one of {', '.join(allowed)}")
            return allowed[0]
        return str(self.value)

    def made(self, make: Callable[[str], T], what: str) -> T | None:
        """What `make` makes of the text, None where that was wrong; `what` says how it should look."""
        text = self.text()
        if not self.is_sound:
            return None
        try:
            return make(text)
        except (ValueError, ZoneInfoNotFoundError):
            self._wrong(f"must be {what}")
            return None

    def _is(self, kind: type, why: str) -> bool:
        if isinstance(self.value, kind):
            return True
        self._wrong(why, shows=False)
        return False

    def _wrong(self, why: str, *, shows: bool = True) -> None:
        """Tells it of a value; that one is missing was told where it should stand."""
        if self.value is not _ABSENT:
            self.tell(f"{why}, got {_short.repr(self.value)}" if shows else why)

    def _note(self, spoilt: str | None, why: str) -> None:
        # A key is whatever somebody wrote: a line's end in it would look like another line of ours.
        shown = self.path if self.path.isprintable() else ascii(self.path)
        if len(self._told) < MOST_TOLD:
            self._told.append((spoilt, f"{shown[:LONGEST_PATH] or 'policy'}: {why}"))
        elif len(self._told) == MOST_TOLD:
            self._told.append((None, "policy: more is wrong than is told here; mend this first"))

    def _at(self, value: Any, path: str) -> "Place":
        return Place(value, path, self._told)

    def _within(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def all_sound(place: Place, parts: Sequence[Place]) -> bool:
    """Whether these parts of a list may be held against each other; without any, whether it is a list at all."""
    return all(part.is_sound for part in parts) if parts else place.is_sound


def _is_text(text: str) -> bool:
    """Whether it can be written down: JSON's escapes can say half of a character, which no digest and no table takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
