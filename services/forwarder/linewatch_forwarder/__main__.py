# SPDX-License-Identifier: Apache-2.0
"""Wires the forwarder: settings, spool, connections, the two flows, and the end."""

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.evidence.part import EvidencePart
from linewatch_forwarder.evidence.pins import topics as pin_topics
from linewatch_forwarder.intake import GROUP, Intake
from linewatch_forwarder.report import Beside, Report, place_of
from linewatch_forwarder.retention import Retentions
from linewatch_forwarder.settings import Settings
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.streams.moving import Moving, hold, left_behind, move, put_aside
from linewatch_forwarder.streams.port import DurableStreams
from linewatch_forwarder.streams.settings import FILES
from linewatch_forwarder.uplinks.batches import Limits
from linewatch_forwarder.uplinks.certificates import Certificates
from linewatch_forwarder.uplinks.credentials import aws_session
from linewatch_forwarder.uplinks.event_bus import EventBus, client_maker
from linewatch_forwarder.uplinks.greengrass_ipc import GreengrassIpc
from linewatch_forwarder.uplinks.iot_core import IotCore
from linewatch_forwarder.uplinks.none import NoUplink
from linewatch_forwarder.uplinks.port import Uplink
from linewatch_forwarder.uplinks.routes import Routes
from linewatch_forwarder.uplinks.sinks import Sink, is_for_bus, is_for_iot_core
from linewatch_runtime import logs
from linewatch_runtime.health import Heartbeat
from linewatch_runtime.lifecycle import stop_on_signals
from linewatch_runtime.mqtt import Connection, Endpoint, Subscriptions, Tls, Will
from linewatch_runtime.nucleus import Nucleus
from linewatch_runtime.nucleus_ipc import SOCKET_VARIABLE, TOKEN_VARIABLE, NucleusIpc
from linewatch_runtime.patience import when_there_is_room
from linewatch_runtime.records import DropReport
from linewatch_runtime.settings import EXIT_BAD_SETTINGS, load
from linewatch_runtime.spool import Spool, SpoolDamaged, SpoolWorker, StreamLimit
from linewatch_runtime.state_dir import lock_state_dir
from linewatch_runtime.telemetry import serve_metrics

log = logging.getLogger("linewatch_forwarder")

SESSION_EXPIRY_S = 24 * 3600
DRAIN_S = 5.0
"""How long a stop waits for the batch in hand. Containers are given 10 s, and a slow disk needs some of them after it."""

FILE_SHARE = 0.75
"""Of the file's cap that events may take at least; the rest is kept for letting them go."""


def main() -> None:
    """Runs until a signal."""
    settings = load(Settings)
    logs.configure("forwarder", settings.log_level)
    lock = lock_state_dir(settings.state_dir, "forwarder", "FORWARDER_STATE_DIR")
    serve_metrics(settings.metrics_host, settings.metrics_port, "FORWARDER_METRICS_PORT")
    streams = _open_streams(settings)
    try:
        epoch = when_there_is_room(lambda: asyncio.run(streams.next_epoch()))
        asyncio.run(_serve(settings, streams, epoch))
    finally:
        streams.close()
        lock.close()
    log.info("stopped")


def _open_streams(settings: Settings) -> DurableStreams:
    try:
        return when_there_is_room(
            lambda: _streams(settings, settings.streams, settings.state_dir / FILES[settings.streams])
        )
    except SpoolDamaged as error:
        print(f"FORWARDER_STATE_DIR: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_SETTINGS)


def _streams(settings: Settings, kind: str, path: Path) -> DurableStreams:
    limit = StreamLimit(settings.stream_max_bytes, settings.stream_max_age_s, settings.when_full)
    if kind == "embedded":
        return EmbeddedStreams(SpoolWorker(lambda: Spool(path, limit, settings.file_max_bytes)))
    # Imported here: the default has no need of the SDK in its memory.
    from linewatch_forwarder.streams import stream_manager
    from linewatch_forwarder.streams.sdk import Session

    session = Session(
        settings.stream_manager_host, settings.stream_manager_port, settings.stream_manager_token_file
    )
    return stream_manager.open_streams(
        path, session, limit, settings.stream_segment_bytes, settings.file_max_bytes
    )


async def _bring_along(settings: Settings, streams: DurableStreams, make: DropReport, moving: Moving) -> None:
    """What waits in the other kind of streams, if FORWARDER_STREAMS was changed."""
    for kind, file in FILES.items():
        is_chosen = kind == settings.streams
        while taken := left_behind(settings.state_dir / file, is_chosen=is_chosen):
            if is_chosen and kind == "stream_manager":
                put_aside(taken)  # the new ledger takes in all that Stream Manager still holds
                continue
            try:
                old = await asyncio.to_thread(_streams, settings, kind, taken)
            except SpoolDamaged as error:
                log.error("streams_not_moved", extra={"reason": str(error)})
                moving.kind, moving.reason = kind, str(error)
                break
            moving.kind = kind
            try:
                await move(old, streams, make, moving)
            finally:
                old.close()
            put_aside(taken)
            moving.kind = ""


async def _take_in(intake: Intake, moved: "asyncio.Task[None]", moving: Moving) -> None:
    await hold(moved, moving)  # first, or fresh events would come before those that are moved
    await intake.run()


async def _serve(settings: Settings, streams: DurableStreams, epoch: int) -> None:
    place = place_of(settings.site)
    listener = Connection(
        _local(settings, "listener"),
        Subscriptions(
            # Of its own site only: the device's policy allows no other, and IoT Core ends a connection that publishes
            # what its policy does not allow.
            topics=[f"linewatch/v1/{settings.site}/+/+/{kind}" for kind in ("inspection", "engine")],
            manual_ack=True,
            session_expiry_s=SESSION_EXPIRY_S,
            receive_maximum=GROUP,
        ),
    )
    will = Will(place.topic("status"), json.dumps({"state": "offline"}).encode())
    speaker = Connection(_local(settings, "speaker"), will=will)
    certificates = _certificates(settings)
    connection = _to_the_cloud(settings, certificates)
    uplink = _uplink(settings, connection, certificates)
    delivery = Delivery(streams, uplink, settings.uplink_rate, bytes_per_s=settings.uplink_bytes_per_s)
    intake = Intake(listener, speaker, streams, delivery.wake)
    heartbeat = Heartbeat(settings.heartbeat_file)

    def ready() -> bool:
        """Takes events in; whether the cloud can be reached is not ours to heal, and what waits for it is safe."""
        return listener.connected.is_set() and speaker.connected.is_set() and not streams.trouble

    evidence = _open_evidence(settings, uplink, delivery, connection)
    retentions = Retentions(settings.stream_max_age_s, settings.file_max_bytes * FILE_SHARE)
    clients = [one for one in (listener, speaker, connection) if one is not None]
    moving = Moving()
    beside = Beside(
        twin=lambda: next((one.twin for one in clients if one.twin), ""),
        certificate_days=lambda: certificates.days_left if certificates else None,
        evidence=evidence.told,
        moving=moving.told,
    )
    report = Report(
        place, streams, speaker, uplink, intake, delivery, heartbeat, ready, epoch, retentions, beside
    )
    nucleus = Nucleus(ready)
    with stop_on_signals() as stop:
        log.info("started", extra={"epoch": epoch, "streams_max_bytes": settings.stream_max_bytes})
        async with asyncio.TaskGroup() as tasks:
            around = [
                tasks.create_task(one.run(), name=name)
                for one, name in (
                    (listener, "listener"), (speaker, "speaker"), (uplink, "uplink"), (nucleus, "nucleus"),
                )
            ]  # fmt: skip
            moved = tasks.create_task(
                _bring_along(settings, streams, report.dropped_event, moving), name="moving"
            )
            around.append(moved)
            around.append(tasks.create_task(evidence.run(stop), name="evidence"))
            receiving = tasks.create_task(_take_in(intake, moved, moving), name="intake")
            delivering = tasks.create_task(delivery.run(stop), name="delivery")
            reporting = tasks.create_task(report.run(stop), name="report")
            await stop.wait()
            receiving.cancel()  # outside in: accept nothing more, then end the batch in hand
            await asyncio.wait([delivering, reporting], timeout=DRAIN_S)
            for task in [delivering, reporting, *around]:
                task.cancel()


def _local(settings: Settings, role: str) -> Endpoint:
    tls = Tls(settings.mqtt_ca_file) if settings.mqtt_ca_file else None
    return Endpoint(
        settings.mqtt_host, settings.mqtt_port, f"{settings.device}-forwarder-{role}",
        settings.mqtt_username, settings.mqtt_password_file, tls, f"forwarder-{role}",
    )  # fmt: skip


def _certificates(settings: Settings) -> Certificates | None:
    """Of the uplink, where it is mutual TLS."""
    files = (settings.uplink_ca_file, settings.uplink_certificate_file, settings.uplink_key_file)
    if settings.uplink != "mqtt":
        return None
    ca, certificate, key = (path for path in files if path is not None)  # settings check them
    try:
        return Certificates(ca, certificate, key)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_BAD_SETTINGS)


def _to_the_cloud(settings: Settings, certificates: Certificates | None) -> Connection | None:
    """The connection to IoT Core, where the uplink is one; what open work orders hold is heard on it, too."""
    if certificates is None:
        return None
    endpoint = Endpoint(
        settings.uplink_host,
        settings.uplink_port,
        settings.client_id,
        tls=certificates,
        role="forwarder-uplink",
    )
    return Connection(endpoint, pin_topics(settings.client_id) if settings.evidence_root else None)


def _uplink(settings: Settings, connection: Connection | None, certificates: Certificates | None) -> Uplink:
    """The way to the cloud that the settings choose."""
    if settings.uplink == "none":
        return NoUplink()
    if connection is None:
        ipc = NucleusIpc(os.environ[SOCKET_VARIABLE], os.environ[TOKEN_VARIABLE])  # settings check them
        main = Sink("nucleus", GreengrassIpc(ipc, settings.resend_window_s), is_for_iot_core)
    else:
        limits = Limits(settings.batch_max_events, settings.batch_max_bytes)
        main = Sink(
            "IoT Core", IotCore(connection, limits, settings.basic_ingest_rule, certificates), is_for_iot_core
        )
    if not settings.event_bus:
        return main.uplink
    bus = EventBus(settings.event_bus, client_maker(lambda: aws_session(settings)))
    return Routes([main, Sink("event bus", bus, is_for_bus(everything=settings.event_bus_kinds == "all"))])


def _open_evidence(
    settings: Settings, uplink: Uplink, delivery: Delivery, connection: Connection | None
) -> EvidencePart:
    try:
        return EvidencePart(settings, uplink, delivery, connection)
    except OSError as error:
        print(f"FORWARDER_EVIDENCE_DIR: {error}; this user must be able to write beside it", file=sys.stderr)
        sys.exit(EXIT_BAD_SETTINGS)


if __name__ == "__main__":
    main()
