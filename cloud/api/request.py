# SPDX-License-Identifier: Apache-2.0
"""What a caller asks, checked field by field. Pure: a wrong field is a BadRequestError that names it."""

import base64
import binascii
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar
from urllib.parse import unquote

from api.errors import BadRequestError

Word = TypeVar("Word", bound=str)
Role = Literal["viewer", "approver", "admin"]

ROLES: tuple[Role, ...] = ("viewer", "approver", "admin")
"""Each may do what those before it may."""

# Bytes. A policy is the largest thing that anybody sends; API Gateway itself takes 10 MB.
MAX_BODY = 65_536
MAX_TEXT = 1_000
MAX_NAME = 200
# Levels of a JSON body; a policy has five.
MAX_DEPTH = 16

OWN_NAMES = ("policy", "erp", "linewatch")
"""Who decides in an order's records when nobody does."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The two format characters that words need: Persian and Indic scripts, and joined emoji.
_JOINERS = "\u200c\u200d"
# Letters and signs by their category, and nothing to see: Hangul fillers, the empty Braille cell.
_BLANK = "\u115f\u1160\u3164\uffa0\u2800"


@dataclass(frozen=True, slots=True)
class Request:
    """One call, as the routes see it."""

    method: str
    # Decoded, without empty parts.
    path: tuple[str, ...]
    # By lower-case name.
    headers: Mapping[str, str]
    query: Mapping[str, str]
    raw: bytes
    # Who the console says it is acting for; empty where it does not say (consoles of releases before 0.3).
    user: str = ""
    role: Role = "approver"
    # Digest of the console's own audit entry of this decision; empty where it keeps none (0.2, scripts).
    audit: str = ""
    # When it came, seconds since 1970.
    at_s: float = 0.0
    # What the route's path left open, by name.
    place: Mapping[str, str] = field(default_factory=dict)

    def at(self, place: Mapping[str, str]) -> "Request":
        """The same request, at this place of its route."""
        return replace(self, place=place)

    def body(self, known: Collection[str]) -> "Body":
        """The JSON object that was sent; a field that is not `known` is refused, because it would be ignored."""
        return Body(self.content(), frozenset(known))

    def content(self) -> dict[str, Any]:
        """The JSON object that was sent."""
        return _object(self.raw)

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """A number of the query."""
        text = self.query.get(name, "")
        try:
            value = float(text) if text else default
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise BadRequestError(name, f"a number from {least:g} to {most:g} is due")
        return value

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number of the query."""
        value = self.number(name, default, least, most)
        if value != int(value):
            raise BadRequestError(name, f"a whole number from {least} to {most} is due")
        return int(value)

    def choice(self, name: str, choices: Collection[str], default: str = "") -> str:
        """One of several words of the query."""
        value = self.query.get(name) or default
        if value and value not in choices:
            raise BadRequestError(name, f"one of {', '.join(choices)} is due")
        return value


class Body:
    """A JSON object whose fields are taken by name."""

    def __init__(self, content: Mapping[str, Any], known: frozenset[str]) -> None:
        unknown = sorted(content.keys() - known)
        if unknown:
            raise BadRequestError(unknown[0], f"is not known here; known: {', '.join(sorted(known))}")
        self._content = content

    def text(self, name: str, *, is_needed: bool = True, most: int = MAX_TEXT) -> str:
        """A text without control characters, trimmed; empty where it is not needed and was left out."""
        value = self._content.get(name)
        if value is None:
            value = ""
        if not isinstance(value, str):
            raise BadRequestError(name, "a text is due")
        return checked(name, value, is_needed=is_needed, most=most)

    def choice(self, name: str, choices: Mapping[str, Word]) -> Word:
        """What one of several words stands for."""
        word = self.text(name)
        if word not in choices:
            raise BadRequestError(name, f"one of {', '.join(dict.fromkeys(choices.values()))} is due")
        return choices[word]


def checked(name: str, value: str, *, is_needed: bool = True, most: int = MAX_TEXT) -> str:
    """The text, trimmed. Raises BadRequestError where it is missing, too long or no text for people."""
    text = value.strip()
    if is_needed and not text:
        raise BadRequestError(name, "is missing")
    if len(text) > most:
        raise BadRequestError(name, f"has {len(text)} characters; {most} at most")
    if _CONTROL.search(text):
        raise BadRequestError(name, "holds control characters; leave them out")
    for letter in text:
        # Such as U+202E, which shows another text than is stored, and U+200B, which shows none.
        if unicodedata.category(letter) == "Cf" and letter not in _JOINERS:
            called = unicodedata.name(letter, "a format character")
            raise BadRequestError(name, f"holds U+{ord(letter):04X} ({called}); leave it out")
    if text and not any(unicodedata.category(one)[0] in "LNPS" and one not in _BLANK for one in text):
        raise BadRequestError(name, "holds nothing that can be seen")
    return text


def read(event: Mapping[str, Any], at_s: float) -> Request:
    """An API Gateway HTTP API event, payload format 2.0, that came at `at_s`. Raises BadRequestError."""
    http = event["requestContext"]["http"]
    return Request(
        method=http["method"],
        # A slash inside a part, as in a chain's name, comes as %2F where the caller wrote it so.
        path=tuple(unquote(part) for part in http["path"].split("/") if part),
        headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
        query=event.get("queryStringParameters") or {},
        raw=_raw(event),
        at_s=at_s,
    )


def identified(request: Request) -> Request:
    """The request with who is acting and as what. Only the console holds the token, so it is believed.

    X-Linewatch-User: percent-encoded UTF-8, because a header holds no other letters. X-Linewatch-Role: one of ROLES.
    X-Linewatch-Audit: a digest, or not there. Another one is refused: a decision that is said to be in another log must
    be found there.
    """
    audit = digest("X-Linewatch-Audit", request.headers.get("x-linewatch-audit", ""))
    request = replace(request, audit=audit)
    user, role = request.headers.get("x-linewatch-user"), request.headers.get("x-linewatch-role")
    if user is None and role is None:
        return request
    if role not in ROLES:
        raise BadRequestError("X-Linewatch-Role", f"one of {', '.join(ROLES)} is due")
    try:
        name = unquote(user or "", errors="strict")
    except UnicodeDecodeError:
        raise BadRequestError("X-Linewatch-User", "percent-encoded UTF-8 is due") from None
    return replace(request, user=person("X-Linewatch-User", name), role=role)


def digest(name: str, value: str) -> str:
    """The digest that a header holds, empty where it is not there. Raises BadRequestError."""
    if value and not _DIGEST.fullmatch(value):
        raise BadRequestError(name, "sha256: and 64 hex digits are due, or no such header")
    return value


def person(name: str, value: str) -> str:
    """Somebody's name. Those under which Linewatch itself decides are nobody's: a record must tell the two apart."""
    text = checked(name, value, most=MAX_NAME)
    if text.casefold() in OWN_NAMES:
        raise BadRequestError(name, f"{text} is what Linewatch calls itself; name a person")
    return text


def _raw(event: Mapping[str, Any]) -> bytes:
    text = event.get("body") or ""
    if len(text) > MAX_BODY * 4 // 3 + 4:
        raise BadRequestError("body", f"at most {MAX_BODY} bytes are taken")
    try:
        raw = base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()
    except (binascii.Error, UnicodeEncodeError):
        raise BadRequestError("body", "is neither text nor base64") from None
    if len(raw) > MAX_BODY:
        raise BadRequestError("body", f"at most {MAX_BODY} bytes are taken")
    return raw


def _object(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw or b"{}", parse_constant=_no_number, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError):
        raise BadRequestError("body", "is no JSON") from None
    if not isinstance(content, dict):
        raise BadRequestError("body", "a JSON object is due")
    if _depth(content) > MAX_DEPTH:
        raise BadRequestError("body", f"has more than {MAX_DEPTH} levels")
    return content


def _no_number(word: str) -> float:
    raise ValueError(word)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name, many in times.items() if many > 1)
        raise BadRequestError(twice, "is there twice")
    return content


def _depth(content: object) -> int:
    """Levels of objects and lists, without recursion."""
    deepest, waiting = 0, [(content, 1)]
    while waiting:
        one, level = waiting.pop()
        if isinstance(one, dict | list):
            deepest = max(deepest, level)
            waiting += [(inner, level + 1) for inner in (one.values() if isinstance(one, dict) else one)]
    return deepest
