# SPDX-License-Identifier: Apache-2.0
"""Follows `<models_dir>/<name>/active`, a file whose one line names the version to serve, and says what came of it.

A version goes into service beside the one before (repository); one that is refused changes nothing. The outcome is
one line in `<outcomes_dir>/<name>`: `1.2.0 serving sha256:…`, `1.2.0 refused why` or, when INFERENCE_MODELS decides
otherwise, `1.2.0 set-aside why`; `- refused why` when the file names no version. Every active file gets its outcome,
because somebody waits for it: whoever writes the file anew, with a word of its own on the second line, finds that word
on the outcome's second line.

What is served is never taken away because a file or a folder vanished: a disk that is not mounted must not stop a line.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from linewatch_inference.active_file import ACTIVE, Active, Files, Stamp, files_of, read_active
from linewatch_inference.errors import InferenceRefused
from linewatch_inference.outcomes import Outcomes
from linewatch_inference.package import find, version_key
from linewatch_inference.repository import Repository

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LONGEST_REASON = 1000
"""In bytes: who waits for an outcome reads no more than 1100."""

_NO_MODELS = frozenset({"trusted-keys"})
"""Folders beside the models that are none."""
_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A version, and by which active file: another stamp asks anew. None: without one."""

    version: str
    stamp: Stamp | None


@dataclass(frozen=True, slots=True)
class _Tried:
    """The last try of a name: what was asked, from which files, and why it was refused, if it was."""

    asked: _Asked
    files: Files
    refused: str


class Activation:
    """Decides which versions the repository serves. One thread at a time."""

    def __init__(
        self,
        repository: Repository,
        models_dir: Path,
        outcomes_dir: Path,
        configured: Sequence[tuple[str, str]],
    ) -> None:
        """`configured`: (name, version) pairs; a name with a version is pinned, whatever its active file says.
        Without any, all models of the directory are followed, new ones too.
        """
        self._repository = repository
        self._models_dir = models_dir
        self._outcomes = Outcomes(outcomes_dir)
        pinned = {name for name, version in configured if version}
        self._pinned = [pair for pair in configured if pair[0] in pinned]
        self._named = [name for name, _ in configured if name not in pinned] if configured else None
        self._tried: dict[str, _Tried] = {}
        self._loaded: dict[tuple[str, str], Files] = {}
        self._seen: dict[str, Files] = {}
        self._answered: dict[str, Stamp] = {}
        """By which active file a name that is not followed was last asked for."""
        self._is_open = False
        self._trouble = ""

    def open(self) -> None:
        """Loads what is to be served, then lets calls in."""
        self.look()
        self._is_open = True
        self._configure(self._tried)
        self._repository.open(self._pinned)
        self._outcomes.tell_pinned({name: self._pins_of(name) for name, _ in self._pinned})
        self._answer_others()
        self._outcomes.write()
        if not self._repository.configured:
            log.error("no_models", extra={"models_dir": str(self._models_dir)})

    def look(self) -> None:
        """Follows what changed since the last look; returns when it is served or refused."""
        try:
            packages = find(self._models_dir)
            names = self._names(packages)
        except OSError as error:
            if str(error) != self._trouble:
                log.error("models_dir_unreadable", extra={"reason": f"{error}; let this user read it"})
            self._trouble = str(error)
            return
        self._trouble = ""
        for name in names:
            self._follow(name, packages.get(name, {}))
        if self._is_open:
            self._configure(names)
            self._answer_others()
        self._outcomes.write()

    def _answer_others(self) -> None:
        """Tells what comes of active files that INFERENCE_MODELS overrules."""
        if self._named is None:
            return
        followed = set(self._named)
        try:
            folders = self._folders()
        except OSError:  # told by look
            return
        for name in folders:
            active = None if name in followed else read_active(self._models_dir / name / ACTIVE)
            if active and self._answered.get(name) != active.stamp:
                self._answered[name] = active.stamp
                self._outcomes.tell(name, self._outcome_of_other(name, active), "")

    def _outcome_of_other(self, name: str, active: Active) -> str:
        """A pinned version that came after the start goes into service beside what serves; any other is left alone."""
        if active.problem:
            return self._outcome(name, active, active.problem)
        pins = self._pins_of(name)
        if active.version not in pins:
            why = f"pins {name} to {', '.join(pins)}" if pins else f"does not name {name}"
            return _answer(active, f"{active.version} set-aside INFERENCE_MODELS {why}")
        if not self._repository.digest_of(name, active.version):
            try:
                self._repository.load(name, active.version, beside=True)
            except (InferenceRefused, OSError) as error:
                return self._outcome(name, active, str(error))
        return self._outcome(name, active, "")

    def _pins_of(self, name: str) -> list[str]:
        return [version for one, version in self._pinned if one == name and version]

    def _folders(self) -> list[str]:
        """Folders below the models' directory that may be a model's."""
        folders = [path.name for path in self._models_dir.iterdir()] if self._models_dir.is_dir() else []
        return sorted(name for name in folders if _NAME.match(name) and name not in _NO_MODELS)

    def _names(self, packages: Mapping[str, object]) -> list[str]:
        if self._named is not None:
            return self._named
        return [
            name
            for name in self._folders()
            if name in packages or read_active(self._models_dir / name / ACTIVE)
        ]

    def _configure(self, names: Sequence[str] | Mapping[str, object]) -> None:
        self._repository.configured = (*self._pinned, *((name, "") for name in names))

    def _follow(self, name: str, versions: Mapping[str, Path]) -> None:
        active = read_active(self._models_dir / name / ACTIVE)
        if active is None and self._repository.version_of(name):
            return
        version = active.version if active else max(versions, key=version_key, default="")
        asked = _Asked(version, active.stamp if active else None)
        files = files_of(versions.get(version))
        if not self._is_due(name, asked, files):
            return
        refused = self._try(name, version, active, files)
        self._tried[name] = _Tried(asked, files, refused)
        if refused and not self._repository.version_of(name):
            self._fall_back(name, version)
        self._repository.show_refused(name, is_refused=bool(refused))
        if active:
            self._outcomes.tell(name, self._outcome(name, active, refused), self._repository.version_of(name))
            self._outcomes.write()

    def _is_due(self, name: str, asked: _Asked, files: Files) -> bool:
        """Whether it is asked anew, or was refused and its files have changed and rest."""
        tried = self._tried.get(name)
        if tried and tried.asked == asked:
            return bool(tried.refused) and files != tried.files and self._rests(name, files)
        return asked.stamp is not None or not self._is_open or self._rests(name, files)

    def _rests(self, name: str, files: Files) -> bool:
        """Whether a package looks as at the last look: one that is being copied is left alone."""
        seen = self._seen.get(name)
        self._seen[name] = files
        return seen == files

    def _try(self, name: str, version: str, active: Active | None, files: Files) -> str:
        """Puts the version into service unless it is. Returns why it was refused, or nothing."""
        if active and active.problem:
            self._repository.refuse(name, "", active.problem)
            return active.problem
        is_served = bool(version) and self._repository.version_of(name) == version
        if is_served and self._loaded.get((name, version)) == files:
            return ""
        try:
            self._repository.load(name, version)
        except (InferenceRefused, OSError) as error:  # a disk may go at any moment
            return str(error)
        self._loaded[name, version] = files
        return ""

    def _fall_back(self, name: str, refused: str) -> None:
        """After a start: serves what served here before, rather than nothing."""
        last = self._outcomes.last_served(name)
        if not last or last == refused:
            return
        log.warning("model_fallback", extra={"model": name, "version": last, "instead_of": refused or "-"})
        try:
            self._repository.load(name, last)
        except (InferenceRefused, OSError):
            return  # told by load

    def _outcome(self, name: str, active: Active, refused: str) -> str:
        if refused:
            reason = " ".join(refused.split()).encode()[:LONGEST_REASON].decode(errors="ignore")
            return _answer(active, f"{active.version or '-'} refused {reason}")
        return _answer(active, f"{active.version} serving {self._repository.digest_of(name, active.version)}")


def _answer(active: Active, line: str) -> str:
    return f"{line}\n{active.asking}" if active.asking else line
