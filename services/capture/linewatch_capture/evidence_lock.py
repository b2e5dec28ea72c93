# SPDX-License-Identifier: Apache-2.0
"""The lock that the stations of a line share, and the durable write that they do under it."""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

LONGEST_LOCK_WAIT_S = 2.0
"""A station that was stopped with the lock in its hand costs the others their evidence, and no event more than this."""


class LineLock:
    """`.lock` in the line's directory. The kernel lets it go with its process, however that ends."""

    def __init__(self, directory: Path) -> None:
        """Makes the directory. Raises OSError when it can't be used."""
        self._directory = directory
        self._file = self._open()

    def __enter__(self) -> None:
        """Waits LONGEST_LOCK_WAIT_S at most. Raises OSError then."""
        deadline = time.monotonic() + LONGEST_LOCK_WAIT_S
        while not self.is_taken():
            if time.monotonic() > deadline:
                raise OSError(f"another station holds {self._directory / '.lock'}; is it stopped?")
            time.sleep(0.005)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def is_taken(self) -> bool:
        """Takes it if nobody has it now; whether it is ours."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file), (self._directory / ".lock").stat()):
                    return True
            # Somebody emptied the directory: the others lock another file by now. Ours is closed once we have that one: its
            # number would soon be another file's.
            left, self._file = self._file, self._open()
        except BaseException:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # or the others would wait for who keeps nothing
            raise
        os.close(left)
        return False

    def close(self) -> None:
        """Lets go for good; closing twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _open(self) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        return os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def write_durably(path: Path, content: bytes) -> None:
    """The file under its name, on disk; or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
