# SPDX-License-Identifier: Apache-2.0
"""The way to an EventBridge bus: PutEvents, entry by entry.

PutEvents answers 200 with the failures inside, one answer for each entry. EventBridge promises no order; ours is that
behind an entry that failed nothing of its class of its stream goes in a later call.
"""

import asyncio
import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from linewatch_forwarder.uplinks.port import Outcome
from linewatch_runtime.lifecycle import in_daemon_thread
from linewatch_runtime.records import Record

SOURCE = "edge.ai.inference"
"""The source of all our events on the bus, the cloud's own too."""

MOST_ENTRIES = 10
MOST_BYTES = 256 * 1024
"""Limits of one call."""

LONGEST_TYPE = 128
"""Characters of a detail type."""

TIME_BYTES = 14
"""What an entry's time counts for, whatever its text (EventBridge's user guide, "Calculating PutEvents event entry size")."""

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0

NEVER = frozenset({"MalformedDetail", "InvalidArgument", "EventSizeExceeded"})
"""Codes of an entry that no second try changes."""

TOO_LARGE_OR_WRONG = frozenset(
    {
        "ValidationException",
        "ValidationError",
        "RequestEntityTooLarge",
        "RequestEntityTooLargeException",
        "413",
    }
)
"""Codes of a whole call that one of its entries may be the reason of; sent alone, an entry that gets one is refused."""

Entry = dict[str, Any]


class EventBus:
    """Puts events on one bus. There is no connection to lose: each call tells."""

    is_connected = True
    session = 0
    held: frozenset[str] = frozenset()
    resend_window_s = 0.0

    def __init__(self, bus: str, make_client: Callable[[], Any]) -> None:
        """`make_client`: a botocore client of `events`. Called in a thread, again after it raised."""
        self._bus = bus
        self._make_client = make_client
        self._client: Any = None
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the last call did not go well."""
        return self._trouble

    async def run(self) -> None:
        """Nothing to keep."""
        await asyncio.Event().wait()

    async def ready(self) -> None:
        """At once: only a call can tell."""

    async def send(self, records: Sequence[Record]) -> Outcome:
        """Puts the records on the bus in calls of their own, until one has trouble."""
        outcome = Outcome()
        entries: list[tuple[Record, Entry]] = []
        for record in records:
            try:
                entries.append((record, self._entry(record)))
            except (ValueError, AttributeError, RecursionError) as error:
                outcome.refused.append((record, f"event bus: no JSON object that can be read: {error}"))
        for call in _calls(entries):
            await self._put(call, outcome)
            if outcome.trouble:
                break
        self._trouble = outcome.trouble
        return outcome

    async def _put(self, call: Sequence[tuple[Record, Entry]], outcome: Outcome) -> None:
        answers: list[dict[str, Any]] = []

        def ask() -> None:
            self._client = self._client or self._make_client()
            answers.extend(self._client.put_events(Entries=[entry for _, entry in call])["Entries"])

        outcome.publishes += 1
        outcome.sent_bytes += sum(_size(entry) for _, entry in call)
        try:
            await in_daemon_thread(ask)
        except Exception as error:  # noqa: BLE001 - botocore's errors and those of what it stands on have no common class
            if _code(error) not in TOO_LARGE_OR_WRONG:
                outcome.trouble = _told(error, self._bus)
            elif len(call) == 1:
                outcome.refused.append((call[0][0], f"event bus: {error}"))
            else:
                for alone in call:
                    if not outcome.trouble:
                        await self._put([alone], outcome)
            return
        if len(answers) != len(call):
            outcome.trouble = f"event bus {self._bus}: {len(answers)} answers to {len(call)} entries"
            return
        for (record, _), answer in zip(call, answers, strict=True):
            self._note(record, answer, outcome)

    def _note(self, record: Record, answer: dict[str, Any], outcome: Outcome) -> None:
        code = answer.get("ErrorCode")
        if answer.get("EventId") and not code:
            outcome.accepted.append(record.event_id)
        elif code in NEVER:
            outcome.refused.append((record, f"event bus: {code}: {answer.get('ErrorMessage')}"))
        else:
            said = f"{code}: {answer.get('ErrorMessage')}"
            outcome.trouble = outcome.trouble or _with_remedy(
                f"event bus {self._bus}: {said}", str(code), self._bus
            )

    def _entry(self, record: Record) -> Entry:
        """The event as it is; its type and its time also beside it."""
        # JSON may be in UTF-16, too; what is no text of its encoding must not end the flow.
        text = record.payload.decode(json.detect_encoding(record.payload), "replace")
        event = json.loads(text)
        entry = {
            "EventBusName": self._bus, "Source": SOURCE, "DetailType": str(event.get("type")).encode(errors="replace").decode()[:LONGEST_TYPE],
            "Detail": text,
        }  # fmt: skip
        try:
            time = datetime.datetime.fromisoformat(event["time"])
            # The client tells it in UTC, and raises at each call where that is before the year 1 or past 9999.
            return entry if time.tzinfo is None else {**entry, "Time": time.astimezone(datetime.UTC)}
        except (KeyError, TypeError, ValueError, OverflowError):
            return entry


def _calls(entries: Sequence[tuple[Record, Entry]]) -> Iterator[list[tuple[Record, Entry]]]:
    call: list[tuple[Record, Entry]] = []
    size = 0
    for record, entry in entries:
        more = _size(entry)
        if call and (len(call) == MOST_ENTRIES or size + more > MOST_BYTES):
            yield call
            call, size = [], 0
        call.append((record, entry))
        size += more
    if call:
        yield call


def _size(entry: Entry) -> int:
    """Bytes, as EventBridge counts them."""
    texts = len(entry["Source"]) + len(entry["DetailType"].encode()) + len(entry["Detail"].encode())
    return texts + (TIME_BYTES if "Time" in entry else 0)


def _code(error: Exception) -> str:
    """AWS's code of a refusal; empty for what never got an answer."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _told(error: Exception, bus: str) -> str:
    return _with_remedy(f"event bus {bus}: {type(error).__name__}: {error}", _code(error), bus)


def _with_remedy(told: str, code: str, bus: str) -> str:
    remedy = next((remedy for part, remedy in _REMEDIES.items() if part in code), "")
    return f"{told}; {remedy.format(bus=bus)}" if remedy else told


_REMEDIES = {
    "AccessDenied": "the role must allow events:PutEvents on {bus}",
    "NotAuthorized": "the role must allow events:PutEvents on {bus}",
    "ResourceNotFound": "FORWARDER_EVENT_BUS must name a bus of FORWARDER_AWS_REGION, or be a bus's ARN",
    "Skewed": "set this device's clock",
    "InvalidSignature": "set this device's clock",
    "SignatureDoesNotMatch": "set this device's clock",
}


def client_maker(session: Callable[[], Any]) -> Callable[[], Any]:
    """Makes the client with a timeout on everything; who backs off is the flow. `session`: makes a boto3.Session."""

    def make() -> Any:
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S, tcp_keepalive=True,
            retries={"mode": "standard", "total_max_attempts": 1}, parameter_validation=False,
        )  # fmt: skip
        return session().client("events", config=config)

    return make
