# SPDX-License-Identifier: Apache-2.0
"""What is told, kept and held back while the streams move to another kind."""

import asyncio
from pathlib import Path

import pytest
from stream_kinds import record

from linewatch_forwarder.streams import moving as module
from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.streams.moving import Moving, hold, move
from linewatch_forwarder.streams.port import StreamsUnavailable
from linewatch_runtime.records import Record, StreamLimit, WhenFull
from linewatch_runtime.spool import Spool, SpoolWorker

pytestmark = pytest.mark.anyio


def opened(path: Path, limit: StreamLimit | None = None) -> EmbeddedStreams:
    return EmbeddedStreams(SpoolWorker(lambda: Spool(path, limit)))


def drops(stream: str, reason: str, count: int) -> Record:
    return Record(f"dropped-{stream}", "events-device", "t", f"{reason}:{count}".encode(), alarm=True)


async def test_losses_that_were_not_told_are_told_after_the_move(tmp_path: Path) -> None:
    old = opened(tmp_path / "old.db", StreamLimit(64 * 1024, when_full=WhenFull.SHED_GOOD))
    new = opened(tmp_path / "new.db")
    for n in range(200):
        await old.append([Record(f"e{n}", "predictions-line-1", "t", b"x" * 1000, alarm=False)])
    (before,) = await old.streams()

    await move(old, new, drops, Moving())

    told = [one.record for one in await new.next(500) if one.record.stream == "events-device"]
    assert [one.payload for one in told] == [f"shed_good:{before.dropped['shed_good']}".encode()]
    old.close()
    new.close()


async def test_a_move_that_dies_before_the_file_is_put_aside_doubles_no_dead_letter(
    tmp_path: Path,
) -> None:
    old, new = opened(tmp_path / "old.db"), opened(tmp_path / "new.db")
    await old.bury(record(1), "older")
    await old.bury(record(2), "younger")

    await move(old, new, drops, Moving())
    await move(old, new, drops, Moving())

    assert [one.reason for one in await new.dead_letters(9)] == ["younger", "older"]
    old.close()
    new.close()


class Away(EmbeddedStreams):
    """Holds events and can't be read."""

    is_away = True

    async def next(self, *arguments: object, **keywords: object) -> list:  # type: ignore[type-arg, override]
        if self.is_away:
            raise StreamsUnavailable("it is away")
        return await super().next(*arguments, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize("comes_back", [True, False])
async def test_intake_waits_for_the_move_and_a_broken_order_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, comes_back: bool
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "HOLD_S", 60.0 if comes_back else 0.05)
    old, new = Away(SpoolWorker(lambda: Spool(tmp_path / "old.db"))), opened(tmp_path / "new.db")
    await old.append([record(n) for n in range(70)])
    moving = Moving("stream_manager")

    async def moves() -> None:
        await move(old, new, drops, moving)
        moving.kind = ""

    moved = asyncio.create_task(moves(), name="moving")
    held = asyncio.create_task(hold(moved, moving), name="hold")
    async with asyncio.timeout(30):
        while not moving.reason:
            await asyncio.wait([held], timeout=0.01)
        told = {**moving.told(), "order_broken": False}
        assert told == {
            "from": "stream_manager", "events": 70, "reason": "it is away", "order_broken": False,
        }  # fmt: skip
        if comes_back:
            assert not held.done()
            old.is_away = False
        await held
        assert moved.done() is comes_back
        assert moving.is_order_broken is not comes_back
        assert ("order_broken" in [one.message for one in caplog.records]) is not comes_back
        old.is_away = False
        await moved
    assert moving.told() == {}
    assert len(await new.next(100)) == 70
    old.close()
    new.close()
