# SPDX-License-Identifier: Apache-2.0
"""What an event must say beyond being its message: places, names, ranges, times. Pure; every refusal names its field."""

import math
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from dead_letters.poison import PoisonError
from linewatch.v1 import event_pb2, verdict_pb2

# Together a DynamoDB key of at most 200 bytes; a slash in one would make two stations of one name.
_SEGMENT = re.compile(r"[a-z0-9_-]{1,64}")
# Below the evidence directory and nowhere else: no "..", no root, no backslash, no drive.
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
LONGEST_PATH = 256
LONGEST_NAME = 64

AHEAD = timedelta(days=1)
"""What a clock that is synchronised may be ahead of ours: far more than it ever is, far less than a mistyped year."""

YEAR_S = 366 * 86_400
"""Seconds; a cycle that takes longer is none that a rolling mean has seen."""

LONGEST_LIFE = 1e9
"""Cycles or hours. The longest fatigue tests run a billion cycles, and a billion hours are 114,000 years; a package's horizon is
some hundreds. In hours, of the longest cycle, it is still a number."""

# A model's early end may lie a little under 0.
_LIFE = (-LONGEST_LIFE, LONGEST_LIFE)

# Shares by event.proto and verdict.proto: field -> (lowest, highest).
RANGES = {
    "linewatch.v1.Verdict.score": (0.0, 1.0),
    "linewatch.v1.Verdict.severity": (0.0, 1.0),
    "linewatch.v1.ClassScore.score": (0.0, 1.0),
    "linewatch.v1.Region.score": (0.0, 1.0),
    "linewatch.v1.Inspection.frame_to_verdict_s": (0.0, math.inf),
    "linewatch.v1.Inspection.cycle_period_s": (0.0, YEAR_S),
    "linewatch.v1.TimeToFailure.p10": _LIFE,
    "linewatch.v1.TimeToFailure.p50": _LIFE,
    "linewatch.v1.TimeToFailure.p90": _LIFE,
    "linewatch.v1.TimeToFailure.horizon": (0.0, LONGEST_LIFE),
}


def check(kind: str, message: Message, now: datetime, keep: timedelta) -> None:
    """Raises PoisonError. `kind`: the CloudEvents type; `keep`: for how long the cloud keeps an event."""
    origin = message.origin  # type: ignore[attr-defined]
    _check_origin(origin)
    _check_numbers(message)
    if isinstance(message, event_pb2.Inspection | event_pb2.PartsSkipped):
        for name in ("epoch", "sequence"):
            if not getattr(origin, name):
                raise PoisonError("no_place", f"data.origin.{name} is missing; it begins at 1")
    if isinstance(message, event_pb2.Inspection):
        _check_outcome(kind, message)
        for evidence in message.evidence:
            if not _PATH.fullmatch(evidence.path) or len(evidence.path) > LONGEST_PATH:
                raise PoisonError(
                    "bad_path",
                    f"data.evidence.path {evidence.path!r} is no path below the evidence directory",
                )
    _check_time(origin, now, keep)


def name_fault(text: str) -> str:
    """Why this can't be a label or a failure-mode code; empty where it can. Both are keys: of tables, shadows, pages."""
    if not 0 < len(text) <= LONGEST_NAME:
        return f"has {len(text)} characters, 1 to {LONGEST_NAME} are allowed"
    if not text.isprintable() or text != text.strip():
        return "holds a character that can't be seen"
    if not unicodedata.is_normalized("NFC", text):
        return "is not in Unicode's normal form C: it looks like another name"
    return "begins with two underscores" if text.startswith("__") else ""


def _check_origin(origin: event_pb2.Origin) -> None:
    for name in ("site", "line", "station"):
        value = getattr(origin, name)
        if not _SEGMENT.fullmatch(value):
            raise PoisonError(
                "bad_origin", f"data.origin.{name} {value!r} is not 1 to 64 of a-z, 0-9, _ and -"
            )


def _check_outcome(kind: str, message: event_pb2.Inspection) -> None:
    wanted = "verdict" if kind == "InferenceCompleted" else "not_inspected"
    if message.WhichOneof("outcome") != wanted:
        raise PoisonError("no_outcome", f"data.{wanted} is missing, and {kind} means that there is one")
    if wanted == "not_inspected":
        return
    verdict = message.verdict
    # An unknown word is left out by the reader; taken for good it would hide what a later release found.
    if verdict.result == verdict_pb2.Verdict.UNSPECIFIED:
        raise PoisonError("no_outcome", "data.verdict.result is none of OK, NG and REVIEW")
    for name in ("label", "failure_mode"):
        value = getattr(verdict, name)
        if value and (why := name_fault(value)):
            raise PoisonError("bad_name", f"data.verdict.{name} {value!r} {why}")


def _check_numbers(message: Message) -> None:
    for place, field, value in _doubles(message, "data"):
        # proto3 JSON has words for them: "NaN", "Infinity".
        if not math.isfinite(value):
            raise PoisonError("not_finite", f"{place} is {value}")
        lowest, highest = RANGES.get(field.full_name, (-math.inf, math.inf))
        if not lowest <= value <= highest:
            raise PoisonError(
                "out_of_range", f"{place} is {value}; it lies within {lowest:g} and {highest:g}"
            )


def _doubles(message: Message, place: str) -> Iterator[tuple[str, FieldDescriptor, float]]:
    for field, value in message.ListFields():
        here = f"{place}.{field.name}"
        values = value if field.is_repeated else [value]
        if field.message_type is not None:
            for inner in values:
                yield from _doubles(inner, here)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
            for number in values:
                yield here, field, number


def _check_time(origin: event_pb2.Origin, now: datetime, keep: timedelta) -> None:
    """Only of a clock that calls itself right: a device that does not know the time may say what it will, and is not asked.

    A part of the year 9999 would stay news after every order that is closed.
    """
    name = "corrected_at" if origin.HasField("corrected_at") else "taken_at"
    if not origin.HasField(name) or (name == "taken_at" and not origin.clock.synchronised):
        return
    taken_s = getattr(origin, name).seconds
    said = f"data.origin.{name} is {datetime.fromtimestamp(taken_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if taken_s > (now + AHEAD).timestamp():
        raise PoisonError("in_the_future", f"{said}, more than {AHEAD.days} day ahead of the cloud's clock")
    if taken_s < (now - keep).timestamp():
        raise PoisonError("too_old", f"{said}, and events are kept for {keep.days} days")


def check_shape(raw: Any, descriptor: Any, place: str = "data") -> None:
    """Raises PoisonError where an object should be and is none: the reader of proto3 JSON takes a text for an empty one."""
    if not isinstance(raw, dict):
        raise PoisonError("bad_data", f"{place} is no object")
    known = {name: field for field in descriptor.fields for name in (field.name, field.json_name)}
    for name, value in raw.items():
        field = known.get(name)
        if field is None or value is None or not _is_ours(field):
            continue
        if field.is_repeated and not isinstance(value, list):
            raise PoisonError("bad_data", f"{place}.{name} is no list")
        for inner in value if field.is_repeated else [value]:
            check_shape(inner, field.message_type, f"{place}.{name}")


def kept(raw: Any, canonical: Any, message: Message) -> Any:
    """The canonical JSON of a message with the fields that this release does not know, as they came."""
    if not isinstance(raw, dict):
        return canonical
    known = {name: field for field in message.DESCRIPTOR.fields for name in (field.name, field.json_name)}
    grown = dict(canonical)
    for name, value in raw.items():
        field = known.get(name)
        if field is None:
            grown[name] = value
        elif _is_ours(field) and field.name in canonical:
            inner = getattr(message, field.name)
            grown[field.name] = _each(value, canonical[field.name], inner, is_list=field.is_repeated)
    return grown


def _each(raw: Any, canonical: Any, inner: Any, *, is_list: bool) -> Any:
    if not is_list:
        return kept(raw, canonical, inner)
    return [kept(*one) for one in zip(raw, canonical, inner, strict=True)]


def _is_ours(field: Any) -> bool:
    """A message of the contract; Google's own, such as Timestamp, are no objects in JSON."""
    inner = field.message_type
    return inner is not None and str(inner.full_name).startswith("linewatch.")
