# SPDX-License-Identifier: Apache-2.0
"""Engine events never stop the judging."""

import asyncio
from pathlib import Path

import pytest
from brokers import Broker, connected, listening, until
from full_disk import fill_to_the_last_page

from linewatch_inference.__main__ import _engine_events
from linewatch_inference.engine_events import MOST_ON_DISK, SpooledEvents, Status, content_of, place_of
from linewatch_inference.metrics import Metrics
from linewatch_inference.repository import IndexEntry
from linewatch_inference.settings import Settings
from linewatch_plant.uplink_cable import UplinkCable
from linewatch_runtime.mqtt import Endpoint, Will
from linewatch_runtime.publisher import Publisher
from linewatch_runtime.spool import Spool, SpoolWorker


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", ["full", "broken"])
async def test_full_or_broken_disk_is_logged_and_the_caller_goes_on(
    trouble: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = SpoolWorker(lambda: Spool(tmp_path / "inference.db"))
    events = SpooledEvents(worker, place_of("plant-1"), 1, lambda: None)
    if trouble == "full":
        await worker.run(fill_to_the_last_page, worker.spool)
    else:
        await worker.run(worker.spool.close)

    # An event is larger than a page's rest, so that several surely meet the end.
    for _ in range(20):
        await asyncio.to_thread(events.publish, "EngineStarted")

    assert "engine_event_lost" in [one.msg for one in caplog.records]
    worker.close()


@pytest.mark.anyio
async def test_a_fault_of_its_own_is_told_as_offline(
    mosquitto: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: object) -> None:
        await asyncio.wait_for(is_told.wait(), 60)
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Publisher, "run", broken)
    is_told, stop = asyncio.Event(), asyncio.Event()
    settings = Settings(mqtt_host="127.0.0.1", mqtt_port=mosquitto.port)
    worker = SpoolWorker(lambda: Spool(tmp_path / "inference.db"))
    topic = place_of(settings.site).topic("status")
    metrics = Metrics()
    async with listening(mosquitto.endpoint("console"), topic) as console:
        with pytest.raises(ZeroDivisionError):
            async with _engine_events(settings, worker, [], metrics, stop):
                await until(lambda: console.last(topic).get("state") == "not-serving", "it is there")
                is_told.set()
                await asyncio.wait_for(stop.wait(), 60)
        await until(lambda: console.last(topic).get("state") == "offline", "the broker tells the will")
    assert b'"stopped"' not in b"".join(payload for _, payload in console.heard)
    worker.close()


@pytest.mark.anyio
async def test_status_is_told_again_after_a_break_that_nobody_saw(mosquitto: Broker) -> None:
    """The broker told the will meanwhile, and "offline" stood there for half a minute."""
    place = place_of("plant-1")
    topic = place.topic("status")
    cable = UplinkCable("127.0.0.1", mosquitto.port)
    await cable.start()
    behind = Endpoint("127.0.0.1", cable.port, "inference")
    async with (
        listening(mosquitto.endpoint("console"), topic) as console,
        connected(behind, will=Will(topic, b'{"state": "offline"}')) as connection,
    ):
        status = Status(connection, place, list)
        await status.tell("serving")
        cable.cut()
        await until(lambda: console.last(topic).get("state") == "offline", "the broker tells the will")
        await until(lambda: not connection.connected.is_set(), "the break is seen")
        cable.mend()
        await asyncio.wait_for(connection.connected.wait(), 60)

        await status.tell("serving")
        await until(lambda: console.last(topic).get("state") == "serving", "it is told again")
    await cable.stop()


def test_the_status_names_fifty_versions_that_rest_and_counts_the_others() -> None:
    index = [IndexEntry("caps", f"1.0.{n}", "UNAVAILABLE", "not loaded") for n in range(60)]
    index.append(IndexEntry("caps", "2.0.0", "UNAVAILABLE", "metadata.json: digest"))

    told = content_of("serving", index)

    assert told["on_disk"] == [{"name": "caps", "version": f"1.0.{n}"} for n in range(MOST_ON_DISK)]
    assert (MOST_ON_DISK, told["on_disk_more"]) == (50, 10)
    assert told["models"] == [
        {"name": "caps", "version": "2.0.0", "state": "UNAVAILABLE", "reason": "metadata.json: digest"}
    ]
