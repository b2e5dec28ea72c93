# SPDX-License-Identifier: Apache-2.0
"""What a service tells the Greengrass nucleus: that it is ready, and that an update must wait for the part in hand.

Outside of Greengrass (the nucleus's two variables are not set) nothing is imported and nothing happens. Inside, the
nucleus is asked for nothing that the service needs: whatever it does, the service runs on and stops in time.

The nucleus's client (awsiotsdk) never reconnects: each session here has a new one. Nucleus lite has no component
updates; it answers ServiceError, and only the state is reported there.
"""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any

from linewatch_runtime.nucleus_ipc import (
    SOCKET_VARIABLE,
    TOKEN_VARIABLE,
    NucleusGone,
    NucleusIpc,
    answer,
    in_loop,
    told,
)

log = logging.getLogger(__name__)

READY_POLL_S = 0.25
LONGEST_BACKOFF_S = 30.0
SOUND_SESSION_S = 10.0
"""A session this long begins the backoff anew; a nucleus that turns us away at once does not."""

RECHECK_S = 1.0
MAX_DEFERRAL_S = 30.0
"""What one deployment waits for us in all; then it goes on. A stopping service still ends its part in hand."""


class Nucleus:
    """Keeps a session with the nucleus. Run `run()` as a task."""

    def __init__(self, ready: Callable[[], bool], busy: Callable[[], bool] | None = None) -> None:
        """Both are called in the event loop and must return at once.

        `ready`: the service does its work, so that a deployment may count it as running.
        `busy`: a part is under inspection now; a service that never holds one gives None and is not asked.
        """
        self._ready = ready
        self._busy = busy
        self._socket = os.environ.get(SOCKET_VARIABLE, "")
        self._token = os.environ.get(TOKEN_VARIABLE, "")
        self._ipc = NucleusIpc(self._socket, self._token)
        self._deferred: tuple[str, float] = ("", 0.0)
        self._has_told_no_updates = False

    async def run(self) -> None:
        """Reports and answers until it is cancelled. Returns at once outside of Greengrass; raises nothing."""
        if not (self._socket and self._token):
            if self._socket or self._token:
                missing = TOKEN_VARIABLE if self._socket else SOCKET_VARIABLE
                log.warning(
                    "nucleus_not_told",
                    extra={"reason": f"{missing} is not set; pass both into the container"},
                )
            return
        attempt, trouble = 0, ""
        while True:
            started = time.monotonic()
            try:
                await self._session()
            except Exception as error:  # noqa: BLE001 - the client's errors have no common class, and none may end us
                reason = told(error)
                if reason != trouble:
                    log.warning("nucleus_unreachable", extra={"socket": self._socket, "reason": reason})
                trouble = reason
            if time.monotonic() - started > SOUND_SESSION_S:
                attempt, trouble = 0, ""
            attempt = min(attempt + 1, 8)
            await asyncio.sleep(random.uniform(0.1, min(LONGEST_BACKOFF_S, 0.5 * 2**attempt)))  # noqa: S311

    async def _session(self) -> None:
        """One connection: subscribes, reports RUNNING once ready, answers each question. Raises when it ends."""
        happened: asyncio.Queue[Any] = asyncio.Queue()
        client = await self._ipc.connect(happened.put_nowait)
        try:
            log.info("nucleus_connected", extra={"socket": self._socket})
            await self._subscribe(client, happened)
            has_told = False
            while True:
                if not has_told and self._ready():
                    await answer(client.update_state_async(state="RUNNING"))
                    has_told = True
                    log.info("nucleus_told", extra={"state": "RUNNING"})
                event = await _next(happened, None if has_told else READY_POLL_S)
                if isinstance(event, NucleusGone):
                    raise event
                if event is not None and event.pre_update_event:
                    await self._decide(client, event.pre_update_event.deployment_id)
        finally:
            client.close(executor_wait=False)

    async def _subscribe(self, client: Any, happened: "asyncio.Queue[Any]") -> None:
        from awsiot.greengrasscoreipc.model import ServiceError

        if self._busy is None:
            return
        put = in_loop(happened.put_nowait)
        subscribed, _ = client.subscribe_to_component_updates_async(
            on_stream_event=put, on_stream_error=lambda error: put(NucleusGone(told(error)))
        )
        try:
            await answer(subscribed)
        except ServiceError as error:
            if not self._has_told_no_updates:
                log.info("nucleus_has_no_component_updates", extra={"reason": error.message})
            self._has_told_no_updates = (
                True  # asked again at the next session: it may have been a passing trouble
            )

    async def _decide(self, client: Any, deployment_id: str) -> None:
        """Answers a pre-update event. Raises when the nucleus does not take the answer."""
        now = time.monotonic()
        if self._deferred[0] != deployment_id:
            self._deferred = (deployment_id, now)
        waited_s = now - self._deferred[1]
        busy = self._busy is not None and self._busy()
        recheck_s = min(RECHECK_S, max(0.0, MAX_DEFERRAL_S - waited_s)) if busy else 0.0
        decided = {"deployment": deployment_id, "waited_s": round(waited_s, 1), "under_inspection": busy}
        log.info("update_deferred" if recheck_s else "update_let_go", extra=decided)
        reason = "a part is under inspection" if recheck_s else ""
        await answer(
            client.defer_component_update_async(
                deployment_id=deployment_id, message=reason, recheck_after_ms=round(recheck_s * 1000)
            )
        )


async def _next(happened: "asyncio.Queue[Any]", seconds: float | None) -> Any:
    """The next event; None when there was none within `seconds`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await happened.get()
    return None
