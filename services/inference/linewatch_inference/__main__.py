# SPDX-License-Identifier: Apache-2.0
"""Wires the inference service: settings, server, models, engine events, and the end, from the outside in."""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from linewatch_inference.activation import LOOK_EVERY_S, Activation
from linewatch_inference.admission import Admission
from linewatch_inference.engine_events import STOPPED, LoggedEvents, SpooledEvents, Status, place_of
from linewatch_inference.inspection import Inspection
from linewatch_inference.metrics import Metrics
from linewatch_inference.repository import EngineEvents, Repository, Source
from linewatch_inference.server import CannotListen, Server
from linewatch_inference.session import SessionOptions
from linewatch_inference.settings import Settings
from linewatch_runtime import logs
from linewatch_runtime.health import Heartbeat
from linewatch_runtime.lifecycle import stop_on_signals, wait_until
from linewatch_runtime.mqtt import Connection, Endpoint, Subscriptions, Tls, Will
from linewatch_runtime.nucleus import Nucleus
from linewatch_runtime.publisher import Publisher
from linewatch_runtime.settings import EXIT_BAD_SETTINGS, load
from linewatch_runtime.spool import Spool, SpoolDamaged, SpoolWorker
from linewatch_runtime.state_dir import lock_state_dir
from linewatch_runtime.telemetry import serve_metrics

log = logging.getLogger("linewatch_inference")

LAST_WORDS_S = 2.0
"""How long a stop waits for the broker to take the last events; they are on disk and go out at the next start."""


def main() -> None:
    """Runs until a signal."""
    settings = load(Settings)
    logs.configure("inference", settings.log_level)
    serve_metrics(settings.metrics_host, settings.metrics_port, "INFERENCE_METRICS_PORT")
    if not settings.mqtt_host:
        log.info(
            "no_broker", extra={"detail": "INFERENCE_MQTT_HOST is empty: engine events go to this log only"}
        )
        asyncio.run(_serve(settings, None))
    else:
        lock = lock_state_dir(settings.state_dir, "inference", "INFERENCE_STATE_DIR")
        worker = _open_spool(settings)
        try:
            asyncio.run(_serve(settings, worker))
        finally:
            worker.close()
            lock.close()
    log.info("stopped")


def _open_spool(settings: Settings) -> SpoolWorker:
    try:
        return SpoolWorker(lambda: Spool(settings.state_dir / "inference.db"))
    except SpoolDamaged as error:
        print(f"INFERENCE_STATE_DIR: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_SETTINGS)


async def _serve(settings: Settings, worker: SpoolWorker | None) -> None:
    repository_of: list[Repository] = []
    with stop_on_signals() as stop:
        metrics = Metrics()
        async with _engine_events(settings, worker, repository_of, metrics, stop) as events:
            repository = Repository(_source(settings), events, metrics)
            repository_of.append(repository)
            admission = Admission(settings.workers, settings.queue_limit)
            metrics.watch(lambda: admission.waiting, lambda: admission.busy, lambda: repository.is_serving)
            server = _listen(settings, Inspection(repository, admission, metrics, events))
            repository.on_change = lambda: server.set_serving(is_serving=repository.is_serving)
            server.start()
            log.info(
                "listening",
                extra={"host": settings.host, "port": server.port, "tls": bool(settings.tls_key_file)},
            )
            await asyncio.to_thread(events.publish, "EngineStarted")
            activation = Activation(
                repository, settings.models_dir, settings.state_dir / "serving", settings.wanted_models
            )
            following = asyncio.create_task(_follow(activation, stop), name="models")
            nucleus = Nucleus(lambda: repository.is_serving, lambda: admission.busy > 0)
            telling = asyncio.create_task(nucleus.run(), name="nucleus")
            heartbeat = Heartbeat(settings.heartbeat_file)
            beating = asyncio.create_task(
                heartbeat.keep(stop, lambda: repository.is_serving), name="heartbeat"
            )
            await _until_stop(stop, following)
            telling.cancel()
            # From the outside in: no new calls, then the calls that run, then the sessions.
            await asyncio.to_thread(server.stop, settings.drain_s)
            repository.stop_accepting()
            await following
            await beating
            repository.close()
            await asyncio.to_thread(events.publish, "EngineShutdown")


async def _follow(activation: Activation, stop: asyncio.Event) -> None:
    """Loads the models, then follows their active files until the stop."""
    await asyncio.to_thread(activation.open)
    while not await wait_until(stop, LOOK_EVERY_S):
        await asyncio.to_thread(activation.look)


async def _until_stop(stop: asyncio.Event, following: asyncio.Task[None]) -> None:
    """Waits for the stop; a bug while loading ends the process instead."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait([stopping, following], return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        following.result()
    await stopping


def _source(settings: Settings) -> Source:
    session = SessionOptions(settings.providers, settings.provider_policy, settings.intra_op_threads)
    return Source(settings.models_dir, settings.trusted_keys_dir, settings.variant, session)


def _listen(settings: Settings, inspection: Inspection) -> Server:
    try:
        return Server(settings, inspection)
    except CannotListen as error:
        print(f"INFERENCE_PORT: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_SETTINGS)


@asynccontextmanager
async def _engine_events(
    settings: Settings, worker: SpoolWorker | None, repository_of: list[Repository], metrics: Metrics,
    stop: asyncio.Event,
) -> AsyncIterator[EngineEvents]:  # fmt: skip
    """Events and status to the broker for the length of the block; to the log alone without a broker."""
    if worker is None:
        yield LoggedEvents()
        return
    place = place_of(settings.site)
    epoch = await worker.run(worker.spool.next_epoch)
    will = Will(place.topic("status"), json.dumps({"state": "offline"}).encode())
    connection = Connection(_endpoint(settings), Subscriptions(topics=[place.topic("committed")]), will)
    metrics.watch_broker(connection.connected.is_set)
    publisher = Publisher(worker, connection)
    status = Status(connection, place, lambda: repository_of[0].index() if repository_of else [])
    connecting = asyncio.create_task(connection.run(), name="connection")
    publishing = asyncio.create_task(publisher.run(), name="publisher")
    telling = asyncio.create_task(status.run(_state(repository_of, stop)), name="status")
    tasks = [connecting, publishing, telling]
    for task in tasks:
        task.add_done_callback(
            lambda done: None if done.cancelled() else stop.set()
        )  # a crash ends the process
    try:
        yield SpooledEvents(worker, place, epoch, publisher.wake)
        # It knows "stopping" only, and would tell it again behind our last word while we wait for the forwarder.
        telling.cancel()
        await asyncio.wait([telling])
        is_whole = not any(task.done() and not task.cancelled() for task in tasks)
        if is_whole and connection.connected.is_set():  # else the broker tells our will: we end by a fault
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await _last_words(status, worker)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def _last_words(status: Status, worker: SpoolWorker) -> None:
    """Says that we stopped, and lets the forwarder take what is still here."""
    await status.tell(STOPPED)
    while await worker.run(worker.spool.oldest, 1):  # noqa: ASYNC110 - the publisher settles, there is no event for it
        await asyncio.sleep(0.05)


def _state(repository_of: list[Repository], stop: asyncio.Event) -> Callable[[], str]:
    def state() -> str:
        if stop.is_set():
            return "stopping"
        return "serving" if repository_of and repository_of[0].is_serving else "not-serving"

    return state


def _endpoint(settings: Settings) -> Endpoint:
    tls = Tls(settings.mqtt_ca_file) if settings.mqtt_ca_file else None
    return Endpoint(
        settings.mqtt_host, settings.mqtt_port, f"{settings.device}-inference",
        settings.mqtt_username, settings.mqtt_password_file, tls, "inference",
    )  # fmt: skip


if __name__ == "__main__":
    main()
