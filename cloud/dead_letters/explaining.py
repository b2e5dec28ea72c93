# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a dead letter by today's code and today's registry, and where it goes when it is replayed. Pure."""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from dead_letters.letters import Letter
from dead_letters.poison import PoisonError
from enrich.enrichment import Event, read
from work_orders import messages

RowFault = Callable[[str], str]
"""Why the registry's row of a station_key can't be used; empty where it can, or where there is none."""


@dataclass(frozen=True, slots=True)
class Today:
    """What a letter is read with: as the environment's `enrich` would read it."""

    row_fault: RowFault
    # The parameter EventDays: of older parts nothing is kept.
    keep: timedelta


@dataclass(frozen=True, slots=True)
class Explanation:
    """A letter as it is read today."""

    letter: Letter
    # (code, what is wrong), one for each event of it that still can't be read; empty: readable now.
    wrong: tuple[tuple[str, str], ...]
    # What made it a letter, as far as anybody knows.
    was: str
    # "inspections", "enriched" or "bus", and what is sent there.
    goes_to: str
    sends: Any

    @property
    def is_readable(self) -> bool:
        """Whether a replay has anything to hope for."""
        return not self.wrong


def explain(letter: Letter, today: Today) -> Explanation:
    """Reads the letter again. Never raises."""
    told = _READERS[letter.queue](letter, today)
    if letter.event_id or len(events := _ids(told.sends)) != 1:
        return told
    return replace(told, letter=replace(letter, event_id=events[0]))


def _inspection(letter: Letter, today: Today) -> Explanation:
    return Explanation(letter, _wrong(letter.body, today), _was(letter), "inspections", letter.body)


def _enriched(letter: Letter, today: Today) -> Explanation:
    """It goes through enrich again, so that it meets today's asset; only an order to be placed goes straight back."""
    try:
        message = json.loads(letter.body)
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, dict) and isinstance(message.get("event"), dict):
        body = json.dumps(message["event"], separators=(",", ":"))
        return Explanation(letter, _wrong(body, today), _was(letter), "inspections", body)
    wrong: tuple[tuple[str, str], ...] = ()
    try:
        messages.read(letter.body)
    except PoisonError as error:
        wrong = ((error.code, error.why),)
    return Explanation(letter, wrong, _was(letter), "enriched", letter.body)


def _rule(letter: Letter, today: Today) -> Explanation:
    """What the error action of an IoT rule wrote; its payload is the message that the rule could not pass on."""
    try:
        told = json.loads(letter.body)
        body = base64.b64decode(told["base64OriginalPayload"], validate=True).decode()
        failures = [
            str(one.get("errorMessage") or one.get("failedAction")) for one in told.get("failures") or ()
        ]
        was = f"rule {told.get('ruleName')}, topic {told.get('topic')}: {'; '.join(failures)}"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as error:
        why = f"it is not what the error action of an IoT rule writes: {error!r}"
        return Explanation(letter, (("not_json", why),), "", "inspections", "")
    return Explanation(letter, _wrong(body, today), was, "inspections", body)


def _lifecycle(letter: Letter, _: Today) -> Explanation:
    was = ": ".join(filter(None, (letter.told.get("ERROR_CODE"), letter.told.get("ERROR_MESSAGE"))))
    try:
        event = json.loads(letter.body)
        entry = {
            "Source": event["source"],
            "DetailType": event["detail-type"],
            "Detail": json.dumps(event["detail"]),
        }
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = f"it is no event of EventBridge: {error!r}"
        return Explanation(letter, (("not_json", why),), was, "bus", None)
    return Explanation(letter, (), was or "the target did not take it", "bus", entry)


_READERS: dict[str, Callable[[Letter, Today], Explanation]] = {
    "inspections": _inspection,
    "enriched": _enriched,
    "rules": _rule,
    "lifecycle": _lifecycle,
}
QUEUES = tuple(_READERS)


def _wrong(body: str, today: Today) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for one in read(body, keep=today.keep):
        if isinstance(one, PoisonError):
            found.append((one.code, one.why))
        elif isinstance(one, Event) and one.is_of_a_station and (why := today.row_fault(one.station_key)):
            found.append(("asset_unusable", why))
    return tuple(found)


def _was(letter: Letter) -> str:
    if letter.code:
        return f"{letter.code}: {letter.why}"
    return "it failed at every receive and for no reason of its own; the function's log says why"


def _ids(sends: Any) -> list[str]:
    if not isinstance(sends, str):
        return []
    return [one.event_id for one in read(sends) if one.event_id]
