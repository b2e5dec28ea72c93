# SPDX-License-Identifier: Apache-2.0
"""What is Stream Manager's own: its client that dies, its segments, its gaps, and the ledger beside it."""

import asyncio
import contextlib
import copy
import json
import logging
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import STATION, Broker, Cloud, connected, inspection, listening, until, wait_for
from forwarding import Forwarder
from stream_kinds import LINE, PLENTY, ROOM, SEGMENT, Kind, record
from stream_manager import StreamManagerClient
from stream_manager.data import (
    MessageStreamDefinition,
    Operation,
    Persistence,
    ReadMessagesOptions,
    ResponseStatusCode,
    StrategyOnFull,
)
from stream_manager.exceptions import (
    ConnectFailedException,
    InvalidRequestException,
    NotEnoughMessagesException,
    RequestPayloadTooLargeException,
    ResourceNotFoundException,
    UpdateNotAllowedException,
)
from stream_manager_server import StreamManagerServer

from linewatch_forwarder.streams import message_streams, sdk, stream_manager
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.streams.frames import NoFrame, framed, unframed
from linewatch_forwarder.streams.ledger import Ledger
from linewatch_forwarder.streams.moving import Moving, move, put_aside
from linewatch_forwarder.streams.port import DurableStreams, StreamsUnavailable
from linewatch_forwarder.streams.sdk import Session
from linewatch_forwarder.streams.stream_manager import open_streams
from linewatch_runtime.mqtt import Connection, Subscriptions
from linewatch_runtime.records import Record, SpoolFull, StreamLimit, StreamState, WhenFull
from linewatch_runtime.spool import Spool, SpoolWorker

pytestmark = pytest.mark.anyio

ALARMS = f"{LINE}-alarms"
DAY_S = 24 * 3600.0
ALL = 10_000

SOON_S = 5.0
"""For an answer that does not come; the others, in this process and on a busy machine, have to come within it."""


@pytest.fixture
def server() -> Iterator[StreamManagerServer]:
    with StreamManagerServer() as made:
        yield made


@pytest.fixture
def kind(server: StreamManagerServer, tmp_path: Path) -> Kind:
    return Kind("stream_manager", tmp_path, server)


@pytest.fixture
def streams(kind: Kind) -> Iterator[DurableStreams]:
    with kind.opened() as made:
        yield made


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of a thousand is a group for as long as a slow machine needs."""
    monkeypatch.setattr(message_streams, "GROUP_S", 600.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests time out soon, and a new client is made at once."""
    monkeypatch.setattr(sdk, "REQUEST_S", SOON_S)
    monkeypatch.setattr(sdk, "LONGEST_BACKOFF_S", 0.0)


async def waiting(streams: DurableStreams) -> list[str]:
    return [one.record.event_id for one in await streams.next(ALL)]


async def state(streams: DurableStreams, name: str = LINE) -> StreamState:
    return next(one for one in await streams.streams() if one.name == name)


def ids(records: list[Record]) -> list[str]:
    return [one.event_id for one in records]


def held(server: StreamManagerServer, name: str = LINE) -> list[str]:
    """Event ids of a message stream, repeats and all."""
    return [unframed(one.payload).event_id for one in server.streams[name].messages]


# --- the stand-in, asked by the SDK's own client ------------------------------------------------------------------------


def test_stand_in_speaks_with_the_sdk(server: StreamManagerServer) -> None:
    definition = MessageStreamDefinition("s", 4096, 1024, strategy_on_full=StrategyOnFull.OverwriteOldestData)
    with StreamManagerClient(port=server.port) as client:
        client.create_message_stream(definition)
        with pytest.raises(InvalidRequestException):
            client.create_message_stream(definition)
        assert client.list_streams() == ["s"]
        assert [client.append_message("s", b"%d" % number) for number in range(5)] == list(range(5))
        found = client.read_messages("s", ReadMessagesOptions(2, 1, 2))
        assert [(one.sequence_number, one.payload) for one in found] == [(2, b"2"), (3, b"3")]
        with pytest.raises(NotEnoughMessagesException):
            client.read_messages("s", ReadMessagesOptions(5, 1, 2))
        status = client.describe_message_stream("s").storage_status
        assert (status.oldest_sequence_number, status.newest_sequence_number) == (0, 4)
        assert status.total_bytes == 5 * (1 + server.overhead)
        with pytest.raises(RequestPayloadTooLargeException):
            client.append_message("s", b"x" * 5000)
        definition.max_size = 2048
        client.update_message_stream(definition)
        definition.persistence = Persistence.Memory
        with pytest.raises(UpdateNotAllowedException):
            client.update_message_stream(definition)
        client.delete_message_stream("s")
        with pytest.raises(ResourceNotFoundException):
            client.append_message("s", b"x")


def test_stand_in_frees_whole_segments_or_rejects(server: StreamManagerServer) -> None:
    with StreamManagerClient(port=server.port) as client:
        for name, strategy in (
            ("over", StrategyOnFull.OverwriteOldestData),
            ("reject", StrategyOnFull.RejectNewData),
        ):
            client.create_message_stream(MessageStreamDefinition(name, 4096, 1024, strategy_on_full=strategy))
        for _ in range(33):
            client.append_message("over", b"x" * (100 - server.overhead))
        with pytest.raises(InvalidRequestException):
            for _ in range(41):
                client.append_message("reject", b"x" * (100 - server.overhead))

        found = client.read_messages("over", ReadMessagesOptions(0, 1, 100))
        assert client.describe_message_stream("reject").storage_status.oldest_sequence_number == 0

    assert found[0].sequence_number == 0
    server.jump(0)
    with StreamManagerClient(port=server.port) as client:
        for _ in range(10):
            client.append_message("over", b"x" * (100 - server.overhead))
        assert client.read_messages("over", ReadMessagesOptions(0, 1, 1))[0].sequence_number == 10


def test_control_the_sdks_own_client_is_dead_after_a_late_answer(server: StreamManagerServer) -> None:
    """Why ours is made anew: if this passes no more, a newer SDK may have healed it."""
    client = StreamManagerClient(
        port=server.port, request_timeout=SOON_S, logger=logging.getLogger("control")
    )
    client.create_message_stream(
        MessageStreamDefinition("s", strategy_on_full=StrategyOnFull.OverwriteOldestData)
    )
    server.hold(Operation.AppendMessage)
    with pytest.raises(TimeoutError):
        client.append_message("s", b"1")
    wait_for(lambda: server.holds, "it is held")
    server.release()

    for _ in range(2):
        with pytest.raises(TimeoutError):
            client.append_message("s", b"2")
    assert client.connected
    client.close()


# --- trouble -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
async def test_late_answer_costs_one_call_and_the_event_is_stored_once(
    streams: DurableStreams, server: StreamManagerServer
) -> None:
    await streams.append([record(0)])
    server.hold(Operation.AppendMessage)
    with pytest.raises(StreamsUnavailable, match="no answer within"):
        await streams.append([record(1), record(2)])
    assert "no answer" in streams.trouble
    await until(lambda: server.holds, "it is held")
    server.release()

    assert await streams.append([record(1), record(2)]) == 1, "the first had been carried out"

    assert held(server) == await waiting(streams) == ids([record(0), record(1), record(2)])
    assert streams.trouble == ""


@pytest.mark.usefixtures("impatient")
async def test_append_that_is_carried_out_after_we_looked_lies_there_twice_and_is_delivered_once(
    streams: DurableStreams, server: StreamManagerServer
) -> None:
    await streams.append([record(0)])
    server.hold(Operation.AppendMessage, undone=True)
    with pytest.raises(StreamsUnavailable):
        await streams.append([record(1)])
    assert await streams.append([record(1)]) == 1

    assert server.holds
    server.release()

    assert await streams.append([record(2)]) == 1
    assert held(server) == ids([record(0), record(1), record(1), record(2)])
    assert await waiting(streams) == ids([record(0), record(1), record(2)])
    await streams.settle(await waiting(streams))
    server.restart()
    assert await waiting(streams) == []


@pytest.mark.usefixtures("impatient")
async def test_lost_connections_in_the_middle_of_groups_lose_and_double_nothing(
    streams: DurableStreams, server: StreamManagerServer
) -> None:
    chance = random.Random(3)
    events = [record(number, alarm=number % 3 == 0) for number in range(120)]
    trouble = 0
    for begin in range(0, 120, 12):
        group = events[begin : begin + 12]
        if begin % 24 == 0:
            server.drop_answers(1)
        else:
            server.refuse(Operation.AppendMessage, ResponseStatusCode.ServerTimeout)
        while True:
            try:
                await streams.append(group)
                break
            except StreamsUnavailable:
                trouble += 1
                assert trouble < 100
        if chance.random() < 0.3:
            server.restart()

    assert trouble >= 10
    assert sorted(held(server) + held(server, ALARMS)) == sorted(ids(events)), "each is there once"
    assert sorted(await waiting(streams)) == sorted(ids(events))


async def test_service_begins_without_stream_manager_and_goes_on_when_it_is_there(
    kind: Kind, server: StreamManagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "LONGEST_BACKOFF_S", 0.05)
    server.stop()
    with kind.opened() as streams:
        assert await streams.next_epoch() > 0
        with pytest.raises(StreamsUnavailable, match=r"deploy aws\.greengrass\.StreamManager"):
            await streams.append([record(1)])
        assert "FORWARDER_STREAM_MANAGER_PORT" in streams.trouble
        assert await streams.streams() == []
        await streams.bury(record(9), "no event")
        assert len(await streams.dead_letters(5)) == 1

        server.start()

        async def appended() -> None:
            while True:
                try:
                    await streams.append([record(1)])
                    return
                except StreamsUnavailable:
                    await until(lambda: True, "a moment")

        await asyncio.wait_for(appended(), 120)
        assert await waiting(streams) == ids([record(1)])
        assert streams.trouble == ""


async def test_settle_and_counts_need_no_stream_manager(
    streams: DurableStreams, server: StreamManagerServer
) -> None:
    await streams.append([record(1), record(2)])
    server.stop()

    await streams.settle(ids([record(1)]))

    assert (await state(streams)).settled == 1
    server.start()


async def test_failed_connects_leave_no_thread_behind(
    server: StreamManagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's client leaves one for each, and with it three file descriptors: a night of it ends the process."""
    monkeypatch.setattr(sdk, "LONGEST_BACKOFF_S", 0.0)
    server.tokens = set()
    session = Session("127.0.0.1", server.port)
    before, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for refused in range(30):
        if refused == 15:
            server.stop()
        with pytest.raises(StreamsUnavailable):
            session.open()

    wait_for(lambda: threading.active_count() <= before + 1, "threads end")
    wait_for(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files + 2, "files are closed")


async def test_calls_of_a_frozen_stream_manager_end_in_time_and_closing_does_not_wait(
    kind: Kind, server: StreamManagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "REQUEST_S", SOON_S)
    streams = kind.open()
    await streams.append([record(1)])
    with server.frozen():
        with pytest.raises(StreamsUnavailable):
            await streams.append([record(2)])
        streams.close()


async def test_group_that_takes_too_long_ends_and_its_beginning_is_kept(
    streams: DurableStreams, server: StreamManagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [record(number) for number in range(50)]
    monkeypatch.setattr(message_streams, "GROUP_S", 0.0)
    with pytest.raises(StreamsUnavailable, match="took"):
        await streams.append(events)
    monkeypatch.setattr(message_streams, "GROUP_S", 600.0)

    kept = len(held(server))
    assert 0 <= kept < 50
    assert await streams.append(events) == 50 - kept
    assert await waiting(streams) == held(server) == ids(events)


async def test_no_of_stream_manager_in_the_middle_of_a_group_keeps_the_beginning(
    streams: DurableStreams, server: StreamManagerServer
) -> None:
    await streams.append([record(0)])
    server.refuse(Operation.AppendMessage, ResponseStatusCode.OutOfMemoryError)
    with pytest.raises(SpoolFull, match="OutOfMemory"):
        await streams.append([record(1), record(2)])

    assert await streams.append([record(1), record(2)]) == 2
    assert held(server) == ids([record(0), record(1), record(2)])


# --- who we are ----------------------------------------------------------------------------------------------------------


def test_token_comes_from_the_nucleus_or_a_file(
    server: StreamManagerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "LONGEST_BACKOFF_S", 0.0)
    for name in sdk.TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    server.tokens = {"right"}
    control = StreamManagerClient.__new__(StreamManagerClient)
    with pytest.raises(ConnectFailedException):
        control.__init__(port=server.port, logger=logging.getLogger("control"))
    control.close()  # nobody could, had it not been made in two steps
    with pytest.raises(StreamsUnavailable, match="AWS_CONTAINER_AUTHORIZATION_TOKEN"):
        Session("127.0.0.1", server.port).open()

    for name in sdk.TOKEN_VARIABLES:
        monkeypatch.setenv(name, "right")
        session = Session("127.0.0.1", server.port)
        assert session.open() == 1
        session.close()
        monkeypatch.delenv(name)

    file = tmp_path / "token"
    session = Session("127.0.0.1", server.port, file)
    with pytest.raises(StreamsUnavailable, match=r"TOKEN_FILE: .*No such file"):
        session.open()
    file.write_text("right\n")
    assert session.open() == 1
    session.close()


def test_request_that_finds_the_connection_lost_makes_no_other(server: StreamManagerServer) -> None:
    """The SDK's own client would, between our look at it and its own: nobody would be told to look what is there."""
    client = sdk._Client("127.0.0.1", server.port, None)
    assert client.list_streams() == []
    server.drop_connections()
    wait_for(lambda: not client.connected, "the loss is seen")

    with pytest.raises(ConnectionResetError):
        client.list_streams()

    assert server.connects == 1
    client.close()


def test_session_that_is_closed_while_the_server_ends_it_makes_no_other(server: StreamManagerServer) -> None:
    """The end may come between our close and the SDK's own, which would connect once more; so, many rounds."""
    rounds = 200
    for _ in range(rounds):
        session = Session("127.0.0.1", server.port)
        session.open()
        ending = threading.Thread(target=server.drop_connections)
        ending.start()
        session.close()
        ending.join()
    assert server.connects == rounds


@pytest.mark.parametrize("line", ["ü", "a b", "a/b", "x-alarms", "", "a" * 65])
async def test_line_that_can_name_no_stream_is_refused_with_the_remedy(
    streams: DurableStreams, line: str
) -> None:
    with pytest.raises(SpoolFull, match="letters of ASCII"):
        await streams.append([record(1, stream=f"predictions-line-{line}")])


# --- definitions -----------------------------------------------------------------------------------------------------------


async def test_streams_are_made_for_two_classes_flushed_and_in_segments(
    streams: DurableStreams, server: StreamManagerServer
) -> None:
    await streams.append([record(1), record(2, alarm=True), record(3, stream="events-device", alarm=True)])

    assert sorted(server.streams) == ["events-device", LINE, ALARMS]
    for name, made in server.streams.items():
        assert made.definition == {
            "name": name, "maxSize": ROOM, "streamSegmentSize": SEGMENT, "timeToLiveMillis": message_streams.NO_TTL_MS,
            "strategyOnFull": StrategyOnFull.OverwriteOldestData.value, "persistence": Persistence.File.value,
            "flushOnWrite": True,
        }  # fmt: skip


async def test_stream_that_differs_is_changed_or_told_with_the_remedy(
    kind: Kind, server: StreamManagerServer, caplog: pytest.LogCaptureFixture
) -> None:
    with StreamManagerClient(port=server.port) as client:
        client.create_message_stream(
            MessageStreamDefinition(LINE, strategy_on_full=StrategyOnFull.RejectNewData)
        )
        client.create_message_stream(MessageStreamDefinition(
            ALARMS, persistence=Persistence.Memory, strategy_on_full=StrategyOnFull.OverwriteOldestData
        ))  # fmt: skip
    with kind.opened() as streams:
        await streams.append([record(1), record(2, alarm=True)])
        assert sorted(await waiting(streams)) == ids([record(1), record(2)])

    changed = server.streams[LINE].definition
    assert (changed["maxSize"], changed["streamSegmentSize"], changed["flushOnWrite"]) == (
        ROOM,
        SEGMENT,
        True,
    )
    (told,) = [one for one in caplog.records if one.message == "message_stream_differs"]
    assert (told.stream, told.levelname) == (ALARMS, "ERROR")
    assert "delete this stream" in told.remedy
    assert told.__dict__["is"]["persistence"] == "Memory"


async def test_power_cut_takes_nothing_that_was_answered_and_the_control_loses(
    kind: Kind, server: StreamManagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "LONGEST_BACKOFF_S", 0.0)
    events = [record(number) for number in range(30)]
    with kind.opened() as streams:
        await streams.append(events)
        server.power_cut()
    with kind.opened() as streams:
        assert await waiting(streams) == ids(events)

        await streams.append([record(99)])
        server.streams[LINE].definition["flushOnWrite"] = False  # the SDK's default
        await streams.append([record(100), record(101)])
        server.power_cut()
    with kind.opened() as streams:
        assert await waiting(streams) == ids([*events, record(99)]), "the control loses what was answered"
        assert (await state(streams)).dropped == {"stream_gap": 2}, "and it is counted"


# --- segments, gaps and clocks -----------------------------------------------------------------------------------------------


async def _hold_alarms(kind: Kind, overhead: int, seed: int) -> tuple[int, int, int]:
    """Fills and drains at random. Returns how many alarms went unsettled, how many were refused, how many were freed."""
    chance = random.Random(seed)
    assert kind.server
    kind.server.overhead = overhead
    settled: set[str] = set()
    number = refused = 0
    with kind.opened(StreamLimit(ROOM, when_full=WhenFull.SHED_GOOD)) as streams:
        for _ in range(70):
            for _ in range(chance.randrange(1, 6)):
                group = [
                    record(number + n, alarm=True, size=chance.choice([40, 600, 3000])) for n in range(chance.randrange(1, 20))
                ]  # fmt: skip
                number += len(group)
                try:
                    await streams.append(group)
                except SpoolFull:
                    refused += 1
            got = [one.record.event_id for one in await streams.next(60)]
            chance.shuffle(got)
            done = got[: chance.randrange(0, 60)]  # not the oldest: a hole stays before what is settled
            await streams.settle(done)
            settled |= set(done)
        lost = (await state(streams)).dropped
    stream = kind.server.streams[ALARMS]
    freed = [unframed(one.payload).event_id for one in stream.freed]
    gone = [event_id for event_id in freed if event_id not in settled]
    assert sum(lost.values()) == len(gone), "what goes is counted"
    return len(gone), refused, len(freed)


@pytest.mark.parametrize("overhead", [0, 24, 128, 500])
async def test_no_alarm_is_in_a_segment_that_is_freed_before_the_cloud_has_it(
    kind: Kind, overhead: int
) -> None:
    gone, refused, freed = await _hold_alarms(kind, overhead, 11 + overhead)

    assert gone == 0
    assert refused > 0, "it was full"
    assert freed > 0, "segments were freed"


async def test_control_without_reserved_segments_alarms_go(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_manager, "RESERVED_SEGMENTS", -1)

    gone, _, _ = await _hold_alarms(kind, 24, 11)

    assert gone > 0


async def test_wall_clock_that_jumps_by_decades_expires_nothing_and_the_control_loses(
    kind: Kind, server: StreamManagerServer
) -> None:
    events = [record(number, alarm=number % 2 == 0) for number in range(20)]
    with kind.opened() as streams:
        await streams.append(events)
        server.jump(56 * 365 * DAY_S)
        await streams.expire()
        assert len(await waiting(streams)) == 20
        server.jump(-57 * 365 * DAY_S)
        await streams.append([record(100)])
        assert len(await waiting(streams)) == 21

        for stream in server.streams.values():
            stream.definition["timeToLiveMillis"] = int(7 * DAY_S * 1000)
        server.jump(60 * 365 * DAY_S)

        assert await waiting(streams) == [], "a time to live would have lost them all"
        assert (await state(streams)).dropped == {"stream_gap": 21}


async def test_gap_is_counted_with_its_reason_and_told_once(kind: Kind, server: StreamManagerServer) -> None:
    old = StreamLimit(ROOM, max_age_s=0.0, when_full=WhenFull.SHED_GOOD)
    told: list[tuple[str, str, int]] = []

    def make(stream: str, reason: str, count: int) -> Record:
        told.append((stream, reason, count))
        return Record(f"told-{len(told)}", "events-device", "t", b"dropped", alarm=True)

    with kind.opened() as streams:
        await streams.append([record(number, size=3000) for number in range(30)])
        await streams.settle(ids([record(2), record(3)]))
        while server.streams[LINE].messages[0].sequence < 8:
            server.streams[LINE].free_oldest()
        first = server.streams[LINE].messages[0].sequence

        assert await waiting(streams) == ids([record(number) for number in range(first, 30)])

        assert (await state(streams)).dropped == {"stream_gap": first - 2}, "two of them had been settled"
        assert await streams.take_unreported_drops(make) == 1
        assert told == [(LINE, "stream_gap", first - 2)]
    with kind.opened(old) as streams:
        server.streams[LINE].free_oldest()
        gone = server.streams[LINE].messages[0].sequence - first
        await waiting(streams)
        assert (await state(streams)).dropped == {"stream_gap": first - 2, "expired": gone}


# --- another store, another ledger ---------------------------------------------------------------------------------------------


async def test_store_that_was_wiped_is_counted_and_used_anew(kind: Kind, server: StreamManagerServer) -> None:
    with kind.opened(PLENTY) as streams:
        await streams.append([record(number) for number in range(20)])
        await streams.settle(ids([record(number) for number in range(5)]))
    server.streams.clear()
    with kind.opened(PLENTY) as streams:
        assert await waiting(streams) == []
        assert (await state(streams)).dropped == {"stream_gap": 15}
        assert await streams.append([record(100), record(101)]) == 2
        assert await waiting(streams) == ids([record(100), record(101)])


@pytest.mark.usefixtures("impatient")
async def test_store_that_is_wiped_under_us_is_noticed_by_its_numbers(
    streams: DurableStreams, server: StreamManagerServer
) -> None:
    await streams.append([record(number) for number in range(20)])
    definition = server.streams[LINE].definition
    del server.streams[LINE]
    with StreamManagerClient(port=server.port) as client:
        client.create_message_stream(MessageStreamDefinition.from_dict(definition))

    with pytest.raises(StreamsUnavailable, match="made anew"):
        await streams.append([record(100), record(101)])

    assert await streams.append([record(100), record(101)]) == 0, "they are there and known"
    assert await waiting(streams) == ids([record(100), record(101)])
    assert (await state(streams)).dropped == {"stream_gap": 20}


@pytest.mark.usefixtures("impatient")
async def test_deleted_stream_is_made_again(streams: DurableStreams, server: StreamManagerServer) -> None:
    await streams.append([record(1), record(2)])
    server.streams.clear()

    with pytest.raises(StreamsUnavailable, match="deleted"):
        await streams.append([record(3)])

    assert await streams.append([record(3)]) == 1
    assert await waiting(streams) == ids([record(3)])
    assert (await state(streams)).dropped == {"stream_gap": 2}


async def test_older_copy_of_the_store_gives_back_what_it_has(
    kind: Kind, server: StreamManagerServer
) -> None:
    with kind.opened(PLENTY) as streams:
        await streams.append([record(number) for number in range(10)])
        copied = copy.deepcopy(server.streams)
        await streams.append([record(number) for number in range(10, 16)])
        await streams.settle(ids([record(0), record(12)]))
    server.streams = copied
    with kind.opened(PLENTY) as streams:
        assert await waiting(streams) == ids([record(number) for number in range(1, 10)])
        assert (await state(streams)).dropped == {"stream_gap": 5}


async def test_lost_ledger_delivers_again_all_that_stream_manager_holds(
    kind: Kind, server: StreamManagerServer
) -> None:
    events = [record(number, alarm=number % 4 == 0) for number in range(1200)]
    with kind.opened(PLENTY) as streams:
        await streams.append(events)
        await streams.settle(ids(events[:500]))
        epoch = await streams.next_epoch()
    for path in kind.folder.glob("stream-manager.db*"):
        path.unlink()

    with kind.opened(PLENTY) as streams:
        assert await waiting(streams) == ids([one for one in events if one.alarm]) + ids(
            [one for one in events if not one.alarm]
        )
        assert await streams.next_epoch() >= epoch
        assert await streams.append(events) == 0


async def test_damaged_ledger_is_put_aside_and_nothing_that_waits_is_lost(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    with kind.opened() as streams:
        await streams.append([record(1), record(2)])
    path = kind.folder / "stream-manager.db"
    path.write_bytes(b"no database" * 1000)

    with kind.opened() as streams:
        assert await waiting(streams) == ids([record(1), record(2)])

    (aside,) = [one for one in kind.folder.glob("stream-manager.db.damaged-*") if one.suffix != ".wal"]
    assert aside.read_bytes() == b"no database" * 1000
    assert "ledger_put_aside" in [one.message for one in caplog.records]


async def test_ledger_at_its_cap_refuses_events_and_still_lets_them_go(
    server: StreamManagerServer, tmp_path: Path
) -> None:
    """As the spool's: without a reserve a full file could not settle, and stayed full for ever."""
    session = Session("127.0.0.1", server.port)
    streams = open_streams(tmp_path / "ledger.db", session, StreamLimit(8 << 20), 1 << 20, 400 * 1024)
    taken: list[Record] = []
    with pytest.raises(SpoolFull, match="cap of the ledger"):
        for begin in range(0, 20_000, 50):
            group = [record(begin + number, alarm=True, size=20) for number in range(50)]
            await streams.append(group)
            taken += group
    assert len(taken) > 200
    assert await streams.append(taken[:50]) == 0, "known ones are answered all the same"

    while left := [one.record.event_id for one in await streams.next(100)]:
        await streams.settle(left)

    assert (await state(streams)).settled == len(taken)
    assert await streams.append([record(90_000, alarm=True)]) == 1
    streams.close()


async def test_disk_that_fails_under_the_ledger_is_told_and_tried_again(
    kind: Kind, server: StreamManagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kind.opened() as streams:
        await streams.append([record(1), record(2)])

        def failing(*_: object) -> int:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as broken:
            broken.setattr(Ledger, "place", failing)
            with pytest.raises(StreamsUnavailable, match="disk I/O error"):
                await streams.append([record(3)])
            assert "disk I/O error" in streams.trouble

        assert await streams.append([record(3)]) == 0, "it was taken in from Stream Manager"
        assert held(server) == await waiting(streams) == ids([record(1), record(2), record(3)])
        assert streams.trouble == ""


# --- what can't be read ----------------------------------------------------------------------------------------------------------


def test_frame_proves_its_bytes() -> None:
    whole = framed(record(1, alarm=True))
    assert unframed(whole) == record(1, alarm=True)
    refused = 0
    for at in range(len(whole)):
        with pytest.raises(NoFrame):
            unframed(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        refused += 1
    for length in range(len(whole)):
        with pytest.raises(NoFrame):
            unframed(whole[:length])
    assert refused == len(whole)


async def test_damaged_and_foreign_messages_are_buried_and_the_rest_goes_on(
    kind: Kind, server: StreamManagerServer
) -> None:
    with kind.opened() as streams:
        await streams.append([record(number) for number in range(5)])
        message = bytearray(server.streams[LINE].messages[2].payload)
        message[-1] ^= 1
        server.damage(LINE, 2, bytes(message))
    with StreamManagerClient(port=server.port) as client:
        client.append_message(LINE, b"somebody else's")
    with kind.opened() as streams:
        assert await waiting(streams) == ids([record(n) for n in (0, 1, 3, 4)])
        buried = await streams.dead_letters(10)
    assert [(one.record.payload, one.reason) for one in buried] == [
        (b"somebody else's", "damaged in Stream Manager: it does not begin as a forwarder's message"),
        (bytes(message), "damaged in Stream Manager: its checksum is wrong"),
    ]
    assert buried[1].record.event_id == record(2).event_id


async def test_segment_that_can_not_be_read_holds_nothing_else_and_comes_when_it_can(
    streams: DurableStreams, server: StreamManagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await streams.append([record(number) for number in range(6)])
    server.damage(LINE, 3)

    assert await waiting(streams) == ids([record(n) for n in (0, 1, 2, 4, 5)])
    assert (await state(streams)).events == 6, "it is not given up"
    server.mend()
    monkeypatch.setattr(stream_manager, "UNREADABLE_REST_S", 0.0)
    streams._unreadable.clear()  # type: ignore[attr-defined]

    assert await waiting(streams) == ids([record(n) for n in range(6)])


async def test_what_can_not_be_read_holds_no_start(kind: Kind, server: StreamManagerServer) -> None:
    """With the ledger gone every message is read; one that can't be must not keep the others for ever."""
    with kind.opened(PLENTY) as streams:
        await streams.append([record(number) for number in range(700)])
    for path in kind.folder.glob("stream-manager.db*"):
        path.unlink()
    server.damage(LINE, 3)
    server.damage(LINE, 650)

    with kind.opened(PLENTY) as streams:
        found = await waiting(streams)

    assert found == ids([record(number) for number in range(700) if number not in {3, 650}])


@pytest.mark.parametrize(
    "operation", [Operation.ListStreams, Operation.DescribeMessageStream, Operation.CreateMessageStream]
)
async def test_error_of_stream_manager_is_tried_again_and_ends_nothing(
    kind: Kind, server: StreamManagerServer, operation: Operation
) -> None:
    with kind.opened() as streams:
        await streams.append([record(0)])
    for status in (
        ResponseStatusCode.UnknownFailure,
        ResponseStatusCode.InvalidRequest,
        ResponseStatusCode.UpdateFailed,
    ):
        with kind.opened() as streams:
            server.refuse(operation, status)
            again = record(server.requests["AppendMessage"])
            tries = 0
            while tries < 3:
                tries += 1
                with contextlib.suppress(StreamsUnavailable):
                    await streams.append([again])
                    break
            assert tries < 3
            assert again.event_id in await waiting(streams)


async def test_server_that_can_not_update_is_used_as_it_is(
    kind: Kind, server: StreamManagerServer, caplog: pytest.LogCaptureFixture
) -> None:
    with StreamManagerClient(port=server.port) as client:
        client.create_message_stream(
            MessageStreamDefinition(LINE, strategy_on_full=StrategyOnFull.OverwriteOldestData)
        )
    server.refuse(Operation.UpdateMessageStream, ResponseStatusCode.UnknownOperation)
    with kind.opened() as streams:
        assert await streams.append([record(1)]) == 1

    assert "message_stream_differs" in [one.message for one in caplog.records]


# --- from one kind to the other ----------------------------------------------------------------------------------------------


def no_drops(stream: str, reason: str, count: int) -> Record:
    raise AssertionError(f"nothing was lost: {stream}, {reason}, {count}")


async def test_what_waits_moves_from_one_kind_to_the_other_and_back(
    kind: Kind, server: StreamManagerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back too: the first kind must not take for delivered what was only moved."""
    monkeypatch.setattr("linewatch_forwarder.streams.moving.RETRY_S", 0.01)
    monkeypatch.setattr(sdk, "LONGEST_BACKOFF_S", 0.0)
    events = [record(n, alarm=n % 3 == 0, stream=f"predictions-line-{n % 2}") for n in range(250)]
    path = tmp_path / "forwarder.db"

    def embedded() -> EmbeddedStreams:
        return EmbeddedStreams(SpoolWorker(lambda: Spool(path, PLENTY)))

    first = embedded()
    for part in (0, 1):
        await first.append([one for n, one in enumerate(events) if n % 2 == part])
    await first.bury(record(900), "older")
    await first.bury(record(901), "younger")
    with kind.opened(PLENTY) as streams:
        server.refuse(Operation.AppendMessage, ResponseStatusCode.UnknownFailure)
        await move(first, streams, no_drops, Moving())
        assert await waiting(first) == []
        first.close()
        put_aside(path)
        assert sorted(await waiting(streams)) == sorted(ids(events))
        assert [one.reason for one in await streams.dead_letters(5)] == ["younger", "older"]
        await streams.settle(ids(events[:50]))

        again = embedded()
        assert await move(streams, again, no_drops, Moving()) == 200
        assert server.streams == {}, "or they would be delivered again one day"
        assert sorted(await waiting(again)) == sorted(ids(events[50:]))
        again.close()


# --- the process -------------------------------------------------------------------------------------------------------


@pytest.fixture
def forwarder(
    mosquitto: Broker, cloud: Cloud, server: StreamManagerServer, tmp_path: Path
) -> Iterator[Forwarder]:
    """The real process between a device's broker, Stream Manager and a cloud; not started."""
    made = Forwarder(
        tmp_path, mosquitto.port, FORWARDER_STREAMS="stream_manager", FORWARDER_STREAM_MANAGER_PORT=str(server.port),
        FORWARDER_UPLINK_RATE="2000", **cloud.settings(),
    )  # fmt: skip
    yield made
    made.kill()


class Producer:
    """Sends its events again until they are committed, as capture does."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.events: dict[str, bytes] = {}
        self.committed: set[str] = set()

    async def hear(self) -> None:
        while True:
            message = await self.connection.messages.get()
            self.committed |= set(json.loads(message.payload)["event_ids"])

    async def send(self, count: int) -> None:
        first = len(self.events)
        for number in range(first, first + count):
            event_id, payload = inspection(number, "NG" if number % 7 == 0 else "OK")
            self.events[event_id] = payload
            await self.connection.publish(STATION.topic("inspection"), payload)

    async def all_committed(self, deadline_s: float = 240) -> None:
        async with asyncio.timeout(deadline_s):
            while open_ := self.events.keys() - self.committed:
                for event_id in sorted(open_):
                    await self.connection.publish(STATION.topic("inspection"), self.events[event_id])
                with contextlib.suppress(AssertionError):
                    await until(lambda: self.events.keys() <= self.committed, "all are committed", 2)


async def test_outage_kills_and_restarts_of_stream_manager_lose_nothing(
    forwarder: Forwarder, mosquitto: Broker, cloud: Cloud, server: StreamManagerServer
) -> None:
    cloud.kill()
    forwarder.start()
    async with connected(
        mosquitto.endpoint("capture"), Subscriptions([STATION.topic("committed")])
    ) as connection:
        producer = Producer(connection)
        hearing = asyncio.create_task(producer.hear())
        for step in range(6):  # the cloud is away all the while
            await producer.send(60)
            if step % 2:
                await asyncio.to_thread(forwarder.kill)
                forwarder.start()
            else:
                await asyncio.to_thread(server.restart)
        await producer.all_committed()
        server.stop()  # and Stream Manager for a while, too
        await producer.send(20)
        await until(lambda: forwarder.events("stream_manager_unreachable"), "it says so")
        server.start()
        await producer.all_committed()
        cloud.start()
        async with listening(cloud.endpoint("rule"), "linewatch/v1/#") as rule:
            for kill in range(4):
                enough = len(producer.events) * (kill + 1) // 6
                await until(
                    lambda enough=enough: len(set(rule.ids)) >= enough, f"{enough} are delivered", 240
                )
                await asyncio.to_thread(forwarder.kill)
                if kill % 2:
                    await asyncio.to_thread(server.restart)
                forwarder.start()
            await until(lambda: producer.events.keys() <= set(rule.ids), "all are delivered", 240)
            assert forwarder.end() == 0
            doubled = len(rule.ids) - len(set(rule.ids))
        hearing.cancel()

    assert set(rule.ids) == set(producer.events)
    assert doubled <= 4 * 200, "at most a window for each kill"
    assert "Traceback" not in forwarder.told()


async def test_process_without_stream_manager_stays_up_says_so_and_stops_in_time(
    forwarder: Forwarder, mosquitto: Broker, server: StreamManagerServer, tmp_path: Path
) -> None:
    server.stop()
    heartbeat = tmp_path / "heartbeat"
    forwarder.environment["FORWARDER_HEARTBEAT_FILE"] = str(heartbeat)
    forwarder.start()
    async with (
        listening(mosquitto.endpoint("console"), "linewatch/v1/plant-1/device/forwarder/status") as console,
        connected(mosquitto.endpoint("capture"), Subscriptions([STATION.topic("committed")])) as capture,
    ):
        await until(lambda: forwarder.events("stream_manager_unreachable"), "it says so in the log")
        await capture.publish(STATION.topic("inspection"), inspection(1)[1])
        await until(
            lambda: "Stream Manager" in json.dumps([json.loads(one) for _, one in console.heard]),
            "and in the status",
        )
        assert forwarder.runs
        server.start()
        await until(heartbeat.exists, "healthy once it takes events in", 240)
    with server.frozen():
        begun = time.monotonic()
        assert forwarder.end(10) == 0
        assert time.monotonic() - begun < 10
    assert "Traceback" not in forwarder.told()


async def test_choice_that_is_changed_and_taken_back_half_way_brings_along_all_that_waits(
    forwarder: Forwarder, mosquitto: Broker, cloud: Cloud, server: StreamManagerServer
) -> None:
    """Killed while it moves, and back again: what was moved must not be taken for delivered (events were lost so)."""
    cloud.kill()
    async with connected(
        mosquitto.endpoint("capture"), Subscriptions([STATION.topic("committed")])
    ) as connection:
        producer = Producer(connection)
        hearing = asyncio.create_task(producer.hear())
        forwarder.environment["FORWARDER_STREAMS"] = "embedded"
        forwarder.start()
        await producer.send(400)
        await producer.all_committed()
        assert forwarder.end() == 0
        for start, streams in enumerate(("stream_manager", "embedded", "stream_manager", "embedded"), 2):
            forwarder.environment["FORWARDER_STREAMS"] = streams
            forwarder.start()
            await until(lambda start=start: len(forwarder.events("started")) == start, "it begins", 240)
            if start == 2:
                await until(lambda: server.requests["AppendMessage"] > 150, "a batch of 100 has been moved")
            await asyncio.to_thread(forwarder.kill)
        forwarder.start()
        cloud.start()
        async with listening(cloud.endpoint("rule"), "linewatch/v1/#") as rule:
            await until(lambda: producer.events.keys() <= set(rule.ids), "all are delivered", 240)
            await until(lambda: not list(forwarder.state_dir.glob("*.moving*")), "all is moved", 240)
        hearing.cancel()
        assert forwarder.end() == 0
    assert server.streams == {}, "or they would be delivered again one day"
    assert "Traceback" not in forwarder.told()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FORWARDER_STREAMS", "kafka", "FORWARDER_STREAMS: "),
        ("FORWARDER_STREAM_SEGMENT_BYTES", "4194304", "FORWARDER_STREAM_MAX_BYTES: "),
        ("FORWARDER_STREAM_SEGMENT_BYTES", "1000", "FORWARDER_STREAM_SEGMENT_BYTES: "),
        ("FORWARDER_STREAM_MANAGER_PORT", "0", "FORWARDER_STREAM_MANAGER_PORT: "),
    ],
)
def test_wrong_setting_ends_the_start_and_is_named(
    forwarder: Forwarder, name: str, value: str, told: str
) -> None:
    run = subprocess.run(
        forwarder.command, env={**forwarder.environment, name: value}, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip

    assert run.returncode == 2
    assert run.stderr.startswith(told)
