# SPDX-License-Identifier: Apache-2.0
"""Damage on the disk: what is found, what comes out of it, and that nothing is deleted.

The control of the flips is `test_without_a_crc_a_flipped_payload_would_travel`.
"""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from full_disk import in_memory

from linewatch_runtime import spool as spool_module
from linewatch_runtime import spool_rebuild, spool_salvage
from linewatch_runtime.events import new_event_id
from linewatch_runtime.spool import Record, Spool, SpoolDamaged, SpoolTrouble, SpoolWorker, StreamLimit
from linewatch_runtime.spool_file import CHECKED_WHOLE_BYTES
from linewatch_runtime.spool_wal import PAGE_BYTES, log_of, read_log
from linewatch_runtime.spool_worker import HEAL_AGAIN_S, HEALED_BYTES_PER_S

LIMIT = StreamLimit(1 << 30)


def record(number: int, size: int = 600) -> Record:
    line = f"predictions-line-{number % 3}"
    payload = random.Random(number).randbytes(size)
    return Record(new_event_id(), line, f"linewatch/v1/plant-1/{line}/inspection", payload, number % 10 == 0)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: hundreds of files are built here, and no disk is asked for its word."""
    with tempfile.TemporaryDirectory(dir=in_memory() or tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "forwarder.db"


def run(worker: SpoolWorker, function: Callable, *arguments: object) -> object:
    """As SpoolWorker.run, without an event loop."""
    return worker._thread.submit(worker._guarded, function, *arguments).result()


@dataclass
class Came:
    """What came out of a file: events by id, how many were counted as damaged, whether a loss of unknown size was told."""

    events: dict[str, Record]
    damaged: int
    unknown: int
    salvaged: int


def drain(path: Path, *, by_class: bool = True) -> Came:
    """Opens the file as a service does, and delivers all that is in it."""
    worker = SpoolWorker(lambda: Spool(path, LIMIT))
    events: dict[str, Record] = {}
    try:
        while batch := run(worker, lambda: worker.spool.oldest(200, by_class=by_class)):
            ids = [one.record.event_id for one in batch]
            assert run(worker, worker.spool.settle, ids) == len(ids), (
                "a row that can't be settled comes for ever"
            )
            for one in batch:
                assert one.record.event_id not in events, "delivered twice"
                events[one.record.event_id] = one.record
        damaged = sum(one.dropped.get("damaged", 0) for one in run(worker, worker.spool.streams))
        assert not any(one.events or one.bytes for one in run(worker, worker.spool.streams))
        counts = run(worker, worker.spool.counts)
        unknown = run(worker, worker.spool.counts, spool_rebuild.UNKNOWN)
        return Came(events, damaged, unknown.get("dropped:damaged_unknown", 0), counts.get("salvages", 0))
    finally:
        worker.close()


def filled(path: Path, count: int = 600, *, settled: int = 150) -> dict[str, Record]:
    """A file with live rows, free pages, settled ids and buried rows, closed. Returns the live ones."""
    spool = Spool(path, LIMIT)
    spool.next_epoch()
    records = [record(number) for number in range(count)]
    records[7] = record(7, 30_000)  # a row with an overflow chain
    for start in range(0, count, 50):
        spool.append(records[start : start + 50], {"judged": 50})
    gone = [one.record.event_id for one in spool.oldest(settled, by_class=False)]
    spool.settle([one for one in gone if one != records[7].event_id])
    spool.bury(record(count + 1), "no good")
    spool.close()
    return {one.event_id: one for one in records if one.event_id not in gone or one is records[7]}


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def killed(path: Path, count: int) -> dict[str, Record]:
    """A file whose writer was killed: its log holds what is committed. Returns what was committed."""
    live = filled(path)
    spool = Spool(path, LIMIT)
    spool._db.execute("PRAGMA wal_autocheckpoint = 0")
    for start in range(0, count, 50):
        batch = [record(10_000 + start + number) for number in range(50)]
        spool.append(batch)
        live |= {one.event_id: one for one in batch}
    _copy(path, path.with_name("killed.db"))
    spool.close()
    for name in (path, log_of(path)):
        name.unlink(missing_ok=True)
    _copy(path.with_name("killed.db"), path)
    return live


def _copy(source: Path, to: Path) -> None:
    for side in ("", "-wal"):
        file = source.with_name(source.name + side)
        if file.exists():
            shutil.copyfile(file, to.with_name(to.name + side))


# --- flips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bit_of_the_file_costs_at_most_the_page_it_hit_and_is_never_delivered(
    tmp_path: Path, seed: int
) -> None:
    whole = tmp_path / "whole.db"
    live = filled(whole)
    assert drain_copy(whole, tmp_path / "c") == Came(live, 0, 0, 0)  # a sound file is left as it is
    dice = random.Random(seed)
    lost = []
    for number in range(30):
        path = tmp_path / f"{number}" / "forwarder.db"
        path.parent.mkdir()
        _copy(whole, path)
        flip(path, dice.randrange(whole.stat().st_size), dice.randrange(8))
        lost.append(_judge(drain(path), live))
    assert sum(lost) <= 30  # one in the mean would be much


@pytest.mark.parametrize("checked_bytes", [0, CHECKED_WHOLE_BYTES], ids=["large file", "small file"])
def test_destroyed_sector_costs_at_most_the_rows_of_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked_bytes: int
) -> None:
    """A large file is not checked whole at the start: what is wrong shows when it is used."""
    monkeypatch.setattr("linewatch_runtime.spool_file.CHECKED_WHOLE_BYTES", checked_bytes)
    whole = tmp_path / "whole.db"
    live = filled(whole)
    for seed in (5, 11, 27, 68, *range(200, 230)):  # the first ones left values of other types behind
        dice = random.Random(seed)
        path = tmp_path / f"{seed}" / "forwarder.db"
        path.parent.mkdir()
        _copy(whole, path)
        with path.open("r+b") as file:
            file.seek(dice.randrange(whole.stat().st_size // 512) * 512)
            file.write(dice.randbytes(512) if dice.random() < 0.5 else bytes(512))
        assert _judge(drain(path), live) <= 6, seed


@pytest.mark.parametrize("offset", [*range(0, 100, 3), 100, 101, 103, 104, 105, 107, 108, 109, 111])
def test_flipped_bit_of_the_header_costs_nothing(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "forwarder.db"
    live = filled(path)

    flip(path, offset, random.Random(offset).randrange(8))

    assert _judge(drain(path), live) == 0


@pytest.mark.parametrize("seed", range(30))
def test_flipped_bit_of_the_log_costs_at_most_the_page_it_hit(path: Path, seed: int) -> None:
    live = killed(path, 300)
    size = log_of(path).stat().st_size
    assert size > 300 * 600

    flip(log_of(path), random.Random(seed).randrange(size), seed % 8)

    assert _judge(drain(path), live) <= 6


@pytest.mark.parametrize("byte", [0, 3, 4, 7, 8, 15, 16, 23, 24, 2524, 24 + PAGE_BYTES - 1])
def test_flipped_bit_of_the_logs_last_frame_costs_at_most_its_page(path: Path, byte: int) -> None:
    """It alone says how large the file has become."""
    live = killed(path, 300)
    last = log_of(path).stat().st_size - 24 - PAGE_BYTES
    assert (last - 32) % (24 + PAGE_BYTES) == 0

    flip(log_of(path), last + byte, 1)

    assert _judge(drain(path), live) <= 6


def test_sqlite_alone_would_leave_out_every_commit_behind_a_flipped_bit_of_the_log(path: Path) -> None:
    """The control of the one above."""
    live = killed(path, 300)
    flip(log_of(path), 32 + 24 + 300, 2)

    db = sqlite3.connect(path)
    there = db.execute("SELECT count(*) FROM events").fetchone()[0]
    db.close()

    assert there == len(live) - 300


def test_log_that_a_power_cut_tore_is_no_damage(path: Path, tmp_path: Path) -> None:
    """Any page of the last commit that did not reach the disk: nobody was told of that commit."""
    live = list(killed(path, 150).items())
    log = log_of(path).read_bytes()
    ends = [number for number, frame in enumerate(read_log(path).frames, 1) if frame.size]
    last = [32 + (24 + PAGE_BYTES) * end for end in ends[-2:]]
    places = [at for at in range(0, len(log), PAGE_BYTES) if last[0] <= at < last[1]]
    assert len(places) > 20
    for at in places:
        torn = tmp_path / f"{at}" / "forwarder.db"
        torn.parent.mkdir()
        shutil.copyfile(path, torn)
        log_of(torn).write_bytes(log[:at] + bytes(min(PAGE_BYTES, len(log) - at)) + log[at + PAGE_BYTES :])
        assert drain(torn) == Came(dict(live[:-50]), 0, 0, 0), at


@pytest.mark.parametrize("offset", range(32))
def test_flipped_bit_of_the_logs_header_costs_nothing(path: Path, offset: int) -> None:
    live = killed(path, 50)

    flip(log_of(path), offset, offset % 8)

    assert _judge(drain(path), live) == 0


@pytest.mark.parametrize("kind", [2, 5, 10, 13])
def test_page_of_zeros_costs_at_most_the_rows_on_it(tmp_path: Path, kind: int) -> None:
    """Kinds: inner page of an index, of a table; leaf of an index, of a table."""
    whole = tmp_path / "whole.db"
    live = filled(whole, 1500)
    data = whole.read_bytes()
    pages = [number for number in range(1, len(data) // PAGE_BYTES) if data[number * PAGE_BYTES] == kind]
    assert pages
    for page in random.Random(kind).sample(pages, min(12, len(pages))):
        path = tmp_path / f"{page}" / "forwarder.db"
        path.parent.mkdir()
        _copy(whole, path)
        with path.open("r+b") as file:
            file.seek(page * PAGE_BYTES)
            file.write(bytes(PAGE_BYTES))
        lost = _judge(drain(path), live)
        assert lost <= (6 if kind == 13 else 0), page


def test_without_a_crc_a_flipped_payload_would_travel(path: Path) -> None:
    live = filled(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE events SET crc = NULL")  # as an older release writes
    db.commit()
    db.close()
    victim = list(live.values())[100]
    at = path.read_bytes().index(victim.payload)

    flip(path, at + 300, 3)

    came = drain(path)
    assert came.damaged == 0
    assert came.events[victim.event_id].payload != victim.payload


def test_flipped_payload_is_buried_counted_and_told_and_the_others_go_on(path: Path) -> None:
    live = filled(path)
    victim = list(live.values())[100]
    flip(path, path.read_bytes().index(victim.payload) + 300, 3)

    came = drain(path)

    assert set(live) - set(came.events) == {victim.event_id}
    assert (came.damaged, came.salvaged) == (1, 0)
    spool = Spool(path)
    number, buried, reason = spool.buried()[0]
    assert (buried.event_id, reason) == (victim.event_id, spool_rebuild.DAMAGED)
    assert spool.replay([number]) == 0, "bytes that are not those that were stored never travel"
    told: list[tuple[str, str, int]] = []

    def report(stream: str, reason: str, count: int) -> Record:
        told.append((stream, reason, count))
        return record(1)

    assert spool.take_unreported_drops(report) == 1
    assert told == [(victim.stream, "damaged", 1)]
    assert spool.append([victim]) == 1, "whoever still has it may send it again"
    spool.close()


def drain_copy(path: Path, folder: Path) -> Came:
    folder.mkdir()
    _copy(path, folder / path.name)
    return drain(folder / path.name)


def _judge(came: Came, live: dict[str, Record]) -> int:
    """How many were lost; everything else is asserted."""
    for event_id, one in came.events.items():
        # Settled events may come again out of a damaged file, whole; the next hop drops them by their id.
        if event_id in live:
            assert one == live[event_id]
    lost = len(live.keys() - came.events.keys())
    assert came.damaged >= lost or came.unknown, "a loss that nobody is told of"
    assert came.damaged <= lost + 1
    return lost


# --- whole files -----------------------------------------------------------------------------------------------------


def test_file_that_is_no_spool_is_kept_beside_a_new_one(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)

    spool = Spool(path)

    assert spool.append([record(1)]) == 1
    assert path.with_name("forwarder.db.damaged-1").read_bytes() == b"this is no database" * 1000
    assert [(one.name, dict(one.dropped)) for one in spool.streams()][-1] == (
        "unknown",
        {"damaged_unknown": 1},
    )
    assert spool.counts("unknown")["unreported:damaged_unknown"] == 1
    spool.close()


def test_half_a_file_gives_back_the_half(path: Path) -> None:
    live = filled(path, 1000, settled=0)
    os.truncate(path, path.stat().st_size // 2)

    came = drain(path)

    assert len(came.events) > len(live) * 0.35
    assert came.events.items() <= live.items()
    assert len(came.events) + came.damaged == len(live)


def test_epoch_counts_and_marks_outlive_the_damage(path: Path) -> None:
    spool = Spool(path, LIMIT)
    spool._clock_base += 1000.0  # it has run for long
    spool.append([record(number) for number in range(300)], {"judged": 300}, [("folder", "a.png")])
    epoch = [spool.next_epoch() for _ in range(3)][-1]
    spool.close()
    with path.open("r+b") as file:
        file.seek(40 * PAGE_BYTES)
        file.write(b"\xff" * 4 * PAGE_BYTES)

    spool = Spool(path, LIMIT)

    assert spool.next_epoch() == epoch + 1
    assert spool.counts()["judged"] == 300
    assert spool.marks("folder") == {"a.png"}
    assert spool.clock() > 1000.0
    lost = sum(one.dropped["damaged"] for one in spool.streams() if one.dropped)
    assert 0 < lost < 40
    assert sum(one.events for one in spool.streams()) == 300 - lost
    spool.close()


def test_epoch_and_clock_survive_any_flipped_bit_of_their_own(path: Path) -> None:
    spool = Spool(path, LIMIT)
    spool.append([record(number) for number in range(10)])
    epoch = spool.next_epoch()
    spool.close()
    for bit in range(40):
        for name in ("epoch", "clock_ms"):
            copy = path.with_name("copy.db")
            _copy(path, copy)
            db = sqlite3.connect(copy)
            db.execute(
                "UPDATE numbers SET value = (value | ?1) - (value & ?1) WHERE name = ?2", (1 << bit, name)
            )
            db.commit()
            db.close()
            spool = Spool(copy, LIMIT)
            assert spool.expire() == 0
            assert epoch < spool.next_epoch() < 1 << 32
            spool.close()


@pytest.mark.parametrize("name", ["clock_ms", "clock_ms_again"])
def test_flipped_bit_of_the_clock_is_gone_after_the_next_commit_and_expires_nothing_at_later_starts(
    path: Path, name: str
) -> None:
    spool = Spool(path, LIMIT)
    spool.append([record(number) for number in range(10)])
    spool.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE numbers SET value = (value | ?1) - (value & ?1) WHERE name = ?2", (1 << 35, name))
    db.commit()
    db.close()
    for start in range(1, 4):
        spool = Spool(path, LIMIT)
        spool._clock_base += 1.7  # it runs for a while, so that the two would drift apart
        assert spool.expire() == 0
        assert spool.append([record(100 + start)]) == 1
        assert spool.clock() < 60
        spool.close()
    kept = sqlite3.connect(path).execute("SELECT value FROM numbers WHERE name LIKE 'clock_ms%'").fetchall()
    assert len(kept) == 2
    assert len(set(kept)) == 1


def test_older_releases_rows_without_a_crc_are_salvaged_too(path: Path) -> None:
    live = filled(path, settled=0)
    db = sqlite3.connect(path)
    db.execute("UPDATE events SET crc = NULL WHERE position % 2")
    db.commit()
    db.close()
    flip(path, 16, 3)  # the header's page size

    came = drain(path)

    assert (came.events, came.salvaged) == (live, 1)


# --- while it runs ---------------------------------------------------------------------------------------------------


def test_service_goes_on_when_its_file_is_damaged_while_it_runs(path: Path) -> None:
    live = filled(path, 4000, settled=0)
    worker = SpoolWorker(lambda: Spool(path, LIMIT))
    run(worker, lambda: worker.spool._db.execute("PRAGMA cache_size = 1"))
    with path.open("r+b") as file:
        file.seek(200 * PAGE_BYTES)
        file.write(b"\xff" * 40 * PAGE_BYTES)

    fresh = record(50_000)
    came: dict[str, Record] = {}
    while batch := run(worker, worker.spool.oldest, 200):
        run(worker, worker.spool.settle, [one.record.event_id for one in batch])
        came |= {one.record.event_id: one.record for one in batch}
    assert run(worker, worker.spool.append, [fresh]) == 1

    lost = sum(one.dropped.get("damaged", 0) for one in run(worker, worker.spool.streams))
    assert 0 < lost < 240
    assert came.items() <= live.items()
    assert len(came) + lost == len(live)
    assert path.with_name("forwarder.db.damaged-1").exists()
    worker.close()


def test_disk_that_fails_is_no_damage(path: Path) -> None:
    live = filled(path)
    worker = SpoolWorker(lambda: Spool(path, LIMIT))
    failed = sqlite3.OperationalError("disk I/O error")
    failed.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ

    def fail() -> None:
        raise failed

    with pytest.raises(SpoolTrouble, match="disk I/O error"):
        run(worker, fail)

    assert len(run(worker, worker.spool.oldest, 10_000)) == len(live)
    assert not list(path.parent.glob("*.damaged-*"))
    worker.close()


@pytest.mark.parametrize("where", ["events_by_class", "events_by_stream", "sqlite_autoindex_events_1"])
def test_row_that_an_index_leaves_out_is_found(
    path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file too large to be checked whole at the start."""
    live = filled(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA writable_schema = 1")
    root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (where,)).fetchone()[0]
    db.close()
    data = path.read_bytes()
    leaf = int.from_bytes(data[(root - 1) * PAGE_BYTES + 8 :][:4], "big")
    with path.open("r+b") as file:  # one entry less on its last leaf
        file.seek((leaf - 1) * PAGE_BYTES + 3)
        count = int.from_bytes(file.read(2), "big")
        file.seek((leaf - 1) * PAGE_BYTES + 3)
        file.write((count - 1).to_bytes(2, "big"))
    monkeypatch.setattr("linewatch_runtime.spool_file.CHECKED_WHOLE_BYTES", 0)
    assert CHECKED_WHOLE_BYTES

    came = drain(path, by_class=where != "events_by_stream")

    assert (came.events, came.damaged) == (live, 0)


# --- kills, and no room ----------------------------------------------------------------------------------------------


def test_kill_in_the_middle_of_the_salvage_is_finished_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename and every sync is a place to die."""
    whole = tmp_path / "whole.db"
    live = killed(whole, 100)
    flip(log_of(whole), 32 + 24 + 5000, 1)
    for last in range(1, 30):
        path = tmp_path / f"{last}" / "forwarder.db"
        path.parent.mkdir()
        _copy(whole, path)
        child = subprocess.run([sys.executable, "-c", DIES, str(path), str(last)], check=False, timeout=60)
        assert _judge(drain(path), live) <= 6
        assert len(list(path.parent.glob("*.damaged-1"))) == 1
        if child.returncode == 0:
            break
    assert last > 6


DIES = """
import os, sys
from pathlib import Path
from linewatch_runtime import spool_rebuild, spool_salvage
from linewatch_runtime.spool import Spool

left = int(sys.argv[2])

def dying(function):
    def call(*arguments, **names):
        global left
        left -= 1
        if not left:
            os._exit(9)
        return function(*arguments, **names)
    return call

Path.rename = dying(Path.rename)
os.fsync = dying(os.fsync)
spool_salvage._discard = dying(spool_salvage._discard)
spool_rebuild._Filling._close_the_books = dying(spool_rebuild._Filling._close_the_books)
Spool(Path(sys.argv[1])).close()
"""


def test_full_disk_leaves_everything_as_it_is_and_the_next_start_salvages(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = filled(path, settled=0)
    flip(path, 16, 3)
    before = path.read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(spool_salvage, "_sync", no_room)
        with pytest.raises(SpoolDamaged, match="Nothing was changed; make room"):
            Spool(path)

    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert drain(path).events == live


def no_room(_: Path) -> None:
    raise OSError(28, "No space left on device")


def test_damaged_files_are_kept_up_to_a_bound_and_never_deleted(path: Path) -> None:
    for number in range(spool_salvage.QUARANTINE_KEPT):
        path.write_bytes(b"%d is no database" % number * 500)
        Spool(path).close()
    path.write_bytes(b"one too many" * 500)

    with pytest.raises(SpoolDamaged, match="quarantine_full"):
        Spool(path)

    kept = sorted(path.parent.glob("*.damaged-?"))
    assert [one.read_bytes()[:1] for one in kept] == [b"0", b"1", b"2", b"3", b"4"]
    assert path.read_bytes() == b"one too many" * 500


def test_command_beside_a_running_service_salvages_nothing(path: Path) -> None:
    filled(path)
    flip(path, 16, 3)
    before = path.read_bytes()

    with pytest.raises(SpoolDamaged, match="service"):
        Spool(path, heals=False)

    assert path.read_bytes() == before


# --- a disk that fails is no damage ----------------------------------------------------------------------------------


def failing(times: int, function: Callable) -> Callable:
    """What SQLite 3.40 tells when a read answers EIO: the same as for damage."""

    def call(*arguments: object) -> object:
        nonlocal times
        if times:
            times -= 1
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        return function(*arguments)

    return call


def test_read_that_fails_once_leaves_a_sound_file_where_it_is(path: Path) -> None:
    live = filled(path, settled=0)
    worker = SpoolWorker(lambda: Spool(path, LIMIT))

    for _ in range(spool_salvage.QUARANTINE_KEPT + 1):
        assert len(run(worker, failing(1, worker.spool.oldest), 10_000)) == len(live)

    assert run(worker, worker.spool.counts).get("salvages", 0) == 0
    worker.close()
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_read_that_fails_once_at_the_start_leaves_a_sound_file_where_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = filled(path, settled=0)
    monkeypatch.setattr(spool_module, "open_file", failing_once(spool_module.open_file))

    assert drain(path).events == live
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def failing_once(function: Callable) -> Callable:
    call = failing(1, lambda: None)

    def opened(*arguments: object, **options: object) -> object:
        call()
        return function(*arguments, **options)

    return opened


def test_damage_that_no_look_finds_is_salvaged_when_it_comes_again(path: Path) -> None:
    live = filled(path, settled=0)
    worker = SpoolWorker(lambda: Spool(path, LIMIT))
    broken = failing(2, worker.spool.oldest)

    with pytest.raises(SpoolTrouble):
        run(worker, broken, 10_000)
    came = run(worker, broken, 10_000)

    assert {one.record.event_id for one in came} == live.keys()
    assert run(worker, worker.spool.counts)["salvages"] == 1
    worker.close()


def test_heal_that_failed_is_tried_again_within_seconds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = filled(path, settled=0)
    worker = SpoolWorker(lambda: Spool(path, LIMIT))
    before = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "_open", unreadable)
        with pytest.raises(SpoolTrouble, match="not now"):
            run(worker, failing(1, worker.spool.oldest), 1)
    after = time.monotonic()
    assert worker._next_heal <= after + max(HEAL_AGAIN_S, 10 * (after - before)), (
        "a second, where it took none"
    )
    deadline = worker._next_heal + 60

    came = None
    while came is None:
        assert time.monotonic() < deadline
        with contextlib.suppress(SpoolTrouble):
            came = run(worker, worker.spool.oldest, 10_000)

    assert {one.record.event_id for one in came} == live.keys()
    worker.close()


def test_small_files_look_that_a_busy_machine_made_long_is_made_again_in_a_second(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path, settled=0)
    worker = SpoolWorker(lambda: Spool(path, LIMIT))

    def slowly(*_: object, **__: object) -> None:
        time.sleep(0.5)
        unreadable()

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "_open", slowly)
        with pytest.raises(SpoolTrouble, match="not now"):
            run(worker, failing(1, worker.spool.oldest), 1)
    assert path.stat().st_size < HEALED_BYTES_PER_S, "the file is small"
    assert worker._next_heal <= time.monotonic() + HEAL_AGAIN_S

    worker._next_heal = 0.0
    run(worker, worker.spool.oldest, 1)
    worker.close()


def unreadable(*_: object, **__: object) -> None:
    raise SpoolDamaged("not now")
