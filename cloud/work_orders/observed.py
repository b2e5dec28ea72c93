# SPDX-License-Identifier: Apache-2.0
"""What the policy needs to know of a part, taken from its event once; live and replayed parts are read the same way. Pure."""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

from work_orders.policy import Observation, Position
from work_orders.policy_data import PolicyData


@dataclass(frozen=True, slots=True)
class Part:
    """One inspected part or window, without the policy's opinion of it."""

    epoch: int
    sequence: int
    event_id: str
    # Seconds since 1970 by a clock that was right; None where nobody knew the time.
    taken_at: float | None
    # "OK", "NG", "REVIEW" or "UNSPECIFIED"; empty: not judged.
    result: str
    label: str
    # As the model named it; the asset registry's name for the label goes before.
    failure_mode: str
    severity: float
    score: float
    model_version: str


def observed_at(origin: Mapping[str, Any]) -> str | None:
    """RFC 3339, by a clock that was right: as the forwarder corrected it, or as the device's synchronised clock said.

    None where the device did not know the time; what its wall clock said may be years off. Nothing is ordered by it:
    order is (epoch, sequence).
    """
    if "corrected_at" in origin:
        return str(origin["corrected_at"])
    if origin.get("clock", {}).get("synchronised") is True and "taken_at" in origin:
        return str(origin["taken_at"])
    return None


def part_of(event: Mapping[str, Any]) -> Part:
    """The part that a CloudEvent speaks of."""
    body = event["data"]
    origin, verdict = body["origin"], body.get("verdict") or {}
    known = observed_at(origin)
    return Part(
        epoch=int(origin.get("epoch", 0)),
        sequence=int(origin.get("sequence", 0)),
        event_id=event["id"],
        taken_at=datetime.fromisoformat(known).timestamp() if known else None,
        result=verdict.get("result", "UNSPECIFIED") if verdict else "",
        label=verdict.get("label", ""),
        failure_mode=verdict.get("failure_mode", ""),
        severity=float(verdict.get("severity", 0.0)),
        score=float(verdict.get("score", 0.0)),
        model_version=verdict.get("model", {}).get("version", ""),
    )


def observation_of(event: Mapping[str, Any]) -> str:
    """The part as the table `events` keeps it beside the event (attribute `observation`), for replays of a month."""
    return json.dumps(astuple(part_of(event)), separators=(",", ":"))


def part_from(text: str) -> Part:
    """The part that `observation_of` wrote. Raises ValueError, TypeError for anything else."""
    return Part(*json.loads(text))


def to_observation(part: Part, asset: Mapping[str, Any], data: PolicyData) -> Observation:
    """The part as the policy sees it; without weight when it was not judged."""
    position = Position(part.epoch, part.sequence)
    if not part.result:
        return Observation(position, part.event_id, part.taken_at, None, None)
    failure_mode = asset["failure_modes"].get(part.label) or part.failure_mode or None
    if asset["kind"] == "machine":
        weight = part.severity
    else:
        weight = data.weights.get(part.result, 0.0)
        failure_mode = failure_mode if weight else None
    return Observation(position, part.event_id, part.taken_at, failure_mode, min(1.0, max(0.0, weight)))
