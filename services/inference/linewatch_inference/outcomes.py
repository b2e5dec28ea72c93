# SPDX-License-Identifier: Apache-2.0
"""What came of each active file: a line in `<state_dir>/serving/<name>`, and which version served last on this device."""

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from linewatch_inference.package import is_version

log = logging.getLogger(__name__)


class Outcomes:
    """The lines in the outcomes' directory, and beside each the version that served last, as `<name>.last`; `<name>.pinned`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unwritten: dict[str, str] = {}
        self._trouble = ""

    def tell(self, name: str, outcome: str, served: str) -> None:
        """Queues a line for the next `write`; `served`: what serves now, "" for nothing."""
        self._unwritten[name] = outcome
        if served:
            self._unwritten[f"{name}.last"] = served

    def tell_pinned(self, pinned: Mapping[str, Sequence[str]]) -> None:
        """Queues the versions that the settings pin, as `<name>.pinned`: whoever clears old versions away leaves them."""
        with contextlib.suppress(OSError):
            for path in self._directory.glob("*.pinned"):
                if path.stem not in pinned:
                    path.unlink()
        self._unwritten.update({f"{name}.pinned": "\n".join(versions) for name, versions in pinned.items()})

    def write(self) -> None:
        """Writes what is queued, each file at once; what can't be written now stays queued."""
        for name, line in list(self._unwritten.items()):
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                _replace(self._directory / name, f"{line}\n")
            except OSError as error:
                if str(error) != self._trouble:
                    reason = f"{error}; let this user write to INFERENCE_STATE_DIR"
                    log.error("outcome_not_written", extra={"file": name, "reason": reason})
                self._trouble = str(error)
                return
            del self._unwritten[name]
            self._trouble = ""

    def last_served(self, name: str) -> str:
        """The version that served last on this device, "" when nobody knows."""
        try:
            version = (self._directory / f"{name}.last").read_text().strip()
        except (OSError, ValueError):
            return ""
        return version if is_version(version) else ""


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
