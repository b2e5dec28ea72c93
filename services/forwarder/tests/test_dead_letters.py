# SPDX-License-Identifier: Apache-2.0
"""The command for dead letters, as a person runs it: a process of its own, beside the forwarder or without it."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from brokers import AT_THE_CLOUD, STATION, Broker, Cloud, inspection, listening, until
from forwarding import FakeUplink, Forwarder, state, told_state

from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.streams.ledger import Ledger
from linewatch_forwarder.streams.settings import FILES
from linewatch_runtime.records import Record, StreamLimit
from linewatch_runtime.spool import Spool, SpoolWorker

REASON = "0x99 payload format invalid"
LIMIT = StreamLimit(4 * 1024 * 1024)


def record(sequence: int, result: str = "OK") -> Record:
    event_id, payload = inspection(sequence, result)
    return Record(event_id, "predictions-line-1", STATION.topic("inspection"), payload, alarm=result != "OK")


def as_many_as_fit() -> list[Record]:
    """Alarms that leave no room for a further one. Each is weighed: the digits of a time vary."""
    fill, room = [], LIMIT.max_bytes
    while (one := record(1_000 + len(fill), "NG")).size <= room:
        fill.append(one)
        room -= one.size
    return fill


@dataclass
class Told:
    """What the command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.out)


@dataclass
class Device:
    """A state directory of one kind of streams, and the command upon it."""

    folder: Path
    kind: str

    @property
    def path(self) -> Path:
        return self.folder / FILES[self.kind]

    def open(self) -> Spool | Ledger:
        return (Spool if self.kind == "embedded" else Ledger)(self.path, LIMIT)

    def bury(self, *records: Record, reason: str = REASON) -> None:
        memory = self.open()
        for one in records:
            memory.bury(one, reason)
        memory.close()

    def waiting(self) -> list[str]:
        """Event ids that are on their way again, in their order."""
        memory = self.open()
        if isinstance(memory, Spool):
            found = [one.record.event_id for one in memory.oldest(1000)]
        else:
            found = [one.event_id for one in memory.oldest(1000, (), ())]
        memory.close()
        return found

    def command(self, *arguments: str, **environment: str) -> Told:
        run = subprocess.run(
            [sys.executable, "-m", "linewatch_forwarder.dead_letters", *arguments],
            env=os.environ
            | {
                "FORWARDER_STATE_DIR": str(self.folder), "FORWARDER_STREAMS": self.kind,
                "FORWARDER_STREAM_MAX_BYTES": str(LIMIT.max_bytes),
                # What is wrong with the uplink must not keep a person from what lies aside.
                "FORWARDER_UPLINK_KEY_FILE": "/no/such/file",
            }
            | environment,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "Traceback" not in run.stderr, run.stderr
        return Told(run.returncode, run.stdout, run.stderr)


@pytest.fixture(params=list(FILES))
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    return Device(tmp_path, request.param)


def test_list_tells_the_newest_first_with_their_reasons(device: Device) -> None:
    events = [record(number) for number in range(3)]
    device.bury(*events)

    told = device.command("list")

    assert told.code == 0
    head, *lines = told.out.splitlines()
    assert head == "3 of 3 dead letters, newest first:"
    assert [line.split()[1] for line in lines] == [one.event_id for one in reversed(events)]
    assert all(line.endswith(REASON) and "predictions-line-1" in line for line in lines)
    assert len(device.command("list", "--limit", "2").out.splitlines()) == 3
    (one, *_) = device.command("list", "--json").json["dead_letters"]
    assert one == {
        "number": 3, "event_id": events[2].event_id, "stream": "predictions-line-1", "topic": events[2].topic,
        "class": "routine", "bytes": len(events[2].payload), "reason": REASON,
    }  # fmt: skip


def test_where_nothing_lies_aside_all_is_well(device: Device) -> None:
    device.open().close()

    assert (device.command("list").code, device.command("list").out) == (0, "no dead letters\n")
    assert device.command("--json", "list").json == {"count": 0, "dead_letters": []}
    assert device.command("replay", "--all").code == 0


def test_show_tells_the_whole_event(device: Device) -> None:
    event = record(7, "NG")
    device.bury(event)

    told = device.command("show", "1")

    assert told.code == 0
    assert told.json["event"] == json.loads(event.payload)
    assert (told.json["class"], told.json["reason"]) == ("alarm", REASON)
    missing = device.command("show", "8")
    assert (missing.code, missing.err) == (
        1,
        "there is no dead letter 8; `list` tells those that there are\n",
    )


def test_replay_puts_back_what_was_named_and_leaves_the_others(device: Device) -> None:
    events = [record(number) for number in range(4)]
    device.bury(*events)

    told = device.command("replay", "3", "1", "9", "--json")

    assert told.code == 1
    assert told.json == {
        "replayed": [1, 3],
        "not_replayed": {"9": "there is no dead letter with this number"},
    }
    assert device.waiting() == [events[0].event_id, events[2].event_id]
    assert device.command("list", "--json").json["count"] == 2
    assert device.command("replay", "1").code == 1, "it is gone"


def test_replay_of_all_keeps_the_order_in_which_they_were_buried(device: Device) -> None:
    events = [record(number) for number in range(30)]
    device.bury(*events)

    told = device.command("replay", "--all")

    assert told.code == 0
    assert told.out.count("on its way again") == 30
    assert device.waiting() == [one.event_id for one in events]
    assert device.command("list").out == "no dead letters\n"


def test_replayed_event_keeps_its_bytes_and_its_class(device: Device) -> None:
    event = record(1, "NG")
    device.bury(event)

    assert device.command("replay", "1").code == 0

    memory = device.open()
    if isinstance(memory, Spool):
        (stored,) = memory.oldest(10)
        assert stored.record == event
    else:
        (waiting,) = memory.oldest(10, (), ())
        assert waiting.record == event
    memory.close()


def test_what_is_no_event_is_shown_and_never_sent(device: Device) -> None:
    device.bury(
        Record("made-up", "predictions-line-1", "a/b/c/d/inspection", b"\x1b[2J\xff no event"),
        reason="\x1b[31m?",
    )

    listed = device.command("list")
    assert "\x1b" not in listed.out
    assert "�[31m?" in listed.out
    shown = device.command("show", "1").json
    assert shown["event"] == "\x1b[2J\\xff no event"

    told = device.command("replay", "--all")

    assert told.code == 1
    assert "it is no event and stays" in told.err
    assert device.waiting() == []
    assert device.command("list", "--json").json["count"] == 1


def test_replay_without_room_says_so_and_loses_nothing(tmp_path: Path) -> None:
    device = Device(tmp_path, "embedded")
    spool = Spool(device.path, LIMIT)
    for number in range(3):
        spool.bury(record(number, "NG"), REASON)
    spool.append(as_many_as_fit())
    spool.close()

    told = device.command("replay", "--all", "--json", FORWARDER_WHEN_FULL="reject")

    assert told.code == 3
    replayed, stay = told.json["replayed"], told.json["not_replayed"]
    assert len(replayed) + device.command("list", "--json").json["count"] == 3
    assert [why.startswith("no room: ") for why in stay.values()] == [True]


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["list"], {"FORWARDER_STATE_DIR": "/no/such"}, "FORWARDER_STATE_DIR: /no/such/forwarder.db: there is no such file"),
        (["list"], {"FORWARDER_STREAM_MAX_BYTES": "1"}, "FORWARDER_STREAM_MAX_BYTES: "),
        (["replay"], {}, "usage: "), (["replay", "--all", "3"], {}, "usage: "), ([], {}, "usage: "),
        (["replay", "three"], {}, "usage: "),
    ],
)  # fmt: skip
def test_what_can_not_work_is_named_with_the_remedy(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], told: str
) -> None:
    device = Device(tmp_path, "embedded")
    device.open().close()

    said = device.command(*arguments, **environment)

    assert (said.code, said.err[: len(told)]) == (2, told)


def test_file_that_is_damaged_is_told_and_left_to_the_forwarder(tmp_path: Path) -> None:
    device = Device(tmp_path, "embedded")
    device.path.write_bytes(b"no database" * 1000)

    said = device.command("list")

    assert said.code == 2
    assert said.err.startswith("FORWARDER_STATE_DIR: ")
    assert device.path.read_bytes() == b"no database" * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forwarder.db"]


@pytest.mark.anyio
async def test_what_is_refused_again_is_buried_again_under_a_new_number_and_counted(
    worker: SpoolWorker,
) -> None:
    event = record(1, "NG")
    uplink, stop = FakeUplink(never={event.event_id}), asyncio.Event()
    uplink.gate.set()
    await worker.run(worker.spool.append, [event])
    delivery = Delivery(EmbeddedStreams(worker), uplink, 10_000)
    task = asyncio.create_task(delivery.run(stop), name="delivery")
    device = Device(worker.spool.path.parent, "embedded")
    try:
        for times in (1, 2):
            await until(lambda times=times: state(worker).buried == times, "it is buried", 60)
            (letter,) = device.command("list", "--json").json["dead_letters"]
            assert (letter["number"], letter["event_id"]) == (times, event.event_id)
            assert device.command("replay", "--all").code == 0
        await until(lambda: state(worker).buried == 3, "and once more", 60)
        uplink.never.clear()
        assert device.command("replay", "--all").code == 0
        await until(lambda: state(worker).settled == 1, "it is delivered at last", 60)
        assert uplink.accepted == [event.event_id]
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await task


# --- with the real forwarder, and a cloud whose rule is mended --------------------------------------------------------


@pytest.mark.anyio
async def test_event_that_the_cloud_refuses_is_buried_shown_and_after_the_mending_replayed_once(
    mosquitto: Broker, forwarder: Forwarder, cloud: Cloud
) -> None:
    configuration = cloud.command[-1]
    rules = Path(configuration).read_text()
    Path(configuration).write_text(rules + "message_size_limit 3000\n")
    cloud.kill()
    cloud.start()
    device = Device(forwarder.state_dir, "embedded")
    event_id, payload = inspection(1, "NG")
    event = json.loads(payload)
    event["data"]["part_id"] = "x" * 4000
    large = json.dumps(event).encode()
    others = [inspection(number) for number in range(2, 12)]
    async with (
        listening(mosquitto.endpoint("console"), "linewatch/v1/plant-1/device/forwarder/status") as console,
        listening(mosquitto.endpoint("capture"), STATION.topic("committed")) as capture,
    ):

        def lies_aside(count: int) -> bool:
            status = next((json.loads(told) for _, told in reversed(console.heard)), {})
            return status.get("dead_letters", {}).get("count") == count

        async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
            forwarder.start()
            await until(lambda: len(forwarder.events("mqtt_connected")) >= 3, "all is connected", 60)
            for one in (large, *(payload for _, payload in others)):
                await capture.connection.publish(STATION.topic("inspection"), one)
            await until(lambda: lies_aside(1), "the status shows it", 60)
            status = await told_state(console, "online", 60)
            (newest,) = status["dead_letters"]["newest"]
            assert (newest["event_id"], newest["stream"]) == (event_id, "predictions-line-1")
            assert newest["reason"]
            await until(lambda: {one for one, _ in others} <= set(rule.ids), "the others pass", 60)
        Path(configuration).write_text(rules)
        cloud.kill()
        cloud.start()
        async with listening(cloud.endpoint("rule"), *AT_THE_CLOUD) as rule:
            (letter,) = device.command("list", "--json").json["dead_letters"]
            assert letter["number"] == newest["number"]
            assert device.command("replay", "--all").code == 0
            await until(lambda: event_id in set(rule.ids), "it arrives", 60)
            await until(lambda: lies_aside(0), "nothing lies aside", 60)
            assert rule.ids.count(event_id) == 1, "once"

            def counted() -> tuple[int, int]:
                (one,) = console.last("linewatch/v1/plant-1/device/forwarder/status")["streams"]
                return one["events"], one["buried"]

            await until(lambda: counted() == (0, 1), "the refusal stays counted", 60)
