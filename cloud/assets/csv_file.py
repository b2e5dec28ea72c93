# SPDX-License-Identifier: Apache-2.0
"""The asset registry as a CSV file. Pure.

`written` is canonical: UTF-8, commas, LF, every column, rows by station. What it wrote reads back to the same assets, and is
written again byte for byte. `read` also takes what Excel makes of it: a byte-order mark, semicolons, CRLF.
"""

import csv
import difflib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assets.asset import FACTS, Asset, Maintenance, faults

COLUMNS = (
    "site", "line", "station", "asset_id", "asset_name", "location", "criticality", "kind", "thing_name", "failure_modes",
    "warranty_until", "last_maintenance", "maintenance_history", "silent_after_minutes",
)  # fmt: skip
OPTIONAL = frozenset({"warranty_until", "last_maintenance", "maintenance_history", "silent_after_minutes"})
"""Columns of later releases, and what closed orders write: a file without the column leaves what the registry has."""

LARGEST_FILE = 4 * 1024 * 1024
MOST_ROWS = 2000
MOST_PROBLEMS = 50

# A spreadsheet takes a cell that begins so for a formula and runs it. An apostrophe in front makes it text again; a text
# that has apostrophes there itself gets one more, so that reading takes off what writing put on.
_FORMULA = re.compile(r"'*[=+\-@＝＋－＠]")
_ESCAPED = re.compile(r"'+[=+\-@＝＋－＠]")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in one place of the file. Lines count from 1, the heading included; column "" for a whole row."""

    line: int
    column: str
    why: str

    def __str__(self) -> str:
        """Is "line 3, criticality: 'X' is none of A, B, C"."""
        return (
            ", ".join(filter(None, (f"line {self.line}" if self.line else "", self.column))) + f": {self.why}"
        )


class AssetsRefusedError(ValueError):
    """The file has problems; nothing of it is taken."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class AssetFile:
    """The assets of a file and the columns that it has."""

    assets: tuple[Asset, ...]
    columns: frozenset[str]


def read(content: bytes) -> AssetFile:
    """The file's assets, by station. Raises AssetsRefusedError with everything that is wrong, at most MOST_PROBLEMS."""
    text = _text(content)
    delimiter = ";" if ";" in text.partition("\n")[0] and "," not in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    problems: list[Problem] = []
    placed: list[tuple[int, Asset]] = []
    header: list[str] = []
    while (row := _next(reader, problems)) is not None:
        line, cells = row
        if not cells:
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            problems += _header_problems(header)
            if problems:
                break
            continue
        placed += [(line, asset)] if (asset := _asset(line, header, cells, problems)) else []
        if len(problems) >= MOST_PROBLEMS or len(placed) > MOST_ROWS:
            break
    if not header and not problems:
        problems.append(
            Problem(0, "", f"the file is empty; its first line names the columns: {','.join(COLUMNS)}")
        )
    if len(placed) > MOST_ROWS:
        problems.append(Problem(placed[-1][0], "", f"more than {MOST_ROWS} stations; that is no plant"))
    problems += _contradictions(placed, frozenset(header))
    if problems:
        raise AssetsRefusedError(sorted(problems, key=lambda one: one.line)[:MOST_PROBLEMS])
    assets = sorted((asset for _, asset in placed), key=lambda one: (one.site, one.line, one.station))
    return AssetFile(tuple(assets), frozenset(header))


def written(assets: Sequence[Asset]) -> bytes:
    """The canonical file of these assets."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for asset in sorted(assets, key=lambda one: (one.site, one.line, one.station)):
        writer.writerow([_escaped(_cell(asset, column)) for column in COLUMNS])
    return text.getvalue().encode()


def _text(content: bytes) -> str:
    if len(content) > LARGEST_FILE:
        why = f"the file has {len(content)} bytes, {LARGEST_FILE} are taken; is it the asset list?"
        raise AssetsRefusedError([Problem(0, "", why)])
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise AssetsRefusedError(
            [Problem(1, "", 'the file is UTF-16; save it as "CSV UTF-8 (comma delimited)"')]
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        why = f"byte 0x{byte:02X} is no UTF-8, perhaps {bytes([byte]).decode('cp1252', 'replace')!r} of a Windows file; "
        raise AssetsRefusedError(
            [Problem(line, "", why + 'save it as "CSV UTF-8 (comma delimited)"')]
        ) from error


def _next(reader: Any, problems: list[Problem]) -> tuple[int, list[str]] | None:
    """The number of the next record's first line, and its cells; None at the end, and where the CSV itself is broken."""
    line = reader.line_num + 1
    try:
        return line, next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        problems.append(Problem(line, "", f"is no CSV: {error}; is a quotation mark left open?"))
        return None


def _header_problems(header: Sequence[str]) -> list[Problem]:
    problems = []
    for name in dict.fromkeys(header):
        if header.count(name) > 1:
            problems.append(Problem(1, name, f"stands there {header.count(name)} times; leave one"))
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, 1)
            remedy = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(COLUMNS)}"
            problems.append(Problem(1, name[:80], f"is no column of the registry{remedy}"))
    missing = [name for name in COLUMNS if name not in header and name not in OPTIONAL]
    return problems + [Problem(1, name, "is missing; add the column") for name in missing]


def _asset(line: int, header: Sequence[str], cells: Sequence[str], problems: list[Problem]) -> Asset | None:
    if len(cells) != len(header):
        why = f"{len(cells)} cells, and the heading has {len(header)}; a comma inside of a cell needs quotation marks"
        problems.append(Problem(line, "", why))
        return None
    given = {name: _plain(cell.strip()) for name, cell in zip(header, cells, strict=True)}
    found: list[Problem] = []
    values: dict[str, Any] = {name: given.get(name, "") for name in COLUMNS}
    asset = Asset(**values | {name: reads(values[name], line, found) for name, reads in _READ.items()})
    found += [Problem(line, field, why) for field, why in faults(asset)]
    problems += found
    return asset if not found else None


def _failure_modes(text: str, line: int, found: list[Problem]) -> dict[str, str]:
    modes: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        label, equals, code = pair.partition("=")
        if not equals:
            found.append(Problem(line, "failure_modes", f"{pair!r} is not label=code"))
        elif label in modes:
            found.append(Problem(line, "failure_modes", f"label {label!r} stands there twice"))
        else:
            modes[label] = code
    return modes


def _history(text: str, line: int, found: list[Problem]) -> tuple[Maintenance, ...]:
    history: list[Maintenance] = []
    for entry in filter(None, text.split(";")):
        parts = entry.split("|")
        if not 2 <= len(parts) <= 4:
            found.append(Problem(line, "maintenance_history", f"{entry[:80]!r} is not date|what|order|by"))
        else:
            history.append(Maintenance(*parts))
    return tuple(history)


def _minutes(text: str, line: int, found: list[Problem]) -> int | None:
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 9):
        found.append(Problem(line, "silent_after_minutes", f"{text[:40]!r} is no number of minutes"))
        return None
    return int(text) if text else None


_READ: Mapping[str, Callable[[str, int, list[Problem]], Any]] = {
    "failure_modes": _failure_modes,
    "maintenance_history": _history,
    "silent_after_minutes": _minutes,
}


def _cell(asset: Asset, column: str) -> str:
    value = getattr(asset, column)
    if column == "failure_modes":
        return ";".join(f"{label}={code}" for label, code in sorted(value.items()))
    if column == "maintenance_history":
        return ";".join(f"{one.date}|{one.what}|{one.order}|{one.by}" for one in value)
    return "" if value is None else str(value)


def _escaped(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _plain(cell: str) -> str:
    return cell[1:] if _ESCAPED.match(cell) else cell


def _contradictions(placed: Sequence[tuple[int, Asset]], columns: frozenset[str]) -> Iterator[Problem]:
    """A station twice, and two stations that say different things of one asset."""
    stations: dict[str, int] = {}
    first: dict[str, tuple[int, Asset]] = {}
    for line, asset in placed:
        if asset.station_key in stations:
            why = f"{asset.station_key} stands in line {stations[asset.station_key]} already; leave one"
            yield Problem(line, "station", why)
        stations.setdefault(asset.station_key, line)
        other_line, other = first.setdefault(asset.asset_id, (line, asset))
        for name in FACTS:
            if name in columns and getattr(asset, name) != getattr(other, name):
                why = f"differs from line {other_line}, and both are asset {asset.asset_id}; say the same, or give another id"
                yield Problem(line, name, why)
