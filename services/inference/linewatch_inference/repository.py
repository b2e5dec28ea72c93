# SPDX-License-Identifier: Apache-2.0
"""The models in service: loaded beside the old one, swapped by one assignment, taken out when their calls have ended.

Guarantee: a package that is refused changes nothing; whoever served before goes on serving.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from linewatch_inference.errors import InferenceRefused, ModelNotFound, NotServing, PackageRefused
from linewatch_inference.metrics import Metrics
from linewatch_inference.model import Model, open_model
from linewatch_inference.package import find, locate, read_package, read_trusted_keys, version_key
from linewatch_inference.session import SessionOptions
from linewatch_inference.verdict import Reference

log = logging.getLogger(__name__)

UNLOAD_WAIT_S = 30.0

UNREADABLE = (OSError, ValueError, LookupError, TypeError, RecursionError, MemoryError)
"""What reading a package that nobody foresaw may raise. It must not stop the other models."""


class EngineEvents(Protocol):
    """Where facts about the engine and its models go."""

    def publish(self, event: str, model: Reference | None = None, message: str = "") -> None:
        """Says `event`, one of EngineStarted, EngineShutdown, EngineError, ModelLoadSuccess, ModelLoadError."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where packages come from and how their graphs are run."""

    models_dir: Path
    trusted_keys_dir: Path | None = None
    variant: str = "fp32"
    session: SessionOptions = field(default_factory=SessionOptions)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A model and its state: READY, LOADING or UNAVAILABLE with a reason."""

    name: str
    version: str
    state: str
    reason: str = ""
    model: Model | None = None


@dataclass(slots=True)
class _Served:
    model: Model
    calls: int = 0


class Repository:
    """Models by name and version. Without a version a call gets the active one of that name."""

    def __init__(self, source: Source, events: EngineEvents, metrics: Metrics) -> None:
        self._source = source
        self._events = events
        self._metrics = metrics
        self._changed = threading.Condition()
        self._loading_one = threading.Lock()  # one load at a time: two would need the memory of four models
        self._telling = threading.Lock()
        self._served: dict[str, dict[str, _Served]] = {}
        self._active: dict[str, str] = {}
        self._loading: set[tuple[str, str]] = set()
        self._refused: dict[tuple[str, str], str] = {}
        self._is_open = False
        self.configured: tuple[tuple[str, str], ...] = ()
        """What should be served, (name, version) pairs; version "" for whichever is active."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change of what is served, in the thread that made it; one at a time, so that the last one
        that looks is the last one that tells."""

    def open(self, pinned: Sequence[tuple[str, str]]) -> None:
        """Loads (name, version) pairs, version "" for the newest, then lets calls in.

        A package that is refused is logged, published and left out; the others are served.
        """
        beside = {name for name, _ in pinned if [one for one, _ in pinned].count(name) > 1}
        for name, version in pinned:
            with contextlib.suppress(InferenceRefused):  # told by load
                self.load(name, version, beside=name in beside)
        with self._changed:
            for name in beside & self._served.keys():
                self._active[name] = max(self._served[name], key=version_key)
            self._is_open = True
        self._tell_change()

    def load(self, name: str, version: str = "", *, beside: bool = False) -> Reference:
        """Puts a package into service and makes it the active one of its name; the active one before goes.

        Args:
            name: of the package.
            version: "" for the newest on disk.
            beside: leaves what is served, and which one is active, as it is.

        Raises:
            ModelNotFound: there is no such package.
            PackageRefused: it does not hold.
        """
        with self._loading_one:
            self._mark(name, version, loading=True)
            try:
                model = self._open(name, version)
            except InferenceRefused as error:
                self.refuse(name, version, str(error), is_there=not isinstance(error, ModelNotFound))
                raise
            finally:
                self._mark(name, version, loading=False)
            replaced = self._serve(model, beside=beside)
        reference = model.reference
        with self._changed:
            for one in ("", version, reference.version):
                self._refused.pop((name, one), None)
        log.info("model_loaded", extra={"model": name, "version": reference.version, "digest": reference.digest,
                                        "variant": reference.variant, "provider": reference.execution_provider})  # fmt: skip
        self._events.publish("ModelLoadSuccess", reference)
        if replaced:
            self._retire(replaced)
        self._tell_change()
        return reference

    def refuse(self, name: str, version: str, reason: str, *, is_there: bool = True) -> None:
        """Tells the log, the index and the cloud why a version is not served; version "" when none was named.

        `is_there`: also the metrics; not for names that a caller made up, which would be ever more.
        """
        if is_there:
            self._metrics.model_refused(name)
        with self._changed:  # somebody may look at all of them now
            self._refused[name, version] = reason
        log.error("model_refused", extra={"model": name, "version": version, "reason": reason})
        self._events.publish("ModelLoadError", Reference(name, version, "", "", ""), reason)

    def show_refused(self, name: str, *, is_refused: bool) -> None:
        """Sets the metric of a name after the last word on the version that was asked for: another may serve by now."""
        if is_refused:
            self._metrics.model_refused(name)
            return
        with self._changed:
            served = self._served.get(name, {}).get(self._active.get(name, ""))
            if served:
                self._metrics.model_in_service(served.model.reference)

    def unload(self, name: str, version: str = "") -> None:
        """Takes a model out of service and returns when its calls have ended; without a version all of that name.

        Raises:
            ModelNotFound: it is not in service.
        """
        with self._changed:
            versions = self._served.get(name, {})
            going = [versions[version]] if version in versions else [] if version else list(versions.values())
            if not going:
                raise ModelNotFound(f"{name} {version}".strip() + ": is not in service")
            for served in going:
                del versions[served.model.reference.version]
            if not versions:
                self._served.pop(name)
                self._active.pop(name)
            elif self._active[name] not in versions:
                self._active[name] = max(versions, key=version_key)
        for served in going:
            self._retire(served)
        self._tell_change()

    @contextlib.contextmanager
    def model(self, name: str, version: str = "") -> Iterator[Model]:
        """A model in service, kept there for the block.

        Raises:
            NotServing: models are loading, or the service is stopping.
            ModelNotFound: no such model, or no such version, is in service.
        """
        with self._changed:
            if not self._is_open:
                raise NotServing("models are loading or the service is stopping; try again later")
            versions = self._served.get(name, {})
            served = versions.get(version or self._active.get(name, ""))
            if served is None:
                raise ModelNotFound(self._why_not(name, version))
            served.calls += 1
        try:
            yield served.model
        finally:
            with self._changed:
                served.calls -= 1
                self._changed.notify_all()

    def index(self) -> list[IndexEntry]:
        """Every model that is served, loading, refused or lies in the directory."""
        with self._changed:
            entries = [
                IndexEntry(name, version, "READY", model=served.model)
                for name, versions in self._served.items()
                for version, served in versions.items()
            ]
            entries += [IndexEntry(name, version, "LOADING") for name, version in self._loading]
            entries += [IndexEntry(*key, "UNAVAILABLE", reason) for key, reason in self._refused.items()]
        told = {(entry.name, entry.version) for entry in entries}
        for name, versions in find(self._source.models_dir).items():
            entries += [
                IndexEntry(name, one, "UNAVAILABLE", "not loaded")
                for one in versions
                if (name, one) not in told
            ]
        return sorted(entries, key=lambda entry: (entry.name, entry.version))

    def version_of(self, name: str) -> str:
        """The active version of a name, "" when it is not in service."""
        with self._changed:
            return self._active.get(name, "")

    def digest_of(self, name: str, version: str = "") -> str:
        """The digest of a version, without one of the active one; "" when it is not in service."""
        with self._changed:
            served = self._served.get(name, {}).get(version or self._active.get(name, ""))
            return served.model.reference.digest if served else ""

    @property
    def is_serving(self) -> bool:
        """Whether any model can be asked."""
        with self._changed:
            return self._is_open and bool(self._served)

    @property
    def is_complete(self) -> bool:
        """Whether every configured model is in service."""
        with self._changed:
            wanted = (
                (version or self._active.get(name, "")) in self._served.get(name, {})
                for name, version in self.configured
            )
            return self._is_open and bool(self._served) and all(wanted)

    def stop_accepting(self) -> None:
        """New calls meet NotServing from here on; running ones go on."""
        with self._changed:
            self._is_open = False
        self._tell_change()

    def close(self) -> None:
        """Lets every session go. Calls must have ended."""
        with self._changed:
            self._served.clear()
            self._active.clear()

    def _tell_change(self) -> None:
        with self._telling:
            self.on_change()

    def _open(self, name: str, version: str) -> Model:
        directory = locate(self._source.models_dir, name, version)
        keys = self._trusted_keys()
        try:
            package = read_package(directory, keys)
            model = open_model(package, self._source.variant, self._source.session)
        except UNREADABLE as error:
            log.exception("package_unreadable", extra={"directory": str(directory)})
            raise PackageRefused(f"{directory}: can't be read: {error!r}; copy the package again") from error
        if not package.is_signed:
            log.warning(
                "model_signature_not_checked",
                extra={"model": package.name, "reason": "no trusted keys are set"},
            )
        return model

    def _trusted_keys(self) -> Sequence[Ed25519PublicKey]:
        """Read for each package: a new key needs no restart. With a directory there is at least one."""
        directory = self._source.trusted_keys_dir
        try:
            keys = read_trusted_keys(directory)
        except (OSError, ValueError) as error:
            raise PackageRefused(f"INFERENCE_TRUSTED_KEYS_DIR: {error}") from error
        if directory and not keys:
            raise PackageRefused(
                f"INFERENCE_TRUSTED_KEYS_DIR: {directory} holds no *.pem file, so no package can be trusted;"
                " put the public key there"
            )
        return keys

    def _mark(self, name: str, version: str, *, loading: bool) -> None:
        with self._changed:
            (self._loading.add if loading else self._loading.discard)((name, version))

    def _serve(self, model: Model, *, beside: bool) -> _Served | None:
        """Swaps the model in; gives back what it replaced."""
        name, version = model.reference.name, model.reference.version
        with self._changed:
            versions = self._served.setdefault(name, {})
            replaced = versions.get(version)
            before = self._active.get(name, version)
            versions[version] = _Served(model)
            self._active[name] = before if beside else version
            if not beside and before != version:
                replaced = versions.pop(before, replaced)
            self._metrics.model_in_service(model.reference)
        return replaced

    def _retire(self, served: _Served) -> None:
        """Waits for the calls of a model that new calls no longer find."""
        reference = served.model.reference
        with self._changed:
            if not self._changed.wait_for(lambda: served.calls == 0, timeout=UNLOAD_WAIT_S):
                log.warning(
                    "model_calls_still_run", extra={"model": reference.name, "version": reference.version}
                )
            versions = self._served.get(reference.name, {})
            if reference not in [one.model.reference for one in versions.values()]:
                self._metrics.model_out_of_service(reference)
        log.info("model_unloaded", extra={"model": reference.name, "version": reference.version})

    def _why_not(self, name: str, version: str) -> str:
        for (refused, asked), reason in self._refused.items():
            if refused == name and (not version or asked in {"", version}):
                return f"model_name: {name} was refused: {reason}"
        served = ", ".join(f"{one} {', '.join(versions)}" for one, versions in self._served.items()) or "none"
        return f"model_name: {f'{name} {version}'.strip()} is not in service; in service: {served}"
