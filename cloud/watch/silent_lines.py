# SPDX-License-Identifier: Apache-2.0
"""Lines from which no prediction came for their minutes. Silence is no event, so somebody has to look.

A station is heard when the policy stored a part of it (policy_state.updated_at); one that was never heard counts from its
import. One that only sends parts which could not be judged predicts nothing either, and counts as silent with that reason.
A line is silent while one of its stations is.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit

from assets.registry import Registry, Row
from work_orders.metrics import metrics
from work_orders.observing import Desk

# Of the table `counters`: which lines were silent at the last look, and when there was the first.
ITEM = {"name": "silent_lines"}

UNJUDGED = 5
"""Parts in a row, the last that are remembered, none of which could be judged: then nothing is predicted."""

log = Logger(child=True)


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of a station: when it was heard last, and whether anything of it was judged."""

    # Seconds since 1970; None where an item of a release before 0.3.0 does not say.
    at: float | None
    judges: bool


@dataclass(frozen=True, slots=True)
class Silence:
    """One station that says nothing."""

    line: str
    station_key: str
    # Seconds since 1970.
    since: float
    why: str


def silences(
    rows: Iterable[Row], heard: Mapping[str, Heard], now: float, since: float, default_minutes: int
) -> list[Silence]:
    """The stations that are silent at `now`. `since`: the first look, for stations of which no time is known. Pure."""
    found: list[Silence] = []
    for row in rows:
        asset = row.asset
        minutes = (
            default_minutes
            if asset is None or asset.silent_after_minutes is None
            else asset.silent_after_minutes
        )
        if asset is None or minutes == 0:
            continue
        line = f"{asset.site}/{asset.line}"
        last = heard.get(row.station_key)
        began = _seconds(row.imported_at) or since
        if last is not None:
            began = last.at or since
        if now - began > minutes * 60:
            why = f"no part for {round((now - began) / 60)} minutes" + (
                "" if last else ", never one since it was imported"
            )
            found.append(Silence(line, row.station_key, began, why))
        elif last is not None and not last.judges:
            found.append(
                Silence(
                    line,
                    row.station_key,
                    began,
                    f"none of its last parts could be judged ({UNJUDGED} or more)",
                )
            )
    return found


def silent_lines(desk: Desk) -> dict[str, int]:
    """One look: tells the metric SilentLines, and the log each line that is silent or was and is no more."""
    registry = Registry(desk.dynamodb, os.environ["ASSETS_TABLE"])
    counters, now = os.environ["COUNTERS_TABLE"], desk.clock()
    item = desk.dynamodb.get_item(TableName=counters, Key=ITEM, ConsistentRead=True).get("Item", {})
    since = float(item.get("since", now))
    heard = _heard(desk.dynamodb, os.environ["POLICY_STATE_TABLE"])
    rows = list(registry.rows().values())
    found = silences(rows, heard, now, since, int(os.environ["SILENT_AFTER_MINUTES"]))
    silent = _by_line(found)
    for line, stations in sorted(silent.items()):
        told = {one.station_key: f"since {_text(one.since)}: {one.why}" for one in stations}
        log.warning("line_silent", extra={"line": line, "stations": told})
    recovered = sorted(set(item.get("silent", ())) - set(silent))
    for line in recovered:
        log.info("line_heard_again", extra={"line": line})
    # Stored last: who is killed before says it again.
    desk.dynamodb.put_item(TableName=counters, Item={**ITEM, "since": str(since), "silent": sorted(silent)})
    metrics.add_metric("SilentLines", MetricUnit.Count, len(silent))
    return {"stations": len(rows), "silent": len(silent), "recovered": len(recovered)}


def _heard(dynamodb: Any, table: str) -> dict[str, Heard]:
    """By station_key; a station whose asset was changed has several items, and the newest speaks."""
    found: dict[str, Heard] = {}
    # Not consistent: half the price, and what was written this second is heard at the next look.
    for page in dynamodb.get_paginator("scan").paginate(
        TableName=table, ProjectionExpression="station, updated_at, observations"
    ):
        for item in page["Items"]:
            heard = Heard(_seconds(item.get("updated_at", "")), _judges(item.get("observations", "[]")))
            before = found.get(item["station"])
            if before is None or (heard.at or 0.0) >= (before.at or 0.0):
                found[item["station"]] = heard
    return found


def _judges(observations: str) -> bool:
    """Whether one of the remembered parts has a weight, or they are too few to tell."""
    rows = json.loads(observations)
    return len(rows) < UNJUDGED or any(row[5] is not None for row in rows)


def _by_line(found: Sequence[Silence]) -> dict[str, list[Silence]]:
    lines: dict[str, list[Silence]] = {}
    for one in found:
        lines.setdefault(one.line, []).append(one)
    return lines


def _seconds(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
