# SPDX-License-Identifier: Apache-2.0
"""ERP_SETTINGS: what a plant's ERP calls things, as data. Read once at start; every mistake is named there.

Each adapter has a frozen dataclass of its own settings below `Common`; a JSON key is a field's name.
"""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from erp.port import Finding, State

Settings = TypeVar("Settings", bound="Common")


class SettingsError(ValueError):
    """ERP_SETTINGS can't be used; the message names the key and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What every adapter knows."""

    # Certificate authority of an ERP with a private one, PEM; empty: the public ones.
    ca_pem: str = ""
    # Words for a state that are added to the adapter's own: their word -> open, in_progress, completed or cancelled.
    states: Mapping[str, State] = field(default_factory=dict)
    # The technician's code or word -> confirmed, other_fault or no_fault.
    findings: Mapping[str, Finding] = field(default_factory=dict)
    # The order's priority (urgent, high, medium, low, or the policy's own words) -> theirs.
    priorities: Mapping[str, str] = field(default_factory=dict)
    # Our asset id -> theirs, where they differ.
    assets: Mapping[str, str] = field(default_factory=dict)
    # Sent with each new order as they are: team, planner group, site, ...
    constants: Mapping[str, Any] = field(default_factory=dict)


def read(kind: type[Settings], text: str) -> Settings:
    """The settings of this adapter from ERP_SETTINGS. Raises SettingsError."""
    try:
        data = json.loads(text or "{}")
    except ValueError as error:
        raise SettingsError(f"ERP_SETTINGS is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise SettingsError("ERP_SETTINGS must be a JSON object")
    hints = get_type_hints(kind)
    known = {entry.name for entry in fields(kind)}
    for name, value in data.items():
        if name not in known:
            raise SettingsError(f"ERP_SETTINGS: unknown key {name!r}; known are {sorted(known)}")
        if why := _fault(value, hints[name]):
            raise SettingsError(f"ERP_SETTINGS: {name}{why}")
    missing = [entry.name for entry in fields(kind) if entry.name not in data and _is_needed(entry)]
    if missing:
        raise SettingsError(f"ERP_SETTINGS: {', '.join(missing)} must be set for this ERP_KIND")
    made = kind(**data)
    if made.ca_pem:
        try:
            ssl.create_default_context(cadata=made.ca_pem)
        except ssl.SSLError:
            raise SettingsError("ERP_SETTINGS: ca_pem holds no certificate in PEM") from None
    return made


def needed() -> Any:
    """A setting without a default that could be right."""
    return field(metadata={"needed": True}, default="")


def _is_needed(entry: Any) -> bool:
    return bool(entry.metadata.get("needed"))


def _fault(value: Any, wanted: Any) -> str:
    """What is wrong with the value, empty when nothing is."""
    origin = get_origin(wanted)
    if origin is Literal:
        choices = get_args(wanted)
        return "" if value in choices else f" is {value!r}; it must be one of {list(choices)}"
    if origin is not None:  # Mapping[str, X]
        if not isinstance(value, dict):
            return " must be an object of names"
        of = get_args(wanted)[1]
        return next(
            (f"[{key!r}]{why}" for key, entry in value.items() if (why := _fault(entry, of))),
            "",
        )
    if wanted is Any:
        return ""
    if wanted is float:
        wanted = (int, float)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        name = {bool: "true or false", str: "a text", int: "a whole number"}.get(wanted, "a number")
        return f" is {value!r}; it must be {name}"
    return ""
