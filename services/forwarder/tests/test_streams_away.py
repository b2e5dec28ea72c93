# SPDX-License-Identifier: Apache-2.0
"""What is told, and how often, while the streams can't be asked."""

import asyncio
import json
import threading

import pytest
from brokers import STATION, until
from forwarding import FakeUplink
from prometheus_client import REGISTRY

from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.intake import Intake
from linewatch_forwarder.report import Report
from linewatch_forwarder.retention import Retentions
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.streams.port import StreamsUnavailable
from linewatch_runtime.events import new_event_id
from linewatch_runtime.spool import SpoolWorker

pytestmark = pytest.mark.anyio


class AwayStreams(EmbeddedStreams):
    """Away while `is_away`; counts how often it was asked."""

    is_away = True
    asked = 0

    async def next(self, *arguments, **options):
        self._ask()
        return await super().next(*arguments, **options)

    async def streams(self):
        self._ask()
        return await super().streams()

    def _ask(self) -> None:
        self.asked += 1
        if self.is_away:
            raise StreamsUnavailable("Stream Manager is away")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.message.startswith("streams_")]


async def test_delivery_tells_once_an_outage_that_the_streams_are_away(
    worker: SpoolWorker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_forwarder.delivery.IDLE_S", 0.01)
    streams, uplink, stop = AwayStreams(worker), FakeUplink(), asyncio.Event()
    uplink.gate.set()
    task = asyncio.create_task(Delivery(streams, uplink, 1000).run(stop))
    try:
        for outage in (1, 2):
            streams.is_away, streams.asked = True, 0
            await until(lambda: streams.asked > 5, "it asks again and again")
            assert told(caplog).count("streams_unavailable") == outage
            streams.is_away = False
            await until(lambda: told(caplog).count("streams_available") == outage, "told that they are back")  # noqa: B023
    finally:
        stop.set()
        await task


def reporting(streams: AwayStreams) -> Report:
    uplink = FakeUplink()
    return Report(
        STATION, streams, None, uplink, Intake(None, None, streams, lambda: None), Delivery(streams, uplink, 1),
        None, lambda: True, 1, Retentions(3600.0, 1 << 20),
    )  # fmt: skip


async def test_losses_that_two_streams_tell_at_once_are_counted_apart(
    worker: SpoolWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are moved have a thread of their own; no two events of a place have the same number."""
    both = threading.Barrier(2, timeout=60)

    def id_in_the_same_moment() -> str:
        both.wait()
        return new_event_id()

    monkeypatch.setattr("linewatch_forwarder.report.new_event_id", id_in_the_same_moment)
    report = reporting(AwayStreams(worker))
    try:
        made = await asyncio.gather(
            *(asyncio.to_thread(report.dropped_event, stream, "expired", 1) for stream in ("a", "b"))
        )
    finally:
        REGISTRY.unregister(report._metrics)
    assert sorted(json.loads(one.payload)["data"]["origin"]["sequence"] for one in made) == [1, 2]


async def test_report_tells_once_an_outage_that_the_streams_are_away(
    worker: SpoolWorker, caplog: pytest.LogCaptureFixture
) -> None:
    streams = AwayStreams(worker)
    report = reporting(streams)
    try:
        for outage in (1, 2):
            streams.is_away = True
            for _ in range(5):
                assert (await report._look("")).unavailable == "Stream Manager is away"
            assert told(caplog) == ["streams_unavailable"] * outage
            streams.is_away = False
            assert not (await report._look("")).unavailable
    finally:
        REGISTRY.unregister(report._metrics)
