# SPDX-License-Identifier: Apache-2.0
import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from brokers import AT_THE_CLOUD, STATION, Cloud, connected, inspection, listening, until
from forwarding import FakeUplink, state

from linewatch_forwarder.delivery import LOOK_AHEAD, Delivery
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.uplinks.iot_core import NEVER, IotCore
from linewatch_forwarder.uplinks.port import Outcome, Uplink
from linewatch_plant.uplink_cable import UplinkCable
from linewatch_runtime.mqtt import Endpoint, Refused
from linewatch_runtime.records import SpoolFull
from linewatch_runtime.spool import Record, Spool, SpoolWorker, StreamLimit

pytestmark = pytest.mark.anyio


def record(
    sequence: int, result: str = "OK", topic: str = STATION.topic("inspection"), stream: str = "predictions-line-1"
) -> Record:  # fmt: skip
    event_id, payload = inspection(sequence, result)
    return Record(event_id, stream, topic, payload, alarm=result != "OK")


def ids(records: list[Record]) -> list[str]:
    return [one.event_id for one in records]


@asynccontextmanager
async def delivering(
    worker: SpoolWorker, uplink: Uplink, rate: float = 10_000, streams: EmbeddedStreams | None = None
) -> AsyncIterator[tuple[Delivery, asyncio.Event, asyncio.Task[None]]]:
    delivery, stop = Delivery(streams or EmbeddedStreams(worker), uplink, rate), asyncio.Event()
    task = asyncio.create_task(delivery.run(stop), name="delivery")
    try:
        yield delivery, stop, task
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await task


def settled(worker: SpoolWorker) -> int:
    one = state(worker)
    return one.settled if one else 0


# --- the flow, with a fake cloud -------------------------------------------------------------------------------------


async def test_alarms_overtake_and_each_class_keeps_its_order(worker: SpoolWorker) -> None:
    uplink = FakeUplink()
    events = [record(number, "NG" if number % 4 == 0 else "OK") for number in range(60)]
    await worker.run(worker.spool.append, events)
    async with delivering(worker, uplink):
        uplink.gate.set()

        await until(lambda: settled(worker) == 60, "all are delivered")

    assert uplink.accepted == ids([one for one in events if one.alarm]) + ids(
        [one for one in events if not one.alarm]
    )


class FullDisk(EmbeddedStreams):
    """Takes no answer before there is room."""

    room = False
    tries = 0

    async def settle(self, event_ids: Sequence[str]) -> None:
        self.tries += 1
        await super().settle(event_ids)

    async def bury(self, record: Record, reason: str, *, once: bool = False) -> bool:
        if not self.room:
            raise SpoolFull("", "the disk is full")
        return await super().bury(record, reason, once=once)


async def test_what_a_full_disk_could_not_note_is_noted_once_there_is_room_and_is_not_sent_again(
    worker: SpoolWorker,
) -> None:
    events = [record(number) for number in range(6)]
    uplink = FakeUplink(never={events[1].event_id, events[3].event_id})
    uplink.gate.set()
    await worker.run(worker.spool.append, events)
    streams = FullDisk(worker)
    async with delivering(worker, uplink, streams=streams) as (delivery, _, _):
        await until(lambda: streams.tries >= 4, "the disk is tried again and again")
        assert (uplink.batches, delivery.stopped) == (1, "the disk is full")
        assert delivery.behind_s > 0

        streams.room = True
        await until(lambda: not delivery.stopped, "all is noted")
        await worker.run(worker.spool.append, [late := record(6)])
        await until(lambda: settled(worker) == 5, "what is new goes on")

    assert uplink.batches == 2
    assert uplink.accepted == [one.event_id for one in [events[0], events[2], *events[4:], late]]
    assert [letter.record.event_id for letter in await streams.dead_letters(10)] == [
        events[3].event_id,
        events[1].event_id,
    ]


async def test_event_that_can_never_be_delivered_is_buried_and_the_rest_goes_on(worker: SpoolWorker) -> None:
    events = [record(number) for number in range(5)]
    uplink = FakeUplink(never={events[1].event_id})
    uplink.gate.set()
    await worker.run(worker.spool.append, events)
    async with delivering(worker, uplink):
        await until(lambda: settled(worker) == 4, "the others are delivered")

    assert state(worker).buried == 1
    ((_, one, reason),) = await worker.run(worker.spool.buried)
    assert (one.event_id, reason) == (events[1].event_id, "0x99 payload format invalid")


async def test_nothing_leaves_the_spool_while_the_cloud_is_in_trouble(worker: SpoolWorker) -> None:
    uplink = FakeUplink(trouble="NotConnected")
    uplink.gate.set()
    await worker.run(worker.spool.append, [record(1), record(2)])
    async with delivering(worker, uplink) as (delivery, _, _):
        await until(lambda: uplink.batches >= 2, "it tries again")
        assert state(worker).events == 2
        assert delivery.trouble == "NotConnected"

        uplink.trouble = ""

        await until(lambda: settled(worker) == 2, "delivered at last", 60)
        await until(lambda: not delivery.trouble, "and it says so")


async def test_trouble_that_lasts_for_days_ends_nothing(
    worker: SpoolWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_forwarder.rests.LONGEST_BACKOFF_S", 0.0)
    uplink = FakeUplink(trouble="NobodySubscribed")
    uplink.gate.set()
    await worker.run(worker.spool.append, [record(1)])
    async with delivering(worker, uplink):
        await until(lambda: uplink.batches > 1100, "more than 1024 tries in a row", 240)


async def test_rate_is_kept(worker: SpoolWorker) -> None:
    uplink = FakeUplink()
    uplink.gate.set()
    await worker.run(worker.spool.append, [record(number) for number in range(30)])
    begun = asyncio.get_running_loop().time()
    async with delivering(worker, uplink, rate=60):
        await until(lambda: settled(worker) == 30, "the first batch")
        await worker.run(worker.spool.append, [record(99)])
        await until(lambda: settled(worker) == 31, "the second batch")

    assert asyncio.get_running_loop().time() - begun >= 0.5


async def test_new_event_wakes_an_idle_delivery(worker: SpoolWorker) -> None:
    uplink = FakeUplink()
    uplink.gate.set()
    async with delivering(worker, uplink) as (delivery, _, _):
        await worker.run(worker.spool.append, [record(1)])
        delivery.wake()

        await until(lambda: uplink.accepted, "delivered")


async def test_full_disk_stops_no_delivery(tmp_path: Path) -> None:
    worker = SpoolWorker(
        lambda: Spool(tmp_path / "full.db", StreamLimit(100 * 1024 * 1024), file_max_bytes=1024 * 1024)
    )
    try:
        count = 0
        with pytest.raises(Exception, match="cap"):
            while True:
                batch = [record(number, "NG" if number % 8 == 0 else "OK") for number in range(20)]
                count += await worker.run(worker.spool.append, batch)
        uplink = FakeUplink()
        uplink.gate.set()
        async with delivering(worker, uplink):
            await until(lambda: settled(worker) == count, "all are delivered", 60)
    finally:
        worker.close()


# --- the real adapter over mutual TLS --------------------------------------------------------------------------------


async def test_events_reach_the_cloud_over_mutual_tls_in_order(cloud: Cloud, worker: SpoolWorker) -> None:
    events = [record(number, "NG" if number % 4 == 0 else "OK") for number in range(80)]
    async with (
        listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
        connected(cloud.endpoint("device")) as uplink,
    ):
        await worker.run(worker.spool.append, events)
        async with delivering(worker, IotCore(uplink)):
            await until(lambda: settled(worker) == 80, "all are accepted")
        await until(lambda: len(rule.ids) == 80, "all arrive")

    assert rule.ids == ids([one for one in events if one.alarm]) + ids(
        [one for one in events if not one.alarm]
    )


async def test_cloud_refuses_a_device_without_its_certificate(cloud: Cloud) -> None:
    files = cloud.certificates
    stranger = Endpoint("localhost", cloud.port, "device", tls=type(cloud.endpoint("x").tls)(files.ca_file))
    async with connected(stranger, wait=False) as uplink:
        await until(lambda: uplink.trouble, "refused")

        assert not uplink.connected.is_set()


async def test_device_refuses_a_cloud_with_another_certificate(cloud: Cloud, tmp_path: Path) -> None:
    other = Cloud(tmp_path / "other")
    endpoint = Endpoint("localhost", cloud.port, "device", tls=other.endpoint("x").tls)
    async with connected(endpoint, wait=False) as uplink:
        await until(lambda: "certificate verify failed" in uplink.trouble, "it is told why")

        assert not uplink.connected.is_set()


async def test_event_that_no_rule_takes_is_kept(cloud: Cloud, worker: SpoolWorker) -> None:
    one = record(1)
    async with connected(cloud.endpoint("device")) as uplink:
        await worker.run(worker.spool.append, [one])
        async with delivering(worker, IotCore(uplink)) as (delivery, _, _):
            await until(lambda: "NobodySubscribed" in delivery.trouble, "the trouble is told")
            assert settled(worker) == 0

            async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
                await until(lambda: settled(worker) == 1, "delivered once there is a rule", 60)

                await until(lambda: rule.ids == [one.event_id], "it arrives")


async def test_event_against_the_policy_is_kept_and_told_and_nothing_of_its_class_overtakes_it(
    cloud: Cloud, worker: SpoolWorker
) -> None:
    refused, behind = record(1, topic="forbidden/inspection"), record(2)
    alarm, other = record(3, "NG"), record(4, stream="predictions-line-2")
    async with (
        listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
        connected(cloud.endpoint("device")) as uplink,
    ):
        await worker.run(worker.spool.append, [refused, behind, alarm, other])
        async with delivering(worker, IotCore(uplink)) as (delivery, _, _):
            await until(lambda: settled(worker) == 1, "the alarm passes")
            await until(lambda: state(worker, "predictions-line-2").settled == 1, "the other line passes")
            await until(lambda: "0x87" in delivery.trouble, "the trouble is told")

            assert state(worker).events == 2
            assert behind.event_id not in rule.ids


async def test_line_that_the_cloud_refuses_holds_no_other_line(
    cloud: Cloud, worker: SpoolWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_forwarder.rests.LONGEST_BACKOFF_S", 2.0)
    refused = [
        record(number, "NG", "forbidden/inspection", "predictions-line-2") for number in range(LOOK_AHEAD)
    ]
    good = [record(number) for number in range(100)]
    sends = 0

    class Counted(IotCore):
        async def send(self, records):
            nonlocal sends
            sends += any(one.stream == "predictions-line-2" for one in records)
            return await super().send(records)

    async with (
        listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule,
        connected(cloud.endpoint("device")) as uplink,
    ):
        await worker.run(worker.spool.append, refused + good)
        async with delivering(worker, Counted(uplink)) as (delivery, _, _):
            await until(lambda: settled(worker) == 100, "the other line is delivered", 60)
            await until(lambda: sends >= 3, "the refused are tried again", 60)

            assert rule.ids == ids(good)
            assert state(worker, "predictions-line-2").events == LOOK_AHEAD
            assert "0x87" in delivery.troubled("predictions-line-2")
            assert "predictions-line-2" in delivery.trouble
            assert not delivery.stopped
            assert not delivery.troubled("predictions-line-1")

            (cloud.output.parent / "acl").write_text("user device-1\ntopic readwrite #\n")
            cloud.process.send_signal(signal.SIGHUP)
            async with listening(cloud.endpoint("late rule"), "forbidden/#") as late:
                await until(lambda: not delivery.trouble, "accepted at last", 60)
                last = "predictions-line-2"
                await until(lambda: state(worker, last).settled == LOOK_AHEAD, "all are accepted", 60)
                await until(lambda: late.ids == ids(refused), "they arrive in order")


async def test_a_stream_that_was_offered_and_not_sent_stays_in_trouble(
    worker: SpoolWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was told to deliver by a turn that was full of others."""
    monkeypatch.setattr("linewatch_forwarder.rests.LONGEST_BACKOFF_S", 0.05)
    caplog.set_level("INFO")

    class OneLineATurn(FakeUplink):
        async def send(self, records):
            if (first := records[0]).stream == "predictions-line-2":
                return Outcome(troubled={first.stream: "0x87"})
            return Outcome(accepted=[first.event_id])

    uplink = OneLineATurn()
    uplink.gate.set()
    await worker.run(worker.spool.append, [record(1, stream="predictions-line-2")])
    async with delivering(worker, uplink) as (delivery, _, _):
        await until(lambda: delivery.trouble, "it is told")
        await worker.run(worker.spool.append, [record(number, "NG") for number in range(40)])
        delivery.wake()
        await until(lambda: settled(worker) == 40, "others are sent before it")
        assert delivery.troubled("predictions-line-2") == "0x87"
    assert not [one for one in caplog.records if one.getMessage() == "stream_delivers"]


async def test_trouble_of_a_stream_whose_events_have_left_is_forgotten(
    worker: SpoolWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_forwarder.rests.LONGEST_BACKOFF_S", 2.0)

    class Refusing(FakeUplink):
        async def send(self, records):
            return Outcome(troubled={one.stream: "0x10" for one in records})

    uplink = Refusing()
    uplink.gate.set()
    one = record(1)
    await worker.run(worker.spool.append, [one])
    async with delivering(worker, uplink) as (delivery, _, _):
        await until(lambda: delivery.trouble, "it is told")

        await worker.run(worker.spool.settle, [one.event_id])

        await until(lambda: not delivery.trouble, "nothing is in trouble any more", 60)


async def test_quota_concerns_all_lines() -> None:
    class Refusing:
        largest_packet = 0

        async def publish(self, *_arguments: object, **_more: object) -> None:
            raise Refused("publish", 0x97, "quota exceeded")

    outcome = await IotCore(Refusing()).send([record(1)])

    assert "0x97" in outcome.trouble
    assert not outcome.troubled


@pytest.mark.parametrize("code", sorted(NEVER))
async def test_codes_that_no_second_try_changes_are_told_as_refused(code: int) -> None:
    class Refusing:
        largest_packet = 0

        async def publish(self, *_arguments: object, **_more: object) -> None:
            raise Refused("publish", code, "never")

    outcome = await IotCore(Refusing()).send([record(1)])

    assert [reason for _, reason in outcome.refused] == [f"publish: 0x{code:02x} never"]
    assert not outcome.trouble


async def test_uplink_that_is_cut_loses_nothing(cloud: Cloud, worker: SpoolWorker) -> None:
    cable = UplinkCable("127.0.0.1", cloud.port)
    await cable.start()
    endpoint = cloud.endpoint("device")
    endpoint = Endpoint(endpoint.host, cable.port, endpoint.client_id, tls=endpoint.tls)
    events, at_once = [record(number) for number in range(200)], 50
    try:
        async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule, connected(endpoint) as uplink:
            async with delivering(worker, IotCore(uplink), rate=300):
                for start in range(0, len(events), at_once):
                    await worker.run(worker.spool.append, events[start : start + at_once])
                    before = settled(worker)
                    await until(lambda before=before: settled(worker) > before, "something passes", 60)
                    cable.cut()
                    await until(lambda: not uplink.connected.is_set(), "the cut is seen")
                    cable.mend()
                await until(lambda: settled(worker) == len(events), "all are delivered", 60)
            await until(lambda: len(set(rule.ids)) == len(events), "all arrive")
    finally:
        await cable.stop()


async def test_stop_ends_with_the_batch_in_hand(worker: SpoolWorker) -> None:
    sending, go_on = asyncio.Event(), asyncio.Event()

    class Slow(FakeUplink):
        async def send(self, records):
            sending.set()
            await go_on.wait()
            return await super().send(records)

    uplink = Slow()
    uplink.gate.set()
    await worker.run(worker.spool.append, [record(number) for number in range(LOOK_AHEAD + 10)])
    async with delivering(worker, uplink) as (_, stop, task):
        await sending.wait()

        stop.set()
        go_on.set()
        await asyncio.wait([task], timeout=60)

        assert settled(worker) == LOOK_AHEAD
        assert uplink.batches == 1


# --- what was handed over to somebody who may still lose it -----------------------------------------------------------


async def test_what_was_handed_over_stays_until_the_window_has_passed(worker: SpoolWorker) -> None:
    uplink = FakeUplink(resend_window_s=0.5)
    uplink.gate.set()
    events = [record(number) for number in range(20)]
    await worker.run(worker.spool.append, events)
    begun = asyncio.get_running_loop().time()
    async with delivering(worker, uplink) as (delivery, _, _):
        await until(lambda: delivery.handed_over == 20, "all are handed over")

        await until(lambda: settled(worker) == 20, "they ripen")

        assert asyncio.get_running_loop().time() - begun >= 0.5
        await until(lambda: delivery.handed_over == 0, "they are forgotten")
        assert uplink.accepted == ids(events), "once each"


async def test_what_a_session_took_that_is_gone_is_sent_again_in_order(worker: SpoolWorker) -> None:
    uplink = FakeUplink(resend_window_s=60.0)
    uplink.gate.set()
    events = [record(number) for number in range(20)]
    await worker.run(worker.spool.append, events)
    async with delivering(worker, uplink) as (delivery, _, _):
        await until(lambda: delivery.handed_over == 20, "all are handed over")

        uplink.session += 1

        await until(lambda: len(uplink.accepted) == 40, "all are sent again")
        assert uplink.accepted == 2 * ids(events)
        assert settled(worker) == 0


async def test_kill_in_the_window_sends_again(worker: SpoolWorker) -> None:
    uplink = FakeUplink(resend_window_s=60.0)
    uplink.gate.set()
    events = [record(number) for number in range(20)]
    await worker.run(worker.spool.append, events)
    async with delivering(worker, uplink) as (delivery, _, _):
        await until(lambda: delivery.handed_over == 20, "all are handed over")
    after = FakeUplink(resend_window_s=0.1)
    after.gate.set()

    async with delivering(worker, after):  # a process that knows nothing of the first one's window
        await until(lambda: settled(worker) == 20, "all are sent again, and ripen")

    assert after.accepted == ids(events)


async def test_window_is_bounded_and_holds_the_sending_when_it_is_full(
    worker: SpoolWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_forwarder.handed_over.MOST_HANDED_OVER", 8)
    uplink = FakeUplink(resend_window_s=0.3)
    uplink.gate.set()
    events = [record(number) for number in range(20)]
    most = 0
    await worker.run(worker.spool.append, events)
    async with delivering(worker, uplink) as (delivery, _, _):

        def all_are_settled() -> bool:
            nonlocal most
            most = max(most, delivery.handed_over)
            delivery.wake()
            return settled(worker) == 20

        await until(all_are_settled, "all are settled", 60)

    assert most == 8
    assert uplink.accepted == ids(events)
