# SPDX-License-Identifier: Apache-2.0
"""Wires capture: settings, spool, source, inference, evidence, broker; then runs the flow until a signal."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any, NoReturn

from linewatch_capture.arrivals import NewestWins, one_by_one
from linewatch_capture.evidence import EvidenceDirectory, NoEvidence
from linewatch_capture.folder import EmptyFolder, Masked, PlayedFolder, WatchedFolder
from linewatch_capture.frame_loop import Arrival, EvidenceStore, Inspector, Source, inspect_parts
from linewatch_capture.inspector import GrpcInspector, PatientInspector, open_channel, window_rows
from linewatch_capture.ledger import SourceMarks, SpoolLedger, position_of
from linewatch_capture.mask import mask_of
from linewatch_capture.parts import Stopped
from linewatch_capture.progress import Progress
from linewatch_capture.records import PlayedRecords, UnfitRecords, channels_of
from linewatch_capture.settings import PREFIX, Settings
from linewatch_capture.status import StatusReporter, will
from linewatch_runtime import logs
from linewatch_runtime.events import Place
from linewatch_runtime.health import Heartbeat
from linewatch_runtime.lifecycle import stop_on_signals
from linewatch_runtime.mqtt import Connection, Endpoint, Subscriptions, Tls
from linewatch_runtime.nucleus import Nucleus
from linewatch_runtime.patience import when_there_is_room
from linewatch_runtime.publisher import Publisher
from linewatch_runtime.settings import EXIT_BAD_SETTINGS, load
from linewatch_runtime.spool import Spool, SpoolDamaged, SpoolWorker, StreamLimit
from linewatch_runtime.state_dir import lock_state_dir
from linewatch_runtime.telemetry import serve_metrics

log = logging.getLogger("linewatch_capture")

STOP_WITHIN_S = 8.0
"""How long the part in hand may take after a stop. Docker kills after 10 s."""

LAST_WORDS_S = 2.0
"""How long a stop waits for the broker to take the last status; without it the will says that we are gone."""


def main() -> None:
    """The process."""
    settings = load(Settings)
    logs.configure("capture", settings.log_level)
    check_source(settings)
    evidence = open_evidence(settings)
    lock = lock_state_dir(settings.state_dir, "capture", PREFIX + "STATE_DIR")
    serve_metrics(settings.metrics_host, settings.metrics_port, PREFIX + "METRICS_PORT")
    worker = open_spool(settings)
    try:
        epoch, counts = when_there_is_room(lambda: asyncio.run(worker.run(_begin, worker)))
        asyncio.run(run(settings, worker, evidence, epoch, counts))
    finally:
        worker.close()
        lock.close()
        evidence.close()


async def run(
    settings: Settings, worker: SpoolWorker, evidence: EvidenceStore, epoch: int, counts: dict[str, int]
) -> None:
    """Until a signal. A task that fails takes the others with it and ends the process with its traceback."""
    place = Place(settings.site, settings.line, settings.station)
    progress = Progress(counts)
    with stop_on_signals() as stop:
        connection = Connection(endpoint(settings), Subscriptions([place.topic("committed")]), will(place))
        publisher = Publisher(worker, connection)
        facts = {"model": settings.model, "source": settings.source}
        status = StatusReporter(connection, place, worker, progress, facts)
        # Without inference the flow runs too: it waits, or says of each part that it was not inspected.
        heartbeat = Heartbeat(settings.heartbeat_file)
        nucleus = Nucleus(connection.connected.is_set, lambda: progress.under_inspection)
        async with asyncio.TaskGroup() as tasks:
            around = [
                tasks.create_task(connection.run(), name="broker"),
                tasks.create_task(publisher.run(), name="publisher"),
                tasks.create_task(status.run(), name="status"),
                tasks.create_task(heartbeat.keep(stop, connection.connected.is_set), name="heartbeat"),
                tasks.create_task(nucleus.run(), name="nucleus"),
            ]
            flow = tasks.create_task(
                judge(settings, worker, evidence, progress, place, epoch, counts, publisher, stop),
                name="flow",
            )
            await stop.wait()
            await asyncio.wait({flow}, timeout=STOP_WITHIN_S)
            flow.cancel()
            progress.leave()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await status.publish()
            for task in around:
                task.cancel()
    log.info("stopped", extra=dict(progress.counts))


async def judge(
    settings: Settings, worker: SpoolWorker, evidence: EvidenceStore, progress: Progress, place: Place,
    epoch: int, counts: dict[str, int], publisher: Publisher, stop: asyncio.Event,
) -> None:  # fmt: skip
    """Wires the flow and runs it to the source's end."""
    async with open_channel(settings.inference_address) as channel:
        try:
            source = await open_source(settings, channel, progress, stop)
        except Stopped:
            return
        position = await first_position(worker, source, counts)
        ledger = SpoolLedger(worker, place, epoch, source.name, position, progress, stop, publisher.wake)
        inspector: Inspector = GrpcInspector(
            channel, settings.model_name, settings.model_version, settings.inspect_deadline_s, progress,
            heatmaps=settings.evidence_dir is not None,
        )  # fmt: skip
        log.info(
            "started",
            extra={"source": source.name, "position": position, "epoch": epoch, "model": settings.model},
        )
        progress.run()
        async with asyncio.TaskGroup() as tasks:
            arrivals: AsyncIterator[Arrival]
            if source.can_wait:
                inspector = PatientInspector(inspector, progress, stop)
                arrivals = one_by_one(source.parts(position))
            else:
                slot = NewestWins(progress.why_skipped)
                tasks.create_task(slot.fill(source.parts(position), stop), name="source")
                arrivals = aiter(slot)
            if await inspect_parts(arrivals, inspector, evidence, ledger) and not stop.is_set():
                progress.end("the source has ended; what is on disk is still delivered")


async def open_source(settings: Settings, channel: Any, progress: Progress, stop: asyncio.Event) -> Source:
    """The source by its setting; for records it may have to wait for inference. Raises Stopped."""
    if settings.source == "watch":
        return WatchedFolder(settings.path, stop, open_mask(settings))
    if settings.source == "folder":
        return PlayedFolder(
            settings.path, settings.rate, stop, live=settings.live, loop=settings.loop, limit=settings.parts,
            masked=open_mask(settings),
        )  # fmt: skip
    rows = settings.window_rows or await window_rows(
        channel, settings.model_name, settings.model_version, progress, stop
    )
    return PlayedRecords(
        settings.path, rows, settings.rate, stop, live=settings.live, loop=settings.loop, limit=settings.parts,
        cycle_period_s=settings.cycle_period_s,
    )  # fmt: skip


async def first_position(worker: SpoolWorker, source: Source, counts: dict[str, int]) -> int:
    """Where the source goes on. A watched folder begins behind what was there at its very first start."""
    name = position_of(source.name)
    if isinstance(source, WatchedFolder):
        source.marks = SourceMarks(worker, source.name)
        if name not in counts:
            there = [(name, mark) for mark in await asyncio.to_thread(source.present)]
            await worker.run(worker.spool.append, [], {name: 0}, there)
    return counts.get(name, 0)


def check_source(settings: Settings) -> None:
    """Ends the process when the path can't be a source, before anything is opened."""
    try:
        if settings.source == "records":
            channels_of(settings.path)
        elif settings.source == "watch":
            WatchedFolder(settings.path, asyncio.Event())
        else:
            PlayedFolder(settings.path, settings.rate, asyncio.Event())
    except (EmptyFolder, UnfitRecords) as error:
        refuse("PATH", str(error))


def open_mask(settings: Settings) -> Masked | None:
    """What blackens the mask's areas; None without a mask."""
    if not settings.mask:
        return None
    # Not above: stations without a mask need no decoder in their memory.
    from linewatch_capture.masking import Masking

    log.info("masked", extra={"mask": settings.mask})
    return Masking(mask_of(settings.mask))


def open_evidence(settings: Settings) -> EvidenceStore:
    """The evidence directory, if there is one. Ends the process when it can't be used."""
    if settings.evidence_dir is None:
        return NoEvidence()
    try:
        return EvidenceDirectory(
            settings.evidence_dir,
            settings.line,
            settings.station,
            settings.evidence_ok_share,
            settings.evidence_max_bytes,
        )
    except OSError as error:
        refuse("EVIDENCE_DIR", f"{error}; name a directory that this user may write to, or unset it")


def open_spool(settings: Settings) -> SpoolWorker:
    """The station's spool. Ends the process when it can't be opened."""
    path = settings.state_dir / "capture.db"
    limit = StreamLimit(max_bytes=settings.spool_max_bytes)
    # Indexes and the log beside the rows: twice the payload is ample (spool.py, ROW_OVERHEAD).
    file_max_bytes = 2 * settings.spool_max_bytes + 16 * 1024 * 1024
    try:
        return when_there_is_room(lambda: SpoolWorker(lambda: Spool(path, limit, file_max_bytes)))
    except SpoolDamaged as error:
        refuse("STATE_DIR", str(error))


def endpoint(settings: Settings) -> Endpoint:
    """Who we are to the broker."""
    return Endpoint(
        settings.mqtt_host, settings.mqtt_port, f"{settings.device}-capture-{settings.line}-{settings.station}",
        settings.mqtt_username, settings.mqtt_password_file,
        Tls(settings.mqtt_ca_file) if settings.mqtt_ca_file else None, "capture",
    )  # fmt: skip


def refuse(setting: str, message: str) -> NoReturn:
    """Says what is wrong with a setting and ends the process."""
    print(f"{PREFIX}{setting}: {message}", file=sys.stderr)
    sys.exit(EXIT_BAD_SETTINGS)


def _begin(worker: SpoolWorker) -> tuple[int, dict[str, int]]:
    """This start's epoch, and the counts that earlier ones left."""
    return worker.spool.next_epoch(), worker.spool.counts()


if __name__ == "__main__":
    main()
