# SPDX-License-Identifier: Apache-2.0
"""Rules about lifecycle steps: which there are, how long they may take, how they end."""

import re
from collections.abc import Iterator

from linewatch_fleet.recipes.findings import Place, rule
from linewatch_fleet.recipes.reading import STEPS, Recipe, Step

_STARTING = ("startup", "run")
_WAITS = re.compile(r"\b(until|while|sleep|wait|curl --retry)\b|--wait\b")
_ASKS_NETWORK = r"\b(?:ping|curl|wget|nc|nslookup|host|dig|getent)\b[^\n;|&]*"
_EXITS_OFFLINE = re.compile(rf"{_ASKS_NETWORK}\|\|\s*exit\b|if !\s*{_ASKS_NETWORK};?\s*then\s+exit\b")
_SHUTDOWN_TIMEOUT_S = 15
_DOCKER_GRACE_S = 10


def _number(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() else None


@rule("no-step", "error", "Nucleus lite refuses a recipe without install, startup, run or bootstrap in lower case.",
      "Give each lifecycle a step.")  # fmt: skip
def _no_step(recipe: Recipe) -> Iterator[Place]:
    for lifecycle in recipe.lifecycles:
        names = {str(key).lower() for key in lifecycle.body}
        # A typo is told by unknown-step; what it was meant for is not told again.
        if not names - {"setenv"} or names <= {"setenv", "shutdown", "recover", "uninstall"}:
            yield lifecycle.path, ", ".join(sorted(names)) or "empty"
    if not recipe.lifecycles and recipe.manifests:
        yield "Manifests", "no lifecycle anywhere"


@rule("run-and-startup", "error", "A component has one of them; lite silently takes startup.", "Keep one.")
def _run_and_startup(recipe: Recipe) -> Iterator[Place]:
    for lifecycle in recipe.lifecycles:
        if {"run", "startup"} <= {step.name for step in lifecycle.steps}:
            yield lifecycle.path, "run and startup"


@rule("global-without-all", "error", "Nucleus lite finds a recipe's own lifecycle below the key `all` only.",
      "Write Lifecycle: {all: {startup: …}}.")  # fmt: skip
def _global_without_all(recipe: Recipe) -> Iterator[Place]:
    top = recipe.document.get("Lifecycle")
    if not isinstance(top, dict) or not top:
        return
    bare = [key for key in top if str(key).lower() in STEPS]
    relying = [path for path, manifest in recipe.manifests if not manifest.get("Lifecycle")]
    if bare or (relying and not {"all", "linux"} & set(top)):
        yield "Lifecycle", ", ".join(map(str, bare or top))


@rule("startup-default-timeout", "error", "A startup that waits is cut off after 120 s, and three times that is BROKEN.",
      "Say the Timeout that the wait needs.")  # fmt: skip
def _startup_default_timeout(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        if step.name == "startup" and "Timeout" not in step.body and _WAITS.search(step.script):
            yield step.path, "waits, without Timeout"


@rule("startup-falls-through", "warning",
      "Nucleus lite appends `systemd-notify --stopping`, which systemd before 253 does not know: the component fails.",
      'End the script: `[ -z "$NOTIFY_SOCKET" ] || systemd-notify --ready`, then exit.')  # fmt: skip
def _startup_falls_through(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        lines = step.script.strip().splitlines()
        if step.name == "startup" and lines and not re.match(r"\s*(exit|exec)\b", lines[-1]):
            yield f"{step.path}.Script", lines[-1][:80]


@rule("startup-without-notify", "error",
      "Nucleus lite waits for systemd's word that a startup is ready; one that stays in the foreground never gives it.",
      "Call `systemd-notify --ready` in the background once the service is well, or report RUNNING by IPC.")  # fmt: skip
def _startup_without_notify(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        attached = [run for run in step.docker_runs if not _is_detached(run) and not _is_helper(run)]
        if step.name == "startup" and attached and "systemd-notify" not in step.script:
            yield f"{step.path}.Script", "docker run in the foreground"


@rule("shutdown-too-short", "error", "The nucleus kills the shutdown script before Docker's grace is over.",
      "A Timeout above the seconds of `docker stop -t`, which are 10 where none are named.")  # fmt: skip
def _shutdown_too_short(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        found = re.search(r"docker stop\b([^\n;|&]*)", step.script)
        if step.name == "shutdown" and found:
            named = re.search(r"(?:-t|--time|--timeout)[ =](\d+)", found[1])
            grace = int(named[1]) if named else _DOCKER_GRACE_S
            timeout = _number(step.body.get("Timeout", _SHUTDOWN_TIMEOUT_S))
            if timeout is not None and timeout <= grace:
                yield step.path, f"{timeout} s, and docker stop takes up to {grace} s"


@rule("shutdown-only-cleanup", "error", "Nucleus lite has no shutdown and no recover: what only they clean up stays.",
      "Clean up at the beginning of startup or run.")  # fmt: skip
def _shutdown_only_cleanup(recipe: Recipe) -> Iterator[Place]:
    cleaning = re.compile(
        r"\bdocker (container )?rm\b|\bdocker[ -]compose\b[^\n]*\bdown\b|\brm -r?f\b|\bumount\b"
    )
    for lifecycle in recipe.lifecycles:
        starting = " ".join(step.script for step in lifecycle.steps if step.name in _STARTING)
        for step in lifecycle.steps:
            found = cleaning.search(step.script)
            if step.name in {"shutdown", "recover"} and found and not cleaning.search(starting):
                yield f"{step.path}.Script", found[0]


@rule("exits-offline", "error", "Three exits within an hour are BROKEN until somebody deploys again: an outage stops the line.",
      "Wait and try again inside; exit only for what a person must change.")  # fmt: skip
def _exits_offline(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        found = _EXITS_OFFLINE.search(step.script)
        if step.name in _STARTING and found:
            yield f"{step.path}.Script", found[0][:80]


@rule("install-not-idempotent", "error", "install runs at every start of the nucleus: the second time this fails.",
      "mkdir -p, ln -sf, `docker network inspect N || docker network create N`.")  # fmt: skip
def _install_not_idempotent(recipe: Recipe) -> Iterator[Place]:
    once = re.compile(
        r"(?:^|[;&\n]\s*)(mkdir (?!-p)[^\n;|&]*|ln -s (?!-f)[^\n;|&]*|useradd [^\n;|&]*|docker (?:network|volume) create [^\n;|&]*)"
    )
    for step in recipe.steps:
        if step.name == "install":
            for found in once.finditer(step.script):
                rest = step.script[found.end() :].lstrip()
                before = step.script[: found.start(1)].rstrip()
                if not rest.startswith("||") and not before.endswith("||"):
                    yield f"{step.path}.Script", found[1][:80]


@rule("step-not-on-lite", "warning", "Nucleus lite has no recover and no uninstall, and does not read Skipif.",
      "Let nothing rest on it.")  # fmt: skip
def _step_not_on_lite(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        if step.name in {"recover", "uninstall"}:
            yield step.path, step.name
        if re.match(r"(onpath|exists) ", str(step.body.get("Skipif", ""))):
            yield f"{step.path}.Skipif", str(step.body["Skipif"])


def _is_detached(run: str) -> bool:
    return bool(re.search(r"\s(-[it]*d[it]*|--detach(=true)?)(?=\s)", run))


def _is_helper(run: str) -> bool:
    """A container that does one thing and goes, without network."""
    return bool(re.search(r"--network[ =]none\b", run))


@rule("detached-unseen", "error", "After `docker run -d` the step is done: nobody sees when the container crashes.",
      "Stay in the foreground, or follow it with `docker wait`.")  # fmt: skip
def _detached_unseen(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        if step.name in _STARTING and not re.search(r"\bdocker (wait|attach|logs -f)\b", step.script):
            yield from ((f"{step.path}.Script", run[:80]) for run in step.docker_runs if _is_detached(run))


def is_service(step: Step, run: str) -> bool:
    """Whether a `docker run` starts what the component is for."""
    return step.name in _STARTING and not _is_helper(run)
