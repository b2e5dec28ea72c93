# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811 - fixtures
"""The real forwarder, started on a volume that somebody else filled to the last block."""

import contextlib
from pathlib import Path

import pytest
from brokers import Broker, Cloud, until
from faults.loads import AGAIN_WITHIN_S, station
from faults.sink import sinking
from faults.volumes import Ballast, volume
from forwarding import Forwarder, forwarder  # noqa: F401 - a fixture
from stream_manager_server import StreamManagerServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


@pytest.mark.parametrize("streams", ["embedded", "stream_manager"])
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
async def test_forwarder_that_starts_on_a_full_disk_says_so_waits_and_drains_within_seconds_of_room(
    kind: str, streams: str, mosquitto: Broker, cloud: Cloud, tmp_path: Path, forwarder: Forwarder
) -> None:
    """After a stop in good order there is no log: SQLite needs room to open the file at all."""
    with volume(kind, tmp_path / "disk", 16) as disk, contextlib.ExitStack() as stack:
        server = stack.enter_context(StreamManagerServer())
        stack.callback(forwarder.kill)
        forwarder.environment |= {
            "FORWARDER_UPLINK_RATE": "10000",
            "FORWARDER_STREAMS": streams,
            "FORWARDER_STREAM_MANAGER_PORT": str(server.port),
        }
        state_dir = disk.folder / "state"
        forwarder.environment["FORWARDER_STATE_DIR"] = str(state_dir)
        ballast = Ballast(disk)
        async with station(mosquitto) as line:
            async with sinking(cloud.endpoint("sink")) as sink:
                forwarder.start()
                await until(lambda: len(forwarder.events("mqtt_connected")) >= 3, "all is connected", 60)
                await line.make(["OK"] * 50)
                await until(lambda: not sink.lacks(line.made), "the first arrive", 60)
            cloud.kill()
            await line.make(["OK", "NG"] * 100)
            await until(lambda: not line.refused, "all is committed", 60)
            assert forwarder.end() == 0
            ballast.fill()

            forwarder.start()
            await until(lambda: forwarder.events("waits_for_room"), "it says that the volume is full", 60)
            assert forwarder.end() == 0, "SIGTERM ends the wait"

            cloud.start()
            async with sinking(cloud.endpoint("sink")) as after:
                forwarder.start()
                await until(lambda: len(forwarder.events("waits_for_room")) == 2, "it says so again", 60)
                assert all(
                    "the volume is full" in told["reason"] for told in forwarder.events("waits_for_room")
                )
                assert len(forwarder.events("started")) == 1

                ballast.take_away()
                await until(lambda: len(forwarder.events("started")) == 2, "it starts", AGAIN_WITHIN_S)
                after.first |= sink.first
                await until(lambda: not after.lacks(line.committed), "all arrive", 60)
                assert forwarder.runs, forwarder.told()[-2000:]
            assert forwarder.end() == 0
        assert not [file.name for file in state_dir.iterdir() if "damaged" in file.name]
    assert not after.lacks(line.committed)
    assert not after.dropped()
    assert "Traceback" not in forwarder.told()
