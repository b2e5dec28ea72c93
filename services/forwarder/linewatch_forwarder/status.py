# SPDX-License-Identifier: Apache-2.0
"""The forwarder's retained status: what one look found, and its payload. Pure; bounded whatever goes wrong.

A reader may know an older payload: fields are added, never changed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from linewatch_forwarder.retention import Drain, Retention
from linewatch_forwarder.streams.port import DeadLetter
from linewatch_runtime.records import StreamState

MOST_STREAMS = 48
"""Told; those with the most to tell first. A producer that makes up lines must not make the status unreadable."""

LARGEST_PAYLOAD = 48 * 1024
"""Bytes; readers take 64 KB."""

NEWEST_DEAD_LETTERS = 3

LONGEST_TEXT = 300
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class UplinkView:
    """The way to the cloud.

    Attributes:
        since: RFC 3339, by the wall clock: when `connected` last changed.
        for_s: seconds that it has been so, by a clock that does not jump.
        detail: why events are not accepted, for people.
        certificate_days: left of this device's certificate; None where there is none, or it can't be read.
        handed_over: events that somebody took who may still lose them, kept here for now.
        resend_window_s: for how long; 0 where what the uplink took is in the cloud.
    """

    connected: bool
    since: str
    for_s: float
    detail: str = ""
    certificate_days: float | None = None
    handed_over: int = 0
    resend_window_s: float = 0.0

    @property
    def promise(self) -> str:
        """What it means that an event was delivered, for people."""
        if not self.resend_window_s:
            return "delivered is accepted by the cloud"
        return (
            f"delivered is taken by the nucleus, which may lose it; sent again for {self.resend_window_s:g} s"
        )


@dataclass(frozen=True, slots=True)
class DeadLettersView:
    """What lies aside. `count` is cut where `is_more`."""

    count: int = 0
    is_more: bool = False
    newest: Sequence[DeadLetter] = ()


@dataclass(frozen=True, slots=True)
class StreamView:
    """One stream.

    Attributes:
        full: why it takes nothing; empty while it takes events.
        trouble: why the cloud refuses this stream's events for now; empty while it does not.
        is_refused: whether none of its events is accepted now, for that or any other reason.
    """

    state: StreamState
    retention: Retention = field(default_factory=Retention)
    full: str = ""
    trouble: str = ""
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """All that one look found.

    Attributes:
        unavailable: why the streams could not be asked; then `streams` is what they said last.
        twin: whose client id another process uses; empty: nobody's.
        evidence: what the evidence's uploader tells of itself; empty where there is none.
        moving: what is not moved yet of the other kind of streams, and why; empty while nothing is moved.
    """

    state: str
    at: str
    uplink: UplinkView
    streams: Sequence[StreamView] = ()
    drain: Drain = field(default_factory=Drain)
    dead_letters: DeadLettersView = field(default_factory=DeadLettersView)
    unavailable: str = ""
    twin: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)
    moving: Mapping[str, object] = field(default_factory=dict)


def payload(look: Look) -> bytes:
    """What the status topic says."""
    most = MOST_STREAMS
    while len(told := json.dumps(_told(look, most)).encode()) > LARGEST_PAYLOAD and most:
        most //= 2
    return told


def _told(look: Look, most_streams: int) -> dict[str, object]:
    told = sorted(look.streams, key=_weight)[:most_streams]
    return {
        "state": look.state,
        "at": look.at,
        "uplink": {
            "connected": look.uplink.connected,
            "since": look.uplink.since,
            "for_s": round(look.uplink.for_s, 1),
            "detail": look.uplink.detail[:LONGEST_TEXT],
            "certificate_days": _rounded(look.uplink.certificate_days),
            "promise": look.uplink.promise,
            "handed_over": look.uplink.handed_over,
        },
        "drain": {
            "state": look.drain.state,
            "rate_per_s": _rounded(look.drain.rate_per_s),
            "seconds": _rounded(look.drain.seconds),
        },
        "dead_letters": {
            "count": look.dead_letters.count,
            "is_more": look.dead_letters.is_more,
            "newest": [_buried(one) for one in look.dead_letters.newest[:NEWEST_DEAD_LETTERS]],
        },
        "unavailable": look.unavailable[:LONGEST_TEXT],
        "twin": look.twin[:LONGEST_TEXT],
        **({"evidence": look.evidence} if look.evidence else {}),
        **({"moving": look.moving} if look.moving else {}),
        "streams": [_stream(one) for one in sorted(told, key=lambda one: one.state.name)],
        "streams_left_out": len(look.streams) - len(told),
    }


def _weight(one: StreamView) -> tuple[bool, int, int, str]:
    """Sorts what is told first: trouble, then what waits, then what was ever taken."""
    state = one.state
    return not (one.full or one.trouble or state.dropped), -state.events, -state.stored, state.name


def _stream(one: StreamView) -> dict[str, object]:
    state = one.state
    return {
        "name": state.name[:LONGEST_NAME],
        "events": state.events,
        "bytes": state.bytes,
        "max_bytes": state.max_bytes,
        "oldest_age_s": round(state.oldest_age_s, 1),
        "stored": state.stored,
        "delivered": state.settled,
        "buried": state.buried,
        "dropped": sum(state.dropped.values()),
        "dropped_by": dict(sorted(state.dropped.items())[:8]),
        "rate_per_s": _rounded(one.retention.rate_per_s, 3),
        "retention_s": _rounded(one.retention.seconds),
        "retention_limit": one.retention.limit,
        "full": one.full[:LONGEST_TEXT],
        "trouble": one.trouble[:LONGEST_TEXT],
    }


def _buried(one: DeadLetter) -> dict[str, object]:
    return {
        "number": one.number,
        "event_id": one.record.event_id[:LONGEST_NAME],
        "stream": one.record.stream[:LONGEST_NAME],
        "reason": one.reason[:LONGEST_TEXT],
    }


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
