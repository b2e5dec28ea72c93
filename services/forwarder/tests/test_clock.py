# SPDX-License-Identifier: Apache-2.0
"""A device that learns the time late: what was taken before is corrected on its way to the cloud."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from brokers import STATION, inspection, until
from forwarding import FakeUplink
from google.protobuf import json_format

from linewatch.v1 import event_pb2
from linewatch_forwarder.clock import DeviceClock
from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.uplinks.port import Outcome
from linewatch_runtime.events import MAX_EVENT_BYTES, MINTED_EVENT_BYTES
from linewatch_runtime.spool import Record, SpoolWorker

BOOT = "5a1d6f0e-9f0c-4b7e-8c55-0e5f4a3c2b1d"
YEAR_S = 365 * 24 * 3600.0
NOW = 1_795_233_600.0
"""2026-11-21T04:00:00Z."""
TAKEN_AT = "2026-11-21T04:00:00.123Z"
"""By the clock of the device, which nobody believes."""


@dataclass
class Turning:
    """A device's clocks, turned by the test."""

    wall_s: float = NOW
    since_boot_s: float = 5000.0
    is_synchronised: bool | None = True
    boot: str = BOOT

    def clock(self) -> DeviceClock:
        return DeviceClock(
            lambda: self.wall_s, lambda: self.since_boot_s, lambda: self.boot, lambda: self.is_synchronised
        )


def taken(
    since_boot_s: float, *, synchronised: bool | None = False, boot: str = BOOT, sequence: int = 1, part: str = "part",
    change: Callable[[dict[str, object]], None] = lambda _: None,
) -> Record:  # fmt: skip
    """An event of a part, as capture minted it."""
    event_id, payload = inspection(sequence)
    event = json.loads(payload)
    # Of one length: one time in a thousand has no milliseconds, and is written without them.
    event["time"] = event["data"]["origin"]["taken_at"] = TAKEN_AT
    event["data"]["part_id"] = part
    clock = {"boot_id": boot, "monotonic_s": since_boot_s, "synchronised": synchronised}
    event["data"]["origin"]["clock"] = {name: value for name, value in clock.items() if value is not None}
    change(event)
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    return Record(event_id, "predictions-line-1", STATION.topic("inspection"), text.encode())


def corrected_at(record: Record) -> str | None:
    return json.loads(record.payload)["data"]["origin"].get("corrected_at")


def test_what_was_taken_before_the_clock_was_known_gets_its_true_time() -> None:
    record = taken(4000.0)

    sent = Turning(since_boot_s=5000.0).clock().corrected(record)

    assert corrected_at(sent) == "2026-11-21T03:43:20Z"  # a thousand seconds ago
    event = json.loads(sent.payload)
    del event["data"]["origin"]["corrected_at"]
    assert event == json.loads(record.payload)
    added = b',"corrected_at":"2026-11-21T03:43:20Z"'
    assert sent.payload.replace(added, b"", 1) == record.payload, "no other byte changed"
    read = json_format.ParseDict(json.loads(sent.payload)["data"], event_pb2.Inspection())
    assert read.origin.corrected_at.seconds == int(NOW) - 1000


@pytest.mark.parametrize("jump_s", [-YEAR_S, YEAR_S])
def test_true_time_is_the_same_whatever_year_the_device_began_in(jump_s: float) -> None:
    turning = Turning(wall_s=NOW + jump_s, since_boot_s=100.0, is_synchronised=False)
    record = taken(100.0)
    assert turning.clock().corrected(record) is record, "the clock is not known yet"

    turning.wall_s, turning.since_boot_s, turning.is_synchronised = NOW + 60, 160.0, True

    assert corrected_at(turning.clock().corrected(record)) == "2026-11-21T04:00:00Z"


@pytest.mark.parametrize(
    ("record", "turning"),
    [
        (taken(4000.0, synchronised=True), Turning()),
        (taken(4000.0, synchronised=None), Turning()),
        (taken(4000.0), Turning(is_synchronised=False)),
        (taken(4000.0), Turning(is_synchronised=None)),
        (taken(4000.0, boot="11111111-0000-0000-0000-000000000000"), Turning()),
        (taken(4000.0, boot=""), Turning(boot="")),
        (taken(5000.1), Turning(since_boot_s=5000.0)),
        (taken(float("nan")), Turning()),
        (taken(float("-inf")), Turning()),
    ],
    ids=[
        "synchronised", "never asked", "not known yet", "can't be asked", "another boot", "no boot id",
        "of the future", "no number", "no finite number",
    ],
)  # fmt: skip
def test_event_that_can_not_be_corrected_goes_out_as_it_is(record: Record, turning: Turning) -> None:
    assert turning.clock().corrected(record) is record


def test_event_is_corrected_once_and_keeps_that_time() -> None:
    turning = Turning()
    once = turning.clock().corrected(taken(4000.0))
    turning.wall_s += 3600

    assert turning.clock().corrected(once) is once


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xff\xfe", b'"synchronised":false', b'{"synchronised":false}', b'{"data":7,"x":{"synchronised":false}}',
        b'{"data":{"origin":[{"synchronised":false}]}}',
        b'{"data":{"origin":{"clock":{"synchronised":false}}}}',
        b'{"data":{"origin":{"clock":{"synchronised":false,"boot_id":7,"monotonic_s":"x"}}}}',
        b'{"data":{"origin":{"clock":{"synchronised":false,"boot_id":"' + BOOT.encode() + b'","monotonic_s":"x"}}}}',
        b'{"data":{"origin":{"clock":{"synchronised":false,"boot_id":"' + BOOT.encode() + b'","monotonic_s":-1e99}}}}',
        b'{"data":{"origin":{"clock":{"synchronised":false,"boot_id":"' + BOOT.encode() + b'","monotonic_s":-1' + b"0" * 400 + b"}}}}",
        b'{"synchronised":false,"a":' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_event_is_left_alone(payload: bytes) -> None:
    record = Record("id", "stream", "topic", payload)

    assert Turning().clock().corrected(record) is record


def test_another_object_called_origin_is_not_taken_for_the_events_own() -> None:
    def nested(event: dict[str, object]) -> None:
        data = event["data"]
        event["data"] = {"from_a_later_release": {"origin": {"a": 1}}, **data, "origins": '"origin":{"b":2}'}

    sent = Turning().clock().corrected(taken(4000.0, part='"origin": {"synchronised":false}', change=nested))

    assert corrected_at(sent) == "2026-11-21T03:43:20Z"
    assert json.loads(sent.payload)["data"]["from_a_later_release"]["origin"] == {"a": 1}


def test_event_as_another_producer_writes_it_keeps_its_way_of_writing() -> None:
    record = taken(4000.0)
    spaced = json.dumps(json.loads(record.payload), indent=1).encode()

    sent = Turning().clock().corrected(Record("id", "stream", "topic", spaced))

    assert corrected_at(sent) == "2026-11-21T03:43:20Z"
    assert sent.payload.replace(b',"corrected_at":"2026-11-21T03:43:20Z"', b"", 1) == spaced


def test_corrected_event_stays_within_the_wires_limit() -> None:
    empty = len(taken(4000.0, part="").payload)
    largest = taken(4000.001, part="x" * (MINTED_EVENT_BYTES - empty - 3))
    assert MINTED_EVENT_BYTES - 3 <= len(largest.payload) <= MINTED_EVENT_BYTES

    sent = Turning().clock().corrected(largest)

    assert corrected_at(sent) == "2026-11-21T03:43:20.001Z"
    assert len(sent.payload) <= MAX_EVENT_BYTES
    too_large = taken(4000.0, part="x" * (MAX_EVENT_BYTES - empty))
    assert Turning().clock().corrected(too_large) is too_large


# --- in the flow -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Recording(FakeUplink):
    """Keeps the records that it was given."""

    sent: list[Record] = field(default_factory=list)

    async def send(self, records: Sequence[Record]) -> Outcome:
        self.sent += records
        return await FakeUplink.send(self, records)


@pytest.mark.anyio
@pytest.mark.parametrize("jump_s", [-YEAR_S, YEAR_S])
async def test_jump_of_a_year_loses_nothing_reorders_nothing_and_is_corrected(
    worker: SpoolWorker, jump_s: float
) -> None:
    turning = Turning(wall_s=NOW + jump_s, since_boot_s=100.0, is_synchronised=False)
    before = [taken(100.0 + number, sequence=number) for number in range(30)]
    await worker.run(worker.spool.append, before)
    uplink, stop = Recording(trouble="no network"), asyncio.Event()
    uplink.gate.set()
    delivery = Delivery(EmbeddedStreams(worker), uplink, 10_000, turning.clock())
    task = asyncio.create_task(delivery.run(stop), name="delivery")
    try:
        await until(lambda: uplink.sent, "it tries")
        assert corrected_at(uplink.sent[0]) is None
        turning.wall_s, turning.since_boot_s, turning.is_synchronised = NOW, 1000.0, True
        after = [taken(1000.0, sequence=30 + number, synchronised=True) for number in range(30)]
        await worker.run(worker.spool.append, after)
        assert await worker.run(worker.spool.expire) == 0
        uplink.sent.clear()
        uplink.trouble = ""

        await until(lambda: len(uplink.accepted) == 60, "all arrive", 60)
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await task
    assert uplink.accepted == [one.event_id for one in before + after], "once each, and in order"
    by_id = {one.event_id: one for one in uplink.sent}
    assert corrected_at(by_id[before[0].event_id]) == "2026-11-21T03:45:00Z"
    assert corrected_at(by_id[before[29].event_id]) == "2026-11-21T03:45:29Z"
    assert {corrected_at(by_id[one.event_id]) for one in after} == {None}
