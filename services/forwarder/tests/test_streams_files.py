# SPDX-License-Identifier: Apache-2.0
"""The files under both kinds of streams: written through, bounded for replays too, and told when they can't be read."""

import sqlite3
from pathlib import Path

import pytest
from faults.volumes import Ballast, volume

from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.streams.ledger import Ledger, Placed, open_ledger
from linewatch_forwarder.streams.port import StreamsUnavailable
from linewatch_runtime.records import Record, SpoolFull, SpoolTrouble, StreamLimit, VolumeFull
from linewatch_runtime.spool import Spool, SpoolWorker

FULL = 2


@pytest.mark.parametrize("kind", [Ledger, Spool])
def test_open_file_is_written_through_at_every_commit(
    tmp_path: Path, kind: type[Ledger] | type[Spool]
) -> None:
    file = kind(tmp_path / "file.db", StreamLimit())

    assert file._db.execute("PRAGMA synchronous").fetchone() == (FULL,)
    assert file._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    file.close()


def test_replay_into_a_full_ledger_is_refused_and_loses_no_dead_letter(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", StreamLimit(), 1024 * 1024)
    while not ledger.is_full:
        ledger.bury(Record(f"e{len(ledger.dead_letters(1000))}", "line-1", "t", bytes(50_000), True), "no")
    numbers = [one.number for one in ledger.dead_letters(1000)]

    with pytest.raises(SpoolFull):
        ledger.replay(numbers)

    assert [one.number for one in ledger.dead_letters(1000)] == numbers
    ledger.close()


@pytest.mark.anyio
async def test_spool_that_cannot_be_read_is_trouble_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = SpoolWorker(lambda: Spool(tmp_path / "spool.db"))
    streams = EmbeddedStreams(worker)

    def unreadable() -> list[object]:
        raise SpoolTrouble("", "disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(streams._spool, "streams", unreadable)
        with pytest.raises(StreamsUnavailable):
            await streams.streams()
        await streams.next(1)  # another answer says nothing of this one
        assert streams.trouble == "disk I/O error"  # no heartbeat: __main__'s `ready` asks for it

    await streams.streams()
    assert streams.trouble == ""
    streams.close()


def test_flipped_bit_of_the_ledgers_clock_expires_nothing_at_this_start_or_a_later_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, StreamLimit())
    epoch = ledger.next_epoch()
    ledger.place([Placed("e1", "line-1", True, "messages", 0, 500)])
    ledger.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE numbers SET value = (value | ?1) - (value & ?1) WHERE name = 'clock_ms'", (1 << 35,))
    db.commit()
    db.close()
    for start in range(1, 4):
        ledger = Ledger(path, StreamLimit())
        ledger._clock_base += 1.7  # it runs for a while
        assert ledger.expire() == 0
        assert ledger.next_epoch() == epoch + start
        ledger.close()


def test_ledger_on_a_full_volume_is_not_put_aside(tmp_path: Path) -> None:
    with volume("tmpfs", tmp_path / "disk", 1) as disk:
        path = disk.folder / "ledger.db"
        ledger = open_ledger(path, StreamLimit(), 1024 * 1024)
        ledger.bury(Record("e1", "line-1", "t", b"{}", True), "no")
        ledger.close()
        ballast = Ballast(disk)
        ballast.fill()

        with pytest.raises(VolumeFull, match="the volume is full"):
            open_ledger(path, StreamLimit(), 1024 * 1024)

        ballast.take_away()
        ledger = open_ledger(path, StreamLimit(), 1024 * 1024)
        assert [one.record.event_id for one in ledger.dead_letters(10)] == ["e1"]
        ledger.close()
