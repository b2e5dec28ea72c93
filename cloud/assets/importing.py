# SPDX-License-Identifier: Apache-2.0
"""From a CSV file to the registry: what would change, and the change itself, all of it or nothing.

A transaction of DynamoDB takes 100 writes. A file that changes more is written in several, each with its own entry in the
chain `assets`; whoever is interrupted between two runs the same command again, which finds the rest.
"""

import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from assets.asset import FACTS, LARGEST, MAX_HISTORY, Asset, size_of
from assets.csv_file import OPTIONAL, AssetFile, AssetsRefusedError, Problem
from assets.registry import MAX_CONFLICTS, Registry, Row, stations_of
from linewatch.records import following
from work_orders.records import Records

CHAIN = "assets"
IN_ONE = 99
"""Writes of one transaction beside its entry in the chain."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one station: "add", "change", "remove" or "keep" (only the registry has it)."""

    what: str
    station_key: str
    asset: Asset | None
    row: Row | None
    # Fields that change.
    fields: tuple[str, ...] = ()


class ImportConflictError(Exception):
    """Somebody else kept writing the registry; nothing was changed since the last entry in the chain."""


def plan(rows: Mapping[str, Row], file: AssetFile, *, prune: bool) -> list[Change]:
    """What the import changes, by station. Pure.

    Entries that closed orders wrote into the history since the file was exported stay. Raises AssetsRefusedError where the
    file contradicts a station that only the registry has.
    """
    wanted = {asset.station_key: _with_present(asset, rows, file.columns) for asset in file.assets}
    changes: list[Change] = []
    for key in sorted(wanted.keys() | rows.keys()):
        asset, row = wanted.get(key), rows.get(key)
        if asset is None:
            changes.append(Change("remove" if prune else "keep", key, None, row))
        elif row is None:
            changes.append(Change("add", key, asset, None))
        elif fields := _differences(row.asset, asset):
            changes.append(Change("change", key, asset, row, fields))
    _refuse_contradictions(changes, wanted)
    return changes


def carry_out(
    registry: Registry, records: Records, file: AssetFile, content: bytes, by: str, *, prune: bool
) -> list[Change]:
    """Makes the registry say what the file says, and records who did it. Returns what was changed, and what stays.

    Raises:
        AssetsRefusedError: the file contradicts what only the registry has.
        ImportConflictError: others kept writing.
    """
    done: list[Change] = []
    for _ in range(MAX_CONFLICTS):
        planned = plan(registry.rows(), file, prune=prune)
        todo = [one for one in planned if one.what != "keep"]
        try:
            while todo:
                part, todo = todo[:IN_ONE], todo[IN_ONE:]
                _write(registry, records, part, content, by, left=len(todo))
                done += part
        except ClientError as error:
            if error.response["Error"]["Code"] != "TransactionCanceledException":
                raise
            time.sleep(random.uniform(0, 0.1))  # noqa: S311 - jitter, no secret
        else:
            return done + [one for one in planned if one.what == "keep"]
    raise ImportConflictError(
        f"{MAX_CONFLICTS} times somebody else wrote the registry at the same moment; run it again"
    )


def _write(
    registry: Registry, records: Records, part: Sequence[Change], content: bytes, by: str, *, left: int
) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    counts = {
        what: [one.station_key for one in part if one.what == what] for what in ("add", "change", "remove")
    }
    detail = {
        "file": "sha256:" + hashlib.sha256(content).hexdigest(),
        **{what: len(keys) for what, keys in counts.items()},
        "stations": {what: keys for what, keys in counts.items() if keys},
        "left": left,
    }
    entry = following(records.last(CHAIN), CHAIN, at, "imported", by, detail)
    writes: list[dict[str, Any]] = []
    for one in part:
        if one.asset is not None:
            writes.append(registry.put(one.asset, one.row, at))
        elif one.row is not None:
            writes.append(registry.delete(one.row))
    registry.dynamodb.transact_write_items(TransactItems=[*writes, {"Put": records.put(entry)}])


def _with_present(asset: Asset, rows: Mapping[str, Row], columns: frozenset[str]) -> Asset:
    """The file's asset with what its columns do not speak of, and with the history that closed orders wrote meanwhile."""
    row = rows.get(asset.station_key)
    present = row.asset if row else None
    if present is None:
        return asset
    kept = replace(asset, **{name: getattr(present, name) for name in OPTIONAL - columns})
    if "maintenance_history" not in columns:
        return kept
    known = {entry.order for entry in kept.maintenance_history if entry.order}
    remembered = [one for one in present.maintenance_history if one.order and one.order not in known]
    if not remembered:
        return kept
    history = sorted([*kept.maintenance_history, *remembered], key=lambda one: one.date)[-MAX_HISTORY:]
    last = max(kept.last_maintenance, *(one.date for one in remembered))
    kept = replace(kept, maintenance_history=tuple(history), last_maintenance=last)
    while size_of(kept) > LARGEST:
        kept = replace(kept, maintenance_history=kept.maintenance_history[1:])
    return kept


def _differences(present: Asset | None, wanted: Asset) -> tuple[str, ...]:
    if present is None:
        return ("unusable until now",)
    names = (name for name in wanted.__slots__ if getattr(present, name) != getattr(wanted, name))
    return tuple(names)


def _refuse_contradictions(changes: Sequence[Change], wanted: Mapping[str, Asset]) -> None:
    staying = [one.row.asset for one in changes if one.what == "keep" and one.row and one.row.asset]
    file_says = stations_of(list(wanted.values()))
    problems = [
        Problem(0, name, f"of asset {asset.asset_id} differs from the registry's station {asset.station_key}, "
                "which the file does not have; add it, or remove it by --prune")
        for asset in staying
        for other in file_says.get(asset.asset_id, [])[:1]
        for name in FACTS
        if getattr(asset, name) != getattr(other, name)
    ]  # fmt: skip
    if problems:
        raise AssetsRefusedError(problems)
