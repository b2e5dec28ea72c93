# SPDX-License-Identifier: Apache-2.0
"""A component's life on the classic nucleus. Where the rules were read:

- states, step timeouts, three errors: lifecyclemanager/Lifecycle.java
- what a script's end means: lifecyclemanager/GenericExternalService.java
- how processes are ended: util/platforms/unix/UnixPlatform.java (the children, not the shell itself), UnixExec.java
"""

import queue
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from conformance.device import (
    BROKEN,
    ERRORED,
    FINISHED,
    INSTALLED,
    NEW,
    RUNNING,
    STARTING,
    STOPPING,
    Component,
    Step,
)
from conformance.processes import Running, send

if TYPE_CHECKING:
    from conformance.classic import Classic

TIMEOUTS_S = {"install": 120.0, "startup": 120.0, "shutdown": 15.0, "recover": 60.0}
GRACE_S = 5.0
ERRORS, ERROR_RESET_S = 3, 3600.0


class Life:
    """A component's thread: one state after the other."""

    def __init__(self, device: "Classic", component: Component) -> None:
        self.device = device
        self.component = component
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._running: list[Running] = []
        self._errors: dict[str, list[float]] = {}
        self._is_dead = threading.Event()
        self._thread = threading.Thread(target=self._live, name=component.name, daemon=True)
        self._thread.start()

    def ask(self, event: str, value: Any = None) -> None:
        """reinstall, stop, reported."""
        self._events.put((event, value))

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self.component.name} did not stop in {seconds:g} s"

    def die(self) -> None:
        """As with the nucleus' own death: nothing is said to anybody, nothing is run."""
        self._is_dead.set()
        self._events.put(("dead", None))
        for run in self._running:
            send(run.members(), signal.SIGKILL)
        self.join(120)

    # --- the states ---

    def _live(self) -> None:
        one = self.component
        while not self._is_dead.is_set():
            if one.state == NEW:
                self._install()
            elif one.state == INSTALLED:
                one.enter(STARTING)
            elif one.state == STARTING:
                self._start()
            elif self._rest() == "stop":
                return

    def _install(self) -> None:
        said = self._step("install")
        if said is None:
            self._leave(NEW, INSTALLED)
        else:
            self._errored(NEW, f"install: {said}")
            if self.component.state != BROKEN:
                self.component.enter(NEW)

    def _start(self) -> None:
        """`startup`, or else `run`: until something happens that ends this start."""
        self._end_processes()
        steps = self._steps()
        name = "startup" if "startup" in steps else "run"
        if name not in steps:
            self.component.enter(FINISHED)
            return
        step = steps[name]
        self._drain("exited")
        run = self._begin(step, lambda run, code: self._events.put(("exited", (run, code))))
        limit = step.timeout_s if step.timeout_s is not None else TIMEOUTS_S.get(name, 0.0)
        deadline = time.monotonic() + limit if name == "startup" or step.timeout_s else None
        if name == "run":
            self._leave(STARTING, RUNNING)
        self._watch(run, name, deadline)

    def _watch(self, run: Running, name: str, deadline: float | None) -> None:
        one = self.component
        while one.state in {STARTING, RUNNING}:
            waits = deadline is not None and (one.state == STARTING or name == "run")
            try:
                event, value = self._events.get(
                    timeout=max(0.0, deadline - time.monotonic()) if waits else None
                )  # type: ignore[operator]
            except queue.Empty:
                self._errored(one.state, f"{name} timeout")
                self._stop_and(INSTALLED)
                return
            if event == "reported" and value == RUNNING and one.state == STARTING:
                self._leave(STARTING, RUNNING)
            elif event == "reported" and value == ERRORED:
                self._errored(one.state, "the component reported ERRORED")
                self._stop_and(INSTALLED)
            elif event == "exited" and value[0] is run:
                self._exited(name, value[1])
            elif event in {"stop", "reinstall"}:
                self._events.put((event, value))
                self._leave(one.state, STOPPING)
                self._shut_down()
                one.enter(FINISHED)
            elif event == "dead":
                return

    def _exited(self, name: str, code: int) -> None:
        one = self.component
        if code != 0:
            self._errored(one.state, f"{name}: exit code {code}")
            self._stop_and(INSTALLED)
        elif name == "startup" and one.state == STARTING:
            self._leave(STARTING, RUNNING)
        elif name == "run":
            self._leave(RUNNING, STOPPING)
            self._shut_down()
            one.enter(FINISHED)
        # A startup that ends with 0 while RUNNING changes nothing: the component stays RUNNING.

    def _rest(self) -> str:
        """FINISHED or BROKEN: until a deployment wants something."""
        event, _ = self._events.get()
        if event == "reinstall":
            self._errors.clear()
            self.component.enter(NEW)
        elif event == "stop" and self.component.state != BROKEN:
            self.component.enter(FINISHED)
        return "stop" if event in {"stop", "dead"} else event

    def _errored(self, from_state: str, reason: str) -> None:
        """The third error from one state, each within the reset time of the one before, breaks it."""
        now, times = time.monotonic(), self._errors.setdefault(from_state, [])
        if times and now - times[-1] >= ERROR_RESET_S:
            times.clear()
        times.append(now)
        self.device.note(self.component, f"{from_state} -> ERRORED: {reason}")
        if len(times) >= ERRORS:
            self.component.enter(BROKEN, reason)
            if from_state != NEW:
                self._shut_down()
        else:
            self.component.enter(ERRORED, reason)

    def _stop_and(self, then: str) -> None:
        """After an error: recover, stop what is left, try again."""
        if self.component.state == BROKEN:
            return
        self._step("recover")
        self.component.enter(STOPPING)
        self._shut_down()
        self.component.enter(then)

    def _leave(self, state: str, to: str) -> None:
        """A step forward clears the errors of the state that it leaves."""
        self._errors.pop(state, None)
        self.component.enter(to)

    # --- steps and their processes ---

    def _steps(self) -> dict[str, Step]:
        return self.device.steps(self.component)

    def _begin(self, step: Step, on_exit: Any = lambda _run, _code: None) -> Running:
        device, one = self.device, self.component
        run = Running(
            ["sh", "-c", step.script], {**device._environment(one), **step.environment}, device._work(one.name),
            device._log(one.name), privileged=step.privileged, on_exit=on_exit,
        )  # fmt: skip
        self._running.append(run)
        return run

    def _step(self, name: str) -> str | None:
        """Runs a step to its end; None when all is well, else why not."""
        step = self._steps().get(name)
        if step is None or self._is_dead.is_set():
            return None
        limit = step.timeout_s or TIMEOUTS_S[name]
        run = self._begin(step)
        if not run.wait(limit):
            self._end(run)
            return f"timeout after {limit:g} s"
        return None if run.code == 0 else f"exit code {run.code}"

    def _shut_down(self) -> None:
        """The shutdown step, then whatever processes are left; also where there is no such step."""
        if said := self._step("shutdown"):
            self.device.note(self.component, f"shutdown: {said}")
        self._end_processes()

    def _end_processes(self) -> None:
        for run in self._running:
            self._end(run)
        self._running.clear()

    def _end(self, run: Running) -> None:
        if run.code is not None:
            return
        send(run.descendants(), signal.SIGTERM)
        run.wait(GRACE_S)
        left = run.descendants()
        run.process.kill()
        send(left, signal.SIGKILL)
        run.wait(GRACE_S)

    def _drain(self, kind: str) -> None:
        kept = []
        while not self._events.empty():
            if (event := self._events.get())[0] != kind:
                kept.append(event)
        for event in kept:
            self._events.put(event)
