# SPDX-License-Identifier: Apache-2.0
"""The asset registry: what a CSV file may say, what is refused and how, and that an export is an import's inverse."""

import csv
import io
import string
import unicodedata
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.asset import (
    LARGEST,
    MAX_HISTORY,
    Asset,
    Maintenance,
    faults,
    from_item,
    size_of,
    text_fault,
    to_item,
)
from assets.csv_file import COLUMNS, LARGEST_FILE, MOST_ROWS, AssetsRefusedError, Problem, read, written
from assets.importing import plan
from assets.registry import Row, with_maintenance
from enrich.contract import name_fault

DEMO = Path(__file__).parents[1] / "assets.csv"

ROW = Asset(
    "plant-1", "line-1", "station-1", "STR-01", "cell stringer 1", "hall A, line 1", "B", "product", "device-1",
    {"crack": "cell-crack"},
)  # fmt: skip

seen = st.characters(exclude_categories=("C", "Z")) | st.sampled_from(" ,;|=+-@'\"＝")
texts = st.text(seen, max_size=40).map(str.strip).filter(lambda text: not text_fault(text))
names = (
    st.text(seen.filter(lambda one: one not in ";="), min_size=1, max_size=12)
    .map(lambda text: unicodedata.normalize("NFC", text.strip()))
    .filter(lambda text: not name_fault(text) and not set(text) & set(";="))
)
days = st.dates(date(1971, 1, 1), date(2199, 12, 31)).map(str)
cells = texts.map(lambda text: text.replace(";", "").replace("|", "").strip())
segments = st.text(string.ascii_lowercase + "-_0", min_size=1, max_size=6).filter(lambda one: one != "device")
entries = st.builds(Maintenance, days, cells.filter(bool), cells, cells)


@st.composite
def registries(draw: st.DrawFn) -> list[Asset]:
    """Assets with hostile but allowed texts; stations differ, and so do assets."""
    keys = draw(st.lists(st.tuples(segments, segments, segments), max_size=5, unique=True))
    return [
        Asset(
            *key,
            asset_id=f"A{number}",
            asset_name=draw(texts.filter(bool)),
            location=draw(texts),
            criticality=draw(st.sampled_from("ABC")),
            kind=draw(st.sampled_from(["machine", "product"])),
            thing_name="device-1",
            failure_modes=draw(st.dictionaries(names, names, max_size=3)),
            warranty_until=draw(st.just("") | days),
            last_maintenance=draw(st.just("") | days),
            maintenance_history=tuple(sorted(draw(st.lists(entries, max_size=3)), key=lambda one: one.date)),
            silent_after_minutes=draw(st.none() | st.integers(0, 10_080)),
        )
        for number, key in enumerate(keys)
    ]


def problems_of(content: bytes) -> tuple[Problem, ...]:
    """Empty where the file is taken."""
    try:
        read(content)
    except AssetsRefusedError as error:
        return error.problems or pytest.fail("refused without a word")
    return ()


def refused(content: str | bytes) -> list[str]:
    return [
        str(problem) for problem in problems_of(content if isinstance(content, bytes) else content.encode())
    ]


def file_of(**changes: str) -> str:
    """A file of one row, in which these cells say something else."""
    (row,) = csv.DictReader(io.StringIO(written([ROW]).decode()))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerow(row | changes)
    return text.getvalue()


@settings(deadline=None, max_examples=40)
@given(registries())
def test_what_is_written_reads_back_the_same_and_is_written_again_byte_for_byte(assets: list[Asset]) -> None:
    content = written(assets)

    again = read(content).assets

    assert sorted(assets, key=lambda one: (one.site, one.line, one.station)) == list(again)
    assert written(again) == content


@settings(deadline=None, max_examples=40)
@given(registries())
def test_no_cell_of_an_export_is_a_formula_of_a_spreadsheet(assets: list[Asset]) -> None:
    for row in csv.reader(io.StringIO(written(assets).decode(), newline="")):
        assert not any(
            cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")) for cell in row
        )


@settings(deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_any_bytes_are_read_or_refused_by_name(content: bytes) -> None:
    assert all(problem.why for problem in problems_of(content))


@settings(deadline=None)
@given(st.sampled_from(COLUMNS), st.text(max_size=60))
def test_any_cell_is_taken_or_refused_with_its_line_and_column(column: str, text: str) -> None:
    for problem in problems_of(file_of(**{column: text}).encode("utf-8", "surrogatepass")):
        assert (problem.line == 2 and problem.column in ("", column)) or "UTF-8" in problem.why


@settings(deadline=None, max_examples=40)
@given(registries())
def test_an_item_reads_back_the_same(assets: list[Asset]) -> None:
    assert [from_item(to_item(asset)) for asset in assets] == assets


def test_the_demos_file_is_canonical() -> None:
    assert written(read(DEMO.read_bytes()).assets) == DEMO.read_bytes()


def test_a_file_of_the_release_before_is_taken() -> None:
    old = (
        "site,line,station,asset_id,asset_name,location,criticality,kind,thing_name,failure_modes,last_maintenance\n"
        "plant-1,line-2,machine-1,TF-01,turbofan 1,hall B,A,machine,device-1,HPC=hpc-degradation,2026-08-02\n"
    )
    (asset,) = read(old.encode()).assets
    assert (asset.asset_id, asset.last_maintenance, asset.maintenance_history) == ("TF-01", "2026-08-02", ())


def test_what_excel_saves_is_taken() -> None:
    text = written([ROW]).decode()
    excel = io.StringIO()
    writer = csv.writer(excel, delimiter=";", lineterminator="\r\n")
    writer.writerows(csv.reader(io.StringIO(text)))

    assert read(b"\xef\xbb\xbf" + excel.getvalue().encode()).assets == (ROW,)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"criticality": "D"}, "line 2, criticality: 'D' is none of A, B, C"),
        ({"kind": "robot"}, "line 2, kind: 'robot' is none of machine, product"),
        ({"last_maintenance": "14.09.2026"}, "line 2, last_maintenance: '14.09.2026' is no day; write it like 2026-11-21"),
        ({"warranty_until": "2026-02-30"}, "line 2, warranty_until: '2026-02-30' is no day; write it like 2026-11-21"),
        ({"line": "Line 1"}, "line 2, line: 'Line 1' is not 1 to 64 of a-z, 0-9, _ and -, as in the topics"),
        ({"line": "device"}, "line 2, line: 'device' is what belongs to a device and to no line; give the line another name"),
        ({"failure_modes": "crack"}, "line 2, failure_modes: 'crack' is not label=code"),
        ({"failure_modes": "a=x;a=y"}, "line 2, failure_modes: label 'a' stands there twice"),
        ({"failure_modes": "__proto__=x"}, "line 2, failure_modes: label '__proto__' begins with two underscores"),
        ({"maintenance_history": "cleaned"}, "line 2, maintenance_history: 'cleaned' is not date|what|order|by"),
        ({"maintenance_history": "2026-01-02|b;2026-01-01|a"}, "line 2, maintenance_history: is not oldest first; sort it by date"),
        ({"silent_after_minutes": "soon"}, "line 2, silent_after_minutes: 'soon' is no number of minutes"),
        ({"silent_after_minutes": "99999"}, "line 2, silent_after_minutes: 99999 is not 0 (never) to 10080; empty for the default"),
        ({"asset_name": ""}, "line 2, asset_name: is empty; technicians look for it"),
        ({"asset_name": "a\u200bb"}, "line 2, asset_name: holds a character that can't be seen (U+200B); type the text anew"),
        ({"asset_name": "x" * 201}, "line 2, asset_name: has 201 characters, 200 are allowed"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named_by_line_and_column_with_a_remedy(changes: dict[str, str], told: str) -> None:
    assert refused(file_of(**changes)) == [told]


def test_wrong_columns_are_named_with_what_was_meant() -> None:
    text = written([ROW]).decode()

    assert refused(text.replace("criticality", "critcality", 1)) == [
        "line 1, critcality: is no column of the registry; did you mean criticality?",
        "line 1, criticality: is missing; add the column",
    ]
    assert (
        refused(text.replace("location", "asset_name", 1))[0]
        == "line 1, asset_name: stands there 2 times; leave one"
    )
    assert "17 cells, and the heading has 14" in refused(text.rstrip("\n") + ",,,\n")[0]
    assert "is a quotation mark left open?" in refused(text + '"plant')[0]
    assert "the file is empty" in refused("")[0]


def test_another_encoding_is_named_with_its_line() -> None:
    text = written([replace(ROW, location="Halle Süd")]).decode()

    assert refused(text.encode("cp1252")) == [
        "line 2: byte 0xFC is no UTF-8, perhaps 'ü' of a Windows file; save it as \"CSV UTF-8 (comma delimited)\""
    ]
    assert "UTF-16" in refused(text.encode("utf-16"))[0]


def test_oversize_is_refused() -> None:
    assert "is it the asset list?" in refused(b"x" * (LARGEST_FILE + 1))[0]
    many = [replace(ROW, station=f"s{number}", asset_id=f"A{number}") for number in range(MOST_ROWS + 1)]
    assert f"more than {MOST_ROWS} stations" in refused(written(many))[0]
    long = [
        Maintenance("2026-01-01", f"{number}" + "ü" * 190, "ü" * 190, "ü" * 190)
        for number in range(MAX_HISTORY)
    ]
    assert f"{LARGEST} are allowed" in refused(written([replace(ROW, maintenance_history=tuple(long))]))[0]
    entries = tuple(Maintenance("2026-01-01", str(number)) for number in range(MAX_HISTORY + 1))
    assert "leave out the oldest" in refused(written([replace(ROW, maintenance_history=entries)]))[0]


def test_a_station_twice_and_two_stories_of_one_asset_are_refused() -> None:
    twice = written([ROW]) + written([ROW]).partition(b"\n")[2]
    assert refused(twice) == ["line 3, station: plant-1/line-1/station-1 stands in line 2 already; leave one"]

    other = replace(ROW, station="station-2", criticality="A", kind="machine", failure_modes={})
    assert refused(written([ROW, other])) == [
        "line 3, criticality: differs from line 2, and both are asset STR-01; say the same, or give another id"
    ]


def test_every_problem_of_a_file_is_told_at_once() -> None:
    rows = [replace(ROW, station=f"s{number}", asset_id=f"A{number}", criticality="?") for number in range(3)]
    assert [problem.partition(":")[0] for problem in refused(written(rows))] == [
        f"line {n}, criticality" for n in (2, 3, 4)
    ]


def test_a_row_that_a_hand_wrote_counts_where_it_says_what_is_needed() -> None:
    bare: dict[str, Any] = {"station_key": "p/l/s", "asset_id": "A1", "kind": "machine", "failure_modes": {}}

    assert from_item(bare).maintenance_history == ()
    for broken in ({"kind": "robot"}, {"asset_id": ""}, {"failure_modes": "x"}, {"station_key": "p/l"}):
        with pytest.raises(ValueError, match=r"kind|asset_id|import"):
            from_item(bare | broken)


def row_of(asset: Asset) -> Row:
    return Row(asset.station_key, asset, "", 1, "")


def test_the_history_of_closed_orders_survives_the_import_of_an_older_export() -> None:
    exported = replace(
        ROW, maintenance_history=(Maintenance("2026-09-14", "cleaned"),), last_maintenance="2026-09-14"
    )
    now = with_maintenance(exported, Maintenance("2026-11-20", "guides replaced", "WO-7", "R. Lang"))
    assert now.last_maintenance == "2026-11-20"

    (change,) = plan(
        {ROW.station_key: row_of(now)}, read(written([replace(exported, location="hall C")])), prune=False
    )

    assert change.fields == ("location",)
    assert change.asset == replace(now, location="hall C")


def test_a_file_without_a_later_column_leaves_what_the_registry_has() -> None:
    present = replace(ROW, warranty_until="2030-01-01", silent_after_minutes=0)
    header, _, line = written([ROW]).decode().partition("\n")
    columns = header.split(",")[:10]
    old = f"{','.join(columns)}\n{','.join(next(csv.reader([line]))[:5])},hall B,B,product,device-1,crack=cell-crack\n"

    (change,) = plan({ROW.station_key: row_of(present)}, read(old.encode()), prune=False)

    assert change.asset == replace(present, location="hall B")


def test_a_remembered_maintenance_is_bounded_once_per_order_and_corrected() -> None:
    asset = ROW
    for number in range(MAX_HISTORY + 5):
        asset = with_maintenance(asset, Maintenance("2026-01-01", "cleaned", f"WO-{number}"))
    assert len(asset.maintenance_history) == MAX_HISTORY
    corrected = with_maintenance(asset, Maintenance("2026-01-01", "replaced", "WO-24"))
    assert [one.what for one in corrected.maintenance_history if one.order == "WO-24"] == ["replaced"]
    assert with_maintenance(corrected, Maintenance("2026-01-01", "replaced", "WO-24")) == corrected
    for number in range(MAX_HISTORY):
        asset = with_maintenance(
            asset, Maintenance("2026-02-01", "ü" * 200, f"W{number}" + "ü" * 190, "ü" * 200)
        )
    assert size_of(asset) <= LARGEST
    assert list(faults(asset)) == []
