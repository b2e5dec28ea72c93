# SPDX-License-Identifier: Apache-2.0
"""What the forwarder says of the evidence: which parts an open work order holds, and which files the cloud has.

    <evidence directory>-state/pins                one event id a line; replaced whole
    <evidence directory>-state/uploaded/{line}     one file a line, as {yyyymmdd}/{name}; grows at its end

The forwarder writes them (linewatch_forwarder/evidence/notes.py), capture only reads. It is a directory of its own so
that neither may write where only the other has to. A note that can't be read changes nothing: what was known stays.
"""

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

LONGEST_PINS_BYTES = 64 * 1024
"""Eight times what the device shadow can name."""


def state_dir_of(evidence_dir: Path) -> Path:
    """Where the forwarder's notes about this evidence lie."""
    return evidence_dir.with_name(evidence_dir.name + "-state")


class EvidenceNotes:
    """The notes of one line, read anew when they have changed."""

    def __init__(self, state_dir: Path, line: str) -> None:
        self._pins_file = state_dir / "pins"
        self._uploaded_file = state_dir / "uploaded" / line
        self._pins_read = b""
        self._uploaded_seen = (0, 0)
        self.pins: frozenset[str] = frozenset()
        """Event ids that an open work order holds."""
        self.uploaded: set[str] = set()
        """Files that the cloud has, as {yyyymmdd}/{name}."""

    def read_pins(self) -> bool:
        """Whether the pins are other ones now."""
        # Not by the file's number, times and size: ext4 gives a number anew at once, and older kernels tell times by the
        # tick, so a file that was replaced twice within one may look as the one before did.
        try:
            with self._pins_file.open("rb") as file:
                content = file.read(LONGEST_PINS_BYTES)
        except FileNotFoundError:
            content = b""
        except OSError as error:
            log.error("pins_not_read", extra={"reason": str(error)})
            return False
        if content == self._pins_read:
            return False
        before, self._pins_read = self.pins, content
        self.pins = frozenset(content.decode("ascii", "replace").split())
        return self.pins != before

    def read_uploaded(self) -> list[str]:
        """The files that were uploaded since the last call; all of them when the list was written anew."""
        try:
            with self._uploaded_file.open("rb") as file:
                inode, offset = self._uploaded_seen
                state = os.fstat(file.fileno())
                if state.st_ino != inode or state.st_size < offset:
                    offset = 0
                    self.uploaded.clear()
                file.seek(offset)
                content = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            log.error("uploads_not_read", extra={"reason": str(error)})
            return []
        whole = content[: content.rfind(b"\n") + 1]  # the last line may be half written
        self._uploaded_seen = (state.st_ino, offset + len(whole))
        names = whole.decode("ascii", "replace").split()
        self.uploaded.update(names)
        return names
