# SPDX-License-Identifier: Apache-2.0
"""What both kinds of durable streams promise; each test runs against the embedded ones and against Stream Manager."""

import asyncio
import functools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stream_writer
from brokers import Child, running, wait_for
from stream_kinds import LINE, PLENTY, ROOM, SEGMENT, Kind, record
from stream_manager_server import StreamManagerServer

from linewatch_forwarder.streams.port import DurableStreams
from linewatch_runtime.records import Record, SpoolFull, StreamLimit, StreamState, WhenFull

pytestmark = pytest.mark.anyio

ALL = 10_000
KILLS = 8


@pytest.fixture(params=["embedded", "stream_manager"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    if request.param == "embedded":
        yield Kind("embedded", tmp_path, None)
        return
    with StreamManagerServer() as server:
        yield Kind("stream_manager", tmp_path, server)


@pytest.fixture
def streams(kind: Kind) -> Iterator[DurableStreams]:
    with kind.opened() as made:
        yield made


async def waiting(streams: DurableStreams) -> list[str]:
    return [one.record.event_id for one in await streams.next(ALL)]


async def state(streams: DurableStreams, name: str = LINE) -> StreamState:
    return next(one for one in await streams.streams() if one.name == name)


def ids(records: list[Record]) -> list[str]:
    return [one.event_id for one in records]


def has_written(writer: Child, events: int) -> bool:
    return writer.told().count("stored") >= events or not writer.runs


def adds_up(one: StreamState) -> bool:
    return one.stored == one.settled + one.buried + sum(one.dropped.values()) + one.events


# --- append and read -------------------------------------------------------------------------------------------------


async def test_what_goes_in_comes_out_as_it_was(streams: DurableStreams) -> None:
    events = [
        record(1), record(2, alarm=True), record(3, stream="events-device", alarm=True),
        Record("é\U0001f600", LINE, "a/b", bytes(range(256)), alarm=True), record(5, size=0),
    ]  # fmt: skip
    for one in events:
        assert await streams.append([one]) == 1

    assert {one.record.event_id: one.record for one in await streams.next(ALL)} == {
        one.event_id: one for one in events
    }


async def test_event_is_stored_once_while_it_waits_and_after_it_left(streams: DurableStreams) -> None:
    one, two = record(1), record(2, alarm=True)
    assert await streams.append([one, two, one]) == 2
    assert await streams.append([one, two, record(3)]) == 1

    await streams.settle([one.event_id])

    assert await streams.append([one]) == 0
    assert await waiting(streams) == ids([two, record(3)])


async def test_alarms_come_first_and_each_class_keeps_its_order(streams: DurableStreams) -> None:
    events = [
        record(number, alarm=number % 4 == 0, stream=f"predictions-line-{number % 3}") for number in range(60)
    ]
    for begin in range(0, 60, 3):
        for one in events[begin : begin + 3]:
            await streams.append([one])

    assert await waiting(streams) == ids([one for one in events if one.alarm]) + ids(
        [one for one in events if not one.alarm]
    )


async def test_next_keeps_to_its_limit_and_leaves_out_what_it_is_told(streams: DurableStreams) -> None:
    here = [record(number) for number in range(10)]
    there = [record(number, stream="predictions-line-2") for number in range(10)]
    await streams.append(here)
    await streams.append(there)

    stored = await streams.next(5, except_streams=["predictions-line-2"], except_ids=ids(here[:3]))

    assert [one.record for one in stored] == here[3:8]
    assert await streams.next(5, except_streams=[LINE, "predictions-line-2"]) == []


# --- checkpoint and restart ------------------------------------------------------------------------------------------


async def test_what_was_settled_never_comes_again_in_whatever_order_it_was(kind: Kind) -> None:
    events = [record(number) for number in range(200)]
    order = ids(events)
    random.Random(4).shuffle(order)
    with kind.opened() as streams:
        await streams.append(events)
        for begin in range(0, 120, 7):
            await streams.settle(order[begin : begin + 7])
    left = [one.event_id for one in events if one.event_id in order[126:]]

    with kind.opened() as streams:
        assert await waiting(streams) == left
        await streams.settle(["nobody's", *left])
        assert await waiting(streams) == []
        assert (await state(streams)).settled == 200


async def test_restart_of_the_process_and_of_the_server_lose_nothing(kind: Kind) -> None:
    written: list[str] = []
    for start in range(4):
        with kind.opened() as streams:
            events = [record(100 * start + number) for number in range(20)]
            assert await streams.append(events) == 20
            written += ids(events)
        kind.restart_server()
    with kind.opened() as streams:
        assert await waiting(streams) == written
        assert await streams.append([record(0), record(320)]) == 1, "known over restarts"


async def test_kills_of_the_process_lose_nothing_that_it_was_told(kind: Kind, tmp_path: Path) -> None:
    chance = random.Random(7)
    stored: set[str] = set()
    asked_to_settle: set[str] = set()
    gone: set[str] = set()
    for kill in range(KILLS):
        writer = Child(
            [sys.executable, stream_writer.__file__, *kind.arguments, str(1000 * kill)], tmp_path / f"writer-{kill}.log"
        )  # fmt: skip
        with running(writer):
            wait_for(functools.partial(has_written, writer, chance.randrange(20, 120)), "it writes", 120)
            assert writer.runs, writer.told()
        for line in writer.told().splitlines():
            word, _, event_id = line.partition(" ")
            if len(event_id) == len(record(0).event_id):  # the last line may be cut
                {"stored": stored, "settled": asked_to_settle, "gone": gone}[word].add(event_id)
    with kind.opened(PLENTY) as streams:
        left = await waiting(streams)
        total = await state(streams)

    assert len(left) == len(set(left)), "each once"
    assert stored - asked_to_settle - set(left) == set(), "told as stored, and not there"
    assert gone & set(left) == set(), "settled, and there again"
    assert adds_up(total)


async def test_epoch_rises_at_every_start(kind: Kind) -> None:
    epochs = []
    for _ in range(3):
        with kind.opened() as streams:
            epochs.append(await streams.next_epoch())

    assert epochs == sorted(set(epochs))


# --- full ------------------------------------------------------------------------------------------------------------


async def fill(streams: DurableStreams, count: int, alarm_every: int) -> tuple[list[Record], list[Record]]:
    """Appends one by one. Returns what was taken and what was refused."""
    taken, refused = [], []
    for number in range(count):
        one = record(number, alarm=bool(alarm_every) and number % alarm_every == 0)
        try:
            await streams.append([one])
            taken.append(one)
        except SpoolFull:
            refused.append(one)
    return taken, refused


async def test_full_stream_sheds_routine_events_oldest_first_and_never_an_alarm(kind: Kind) -> None:
    with kind.opened(StreamLimit(ROOM, when_full=WhenFull.SHED_GOOD)) as streams:
        taken, refused = await fill(streams, 900, 12)
        total = await state(streams)
        left = set(await waiting(streams))

    lost = [one for one in taken if one.event_id not in left]
    kept = [one for one in taken if not one.alarm and one.event_id in left]
    assert not [one for one in lost if one.alarm]
    assert not [one for one in refused if not one.alarm], "routine events always find room"
    assert lost
    assert total.dropped == {"shed_good": len(lost)}, "each loss is counted"
    assert max(ids(lost)) < min(ids(kept)), "oldest first"
    assert adds_up(total)
    assert total.bytes <= total.max_bytes


async def test_alarms_fill_a_stream_and_it_refuses_until_the_cloud_has_some(kind: Kind) -> None:
    with kind.opened(StreamLimit(ROOM, when_full=WhenFull.SHED_GOOD)) as streams:
        taken, refused = await fill(streams, 600, 1)
        assert len(taken) > 100
        assert refused[0].event_id > taken[-1].event_id, "once full, it stays full"
        assert set(ids(taken)) == set(await waiting(streams))
        with pytest.raises(SpoolFull) as full:
            await streams.append([record(9000, alarm=True), record(9001, alarm=True)])
        assert full.value.stream == LINE
        assert (await state(streams)).events == len(taken), "nothing of it was stored"

        await streams.settle(ids(taken[: len(taken) // 2]))

        more, _ = await fill(streams, 40, 1)
        assert not more or more[0].event_id in ids(taken), "known ones are no new ones"
        assert await streams.append([record(9000 + number, alarm=True) for number in range(50)]) == 50
        assert (await state(streams)).dropped == {}


async def test_reject_refuses_routine_events_too_and_loses_none(kind: Kind) -> None:
    with kind.opened(StreamLimit(ROOM, when_full=WhenFull.REJECT)) as streams:
        taken, refused = await fill(streams, 600, 0)
        total = await state(streams)
        assert refused
        assert await waiting(streams) == ids(taken)
    assert (total.dropped, total.events) == ({}, len(taken))


async def test_overwrite_oldest_takes_all_and_counts_what_went(kind: Kind) -> None:
    with kind.opened(StreamLimit(ROOM, when_full=WhenFull.OVERWRITE_OLDEST)) as streams:
        taken, refused = await fill(streams, 900, 2)
        total = await state(streams)
        left = set(await waiting(streams))

    lost = [one for one in taken if one.event_id not in left]
    assert not refused
    assert {one.alarm for one in lost} == {True, False}, "alarms too"
    assert total.dropped == {"overwritten": len(lost)}
    assert adds_up(total)


async def test_one_full_stream_refuses_for_no_other(kind: Kind) -> None:
    with kind.opened(StreamLimit(ROOM, when_full=WhenFull.SHED_GOOD)) as streams:
        await fill(streams, 600, 1)

        assert await streams.append([record(1, alarm=True, stream="predictions-line-2")]) == 1


async def test_stream_that_is_drained_as_it_fills_drops_nothing(kind: Kind) -> None:
    """Four times what it holds goes through it, an old alarm of another line stays all the while."""
    with kind.opened(StreamLimit(ROOM, when_full=WhenFull.SHED_GOOD)) as streams:
        await streams.append([record(0, alarm=True, stream="predictions-line-2")])
        for begin in range(0, 1600, 50):
            assert await streams.append([record(begin + n, alarm=n % 5 == 0) for n in range(50)]) == 50
            got = await streams.next(50, except_streams=["predictions-line-2"])
            assert len(got) == 50
            await streams.settle([one.record.event_id for one in got])

        assert (await state(streams)).dropped == {}
        assert await waiting(streams) == ["predictions-line-2-000000"]


# --- what leaves otherwise ---------------------------------------------------------------------------------------------


async def test_buried_events_are_kept_with_their_reason_youngest_first(kind: Kind) -> None:
    stored, never_stored = record(1), record(2, alarm=True)
    with kind.opened() as streams:
        await streams.append([stored])
        await streams.bury(stored, "the cloud says no")
        await streams.bury(never_stored, "no event")
        assert await waiting(streams) == []
        assert await streams.append([stored, never_stored]) == 0, "its producer need not send it again"

    with kind.opened() as streams:
        found = await streams.dead_letters(10)
        assert (await state(streams)).buried == 2
    assert [(one.record.event_id, one.record.payload, one.reason) for one in found] == [
        (never_stored.event_id, never_stored.payload, "no event"),
        (stored.event_id, stored.payload, "the cloud says no"),
    ]
    assert found[0].number > found[1].number


async def test_what_is_known_is_not_buried_where_once_is_enough(kind: Kind) -> None:
    stored, settled, poison = record(1), record(2), record(3)
    with kind.opened() as streams:
        await streams.append([stored, settled])
        await streams.settle([settled.event_id])
        assert await streams.bury(poison, "no event", once=True)

    with kind.opened() as streams:
        for one in (stored, settled, poison):
            assert not await streams.bury(one, "again", once=True)
        assert await waiting(streams) == [stored.event_id]
        assert [one.reason for one in await streams.dead_letters(10)] == ["no event"]
        assert (await state(streams)).buried == 1


async def test_replayed_dead_letter_waits_again_once_and_unknown_numbers_are_passed_over(kind: Kind) -> None:
    one, two = record(1, alarm=True), record(2, alarm=True)
    with kind.opened() as streams:
        await streams.append([one, two, record(3, alarm=True)])
        await streams.bury(one, "a policy that was wrong")
        await streams.bury(two, "another")
        numbers = {letter.record.event_id: letter.number for letter in await streams.dead_letters(10)}

        assert await streams.replay([numbers[one.event_id], 424242]) == 1
        assert await streams.replay([numbers[one.event_id]]) == 0

    with kind.opened() as streams:
        stored = {found.record.event_id: found.record for found in await streams.next(ALL)}
        assert sorted(stored) == ids([one, record(3)])
        assert stored[one.event_id].payload == one.payload
        assert [letter.record.event_id for letter in await streams.dead_letters(10)] == [two.event_id]
        await streams.settle([one.event_id])
        assert await waiting(streams) == ids([record(3)])


async def test_what_is_older_than_its_stream_allows_expires_and_is_counted(kind: Kind) -> None:
    with kind.opened() as streams:
        await streams.append([record(number, alarm=number % 2 == 0) for number in range(30)])
        assert await streams.expire() == 0

    with kind.opened(StreamLimit(ROOM, max_age_s=1e-6, when_full=WhenFull.SHED_GOOD)) as streams:
        gone = 0
        async with asyncio.timeout(
            60
        ):  # the clock is kept by the millisecond: a fast machine may be back before it
            while gone < 30:
                gone += await streams.expire()
        assert gone == 30
        assert await waiting(streams) == []
        total = await state(streams)
    assert total.dropped == {"expired": 30}
    assert adds_up(total)


async def test_drops_are_told_once_for_each_stream_and_reason(kind: Kind) -> None:
    told: list[tuple[str, str, int]] = []

    def make(stream: str, reason: str, count: int) -> Record:
        told.append((stream, reason, count))
        return Record(f"told-{len(told)}", "events-device", "t", b"dropped", alarm=True)

    short = StreamLimit(ROOM, max_age_s=1e-6, when_full=WhenFull.SHED_GOOD)
    with kind.opened(short) as streams:
        await streams.append([record(1), record(2)])
        await streams.append([record(1, stream="predictions-line-2")])
        await streams.expire()

        assert await streams.take_unreported_drops(make) == 2
        assert sorted(told) == [(LINE, "expired", 2), ("predictions-line-2", "expired", 1)]
        assert await streams.take_unreported_drops(make) == 0

    with kind.opened() as streams:
        assert await streams.take_unreported_drops(make) == 0, "nor after a restart"
        assert await waiting(streams) == ["told-1", "told-2"]
        await streams.settle(["told-1", "told-2"])
        assert (await state(streams, "events-device")).settled == 2


async def test_what_is_missing_is_counted_to_the_event(kind: Kind) -> None:
    """Overflow, delivery in the middle and restarts: produced = delivered + counted as dropped + waiting."""
    delivered: set[str] = set()
    produced = 0
    for start in range(3):
        with kind.opened(StreamLimit(ROOM, when_full=WhenFull.SHED_GOOD)) as streams:
            for begin in range(0, 450, 30):
                await streams.append([record(1000 * start + begin + n, alarm=n % 10 == 0) for n in range(30)])
                produced += 30
                if begin % 60 == 0:
                    got = [one.record.event_id for one in await streams.next(13)]
                    await streams.settle(got)
                    delivered |= set(got)
    with kind.opened() as streams:
        total, left = await state(streams), await waiting(streams)

    assert total.dropped["shed_good"] > 0
    assert produced == len(delivered) + sum(total.dropped.values()) + len(left)
    assert (total.settled, total.events) == (len(delivered), len(left))


async def test_streams_tell_fill_age_and_history(streams: DurableStreams) -> None:
    assert await streams.streams() == []
    await streams.append([record(number) for number in range(10)])
    await streams.append([record(1, stream="events-device", alarm=True)])
    await streams.settle(ids([record(number) for number in range(4)]))
    await streams.bury(record(4), "bad")

    device, line = await streams.streams()

    assert (device.name, device.events, line.name) == ("events-device", 1, LINE)
    assert (line.events, line.stored, line.settled, line.buried, line.dropped) == (5, 10, 4, 1, {})
    assert 5 * 600 < line.bytes < line.max_bytes
    assert line.oldest_age_s >= 0
    assert device.max_bytes > SEGMENT
    assert streams.trouble == ""


async def test_dead_letter_that_has_to_go_is_counted_and_told(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_runtime.spool.BURIED_KEPT", 2)
    monkeypatch.setattr("linewatch_forwarder.streams.ledger.BURIED_KEPT", 2)
    with kind.opened() as streams:
        for number in range(3):
            await streams.bury(record(number), "refused")
        await streams.replay([(await streams.dead_letters(1))[0].number])
        await streams.bury(record(3), "refused")  # again two, though the numbers are three apart

        assert [one.record for one in await streams.dead_letters(ALL)] == [record(3), record(1)]
        assert dict((await state(streams)).dropped) == {"dead_letters_full": 1}
        told: list[tuple[str, str, int]] = []

        def make(stream: str, reason: str, count: int) -> Record:
            told.append((stream, reason, count))
            return record(99, alarm=True)

        assert await streams.take_unreported_drops(make) == 1
        assert told == [(LINE, "dead_letters_full", 1)]


async def test_replayed_dead_letter_is_not_stored_a_second_time(streams: DurableStreams) -> None:
    await streams.append([record(1)])
    await streams.bury(record(1), "a policy that was wrong")

    assert await streams.replay([(await streams.dead_letters(1))[0].number]) == 1

    assert (await state(streams)).stored == 1
