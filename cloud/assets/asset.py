# SPDX-License-Identifier: Apache-2.0
"""One row of the asset registry: a station, and the machine that a work order of it is for. Pure."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from enrich.contract import name_fault

MAX_HISTORY = 20
"""Maintenance entries of an asset; a new one pushes out the oldest. Each enriched event carries them."""

LARGEST = 32 * 1024
"""Bytes of a row in JSON. With the largest event it fits into one message of SQS, 256 KB."""

MAX_FAILURE_MODES = 64
LONGEST_TEXT = 200
LONGEST_SILENCE = 10_080
"""Minutes: a week."""

_SEGMENT = re.compile(r"[a-z0-9_-]{1,64}")
_ASSET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# What stands between entries and their parts in the CSV.
SEPARATORS = ";|"

FACTS = ("asset_name", "location", "criticality", "warranty_until", "last_maintenance", "maintenance_history")
"""What is said of the asset, not of the station: every station of one asset says the same."""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What was done to an asset."""

    # ISO 8601, the day.
    date: str
    what: str
    # Reference or ERP id of the order it was done for; empty for what nobody ordered here.
    order: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Asset:
    """A station and its asset. Days are ISO 8601 or empty."""

    site: str
    line: str
    station: str
    asset_id: str
    asset_name: str
    location: str
    # "A" (a stop of it stops the plant) to "C".
    criticality: str
    # "machine" or "product": how the policy makes risk of what this station sees.
    kind: str
    # The core device beside the line; its shadow shows the orders.
    thing_name: str
    # The model's label -> failure-mode code, where the model's own code does not point at this asset.
    failure_modes: Mapping[str, str]
    warranty_until: str = ""
    last_maintenance: str = ""
    # Oldest first.
    maintenance_history: tuple[Maintenance, ...] = ()
    # Minutes without a part after which the line counts as silent; 0: never, None: the environment's default.
    silent_after_minutes: int | None = None

    @property
    def station_key(self) -> str:
        """Key of the registry."""
        return f"{self.site}/{self.line}/{self.station}"

    def card(self) -> dict[str, Any]:
        """The asset as JSON, as an enriched event and the API carry it."""
        told = {name: getattr(self, name) for name in self.__slots__}
        history = [{name: getattr(one, name) for name in one.__slots__} for one in self.maintenance_history]
        return {**told, "failure_modes": dict(self.failure_modes), "maintenance_history": history}


def faults(asset: Asset) -> Iterator[tuple[str, str]]:
    """(field, what is wrong and the remedy) of everything that is wrong with the row."""
    for name, check in _CHECKS.items():
        if why := check(getattr(asset, name)):
            yield name, why
    yield from _failure_mode_faults(asset.failure_modes)
    yield from _history_faults(asset.maintenance_history)
    if (size := size_of(asset)) > LARGEST:
        yield "maintenance_history", f"the row has {size} bytes, {LARGEST} are allowed; shorten what was done"


def size_of(asset: Asset) -> int:
    """Bytes of the asset in each of its enriched events: JSON in ASCII."""
    return len(json.dumps(asset.card()))


def _is_like(pattern: re.Pattern[str], words: str) -> Callable[[str], str]:
    return lambda text: "" if pattern.fullmatch(text) else f"{text[:80]!r} is not {words}"


def _is_one_of(*words: str) -> Callable[[str], str]:
    return lambda text: "" if text in words else f"{text[:80]!r} is none of {', '.join(words)}"


def _line(text: str) -> str:
    if text == "device":
        return "'device' is what belongs to a device and to no line; give the line another name"
    return _segment(text)


def _silence(minutes: int | None) -> str:
    if minutes is None or 0 <= minutes <= LONGEST_SILENCE:
        return ""
    return f"{minutes} is not 0 (never) to {LONGEST_SILENCE}; empty for the default"


def _failure_mode_faults(modes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if len(modes) > MAX_FAILURE_MODES:
        yield "failure_modes", f"{len(modes)} labels; at most {MAX_FAILURE_MODES} are taken"
    for label, code in modes.items():
        for what, text in (("label", label), ("code", code)):
            if why := name_fault(text):
                yield "failure_modes", f"{what} {text!r} {why}"
            elif set(text) & set(";="):
                yield "failure_modes", f"{what} {text!r} holds ; or =, which stand between them"


def _history_faults(history: Sequence[Maintenance]) -> Iterator[tuple[str, str]]:
    if len(history) > MAX_HISTORY:
        yield "maintenance_history", f"{len(history)} entries; {MAX_HISTORY} are kept: leave out the oldest"
    for entry in history:
        if why := date_fault(entry.date):
            yield "maintenance_history", why
        if not entry.what:
            yield "maintenance_history", f"the entry of {entry.date} does not say what was done"
        for text in (entry.what, entry.order, entry.by):
            if why := text_fault(text) or (
                "holds ; or |, which stand between entries" if set(text) & set(SEPARATORS) else ""
            ):
                yield "maintenance_history", f"{text[:40]!r}: {why}"
    if [entry.date for entry in history] != sorted(entry.date for entry in history):
        yield "maintenance_history", "is not oldest first; sort it by date"


def text_fault(text: str) -> str:
    """Why this can't stand in a list that people read; empty where it can."""
    if len(text) > LONGEST_TEXT:
        return f"has {len(text)} characters, {LONGEST_TEXT} are allowed"
    if not text.isprintable():
        hidden = next(one for one in text if not one.isprintable())
        return f"holds a character that can't be seen (U+{ord(hidden):04X}); type the text anew"
    return "begins or ends with a blank" if text != text.strip() else ""


def date_fault(text: str) -> str:
    """Why this is no day; empty where it is one."""
    try:
        is_day = _DATE.fullmatch(text) and 1970 <= date.fromisoformat(text).year <= 2199
    except ValueError:
        is_day = False
    return "" if is_day else f"{text!r} is no day; write it like 2026-11-21"


_segment = _is_like(_SEGMENT, "1 to 64 of a-z, 0-9, _ and -, as in the topics")

_CHECKS: Mapping[str, Callable[[Any], str]] = {
    "site": _segment,
    "line": _line,
    "station": _segment,
    "asset_id": _is_like(_ASSET_ID, "1 to 64 letters, digits, ., _ and -, a letter or a digit first"),
    "asset_name": lambda text: text_fault(text) if text else "is empty; technicians look for it",
    "location": text_fault,
    "criticality": _is_one_of("A", "B", "C"),
    "kind": _is_one_of("machine", "product"),
    "thing_name": _is_like(_THING, "a thing's name: letters, digits, :, _ and -, at most 128"),
    "warranty_until": lambda text: date_fault(text) if text else "",
    "last_maintenance": lambda text: date_fault(text) if text else "",
    "silent_after_minutes": _silence,
}

NEEDED = frozenset({"site", "line", "station", "asset_id", "kind", "failure_modes"})
"""What no event can do without. A row that a hand wrote may be wrong in the rest, and its events still count."""


def to_item(asset: Asset) -> dict[str, Any]:
    """As the table `assets` stores it; what is empty is stored too, so that a reader need not ask."""
    return {"station_key": asset.station_key, **asset.card()}


def from_item(item: Mapping[str, Any]) -> Asset:
    """The asset that an item holds; items of 0.2.0 and those made by hand lack the later fields.

    Raises:
        ValueError: it can't be used, and why: "kind: 'robot' is neither machine …".
    """
    try:
        silent = str(item.get("silent_after_minutes", ""))
        asset = Asset(
            **dict(zip(("site", "line", "station"), _place(item), strict=True)),
            **{name: str(item.get(name) or "") for name in (
                "asset_id", "asset_name", "location", "criticality", "kind", "thing_name", "warranty_until", "last_maintenance",
            )},
            failure_modes={str(label): str(code) for label, code in dict(item.get("failure_modes") or {}).items()},
            maintenance_history=tuple(
                Maintenance(*(str(entry.get(name, "")) for name in Maintenance.__slots__))
                for entry in item.get("maintenance_history") or ()
            ),
            silent_after_minutes=int(silent) if silent.isdecimal() else None,
        )  # fmt: skip
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the item is not as an import writes it: {error}") from error
    for field, why in faults(asset):
        if field in NEEDED:
            raise ValueError(f"{field}: {why}")
    return asset


def _place(item: Mapping[str, Any]) -> Sequence[str]:
    return str(item["station_key"]).split("/")
