# SPDX-License-Identifier: Apache-2.0
"""What happened, on disk: one event per part, with the counts and the source's position in the same transaction.

Counts in the spool: sent, judged, not_inspected, skipped, and `position:<source>`. After any kill they agree with each
other and with the events, because they changed together or not at all.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_capture import metrics
from linewatch_capture.frame_loop import Arrival
from linewatch_capture.parts import Judged, NotInspected, Outcome, Part, Stopped
from linewatch_capture.progress import Progress
from linewatch_runtime.events import MINTED_EVENT_BYTES, Place, envelope, new_event_id, origin, stream_of
from linewatch_runtime.lifecycle import wait_until
from linewatch_runtime.spool import Record, SpoolFull, SpoolTrouble, SpoolWorker

log = logging.getLogger(__name__)

TRY_AGAIN_S = 0.2
LONGEST_MESSAGE = 400


class SpoolLedger:
    """The station's events in its spool."""

    def __init__(
        self, worker: SpoolWorker, place: Place, epoch: int, source: str, position: int,
        progress: Progress, stop: asyncio.Event, appended: Callable[[], None],
    ) -> None:  # fmt: skip
        """`position` as the spool has it; `appended` is called after each record."""
        self._worker = worker
        self._place = place
        self._epoch = epoch
        self._source = source
        self._position = position
        self._progress = progress
        self._stop = stop
        self._appended = appended
        self._sequence = 0

    async def record(
        self, event_id: str, arrival: Arrival, outcome: Outcome, evidence: Sequence[event_pb2.Evidence]
    ) -> None:
        """Returns once the part's event is on disk; waits while the spool is full. Raises Stopped."""
        part, skipped = arrival.part, sum(arrival.skipped.values())
        records = [self._skip_event(part, reason, count) for reason, count in arrival.skipped.items()]
        records.append(self._part_event(event_id, part, outcome, evidence))
        counts = {
            "sent": skipped + 1,
            "judged" if isinstance(outcome, Judged) else "not_inspected": 1,
            "skipped": skipped,
            position_of(self._source): part.position - self._position,
        }
        source = position_of(self._source)
        marks = [(source, mark) for mark in (*arrival.skipped_marks, part.mark) if mark]
        await self._append(records, counts, marks)
        await self._tell_drops()
        self._position = part.position
        self._tell(part, outcome, counts, event_id)
        self._appended()

    async def _append(
        self, records: Sequence[Record], counts: Mapping[str, int], marks: Sequence[tuple[str, str]]
    ) -> None:
        while True:
            try:
                await self._worker.run(self._worker.spool.append, records, counts, marks)
            except SpoolFull as full:
                self._progress.hold(f"spool full, the forwarder does not take events: {full}")
                if await wait_until(self._stop, TRY_AGAIN_S):
                    raise Stopped from full
            else:
                self._progress.resume()
                return

    async def _tell_drops(self) -> None:
        """An event for those that the disk has damaged: nothing that was recorded goes without a word."""
        before = self._sequence
        try:
            await self._worker.run(self._worker.spool.take_unreported_drops, self._dropped_event)
        except SpoolFull as full:
            self._sequence = before  # no hole: the cloud would ask where the event is
            log.warning("drops_not_told", extra={"reason": full.detail})  # with the next part

    def _part_event(
        self, event_id: str, part: Part, outcome: Outcome, evidence: Sequence[event_pb2.Evidence]
    ) -> Record:
        inspection = event_pb2.Inspection(
            origin=self._origin(part), part_id=part.part_id, evidence=evidence,
            frame_to_verdict_s=round(time.monotonic() - part.taken_monotonic, 6),
        )  # fmt: skip
        if part.cycle_period_s:
            inspection.cycle_period_s = round(part.cycle_period_s, 3)
        if isinstance(outcome, Judged):
            inspection.verdict.CopyFrom(outcome.verdict)
            kind, alarm = "InferenceCompleted", not outcome.is_good
        else:
            inspection.not_inspected.reason = outcome.reason
            inspection.not_inspected.message = outcome.message[:LONGEST_MESSAGE]
            kind, alarm = "InferenceError", True
        return self._event(event_id, kind, inspection, part.part_id, alarm=alarm)

    def _skip_event(self, part: Part, reason: str, count: int) -> Record:
        skipped = event_pb2.PartsSkipped(origin=self._origin(part), count=count, reason=reason)
        return self._event(new_event_id(), "PartsSkipped", skipped, "", alarm=True)

    def _dropped_event(self, stream: str, reason: str, count: int) -> Record:
        self._sequence += 1  # `record` waits for it: nobody else counts now
        dropped = event_pb2.EventsDropped(
            origin=origin(self._place, self._epoch, self._sequence), stream=stream, count=count, reason=reason
        )
        log.error("events_dropped", extra={"stream": stream, "reason": reason, "count": count})
        return self._event(new_event_id(), "EventsDropped", dropped, "", alarm=True)

    def _event(
        self, event_id: str, kind: str,
        data: event_pb2.Inspection | event_pb2.PartsSkipped | event_pb2.EventsDropped, subject: str,
        *, alarm: bool,
    ) -> Record:  # fmt: skip
        payload = envelope(event_id, kind, self._place, data, subject=subject)
        while (
            len(payload) > MINTED_EVENT_BYTES
            and isinstance(data, event_pb2.Inspection)
            and data.verdict.regions
        ):
            # Highest score first, so the least certain place goes; the frame and its heat map are kept as evidence.
            del data.verdict.regions[-1]
            payload = envelope(event_id, kind, self._place, data, subject=subject)
        return Record(event_id, stream_of(self._place.line), self._place.topic("inspection"), payload, alarm)

    def _origin(self, part: Part) -> event_pb2.Origin:
        self._sequence += 1
        return origin(self._place, self._epoch, self._sequence, time.monotonic() - part.taken_monotonic)

    def _tell(self, part: Part, outcome: Outcome, counts: Mapping[str, int], event_id: str) -> None:
        for name in self._progress.counts:
            self._progress.counts[name] += counts.get(name, 0)
        seconds = time.monotonic() - part.taken_monotonic
        metrics.FRAME_TO_VERDICT.observe(seconds)
        if counts["skipped"]:
            metrics.PARTS.labels("skipped").inc(counts["skipped"])
            log.warning("parts_skipped", extra={"count": counts["skipped"], "before": event_id})
        fields = {"event_id": event_id, "part_id": part.part_id, "seconds": round(seconds, 4)}
        if isinstance(outcome, NotInspected):
            metrics.PARTS.labels("not_inspected").inc()
            metrics.NOT_INSPECTED.labels(outcome.reason).inc()
            log.warning("not_inspected", extra=fields | {"reason": outcome.reason, "detail": outcome.message})
            self._progress.run(f"not inspected, {outcome.reason}: {outcome.message}")
        else:
            result = verdict_pb2.Verdict.Result.Name(outcome.verdict.result)
            metrics.PARTS.labels(result.lower()).inc()
            log.info("judged", extra=fields | {"result": result, "label": outcome.verdict.label})
            self._progress.run()


class SourceMarks:
    """The marks of a source's recorded parts, in the spool."""

    def __init__(self, worker: SpoolWorker, source: str) -> None:
        self._worker = worker
        self._source = position_of(source)

    async def recorded(self) -> set[str]:
        """All of them; waits while the disk can't be read."""
        while True:
            try:
                return await self._worker.run(self._worker.spool.marks, self._source)
            except SpoolTrouble as trouble:
                log.warning("marks_unreadable", extra={"reason": trouble.detail})
                await asyncio.sleep(TRY_AGAIN_S)

    async def forget(self, marks: Collection[str]) -> bool:
        """Takes marks away. False when a full disk did not let us: try again."""
        try:
            await self._worker.run(self._worker.spool.forget, self._source, marks)
        except SpoolFull as full:
            log.warning("marks_not_forgotten", extra={"reason": full.detail})
            return False
        return True


def position_of(source: str) -> str:
    """The count that keeps a source's position. A path may be no UTF-8; the spool's text always is."""
    return "position:" + os.fsencode(source).decode("utf-8", "replace")
