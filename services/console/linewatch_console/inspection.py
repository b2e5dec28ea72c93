# SPDX-License-Identifier: Apache-2.0
"""Turns an event as it came over MQTT into what the page shows of it.

Nothing in the payload is believed: it must parse as the contract's message, texts are cut, and a path becomes an
address only when it names a plain file below the evidence directory. The page writes all of it as text, never as markup.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_console.evidence import is_evidence_path

LARGEST_EVENT_BYTES = 64 * 1024
"""Far above the contract's 5 KB; what is larger is not read at all."""
LONGEST_TEXT = 200
MOST_REGIONS = 16

NOT_INSPECTED = "NOT_INSPECTED"
_RESULTS = {
    verdict_pb2.Verdict.OK: "OK",
    verdict_pb2.Verdict.NG: "NG",
    verdict_pb2.Verdict.REVIEW: "REVIEW",
}


class NotAnEvent(Exception):
    """The payload is not an event of the contract."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part as the wall shows it. `result` is OK, NG, REVIEW or NOT_INSPECTED; `taken_at` seconds since 1970."""

    event_id: str
    part_id: str
    epoch: int
    sequence: int
    taken_at: float
    result: str
    label: str = ""
    score: float | None = None
    severity: float | None = None
    failure_mode: str = ""
    time_to_failure: dict[str, Any] | None = None
    regions: list[dict[str, Any]] = field(default_factory=list)
    quality_flags: list[str] = field(default_factory=list)
    reason: str = ""
    message: str = ""
    frame: str = ""
    heatmap: str = ""
    window: str = ""
    model: dict[str, str] | None = None
    frame_to_verdict_s: float | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Parts that were never asked about."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Events that a full stream dropped."""

    count: int
    stream: str
    reason: str


def read_event(payload: bytes) -> Part | Skipped | Dropped:
    """The event of a topic of kind `inspection`.

    Raises:
        NotAnEvent: not JSON, not the contract's message, or a type that this page does not know.
    """
    if len(payload) > LARGEST_EVENT_BYTES:
        raise NotAnEvent("larger than any event")
    try:
        event = json.loads(payload)
        kind, data = event["type"], event["data"]
        if kind in {"InferenceCompleted", "InferenceError"}:
            inspection = json_format.ParseDict(data, event_pb2.Inspection(), ignore_unknown_fields=True)
            return _part(_text(event["id"]), inspection)
        if kind == "PartsSkipped":
            skipped = json_format.ParseDict(data, event_pb2.PartsSkipped(), ignore_unknown_fields=True)
            return Skipped(skipped.count, _text(skipped.reason))
        if kind == "EventsDropped":
            dropped = json_format.ParseDict(data, event_pb2.EventsDropped(), ignore_unknown_fields=True)
            return Dropped(dropped.count, _text(dropped.stream), _text(dropped.reason))
    except (ValueError, KeyError, TypeError, RecursionError, json_format.Error) as error:
        raise NotAnEvent(f"{type(error).__name__}: {error}") from error
    raise NotAnEvent(f"unknown type {_text(str(kind))}")


def _part(event_id: str, inspection: event_pb2.Inspection) -> Part:
    # json_format takes a text for a message and leaves it empty, so what must be there is asked for.
    origin = inspection.origin
    if not origin.HasField("taken_at"):
        raise NotAnEvent("it does not say when the part was taken")
    files = {one.kind: f"/evidence/{one.path}" for one in inspection.evidence if is_evidence_path(one.path)}
    shared: dict[str, Any] = {
        "event_id": event_id,
        "part_id": _text(inspection.part_id),
        "epoch": origin.epoch,
        "sequence": origin.sequence,
        "taken_at": _seconds(origin.corrected_at if origin.HasField("corrected_at") else origin.taken_at),
        "frame": files.get("frame", ""),
        "heatmap": files.get("heatmap", ""),
        "window": files.get("window", ""),
        "frame_to_verdict_s": _finite(inspection, "frame_to_verdict_s"),
    }
    outcome = inspection.WhichOneof("outcome")
    if outcome == "not_inspected":
        why = inspection.not_inspected
        return Part(**shared, result=NOT_INSPECTED, reason=_text(why.reason), message=_text(why.message))
    verdict = inspection.verdict
    if outcome != "verdict" or verdict.result not in _RESULTS:
        raise NotAnEvent("it has neither a verdict with a result nor a reason for having none")
    return Part(
        **shared,
        result=_RESULTS[verdict.result],
        label=_text(verdict.label),
        score=_finite(verdict, "score"),
        severity=_finite(verdict, "severity"),
        failure_mode=_text(verdict.failure_mode),
        time_to_failure=_time_to_failure(verdict),
        regions=[_region(one) for one in verdict.regions[:MOST_REGIONS]],
        quality_flags=[_text(flag) for flag in verdict.quality_flags[:8]],
        model={
            "name": _text(verdict.model.name),
            "version": _text(verdict.model.version),
            "digest": _text(verdict.model.digest),
            "variant": _text(verdict.model.variant),
            "execution_provider": _text(verdict.model.execution_provider),
        },
    )


def _time_to_failure(verdict: verdict_pb2.Verdict) -> dict[str, Any] | None:
    if not verdict.HasField("time_to_failure"):
        return None
    interval = verdict.time_to_failure
    return {
        "p10": _finite(interval, "p10"),
        "p50": _finite(interval, "p50"),
        "p90": _finite(interval, "p90"),
        "horizon": _finite(interval, "horizon"),
        "unit": _text(interval.unit),
        "beyond_horizon": interval.beyond_horizon,
    }


def _region(region: verdict_pb2.Region) -> dict[str, Any]:
    numbers = {name: _finite(region, name) for name in ("score", "x", "y", "width", "height")}
    return {"label": _text(region.label), **numbers}


def _finite(message: Any, name: str) -> float | None:
    """The field's value; None when it is not set or no number that JSON can carry."""
    if not message.HasField(name):
        return None
    value = float(getattr(message, name))
    return value if math.isfinite(value) else None


def _seconds(stamp: Timestamp) -> float:
    return float(stamp.seconds) + stamp.nanos / 1e9


def _text(value: str) -> str:
    return value[:LONGEST_TEXT]
