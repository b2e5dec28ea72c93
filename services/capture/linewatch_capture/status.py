# SPDX-License-Identifier: Apache-2.0
"""The retained status of the station. The broker says "offline" for us when we vanish."""

import asyncio
import datetime
import json
import logging

from linewatch_capture import metrics
from linewatch_capture.progress import OFFLINE, Progress
from linewatch_runtime.events import Place, stream_of
from linewatch_runtime.lifecycle import wait_until
from linewatch_runtime.mqtt import Connection, MqttError, Will
from linewatch_runtime.spool import SpoolTrouble, SpoolWorker

log = logging.getLogger(__name__)

AT_MOST_EVERY_S = 0.5
AT_LEAST_EVERY_S = 2.0


def will(place: Place) -> Will:
    """What the broker publishes when the connection breaks."""
    return Will(place.topic("status"), json.dumps({"state": OFFLINE}).encode())


class StatusReporter:
    """Publishes what capture is doing."""

    def __init__(
        self,
        connection: Connection,
        place: Place,
        worker: SpoolWorker,
        progress: Progress,
        facts: dict[str, str],
    ) -> None:
        """`facts` never change while the process runs: model and source."""
        self._connection = connection
        self._place = place
        self._worker = worker
        self._progress = progress
        self._facts = facts
        metrics.INFO.labels(place.line, place.station, facts["model"], facts["source"]).set(1)
        metrics.BROKER_CONNECTED.set_function(lambda: float(connection.connected.is_set()))

    async def run(self) -> None:
        """A status at each change of state and every AT_LEAST_EVERY_S, until it is cancelled."""
        while True:
            await self.publish()
            await asyncio.sleep(AT_MOST_EVERY_S)
            await wait_until(self._progress.changed, AT_LEAST_EVERY_S - AT_MOST_EVERY_S)

    async def publish(self) -> None:
        """One status. Without a broker it is left out; the next one says the same."""
        self._progress.changed.clear()
        try:
            told = await self._worker.run(self._status)
        except SpoolTrouble as trouble:
            log.error("status_unreadable", extra={"reason": trouble.detail})
            return
        if not self._connection.connected.is_set():
            return
        try:
            await self._connection.publish(
                self._place.topic("status"), json.dumps(told).encode(), retain=True
            )
            self._connection.has_said_last_word = told["state"] == OFFLINE
        except MqttError as error:
            log.info("status_not_published", extra={"reason": str(error)})

    def _status(self) -> dict[str, object]:
        """As SPEC of the topic: docs/architecture.md. Runs in the spool's thread."""
        streams = [
            state for state in self._worker.spool.streams() if state.name == stream_of(self._place.line)
        ]
        events = sum(state.events for state in streams)
        used = sum(state.bytes for state in streams)
        metrics.SPOOL_EVENTS.set(events)
        metrics.SPOOL_BYTES.set(used)
        metrics.SPOOL_MAX_BYTES.set(self._worker.spool.limit.max_bytes)
        metrics.SPOOL_AGE.set(max((state.oldest_age_s for state in streams), default=0.0))
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {
            "state": self._progress.state,
            "detail": self._progress.detail,
            "at": at,
            **self._facts,
            **self._progress.counts,
            "spool": {"events": events, "bytes": used, "max_bytes": self._worker.spool.limit.max_bytes},
        }
