# SPDX-License-Identifier: Apache-2.0
"""Sources that read image files: a folder that is played, and one that a camera writes to.

Files travel as they are: without a mask nothing is decoded or encoded again. A file that can't be read or masked becomes
a part with `refused`; a file that is no image is sent like any other, and inference says so. None is passed over in silence.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from linewatch_capture.pace import Pace
from linewatch_capture.parts import MAX_IMAGE_BYTES, Frame, NotInspected, Part, Unmaskable
from linewatch_runtime.lifecycle import wait_until

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

POLL_S = 0.5
"""How often a watched directory is looked at. A file is taken when two looks in a row saw the same."""


Masked = Callable[[bytes], bytes]
"""The picture without what nobody may see (masking.py); raises Unmaskable."""


class EmptyFolder(Exception):
    """There is nothing to play."""


def image_files(folder: Path) -> list[Path]:
    """JPEG and PNG files below `folder` by their path's order, so that numbered subfolders play in their order.

    Raises:
        EmptyFolder: there is none, or no such directory.
    """
    if not folder.is_dir():
        raise EmptyFolder(f"{folder} is not a directory; name the directory with the images")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise EmptyFolder(f"{folder} has no .jpg, .jpeg or .png file; name the directory with the images")
    return files


def read_part(path: Path, position: int, masked: Masked | None) -> Part:
    """The file as a part, whatever is in it. A name that is no UTF-8 is told with a replacement for what can't be."""
    part_id = os.fsencode(path.name).decode("utf-8", "replace")
    try:
        size = path.stat().st_size
        if size > MAX_IMAGE_BYTES:
            message = f"{size} bytes, the limit is {MAX_IMAGE_BYTES}; let the camera write a smaller image"
            return Part(part_id, None, position, NotInspected("image_too_large", message))
        encoded = path.read_bytes()
        # Frames are made here and nowhere else, so the flow never holds a picture that `masked` has not seen.
        return Part(part_id, Frame(masked(encoded) if masked else encoded), position)
    except Unmaskable as unmaskable:
        return Part(part_id, None, position, unmaskable.refused)
    except OSError as error:
        message = f"the file can't be read: {error.strerror}; check its permissions and the disk"
        return Part(part_id, None, position, NotInspected("unreadable_image", message))


class PlayedFolder:
    """Plays the files that were there at the start, once or for ever. The position counts parts."""

    def __init__(
        self,
        folder: Path,
        rate: float,
        stop: asyncio.Event,
        *,
        live: bool = False,
        loop: bool = False,
        limit: int = 0,
        masked: Masked | None = None,
    ) -> None:
        """Raises EmptyFolder. `limit` ends at that position, 0: none; `live`: by the clock, newest wins."""
        self.name = f"folder:{folder.resolve()}"
        self.can_wait = not live
        self._files = image_files(folder)
        self._pace = Pace(rate, by_the_clock=live)
        self._stop = stop
        self._masked = masked
        self._end = limit or None if loop else min(limit or len(self._files), len(self._files))

    async def parts(self, position: int) -> AsyncIterator[Part]:
        """The files from `position` on."""
        while (self._end is None or position < self._end) and await self._pace.next(self._stop):
            path = self._files[position % len(self._files)]
            position += 1
            yield await asyncio.to_thread(read_part, path, position, self._masked)


class Marks(Protocol):
    """What was recorded, on disk (ledger.py)."""

    async def recorded(self) -> set[str]:
        """The marks of all recorded parts whose files may still be there."""
        ...

    async def forget(self, marks: Collection[str]) -> bool:
        """Takes marks away; False when that has to be tried again."""
        ...


class WatchedFolder:
    """Follows the files that a camera writes into a directory. The position counts parts.

    A recorded file is known again by its mark: inode, size and time of the last write, compared for being equal only.
    So a clock that is set loses nothing, and a file that is renamed or gets other permissions is no new part. A mark
    goes when its file has left the directory. What lay there before the very first start is no part; what came while
    capture was down is.
    """

    can_wait = False

    def __init__(self, folder: Path, stop: asyncio.Event, masked: Masked | None = None) -> None:
        """Raises EmptyFolder when there is no such directory."""
        if not folder.is_dir():
            raise EmptyFolder(f"{folder} is not a directory; name the directory that the camera writes to")
        self.name = f"watch:{folder.resolve()}"
        self.marks: Marks | None = None
        """Set before `parts`; None remembers for this run only."""
        self._folder = folder
        self._stop = stop
        self._masked = masked

    def present(self) -> dict[str, Path]:
        """The image files there now by their marks, in the order of writing, as far as the clock tells it.

        Names that begin with a dot are still being written.
        """
        found: list[tuple[int, str, str]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in SUFFIXES:
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue  # moved away while we looked
                mark = f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
                found.append((status.st_mtime_ns, entry.name, mark))
        return {mark: self._folder / name for _, name, mark in sorted(found)}

    async def parts(self, position: int) -> AsyncIterator[Part]:
        """Each new file once it has stopped growing."""
        known = await self.marks.recorded() if self.marks else set()
        before: dict[str, Path] = {}
        while not await wait_until(self._stop, POLL_S):
            now = await asyncio.to_thread(self.present)
            for mark, path in now.items():
                if mark in before and mark not in known:
                    known.add(mark)
                    position += 1
                    yield replace(await asyncio.to_thread(read_part, path, position, self._masked), mark=mark)
            gone = known - now.keys()
            if gone and (self.marks is None or await self.marks.forget(gone)):
                known -= gone
            before = now
