# SPDX-License-Identifier: Apache-2.0
"""The real forwarder on a device whose wall clock jumps by a year, either way, while it runs and between two runs."""

import datetime
from pathlib import Path

import pytest
from brokers import AT_THE_CLOUD, STATION, Broker, Cloud, inspection, listening, until
from forwarding import Forwarder

from linewatch_runtime.health import age_s

STATUS = "linewatch/v1/plant-1/device/forwarder/status"
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
A_DAY_S = 24 * 3600.0


class WallClock:
    """Turns the wall clock of one process, and leaves the monotonic ones and the files' times alone."""

    def __init__(self, folder: Path) -> None:
        if not LIBRARIES:
            pytest.skip("libfaketime is not installed (Debian: apt-get install faketime)")
        self._file = folder / "faketime"
        self.turn("+0")
        self.environment = {
            "LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "FAKE_UTIME": "0",
        }  # fmt: skip

    def turn(self, by: str) -> None:
        """`by`: "-1y", "+1y" or "+0"."""
        whole = self._file.with_suffix(".new")
        whole.write_text(f"{by}\n")
        whole.rename(self._file)


@pytest.mark.anyio
@pytest.mark.parametrize(("first", "then"), [("+1y", "-1y"), ("-1y", "+1y")])
async def test_jump_of_a_year_loses_reorders_and_expires_nothing(
    mosquitto: Broker, forwarder: Forwarder, cloud: Cloud, tmp_path: Path, first: str, then: str
) -> None:
    clock = WallClock(tmp_path)
    heartbeat = tmp_path / "heartbeat"
    forwarder.environment |= clock.environment | {
        "FORWARDER_STREAM_MAX_AGE_S": str(A_DAY_S), "FORWARDER_HEARTBEAT_FILE": str(heartbeat),
    }  # fmt: skip
    cloud.kill()
    events = [inspection(number) for number in range(90)]
    async with (
        listening(mosquitto.endpoint("console"), STATUS) as console,
        listening(mosquitto.endpoint("capture"), STATION.topic("committed")) as capture,
    ):

        def lives_in(other: str) -> bool:
            """A year from now, by the forwarder's clock; counted in days, which no New Year's Eve turns."""
            if not (at := console.last(STATUS).get("at")):
                return False
            off = datetime.datetime.fromisoformat(str(at)) - datetime.datetime.now(datetime.UTC)
            return abs(off - datetime.timedelta(days=365 if other == "+1y" else -365)) < datetime.timedelta(
                days=3
            )

        def stream() -> dict[str, object]:
            return next(iter(console.last(STATUS).get("streams", [])), {})

        async def publish(batch: list[tuple[str, bytes]], waiting: int) -> None:
            for _, payload in batch:
                await capture.connection.publish(STATION.topic("inspection"), payload)
            await until(lambda: stream().get("events") == waiting, f"{waiting} wait", 60)

        forwarder.start()
        await until(lambda: len(forwarder.events("mqtt_connected")) == 2, "the device is connected", 60)
        await publish(events[:30], 30)

        clock.turn(first)
        await until(lambda: lives_in(first), "it lives in another year", 60)
        await publish(events[30:60], 60)
        assert stream()["oldest_age_s"] < 3600
        assert forwarder.end(10.0) == 0

        clock.turn(then)
        cloud.start()
        async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
            forwarder.start()
            await until(lambda: lives_in(then), "and in a third", 60)
            await publish(events[60:], 90)
            assert stream()["dropped"] == 0
            assert stream()["oldest_age_s"] < 3600
            # By that clock the cloud's certificate is not valid yet, or no longer: told, and no reason to end.
            await until(
                lambda: "certificate" in console.last(STATUS)["uplink"]["detail"], "it says why not", 30
            )
            assert not rule.heard
            assert forwarder.runs

            clock.turn("+0")

            await until(lambda: len(set(rule.ids)) == 90, "all arrive once the clock is right", 90)
        assert rule.ids == [event_id for event_id, _ in events], "each once, in order"
        await until(lambda: stream().get("events") == 0, "nothing waits", 60)
        assert stream()["dropped"] == 0
        assert age_s(heartbeat) < 30, "no jump made it look dead"
    assert "Traceback" not in forwarder.told()
