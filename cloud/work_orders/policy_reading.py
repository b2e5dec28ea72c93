# SPDX-License-Identifier: Apache-2.0
"""Reads a policy document, strictly: an unknown key, a wrong type or a contradiction is told with its place. Pure.

Every mistake is told, not the first alone; what can't be read is held against nothing (policy_place.py).
"""

import re
from collections.abc import Sequence
from datetime import date, time
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from work_orders import policy_bands
from work_orders.episodes import MOST_OPENINGS
from work_orders.policy import Rule
from work_orders.policy_data import (
    Approval,
    FailureMode,
    Pilot,
    PolicyData,
    RateLimit,
    digest_of,
)
from work_orders.policy_place import Place, PolicyError, all_sound
from work_orders.quiet_hours import DAYS, QuietHours, covers_a_week

__all__ = ["PolicyError", "parse"]

VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]{1,40})?")
KINDS = ("machine", "product")
WORDS = ("urgent", "high", "medium", "low")
ON_EXPIRY = ("reject", "create", "keep")
# DynamoDB keeps a station's observations in one item of at most 400 KB; each takes about 130 bytes.
MOST_REMEMBERED = 1_000


def parse(document: Any) -> PolicyData:
    """The policy that the document states. Raises PolicyError, which names all that is wrong with it."""
    top = Place(document, "")
    at = top.object(
        ("version", "risk", "observations", "needed", "clear_after", "remember", "bands", "severity_words",
         "failure_modes", "unlisted_failure_mode"),
        ("criticality", "pilot", "quiet_hours", "rate_limit", "approval"),
    )  # fmt: skip
    version = _version(at("version"))
    of_all = policy_bands.bands(at("bands"))
    observations = at("observations").whole(1, 100)
    needed = at("needed").whole(1, observations if at("observations").is_sound else 100)
    clear_after = at("clear_after").whole(1, 100)
    risk = at("risk").object(KINDS)
    product = risk("product").object(("window", "weights"))
    lengths = {"machine": risk("machine").object(("window",))("window"), "product": product("window")}
    windows = {kind: place.whole(1, 100) for kind, place in lengths.items()}
    of_some = policy_bands.by_criticality(at("criticality"), of_all) if top.has("criticality") else {}
    weights = policy_bands.weights(product("weights"), (of_all, *of_some.values()))
    remember = at("remember").whole(1, MOST_REMEMBERED)
    most = max(windows.values()) + max(observations, clear_after)
    if remember < most and all_sound(
        top, [*lengths.values(), *map(at, ("observations", "clear_after", "remember"))]
    ):
        at("remember").tell(f"must be at least {most}: the longest window and what has to cross or clear")
    pilot = _pilot(at("pilot")) if top.has("pilot") else Pilot(is_on=False, until=None)
    quiet_hours = _quiet_hours(at("quiet_hours")) if top.has("quiet_hours") else ()
    rate_limit = _rate_limit(at("rate_limit")) if top.has("rate_limit") else RateLimit(MOST_OPENINGS, 24.0)
    approval = _approval(at("approval")) if top.has("approval") else Approval(24.0, 168.0, "keep")
    severity_words = _descending(at("severity_words"), "word", WORDS)
    failure_modes = {code: _failure_mode(place) for code, place in at("failure_modes").entries(500)}
    unlisted = _failure_mode(at("unlisted_failure_mode"))
    # From here on every value is what it must be, and every key and text can be digested.
    top.refuse()
    return PolicyData(
        version=version,
        digest=digest_of(document),
        rules={kind: Rule(of_all, observations, needed, clear_after, windows[kind]) for kind in KINDS},
        bands_by_criticality=of_some,
        weights=weights,
        remember=remember,
        pilot=pilot,
        quiet_hours=quiet_hours,
        rate_limit=rate_limit,
        approval=approval,
        severity_words=severity_words,
        failure_modes=failure_modes,
        unlisted=unlisted,
    )


def _version(place: Place) -> str:
    version = place.text(60)
    if place.is_sound and not VERSION.fullmatch(version):
        place.tell("must be a version such as 2.1.0")
    return version


def _pilot(place: Place) -> Pilot:
    at = place.object(("is_on",), ("until",))
    is_on = at("is_on").flag()
    until = None
    if place.has("until") and at("until").value is not None:
        until = at("until").made(date.fromisoformat, "a day such as 2026-12-31 or null")
    if until is not None and at("is_on").is_sound and not is_on:
        at("until").tell("says when a pilot ends that is not on; set is_on to true, or until to null")
    return Pilot(is_on, until)


def _quiet_hours(place: Place) -> tuple[QuietHours, ...]:
    windows = []
    for entry in place.items(20):
        at = entry.object(("days", "from", "to", "time_zone"), ("lets_through",))
        days = [day.one_of(DAYS) for day in at("days").items(len(DAYS))]
        if not days and at("days").is_sound:
            at("days").tell("names no day")
        since, until = (at(name).made(_time_of_day, "a time such as 22:00") for name in ("from", "to"))
        zone = at("time_zone").made(ZoneInfo, "a time zone such as Europe/Berlin")
        # Without a word about it, what is urgent waits for nothing.
        let = at("lets_through").number(0, 1) if entry.has("lets_through") else 0.9
        if since is not None and until is not None and zone is not None:
            windows.append(QuietHours(frozenset(days), since, until, zone, let))
    if windows and place.is_sound and covers_a_week(windows):
        place.tell("cover the whole week: nothing would ever be created; use the pilot instead")
    return tuple(windows)


def _time_of_day(text: str) -> time:
    parsed = time.fromisoformat(text)
    if parsed.tzinfo or parsed.second or parsed.microsecond:
        raise ValueError(text)
    return parsed


def _rate_limit(place: Place) -> RateLimit:
    at = place.object(("orders", "hours"))
    return RateLimit(at("orders").whole(0, MOST_OPENINGS), at("hours").number(0.1, 24 * 366))


def _approval(place: Place) -> Approval:
    at = place.object(("remind_after_hours", "expire_after_hours", "on_expiry"))
    remind, expire = at("remind_after_hours").number(0.1, 8_784), at("expire_after_hours").number(0.2, 8_784)
    on_expiry = at("on_expiry").one_of(ON_EXPIRY)
    if remind >= expire and on_expiry != "keep" and place.is_sound:
        at("remind_after_hours").tell(f"({remind}) must be under expire_after_hours ({expire})")
    return Approval(remind, expire, on_expiry)  # type: ignore[arg-type]


def _failure_mode(place: Place) -> FailureMode:
    at = place.object(("failure_type", "actions"))
    return FailureMode(at("failure_type").text(), _descending(at("actions"), "action"))


def _descending(place: Place, name: str, allowed: Sequence[str] = ()) -> tuple[tuple[float, str], ...]:
    """Risk and what is said from it on; of `allowed` words each at most once, in their order."""
    steps: list[tuple[float, str]] = []
    levels, said = [], []
    for entry in place.items(20):
        at = entry.object(("at_least", name))
        levels.append(at("at_least"))
        said.append(at(name))
        word = at(name).one_of(allowed) if allowed else at(name).text()
        steps.append((at("at_least").number(0, 1), word))
    are_words_known = all_sound(place, said)
    if all_sound(place, levels):
        if not steps or steps[-1][0] != 0:
            place.tell("must end with at_least 0, so that every risk has its word")
        if any(upper[0] <= lower[0] for upper, lower in pairwise(steps)):
            place.tell("must descend: at_least of each entry is under that of the one before")
    if (
        allowed
        and are_words_known
        and any(allowed.index(upper[1]) >= allowed.index(lower[1]) for upper, lower in pairwise(steps))
    ):
        place.tell(f"must each be there once, in this order: {', '.join(allowed)}")
    return tuple(steps)
