# SPDX-License-Identifier: Apache-2.0
"""Sources that read image files: a folder that is played, and one that a camera writes to.

Files travel as they are: nothing is decoded or encoded again here. A file that can't be read becomes a part with
`refused`; a file that is no image is sent like any other, and inference says so. Neither is passed over in silence.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from linewatch_capture.pace import Pace
from linewatch_capture.parts import MAX_IMAGE_BYTES, Frame, NotInspected, Part
from linewatch_runtime.lifecycle import wait_until

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

POLL_S = 0.1
"""How often a watched directory is looked at. A file is taken when two looks in a row saw the same size."""


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


def read_part(path: Path, position: int) -> Part:
    """The file as a part, whatever is in it. A name that is no UTF-8 is told with a replacement for what can't be."""
    part_id = os.fsencode(path.name).decode("utf-8", "replace")
    try:
        size = path.stat().st_size
        if size > MAX_IMAGE_BYTES:
            message = f"{size} bytes, the limit is {MAX_IMAGE_BYTES}; let the camera write a smaller image"
            return Part(part_id, None, position, NotInspected("image_too_large", message))
        return Part(part_id, Frame(path.read_bytes()), position)
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
    ) -> None:
        """Raises EmptyFolder. `limit` ends at that position, 0: none; `live`: by the clock, newest wins."""
        self.name = f"folder:{folder.resolve()}"
        self.can_wait = not live
        self._files = image_files(folder)
        self._pace = Pace(rate, by_the_clock=live)
        self._stop = stop
        self._end = limit or None if loop else min(limit or len(self._files), len(self._files))

    async def parts(self, position: int) -> AsyncIterator[Part]:
        """The files from `position` on."""
        while (self._end is None or position < self._end) and await self._pace.next(self._stop):
            path = self._files[position % len(self._files)]
            position += 1
            yield await asyncio.to_thread(read_part, path, position)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file in a watched directory. `arrived` is its ctime: the moment of the rename or of the last write."""

    arrived_ns: int
    path: Path
    size: int


class WatchedFolder:
    """Follows the files that a camera writes into a directory. The position is the newest recorded file's ctime, ns.

    What lay there before the very first start is no part; what came while capture was down is. A camera that writes
    two files within one tick of the kernel's file clock (4 ms) may lose the second one, if capture is killed between.
    """

    can_wait = False

    def __init__(self, folder: Path, stop: asyncio.Event) -> None:
        """Raises EmptyFolder when there is no such directory."""
        if not folder.is_dir():
            raise EmptyFolder(f"{folder} is not a directory; name the directory that the camera writes to")
        self.name = f"watch:{folder.resolve()}"
        self._folder = folder
        self._stop = stop

    def newest_position(self) -> int:
        """Where to begin at the very first start: behind what is there."""
        return max((seen.arrived_ns for seen in self._look(0)), default=1)

    async def parts(self, position: int) -> AsyncIterator[Part]:
        """Each new file once it has stopped growing, in the order of arrival."""
        done: set[tuple[int, Path]] = set()
        before: set[_Seen] = set()
        while not await wait_until(self._stop, POLL_S):
            now = set(await asyncio.to_thread(lambda: list(self._look(position))))
            ready = [seen for seen in now & before if (seen.arrived_ns, seen.path) not in done]
            for seen in sorted(ready, key=lambda seen: (seen.arrived_ns, seen.path)):
                done.add((seen.arrived_ns, seen.path))
                yield await asyncio.to_thread(read_part, seen.path, seen.arrived_ns)
            done &= {(seen.arrived_ns, seen.path) for seen in now}
            before = now

    def _look(self, position: int) -> Iterator[_Seen]:
        """Files that arrived after `position`. Names that begin with a dot are still being written."""
        for path in self._folder.iterdir():
            if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # moved away between the two looks
            if status.st_ctime_ns > position:
                yield _Seen(status.st_ctime_ns, path, status.st_size)
