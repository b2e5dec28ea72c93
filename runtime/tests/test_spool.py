# SPDX-License-Identifier: Apache-2.0
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from linewatch.v1 import event_pb2
from linewatch_runtime import spool as spool_module
from linewatch_runtime.events import new_event_id
from linewatch_runtime.spool import (
    BURIED_KEPT,
    LATEST_FIRST_EPOCH,
    ROW_OVERHEAD,
    SETTLED_KEPT,
    Record,
    Spool,
    SpoolDamaged,
    SpoolFull,
    SpoolWorker,
    StreamLimit,
    WhenFull,
)

SIZE = 1000
"""Counted bytes of the records below."""


def record(event_id: str, *, alarm: bool = False, stream: str = "line-1", size: int = SIZE) -> Record:
    return Record(event_id, stream, "topic", event_id.encode().ljust(size - ROW_OVERHEAD), alarm)


def ids(spool: Spool, *, by_class: bool = True) -> list[str]:
    return [one.record.event_id for one in spool.oldest(1_000_000, by_class=by_class)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


# --- in and out ------------------------------------------------------------------------------------------------------


def test_what_was_appended_comes_back_whole_after_a_reopen(path: Path) -> None:
    one = Record("a", "line-1", "topic/a", b"\x00\xff", alarm=True)
    spool = Spool(path)
    assert spool.append([one]) == 1
    spool.close()

    (stored,) = Spool(path).oldest(10)

    assert stored.record == one


def test_repeat_of_a_stored_event_is_stored_once(path: Path) -> None:
    spool = Spool(path)
    spool.append([record("a")])

    assert spool.append([record("a"), record("b"), record("b")]) == 1

    assert ids(spool) == ["a", "b"]


def test_repeat_of_a_settled_or_buried_event_is_known_after_a_reopen(path: Path) -> None:
    spool = Spool(path)
    spool.append([record("a"), record("b")])
    spool.settle(["a"])
    spool.bury(record("b"), "no good")
    spool.close()

    assert Spool(path).append([record("a"), record("b")]) == 0


def test_settling_twice_counts_once(path: Path) -> None:
    spool = Spool(path)
    spool.append([record("a")])

    assert [spool.settle(["a", "a"]), spool.settle(["a", "never seen"])] == [1, 0]

    assert spool.streams()[0].settled == 1


def test_settled_ids_are_forgotten_in_order_and_only_far_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SETTLED_KEPT", 100)
    spool = Spool(path)
    for number in range(150):
        spool.append([record(str(number))])
        spool.settle([str(number)])

    assert spool.append([record("50"), record("149")]) == 0
    assert spool.append([record("49")]) == 1
    assert SETTLED_KEPT > 200


def test_order_is_alarms_first_then_arrival_and_by_position_alone_on_request(path: Path) -> None:
    spool = Spool(path)
    spool.append([record("g1"), record("a1", alarm=True), record("g2"), record("a2", alarm=True)])

    assert ids(spool) == ["a1", "a2", "g1", "g2"]
    assert ids(spool, by_class=False) == ["g1", "a1", "g2", "a2"]


def test_batch_is_stored_whole_or_not_at_all_with_its_counts(path: Path) -> None:
    spool = Spool(path, StreamLimit(max_bytes=3 * SIZE))
    spool.append([record("a")], {"judged": 1})

    with pytest.raises(SpoolFull):
        spool.append([record("b"), record("c"), record("d")], {"judged": 3})

    assert ids(spool) == ["a"]
    assert spool.counts() == {"judged": 1}
    assert spool.streams()[0].bytes == SIZE


def test_buried_events_are_kept_with_their_reasons_up_to_a_bound(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "BURIED_KEPT", 3)
    spool = Spool(path)
    spool.append([record("0")])
    for number in range(5):
        spool.bury(record(str(number)), f"reason {number}")

    assert [(one.event_id, reason) for _, one, reason in spool.buried()] == [
        ("4", "reason 4"), ("3", "reason 3"), ("2", "reason 2"),
    ]  # fmt: skip
    assert not ids(spool)
    assert spool.streams()[0].buried == 5
    assert BURIED_KEPT >= 1000


def test_epoch_is_new_at_every_start(path: Path) -> None:
    epochs = []
    for _ in range(3):
        spool = Spool(path)
        epochs.append(spool.next_epoch())
        spool.close()

    assert epochs == [epochs[0], epochs[0] + 1, epochs[0] + 2]


def test_epoch_of_a_new_file_is_above_that_of_a_lost_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_runtime.spool.time.time", lambda: 1.8e9)
    lost = Spool(tmp_path / "lost.db")
    before = [lost.next_epoch() for _ in range(30)]
    lost.close()

    monkeypatch.setattr("linewatch_runtime.spool.time.time", lambda: 1.8e9 + 3600)
    fresh = Spool(tmp_path / "fresh.db")

    assert fresh.next_epoch() > max(before)
    fresh.close()


@pytest.mark.parametrize(("clock", "first"), [(-5.0, 1), (0.0, 1), (1e12, LATEST_FIRST_EPOCH + 1)])
def test_epoch_fits_the_event_whatever_the_clock_says(
    path: Path, clock: float, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_runtime.spool.time.time", lambda: clock)
    spool = Spool(path)

    assert [spool.next_epoch(), spool.next_epoch()] == [first, first + 1]
    assert event_pb2.Origin(epoch=first + 1).epoch == first + 1
    spool.close()


def test_epoch_of_an_older_releases_file_goes_on(path: Path) -> None:
    spool = Spool(path)
    spool._db.execute("INSERT INTO numbers VALUES (?, ?)", ("epoch", 41))

    assert spool.next_epoch() == 42
    spool.close()


async def _from_worker(path: Path) -> int:
    worker = SpoolWorker(lambda: Spool(path))
    try:
        return await worker.run(worker.spool.append, [record("a")])
    finally:
        worker.close()


@pytest.mark.anyio
async def test_worker_uses_the_file_in_one_thread_and_tells_its_errors(path: Path, tmp_path: Path) -> None:
    assert await _from_worker(path) == 1
    assert await _from_worker(path) == 0

    with pytest.raises(SpoolDamaged):
        SpoolWorker(lambda: Spool(tmp_path / "no such folder" / "spool.db"))


# --- dead letters ----------------------------------------------------------------------------------------------------


def test_replayed_event_goes_behind_all_others_of_its_class_and_is_no_longer_known(path: Path) -> None:
    spool = Spool(path)
    spool.append([record("g1"), record("a1", alarm=True), record("g2")])
    for one in (record("g1"), record("a1", alarm=True)):
        spool.bury(one, "refused")
    spool.append([record("a2", alarm=True)])
    numbers = [number for number, _, _ in spool.buried()]

    assert spool.replay([*numbers, 999]) == 2
    assert spool.replay(numbers) == 0

    assert ids(spool) == ["a2", "a1", "g2", "g1"]
    assert spool.buried() == []
    (state,) = spool.streams()
    assert (state.events, state.bytes, state.stored, state.buried) == (4, 4 * SIZE, 4, 2)
    assert spool.counts("line-1")["replayed"] == 2
    assert spool.settle(["a1", "g1"]) == 2
    assert spool.append([record("a1", alarm=True)]) == 0, "delivered, so known again"
    spool.close()


def test_replay_into_a_full_stream_changes_nothing(path: Path) -> None:
    spool = Spool(path, StreamLimit(max_bytes=2 * SIZE))
    spool.bury(record("x"), "refused")
    spool.append([record("a"), record("b")])

    with pytest.raises(SpoolFull):
        spool.replay([spool.buried()[0][0]])

    assert len(spool.buried()) == 1
    assert ids(spool) == ["a", "b"]
    assert spool.append([record("x")]) == 0
    spool.close()


def test_dead_letter_that_has_to_go_is_counted_and_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "BURIED_KEPT", 2)
    spool = Spool(path)
    for number in range(3):
        spool.bury(record(str(number)), "refused")
    spool.replay([spool.buried()[0][0]])
    spool.bury(record("3"), "refused")  # again two, though the numbers are three apart

    assert [one.event_id for _, one, _ in spool.buried()] == ["3", "1"]
    assert dict(spool.streams()[0].dropped) == {"dead_letters_full": 1}
    assert spool.counts("line-1")["unreported:dead_letters_full"] == 1
    spool.close()


REPLAYS = """
import sys
from pathlib import Path
from linewatch_runtime.spool import Spool

spool = Spool(Path(sys.argv[1]), heals=False)
for number, _, _ in spool.buried():
    assert spool.replay([number]) == 1
spool.close()
"""


def test_second_process_replays_while_the_service_runs_and_moves_no_clock_back(path: Path) -> None:
    spool = Spool(path)
    spool.append([record("a")])
    for number in range(50):
        spool.bury(record(f"b{number}"), "refused")
    spool._clock_base += 1000.0  # the service has run for long since its last commit
    command = subprocess.Popen([sys.executable, "-c", REPLAYS, path])
    appended = 0
    while command.poll() is None:
        begun = time.monotonic()
        appended += spool.append([record(f"c{appended}")])
        spool.settle([f"c{appended - 1}"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            # The service's pace: without one, or with one shorter than a slow disk's commits, the other process, which
            # looks ten times a second whether the file is free, might find no turn for 10 s.
            command.wait(max(0.005, time.monotonic() - begun))

    assert command.returncode == 0
    assert appended > 0
    assert sorted(ids(spool)) == sorted(["a", *(f"b{number}" for number in range(50))])
    assert not spool.buried()
    spool.close()
    spool = Spool(path)
    assert spool.clock() > 1000.0
    spool.close()


# --- cost ------------------------------------------------------------------------------------------------------------


def _steps(spool: Spool, call: Callable[[], object]) -> int:
    """Hundreds of steps of SQLite's machine: a cost that no busy machine changes."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    spool._db.set_progress_handler(count, 100)
    call()
    spool._db.set_progress_handler(None, 0)
    return steps


def _costs(spool: Spool) -> dict[str, int]:
    new = [record(f"y{one}") for one in range(100)]
    calls: dict[str, Callable[[], object]] = {
        "streams": spool.streams,
        "oldest": lambda: spool.oldest(100),
        "by arrival": lambda: spool.oldest(100, by_class=False),
        "one rests": lambda: spool.oldest(5, except_streams=["line-1"]),
        "expire": spool.expire,
        "append": lambda: spool.append(new),
        "settle": lambda: spool.settle([one.event_id for one in new]),
    }
    return {name: _steps(spool, call) for name, call in calls.items()}


@pytest.mark.parametrize("policy", [WhenFull.SHED_GOOD, WhenFull.OVERWRITE_OLDEST])
def test_cost_of_every_call_is_that_of_its_rows_and_not_of_the_backlog(
    path: Path, policy: WhenFull, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "EXPIRED_AT_ONCE", 200)
    costs = []
    for size in (4_000, 40_000):
        spool = Spool(path.with_name(f"{size}.db"), StreamLimit(size * SIZE, when_full=policy))
        spool.append([record(f"x{one}", stream="line-2", size=ROW_OVERHEAD) for one in range(8)])
        for start in range(0, size, 500):
            numbers = range(start, start + 500)
            spool.append(
                [record(f"{one:06}", alarm=one % 10 == 0, size=ROW_OVERHEAD + 10) for one in numbers]
            )
        spool.append([record("large", size=size * SIZE - spool.streams()[0].bytes)])  # full to the byte

        costs.append(_costs(spool))

        assert sum(spool.streams()[0].dropped.values()) >= 100
        spool.close()
    few, many = costs
    assert all(many[name] <= 1.2 * few[name] + 5 for name in few), costs


# --- full ------------------------------------------------------------------------------------------------------------


def test_reject_holds_to_the_byte(path: Path) -> None:
    spool = Spool(path, StreamLimit(max_bytes=3 * SIZE, when_full=WhenFull.REJECT))
    spool.append([record("a"), record("b"), record("c")])

    with pytest.raises(SpoolFull):
        spool.append([record("d", size=ROW_OVERHEAD, alarm=True)])

    assert ids(spool) == ["a", "b", "c"]
    spool.settle(["a"])
    spool.append([record("d")])
    assert ids(spool) == ["b", "c", "d"]
    assert not spool.streams()[0].dropped


def test_shed_good_drops_just_enough_of_the_oldest_routine_events(path: Path) -> None:
    spool = Spool(path, StreamLimit(max_bytes=4 * SIZE, when_full=WhenFull.SHED_GOOD))
    spool.append([record("a1", alarm=True), record("g1"), record("g2"), record("g3")])

    spool.append([record("new", size=SIZE + 1)])

    assert ids(spool) == ["a1", "g3", "new"]
    assert dict(spool.streams()[0].dropped) == {"shed_good": 2}


def test_shed_good_never_drops_an_alarm(path: Path) -> None:
    spool = Spool(path, StreamLimit(max_bytes=3 * SIZE, when_full=WhenFull.SHED_GOOD))
    spool.append([record("a1", alarm=True), record("g1"), record("a2", alarm=True)])
    spool.append([record("a3", alarm=True)])

    for alarm in (True, False):
        with pytest.raises(SpoolFull, match="alarms"):
            spool.append([record("x", alarm=alarm)])

    assert ids(spool) == ["a1", "a2", "a3"]


def test_overwrite_oldest_drops_in_order_of_arrival_alarms_too(path: Path) -> None:
    spool = Spool(path, StreamLimit(max_bytes=3 * SIZE, when_full=WhenFull.OVERWRITE_OLDEST))
    spool.append([record("g1"), record("a1", alarm=True), record("g2")])

    spool.append([record("g3"), record("g4")])

    assert ids(spool, by_class=False) == ["g2", "g3", "g4"]
    assert dict(spool.streams()[0].dropped) == {"overwritten": 2}


@pytest.mark.parametrize("policy", WhenFull)
def test_event_larger_than_the_stream_is_refused_and_drops_nothing(path: Path, policy: WhenFull) -> None:
    spool = Spool(path, StreamLimit(max_bytes=2 * SIZE, when_full=policy))
    spool.append([record("a")])

    with pytest.raises(SpoolFull):
        spool.append([record("big", size=2 * SIZE + 1)])

    assert ids(spool) == ["a"]


def test_full_stream_takes_no_room_from_another(path: Path) -> None:
    spool = Spool(path, StreamLimit(max_bytes=SIZE))
    spool.append([record("a")])

    spool.append([record("b", stream="line-2")])

    assert [(one.name, one.events) for one in spool.streams()] == [("line-1", 1), ("line-2", 1)]


def test_drop_is_reported_once_and_only_what_is_new(path: Path) -> None:
    spool = Spool(path, StreamLimit(max_bytes=2 * SIZE, when_full=WhenFull.OVERWRITE_OLDEST))
    reports: list[tuple[str, str, int]] = []

    def report(stream: str, reason: str, count: int) -> Record:
        reports.append((stream, reason, count))
        return record(f"report {len(reports)}", stream="events-device")

    spool.append([record(str(number)) for number in range(5)])
    assert spool.take_unreported_drops(report) == 1
    assert spool.take_unreported_drops(report) == 0
    spool.close()
    spool = Spool(path, StreamLimit(max_bytes=2 * SIZE, when_full=WhenFull.OVERWRITE_OLDEST))
    assert spool.take_unreported_drops(report) == 0
    spool.append([record("5")])
    assert spool.take_unreported_drops(report) == 1

    assert reports == [("line-1", "overwritten", 3), ("line-1", "overwritten", 1)]
    assert "report 1" in ids(spool)
    assert dict(spool.streams()[1].dropped) == {"overwritten": 4}


@pytest.mark.parametrize("alarm_every", [1, 2, 8, 20])
def test_full_file_can_always_settle_in_order_of_delivery_and_append_again(
    path: Path, alarm_every: int
) -> None:
    spool = Spool(path, StreamLimit(100 * 1024 * 1024), file_max_bytes=1024 * 1024)
    appended = 0
    with pytest.raises(SpoolFull, match="cap"):
        while True:
            batch = [record(new_event_id(), alarm=number % alarm_every == 0) for number in range(20)]
            appended += spool.append(batch)
    assert path.stat().st_size <= 1024 * 1024

    settled = 0
    while batch := spool.oldest(50):
        settled += spool.settle([one.record.event_id for one in batch])

    assert settled == appended
    assert spool.append([record(new_event_id())]) == 1
    assert path.stat().st_size <= 1024 * 1024


def test_cap_holds_when_a_full_file_is_refilled_many_times(path: Path) -> None:
    dice = random.Random(3)
    spool = Spool(path, StreamLimit(100 * 1024 * 1024), file_max_bytes=1024 * 1024)
    for _ in range(10):
        with pytest.raises(SpoolFull):
            while True:
                spool.append([record(new_event_id(), alarm=dice.random() < 0.3) for _ in range(20)])

        spool.settle([one.record.event_id for one in spool.oldest(100)])

    assert path.stat().st_size <= 1024 * 1024


# --- counted bytes and age -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [600, 1000, 1500])
def test_file_stays_near_its_count(path: Path, payload: int) -> None:
    spool = Spool(path, StreamLimit(100 * 1024 * 1024))
    dice = random.Random(1)
    for _ in range(60):
        spool.append(
            [
                Record(
                    new_event_id(), "predictions-line-1", "linewatch/v1/plant-1/line-1/station-1/inspection",
                    bytes(dice.randrange(int(payload * 0.8), int(payload * 1.2))), dice.random() < 0.1,
                )
                for _ in range(50)
            ]
        )  # fmt: skip
    counted = spool.streams()[0].bytes
    spool.close()

    size = path.stat().st_size

    assert 0.75 < size / counted < 1.25


def test_event_expires_by_the_spool_clock_and_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    spool = Spool(path, StreamLimit(max_age_s=60))
    spool.append([record("old", alarm=True)])
    now[0] += 40
    spool.append([record("young")])
    assert spool.expire() == 0
    spool.close()
    now[0] = 5.0  # a new boot: monotonic starts again, the spool clock goes on

    spool = Spool(path, StreamLimit(max_age_s=60))
    now[0] += 21

    assert [round(one.age_s) for one in spool.oldest(2)] == [61, 21]
    assert spool.expire() == 1
    assert ids(spool) == ["young"]
    assert dict(spool.streams()[0].dropped) == {"expired": 1}


@pytest.mark.parametrize("jump_s", [-400 * 86400, 400 * 86400])
def test_wall_clock_that_jumps_expires_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    spool = Spool(path)
    spool.append([record("a")])
    wall = time.time() + jump_s
    monkeypatch.setattr(time, "time", lambda: wall)

    assert spool.expire() == 0
    spool.close()
    assert Spool(path).expire() == 0


# --- kills ------------------------------------------------------------------------------------------------


def test_every_acknowledged_row_and_its_count_survives_kill_9(path: Path) -> None:
    dice = random.Random(7)
    acknowledged: list[str] = []
    epoch = 0
    for _ in range(20):
        child = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("spool_child.py"), path], stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        last, epoch = epoch, int(child.stdout.readline().removeprefix("epoch "))
        assert epoch == last + 1 or not last
        for _ in range(dice.randrange(1, 12)):
            acknowledged += child.stdout.readline().split()[1:]
        time.sleep(dice.uniform(0, 0.005))  # where the kill falls, not a wait for something

        child.kill()

        rest = child.stdout.read().splitlines(keepends=True)
        acknowledged += [one for line in rest if line.endswith("\n") for one in line.split()[1:]]
        child.wait()
        child.stdout.close()

    spool = Spool(path)
    stored = ids(spool)
    assert len(acknowledged) > 100
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored)) == spool.counts()["judged"] == spool.streams()[0].stored
