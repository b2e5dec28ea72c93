# SPDX-License-Identifier: Apache-2.0
"""What is told, and how often, while the streams can't be asked."""

import asyncio

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


async def test_report_tells_once_an_outage_that_the_streams_are_away(
    worker: SpoolWorker, caplog: pytest.LogCaptureFixture
) -> None:
    streams, uplink = AwayStreams(worker), FakeUplink()
    report = Report(
        STATION, streams, None, uplink, Intake(None, None, streams, lambda: None), Delivery(streams, uplink, 1),
        None, lambda: True, 1, Retentions(3600.0, 1 << 20),
    )  # fmt: skip
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
