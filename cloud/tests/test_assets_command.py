# SPDX-License-Identifier: Apache-2.0
"""`linewatch assets`, and what a change of the registry means for the events that follow, against the stand-in."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cloud_line import Eventually, Line
from operators import Operator, operator_of

from assets import importing, unknown
from assets.asset import Asset, Maintenance
from assets.csv_file import read, written
from assets.registry import AssetUnusableError, Registry
from linewatch.records import first_fault
from linewatch_plant.standin_cloud import REGION, StandinCloud
from work_orders.records import Records


@pytest.fixture
def operator(cloud: StandinCloud, tmp_path: Path) -> Operator:
    return operator_of(cloud, tmp_path)


@pytest.fixture(scope="session")
def tables(cloud: StandinCloud) -> Any:
    return boto3.resource(
        "dynamodb", endpoint_url=cloud.endpoint_url, region_name=REGION,
        aws_access_key_id="test", aws_secret_access_key="test",
    ).meta.client  # fmt: skip


@pytest.fixture
def registry(cloud: StandinCloud, tables: Any) -> Iterator[Registry]:
    """Left as it was found: other tests have stations of their own in it."""
    found = Registry(tables, cloud.outputs["AssetsTable"])
    before = set(found.rows())
    yield found
    for key in set(found.rows()) - before:
        tables.delete_item(TableName=found.table, Key={"station_key": key})


def asset(number: int, **changes: Any) -> Asset:
    made = Asset(
        "plant-9", f"line-{number}", "station-1", f"N9-{number}", f"press {number}", "hall N", "B", "machine",
        "linewatch-plant-1-device-1", {"HPC": "hpc-degradation"}, last_maintenance="2026-01-02",
    )  # fmt: skip
    return replace(made, **changes)


def file(path: Path, *assets: Asset) -> Path:
    path.write_bytes(written(assets))
    return path


def test_what_is_imported_comes_out_again_byte_for_byte(
    operator: Operator, registry: Registry, tmp_path: Path
) -> None:
    assert operator.run("assets", "export", "test", tmp_path / "before.csv").exit_code == 0
    wanted = (tmp_path / "before.csv").read_bytes() + written([asset(1), asset(2)]).partition(b"\n")[2]
    (tmp_path / "wanted.csv").write_bytes(written(read(wanted).assets))

    assert operator.run("assets", "import", "test", tmp_path / "wanted.csv").exit_code == 0

    assert operator.run("assets", "export", "test", tmp_path / "after.csv").exit_code == 0
    assert (tmp_path / "after.csv").read_bytes() == (tmp_path / "wanted.csv").read_bytes()
    assert operator.run("assets", "check", "test", tmp_path / "after.csv").exit_code == 0
    assert registry.get("plant-9/line-1/station-1") == asset(1)


def test_a_dry_run_shows_and_changes_nothing_and_only_prune_removes(
    operator: Operator, registry: Registry, tmp_path: Path
) -> None:
    everything = tmp_path / "all.csv"
    operator.run("assets", "import", "test", file(tmp_path / "two.csv", asset(1), asset(2)))
    operator.run("assets", "export", "test", everything)
    rest = [one for one in read(everything.read_bytes()).assets if one.site != "plant-9"]
    fewer = file(tmp_path / "fewer.csv", *rest, asset(1, location="hall M"), asset(3))

    shown = operator.run("assets", "import", "test", fewer, "--dry-run", "--prune", "--json")

    told = {one["station"]: (one["what"], one["fields"]) for one in json.loads(shown.stdout)}
    assert told == {
        "plant-9/line-1/station-1": ("change", ["location"]),
        "plant-9/line-2/station-1": ("remove", []),
        "plant-9/line-3/station-1": ("add", []),
    }
    assert "would add 1, change 1, remove 1" in shown.stderr
    assert registry.get("plant-9/line-1/station-1") == asset(1)
    assert operator.run("assets", "check", "test", fewer).exit_code == 4

    assert "1 that the file does not have stay" in operator.run("assets", "import", "test", fewer).stderr
    assert registry.get("plant-9/line-2/station-1") == asset(2)
    assert operator.run("assets", "import", "test", fewer, "--prune").exit_code == 0
    assert registry.get("plant-9/line-2/station-1") is None
    assert registry.get("plant-9/line-1/station-1") == asset(1, location="hall M")


def test_one_wrong_row_and_nothing_is_imported(
    operator: Operator, registry: Registry, tmp_path: Path
) -> None:
    refused = operator.run(
        "assets", "import", "test", file(tmp_path / "bad.csv", asset(1), asset(2, criticality="Z"))
    )

    assert refused.exit_code == 2
    assert "bad.csv: nothing was imported\n  line 3, criticality: 'Z' is none of A, B, C" in refused.stderr
    assert registry.get("plant-9/line-1/station-1") is None


def test_a_file_that_contradicts_a_station_it_does_not_have_is_refused(
    operator: Operator, registry: Registry, tmp_path: Path
) -> None:
    operator.run("assets", "import", "test", file(tmp_path / "one.csv", asset(1)))
    other = replace(asset(1), station="station-2", criticality="A")

    refused = operator.run("assets", "import", "test", file(tmp_path / "two.csv", other))

    assert refused.exit_code == 2
    assert (
        "criticality: of asset N9-1 differs from the registry's station plant-9/line-1/station-1"
        in refused.stderr
    )
    assert registry.get("plant-9/line-1/station-2") is None


def test_who_imported_what_is_on_record(
    operator: Operator, registry: Registry, cloud: StandinCloud, tables: Any, tmp_path: Path
) -> None:
    operator.run("assets", "import", "test", file(tmp_path / "one.csv", asset(1)), "--by", "N. Ober")

    entries = Records(tables, cloud.outputs["RecordsTable"]).of("assets")

    assert first_fault(entries) is None
    told = json.loads(entries[-1].detail)
    assert (entries[-1].by, entries[-1].what, told["add"]) == ("N. Ober", "imported", 1)
    assert told["file"].startswith("sha256:")
    assert told["stations"] == {"add": ["plant-9/line-1/station-1"]}


def test_more_than_one_transaction_takes_and_a_crash_between_them_leaves_nothing_half(
    registry: Registry, cloud: StandinCloud, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(tables, cloud.outputs["RecordsTable"])
    content = written([asset(number) for number in range(130)])
    wanted = read(content)
    before = len(records.of("assets"))
    write = importing._write

    def dies_at_the_second(*arguments: Any, left: int) -> None:
        if left == 0:
            raise KeyboardInterrupt
        write(*arguments, left=left)

    monkeypatch.setattr(importing, "_write", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        importing.carry_out(registry, records, wanted, content, "x", prune=False)
    monkeypatch.undo()
    half = [one for one in registry.all() if one.site == "plant-9"]

    done = importing.carry_out(registry, records, wanted, content, "x", prune=False)

    assert (len(half), sum(one.what == "add" for one in done)) == (99, 31)
    assert [one for one in registry.all() if one.site == "plant-9"] == sorted(
        wanted.assets, key=lambda one: one.station_key
    )
    assert [json.loads(entry.detail)["left"] for entry in records.of("assets")[before:]] == [31, 0]


def test_an_import_and_a_closed_order_at_the_same_moment_undo_nothing(
    registry: Registry, cloud: StandinCloud, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(tables, cloud.outputs["RecordsTable"])
    importing.carry_out(registry, records, read(written([asset(1)])), b"", "x", prune=False)
    moved = read(written([asset(1, location="hall M")]))
    write, done = importing._write, Maintenance("2026-11-20", "valve replaced", "WO-1", "R. Lang")

    def after_a_technician(*arguments: Any, left: int) -> None:
        registry.remember_maintenance("N9-1", done)
        write(*arguments, left=left)

    monkeypatch.setattr(importing, "_write", after_a_technician)
    importing.carry_out(registry, records, moved, b"", "x", prune=False)

    expected = asset(1, location="hall M", maintenance_history=(done,), last_maintenance="2026-11-20")
    assert registry.get("plant-9/line-1/station-1") == expected


def test_a_closed_order_is_remembered_at_every_station_of_its_asset(
    registry: Registry, cloud: StandinCloud, tables: Any
) -> None:
    both = [asset(1), replace(asset(1), station="station-2", kind="product")]
    records = Records(tables, cloud.outputs["RecordsTable"])
    importing.carry_out(registry, records, read(written(both)), b"", "x", prune=False)

    entry = Maintenance("2026-11-20", "valve;\nreplaced | tested" + "x" * 300, "WO-1", "R. Lang")
    assert registry.remember_maintenance("N9-1", entry) == 2

    histories = [one.maintenance_history for one in registry.all() if one.asset_id == "N9-1"]
    assert histories[0] == histories[1]
    assert histories[0][0].what.startswith("valve replaced tested")
    assert read(written([one for one in registry.all() if one.asset_id == "N9-1"])).assets
    assert registry.remember_maintenance("N9-1", entry) == 0


def test_a_row_that_can_not_be_used_is_named_and_mended_by_an_import(
    operator: Operator, registry: Registry, tables: Any, tmp_path: Path
) -> None:
    broken = {
        "station_key": "plant-9/line-1/station-1",
        "asset_id": "N9-1",
        "kind": "robot",
        "failure_modes": {},
    }
    tables.put_item(TableName=registry.table, Item=broken)

    with pytest.raises(AssetUnusableError, match="plant-9/line-1/station-1 can't be used: kind: 'robot'"):
        registry.get("plant-9/line-1/station-1")
    exported = operator.run("assets", "export", "test", tmp_path / "all.csv")
    assert exported.exit_code == 4
    assert "left out: plant-9/line-1/station-1: kind: 'robot'" in exported.stderr
    assert operator.run("assets", "import", "test", file(tmp_path / "one.csv", asset(1))).exit_code == 0
    assert registry.get("plant-9/line-1/station-1") == asset(1)


def test_an_unknown_station_is_listed_until_it_has_an_asset_and_then_its_parts_count(
    machine: Line,
    operator: Operator,
    registry: Registry,
    cloud: StandinCloud,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    machine.line, machine.asset_id = f"new-{machine.line}"[:40], "N9-77"
    key = f"plant-1/{machine.line}/station-1"
    early = [machine.severity(0.95) for _ in range(5)]
    machine.send(*early)
    eventually(lambda: machine.is_stored(*early), "the parts of an unknown station")

    def listed() -> set[str]:
        return {
            one["station"] for one in json.loads(operator.run("assets", "unknown", "test", "--json").stdout)
        }

    eventually(lambda: key in listed(), "the station in the list")
    assert operator.run("assets", "unknown", "test").exit_code == 4
    # Each worker that enriched one of them notes the station, after it has stored the part; none of them comes later.
    eventually(cloud.queues_are_empty, "an end of the parts of the unknown station")
    added = asset(77, site="plant-1", line=machine.line)
    assert operator.run("assets", "import", "test", file(tmp_path / "new.csv", added)).exit_code == 0

    assert key not in listed()
    assert all(
        one.station_key != key for one in unknown.listed(registry.dynamodb, cloud.outputs["CountersTable"])
    )
    machine.send(*(machine.severity(0.95) for _ in range(5)))
    order = eventually(lambda: machine.order("created"), "the order of the parts that followed")
    assert set(order["event_ids"]).isdisjoint(event["id"] for event in early)


def test_the_list_of_unknown_stations_is_bounded(cloud: StandinCloud, tables: Any) -> None:
    table = cloud.outputs["CountersTable"]
    before = unknown.listed(tables, table)

    for number in range(unknown.MOST + 5):
        unknown.note(tables, table, f"flood/line/{number}", f"2026-11-21T04:00:{number % 60:02d}Z")

    found = unknown.listed(tables, table)
    assert len(found) == unknown.MOST
    assert {one.station_key for one in before} <= {one.station_key for one in found}
    unknown.forget(tables, table, [one.station_key for one in found if one.station_key.startswith("flood/")])
    assert unknown.listed(tables, table) == before


def test_two_who_note_the_first_station_at_once_lose_none(cloud: StandinCloud, tables: Any) -> None:
    table = cloud.outputs["CountersTable"]
    kept = tables.get_item(TableName=table, Key=unknown.ITEM).get("Item")
    tables.delete_item(TableName=table, Key=unknown.ITEM)
    try:
        unknown.note(tables, table, "first/line/1", "2026-11-21T04:00:00Z")
        unknown.note(tables, table, "first/line/2", "2026-11-21T04:00:00Z")
        assert [one.station_key for one in unknown.listed(tables, table)] == ["first/line/1", "first/line/2"]
    finally:
        tables.delete_item(TableName=table, Key=unknown.ITEM)
        if kept:
            tables.put_item(TableName=table, Item=kept)


def test_an_import_that_may_not_write_the_record_writes_nothing(registry: Registry, tables: Any) -> None:
    nowhere = Records(tables, "no-such-table")
    with pytest.raises(ClientError):
        importing.carry_out(registry, nowhere, read(written([asset(1)])), b"", "x", prune=False)
    assert registry.get("plant-9/line-1/station-1") is None
