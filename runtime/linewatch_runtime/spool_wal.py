# SPDX-License-Identifier: Apache-2.0
"""SQLite's write-ahead log, read without SQLite: what was committed although a part of it is damaged.

SQLite stops at the first frame whose checksum fails, silently: one flipped bit hides every later commit. Here a frame
is checked against what the frame before it says, so that damage stays where it is.
Format: sqlite.org/fileformat2.html, "The Write-Ahead Log".
"""

import itertools
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HEADER = struct.Struct(">8I")
FRAME = struct.Struct(">6I")

PAGE_BYTES = 4096

_LITTLE, _BIG = 0x377F0682, 0x377F0683

Sums = tuple[int, int]


@dataclass(slots=True)
class Frame:
    """One page as the log has it.

    Attributes:
        page: its number in the file.
        size: of the file in pages after the commit that this frame ends; 0 in the middle of one.
        at: where the page's bytes begin in the log.
        fits: its checksum holds.
        foreign: it bears another generation's salt: it was never written, or it is damaged.
    """

    page: int
    size: int
    at: int
    fits: bool
    foreign: bool


@dataclass(frozen=True, slots=True)
class Log:
    """The committed frames, and how many of them SQLite would read."""

    frames: list[Frame]
    seen: int

    @property
    def hides_commits(self) -> bool:
        """Whether SQLite would leave committed frames out."""
        return len(self.frames) > self.seen


def log_of(path: Path) -> Path:
    """The log's own path."""
    return path.with_name(path.name + "-wal")


def hides_commits(path: Path) -> bool:
    """Whether SQLite would open the file and leave out what was committed, because its log or the file is damaged."""
    log = log_of(path)
    if not log.exists() or log.stat().st_size <= HEADER.size:
        return False
    found = read_log(path)
    # Beside an empty file, SQLite deletes the log.
    return found.hides_commits or (bool(found.frames) and (not path.exists() or not path.stat().st_size))


def read_log(path: Path, page_bytes: int = PAGE_BYTES) -> Log:
    """The log beside the file; empty where there is none."""
    try:
        data = log_of(path).read_bytes()
    except FileNotFoundError:
        return Log([], 0)
    step = FRAME.size + page_bytes
    if len(data) < HEADER.size + step:
        return Log([], 0)
    magic, version, size, _, *salts, first, second = HEADER.unpack_from(data)
    order = ">" if magic == _BIG else "<"
    sums: Sums = _sums(data[:24], (0, 0), order)
    sound = magic in (_LITTLE, _BIG) and version == 3007000 and size == page_bytes and sums == (first, second)
    if not sound:  # the first frame knows the generation too
        salts = list(FRAME.unpack_from(data, HEADER.size)[2:4])
    frames, seen = _frames(data, step, order, tuple(salts), (first, second) if sound else sums, sound=sound)
    return Log(frames[: _committed(frames, seen)], seen)


def _frames(
    data: bytes, step: int, order: str, salts: tuple[int, ...], start: Sums, *, sound: bool
) -> tuple[list[Frame], int]:
    """All frames of this generation, and the end of the last commit that SQLite would see."""
    frames: list[Frame] = []
    stored, computed, chained, seen = start, start, sound, 0
    places = range(HEADER.size, len(data) - step + 1, step)
    for at, following in itertools.zip_longest(places, places[1:]):
        page, size, salt_1, salt_2, sum_1, sum_2 = FRAME.unpack_from(data, at)
        covered = data[at : at + 8] + data[at + FRAME.size : at + step]
        told, sums = (sum_1, sum_2), _sums(covered, stored, order)
        if sums != told and computed != stored:
            other = _sums(covered, computed, order)
            if other == told:  # the frame before is whole; only its checksum was hit
                sums, frames[-1].fits = other, True
        foreign = (salt_1, salt_2) != salts
        if foreign and sums != told:
            goes_on = following is not None and FRAME.unpack_from(data, following)[2:4] == salts
            if not goes_on:
                break
        chained = chained and not foreign and sums == told
        frames.append(Frame(page, size, at + FRAME.size, sums == told, foreign))
        if chained and size:
            seen = len(frames)
        stored, computed = told, sums
    if frames and frames[-1].size and not frames[-1].fits:
        # The end of the last commit: cut off in a power cut, unless a single bit makes the difference.
        frames[-1].foreign = not _one_bit_off(sums, told)
    return frames, seen


def _committed(frames: list[Frame], seen: int) -> int:
    """The end of the last commit.

    A commit that nothing follows and of which a frame was never written was torn by a power cut, before anybody was
    told of it. Every other one was synced to the disk before the next began. A whole sector that is destroyed in the
    last commit looks the same: that commit is lost, and nobody can tell.
    """
    ends = [
        number
        for number, frame in enumerate(frames, 1)
        if frame.size and (frame.fits or number == len(frames))
    ]
    end = max([seen, *ends])
    before = max([seen, *(one for one in ends if one < end)])
    torn = end == len(frames) and any(one.foreign and not one.fits for one in frames[before:end])
    return before if torn else end


def _sums(data: bytes, start: Sums, order: str) -> Sums:
    one, two = start
    words: Iterable[int] = struct.unpack(f"{order}{len(data) // 4}I", data)
    pairs = iter(words)
    for word in pairs:
        one = (one + word + two) & 0xFFFFFFFF
        two = (two + next(pairs) + one) & 0xFFFFFFFF
    return one, two


def _one_bit_off(sums: Sums, told: Sums) -> bool:
    """Whether one flipped bit, in the frame or in its checksum, explains the two.

    The checksum is linear: a word that is off by d moves the sums by d times a factor of its place.
    """
    if sum((one ^ other).bit_count() for one, other in zip(sums, told, strict=True)) == 1:
        return True
    off = tuple((other - one) & 0xFFFFFFFF for one, other in zip(sums, told, strict=True))
    back = tuple(-one & 0xFFFFFFFF for one in off)
    factors = [(1, 1), (0, 1)]  # of the first and the second word of the last pair
    for _ in range(PAGE_BYTES // 8 + 1):
        for one, two in factors:
            for bit in range(32):
                if ((one << bit) & 0xFFFFFFFF, (two << bit) & 0xFFFFFFFF) in {off, back}:
                    return True
        factors = [((one + two) & 0xFFFFFFFF, (one + 2 * two) & 0xFFFFFFFF) for one, two in factors]
    return False
