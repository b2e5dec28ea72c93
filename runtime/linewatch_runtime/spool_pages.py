# SPDX-License-Identifier: Apache-2.0
"""A spool's file, read page by page without SQLite: every row that can still be read, whatever else is broken.

Trees are walked from the roots that the schema names, or that a new file would have; what no tree, no overflow chain
and no free list claims is read as well, for it hung from a page that is damaged. The newest committed version of a page
counts, from the file or its log. Nothing here verifies a row: its CRC is the caller's.
Format: sqlite.org/fileformat2.html. Only our own files are meant: pages of 4096 bytes, UTF-8, no vacuum.
"""

import contextlib
import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from linewatch_runtime.spool_wal import PAGE_BYTES, log_of, read_log

Value = None | int | float | bytes | str
Row = tuple[Value, ...]

_TABLE_LEAF, _TABLE_INNER, _INDEX_LEAF, _INDEX_INNER = 13, 5, 10, 2
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_MOST_LOCAL = {True: PAGE_BYTES - 35, False: (PAGE_BYTES - 12) * 64 // 255 - 23}
_LEAST_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23


class BadRow(Exception):
    """These bytes are no row."""


class Pages:
    """The newest committed version of each page of a file. Raises OSError where the disk fails."""

    def __init__(self, path: Path) -> None:
        log = read_log(path)
        self._file = os.open(path, os.O_RDONLY)
        self._log = os.open(log_of(path), os.O_RDONLY) if log.frames else -1
        self._newest: dict[int, int] = {}
        self.strays: list[bytes] = []
        """Versions that a doubtful frame stands before: its page number may be what is wrong with it."""
        self.count = os.fstat(self._file).st_size // PAGE_BYTES
        for frame in log.frames:
            if not frame.fits and frame.page <= self.count:
                self.strays.append(self.read(frame.page))
            self._newest[frame.page] = frame.at
            told = max(frame.page, frame.size)
            # What a doubtful frame says of the file's size counts if the log could have made it so large.
            if frame.fits or told <= self.count + len(log.frames):
                self.count = max(self.count, told)

    def read(self, number: int) -> bytes:
        """The page, counted from 1; empty where there is none."""
        if not 0 < number <= self.count:
            return b""
        at = self._newest.get(number)
        page = (
            os.pread(self._file, PAGE_BYTES, (number - 1) * PAGE_BYTES)
            if at is None
            else os.pread(self._log, PAGE_BYTES, at)
        )
        return page if len(page) == PAGE_BYTES else b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        if self._log >= 0:
            os.close(self._log)


class Reader:
    """The rows of a file's tables. Read the trees first: what is left over then is what no tree claims."""

    def __init__(self, pages: Pages, roots: dict[str, int]) -> None:
        """`roots`: of each table and index in a new file, by name; what the file's own schema says comes first."""
        self._pages = pages
        self._claimed = {1}
        self.flaws = 0
        """Pages and rows that could not be read."""
        named = {str(row[1]): row[3] for _, row in self._tree(1) if len(row) == 5}
        self._roots = {
            name: root if isinstance(root := named.get(name), int) else usual for name, usual in roots.items()
        }

    def rows(self, name: str) -> Iterator[tuple[int, Row]]:
        """(row id, values) of a table or an index; the row id of an index's entry is 0."""
        return self._tree(self._roots[name])

    def claim(self, name: str) -> None:
        """Takes a tree's pages for known, without reading its leaves."""
        for _ in self._tree(self._roots[name], leaves=False):
            pass

    def left_over(self) -> Iterator[tuple[int, Row]]:
        """(row id, values) of table rows on pages that no tree claims. Not of one table: look at their shape."""
        self._claim_free_pages()
        for number in range(1, self._pages.count + 1):
            if number not in self._claimed:
                self.flaws += 1
                yield from self._leaf(self._pages.read(number), 0)
        for stray in self._pages.strays:
            self.flaws += 1
            yield from self._leaf(stray, 0)

    def _tree(self, root: int, *, leaves: bool = True) -> Iterator[tuple[int, Row]]:
        waiting = [root]
        while waiting:
            number = waiting.pop()
            if number in self._claimed and number != 1:
                self.flaws += 1
                continue
            page, start = self._pages.read(number), 100 if number == 1 else 0
            kind = page[start] if page else 0
            if kind not in (_TABLE_LEAF, _TABLE_INNER, _INDEX_LEAF, _INDEX_INNER):
                self.flaws += 1
                continue  # left over; its rows may be whole
            self._claimed.add(number)
            if kind in (_TABLE_LEAF, _INDEX_LEAF):
                if leaves:
                    is_table = kind == _TABLE_LEAF
                    yield from self._leaf(page, start) if is_table else self._entries(page, start, 8, 0)
                continue
            if kind == _INDEX_INNER and leaves:
                yield from self._entries(page, start, 12, 4)
            children = [
                int.from_bytes(page[at : at + 4], "big") for at in self._places(page, start, 12)
            ]  # the last one stands in the header
            waiting.extend(reversed([*children, int.from_bytes(page[start + 8 : start + 12], "big")]))

    def _places(self, page: bytes, start: int, header: int) -> Iterator[int]:
        """Where each entry of the page begins. A count that can't be is cut to what fits the page."""
        count = min(int.from_bytes(page[start + 3 : start + 5], "big"), (PAGE_BYTES - start - header) // 2)
        for number in range(count):
            place = start + header + 2 * number
            at = int.from_bytes(page[place : place + 2], "big")
            if start + header <= at < PAGE_BYTES:
                yield at
            else:
                self.flaws += 1

    def _leaf(self, page: bytes, start: int) -> Iterator[tuple[int, Row]]:
        if not page:
            return
        for at in self._places(page, start, 8):
            try:
                size, here = _varint(page, at)
                row_id, here = _varint(page, here)
                row = _row(self._payload(page, here, size, is_table=True))
            except BadRow:
                self.flaws += 1
                continue
            yield (row_id if row_id < 1 << 63 else row_id - (1 << 64)), row

    def _entries(self, page: bytes, start: int, header: int, skip: int) -> Iterator[tuple[int, Row]]:
        for at in self._places(page, start, header):
            try:
                size, here = _varint(page, at + skip)
                row = _row(self._payload(page, here, size, is_table=False))
            except BadRow:
                self.flaws += 1
                continue
            yield 0, row

    def _payload(self, page: bytes, at: int, size: int, *, is_table: bool) -> bytes:
        most = _MOST_LOCAL[is_table]
        if size <= most:
            if at + size > PAGE_BYTES:
                raise BadRow
            return page[at : at + size]
        if size > self._pages.count * PAGE_BYTES:
            raise BadRow
        local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % (PAGE_BYTES - 4)
        local = local if local <= most else _LEAST_LOCAL
        if at + local + 4 > PAGE_BYTES:
            raise BadRow
        parts, left = [page[at : at + local]], size - local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        chain = set[int]()
        while left > 0:
            overflow = self._pages.read(following)
            if not overflow or following in chain:
                raise BadRow
            chain.add(following)
            parts.append(overflow[4 : 4 + left])
            left -= len(parts[-1])
            following = int.from_bytes(overflow[:4], "big")
        self._claimed |= chain
        return b"".join(parts)

    def _claim_free_pages(self) -> None:
        trunk = int.from_bytes(self._pages.read(1)[32:36], "big")
        while trunk and trunk not in self._claimed:
            page = self._pages.read(trunk)
            if not page:
                self.flaws += 1
                return
            self._claimed.add(trunk)
            count = min(int.from_bytes(page[4:8], "big"), PAGE_BYTES // 4 - 2)
            self._claimed.update(struct.unpack_from(f">{count}I", page, 8))
            trunk = int.from_bytes(page[:4], "big")


def usual_roots(schema: str) -> dict[str, int]:
    """The roots of a file that was just made with this schema."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(schema)
        return dict(db.execute("SELECT name, rootpage FROM sqlite_master"))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number, and where it ends."""
    value = 0
    for place in range(at, min(at + 8, len(data))):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    if at + 8 >= len(data):
        raise BadRow
    return value << 8 | data[at + 8], at + 9


def _row(record: bytes) -> Row:
    end, at = _varint(record, 0)
    if end > len(record):
        raise BadRow
    kinds = []
    while at < end:
        kind = record[at]
        if kind < 0x80:  # one byte, as nearly always
            at += 1
        else:
            kind, at = _varint(record, at)
        kinds.append(kind)
    values: list[Value] = []
    for kind in kinds:
        value, at = _value(record, at, kind)
        values.append(value)
    if at != len(record):
        raise BadRow
    return tuple(values)


def _value(record: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind >= 12:
        end = at + (kind - 12) // 2
        raw = record[at:end]
        if end > len(record):
            raise BadRow
        if kind % 2 == 0:
            return raw, end
        try:
            return raw.decode(), end
        except UnicodeDecodeError as error:
            raise BadRow from error
    if kind in _INTEGERS:
        end = at + _INTEGERS[kind]
        return int.from_bytes(record[at:end], "big", signed=True), end
    if kind == 7:
        if at + 8 > len(record):
            raise BadRow
        return struct.unpack_from(">d", record, at)[0], at + 8
    if kind in (0, 8, 9):
        return (None, 0, 1)[max(0, kind - 7)], at
    raise BadRow


def shape(row: Sequence[Value]) -> str:
    """One letter per value: n(ull), i(nteger), f(loat), t(ext), b(lob)."""
    letters = {type(None): "n", int: "i", float: "f", str: "t", bytes: "b"}
    return "".join(letters[type(value)] for value in row)
