# SPDX-License-Identifier: Apache-2.0
"""The parts of a month, for a replay: from the environment's tables, or from a file that an earlier look saved.

The file is JSON lines: first {"assets": {station: asset}}, then one part a line, in the order of arrival.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from boto3.dynamodb.types import TypeDeserializer

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import BadInput, CommandFailed
from work_orders.observed import part_from
from work_orders.what_if import Seen, in_order

Assets = Mapping[str, Mapping[str, Any]]

_plain = TypeDeserializer()


def item_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """An item as Python values; numbers as int or float."""
    return {name: _number(_plain.deserialize(value)) for name, value in raw.items()}


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _number(one) for name, one in value.items()}
    return [_number(one) for one in value] if isinstance(value, list) else value


def read_assets(account: Account, table: str) -> dict[str, dict[str, Any]]:
    """The asset registry by station key."""
    with explained():
        pages = account.reader("dynamodb").get_paginator("scan").paginate(TableName=table)
        items = [item_of(raw) for page in pages for raw in page["Items"]]
    return {str(item["station_key"]): item for item in items}


def read_parts(
    account: Account, table: str, stations: Iterable[str], since: datetime, until: datetime
) -> Iterator[Seen]:
    """Parts that reached the cloud in this time, in the order of arrival."""
    return in_order(_station(account, table, station, since, until) for station in stations)


def _station(account: Account, table: str, station: str, since: datetime, until: datetime) -> Iterator[Seen]:
    asked = {
        "TableName": table,
        "IndexName": "by_station",
        "KeyConditionExpression": "station_key = :station AND enriched_at BETWEEN :since AND :until",
        "ExpressionAttributeValues": {
            ":station": {"S": station},
            ":since": {"S": _text(since)},
            ":until": {"S": _text(until)},
        },
    }
    with explained():
        for page in account.reader("dynamodb").get_paginator("query").paginate(**asked):
            for raw in page["Items"]:
                # Engine events of the station, and parts that a release before 0.3 stored, carry none.
                if text := raw.get("observation", {}).get("S"):
                    at = datetime.fromisoformat(raw["enriched_at"]["S"]).timestamp()
                    yield Seen(at, station, part_from(text))


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def save(path: Path, assets: Assets, seen: Iterable[Seen]) -> Iterator[Seen]:
    """Passes the parts on and writes them; the file is there once the last one has gone through."""
    fresh = path.with_name(path.name + ".new")
    try:
        with fresh.open("w", encoding="utf-8") as lines:
            lines.write(json.dumps({"assets": assets}) + "\n")
            for one in seen:
                lines.write(json.dumps([one.at, one.station, *astuple(one.part)]) + "\n")
                yield one
        fresh.replace(path)
    except OSError as error:
        raise CommandFailed(f"{path} can't be written: {error.strerror}") from error


def read_file(path: Path) -> tuple[Assets, Iterator[Seen]]:
    """What `save` wrote, line by line. Raises BadInput with the line, while it is read."""
    try:
        with path.open(encoding="utf-8") as lines:
            assets: Assets = json.loads(next(lines, ""))["assets"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f'{path}: line 1 must be {{"assets": ...}}, as `policy what-if --save` writes it'
        ) from error
    return assets, _lines(path)


def _lines(path: Path) -> Iterator[Seen]:
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for number, line in enumerate(lines, 2):
            try:
                at, station, *part = json.loads(line)
                yield Seen(float(at), str(station), part_from(json.dumps(part)))
            except (ValueError, TypeError) as error:
                raise BadInput(f"{path}: line {number} is no part: {error}") from error
