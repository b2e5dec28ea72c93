# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with an event for good, by name. Pure. docs/dead-letters.md has a row for every code."""

from collections.abc import Mapping
from types import MappingProxyType

CODES: Mapping[str, str] = MappingProxyType(
    {
        # The message, before anything in it is an event.
        "not_json": "the message is no JSON text",
        "too_many": "the message holds more events than a forwarder puts into one",
        # The event as a JSON document.
        "too_deep": "the event has too many levels",
        "too_large": "the event is too large to be stored and passed on",
        "duplicate_key": "an object of the event has one key twice",
        "not_finite": "a number is NaN, infinite or beyond what a double holds",
        "bad_text": "a text holds NUL or half of a surrogate pair",
        # The event as a CloudEvent.
        "not_a_cloudevent": "an attribute that CloudEvents 1.0 asks for is missing or of another type",
        "bad_id": "the id can't be a key",
        "unknown_type": "the type is none of the contract's",
        "future_schema": "the event was written by a later major version of the contract",
        "unknown_schema": "the event's dataschema is not the contract",
        # What the event says.
        "bad_data": "data is not the message that the type carries",
        "bad_origin": "the origin names no site, line and station",
        "no_place": "the origin has no epoch or no sequence",
        "no_outcome": "a part has neither a verdict with a result nor a reason why it has none",
        "out_of_range": "a number is outside the range that its field has",
        "bad_name": "a label or a failure-mode code can't be a name",
        "bad_path": "the path of an evidence file leads elsewhere",
        "in_the_future": "a clock that calls itself right is ahead of ours",
        "too_old": "a clock that calls itself right says that the part is older than events are kept",
        # What stands between the event and its order.
        "asset_unusable": "the asset registry's row of the station can't be used",
        "not_enriched": "a message of the queue `enriched` is not what enrich writes",
        "not_understood": "work_orders can't read the event, although enrich could",
    }
)
"""Every reason for which we put a message among the dead letters ourselves, and what it means in one line."""

LONGEST_WHY = 500
"""Characters of a reason; what is quoted in it may be as long as an event."""


class PoisonError(ValueError):
    """What no repeat will make readable: a code of CODES, a text that names the field, and the event's id if it has one."""

    def __init__(self, code: str, why: str, event_id: str = "", body: str = "") -> None:
        assert code in CODES, code
        super().__init__(why)
        self.code = code
        self.why = plain(why, LONGEST_WHY)
        self.event_id = event_id
        # The JSON text of this event alone; empty where the whole message can't be read.
        self.body = body


def plain(text: str, longest: int) -> str:
    """The text as any reader of a queue shows it: printable ASCII, everything else escaped, cut where it is too long."""
    shown = "".join(
        one if " " <= one <= "~" else one.encode("unicode_escape").decode() for one in text[:longest]
    )
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."
