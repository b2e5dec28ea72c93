# SPDX-License-Identifier: Apache-2.0
"""Folders: the order of a played one, and one that a camera writes to."""

import asyncio
import contextlib
import os
import sqlite3
import threading

import pytest

from linewatch_capture import folder as folder_module
from linewatch_capture.folder import EmptyFolder, PlayedFolder, WatchedFolder, image_files


def test_subfolders_play_in_the_order_of_their_names(tmp_path):
    for name in ("2-bad/a.jpg", "1-good/z.PNG", "1-good/b.jpeg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    assert [path.name for path in image_files(tmp_path)] == ["b.jpeg", "z.PNG", "a.jpg"]


def test_a_folder_without_an_image_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")

    with pytest.raises(EmptyFolder, match=r"no \.jpg"):
        PlayedFolder(tmp_path, 1, asyncio.Event())
    with pytest.raises(EmptyFolder, match="not a directory"):
        PlayedFolder(tmp_path / "missing", 1, asyncio.Event())
    with pytest.raises(EmptyFolder, match="not a directory"):
        WatchedFolder(tmp_path / "missing", asyncio.Event())


def test_a_name_that_is_no_utf8_is_a_part_like_any_other(flow, tmp_path):
    path = tmp_path / os.fsdecode(b"pictures-\xfc")
    path.mkdir()
    for name in (b"a.jpg", b"b\xfc\xff.jpg", b"c.jpg"):
        (path / os.fsdecode(name)).write_bytes(b"frame")
    station = flow(path=path)

    asyncio.run(station.run())

    assert [event["data"]["part_id"] for event in station.events()] == ["a.jpg", "b\ufffd\ufffd.jpg", "c.jpg"]
    assert station.counts()["judged"] == 3


def test_a_watched_folder_gives_new_files_and_resumes_after_a_restart(flow, folder, inspector):
    path = folder(1)
    station = flow(source="watch", path=path)

    async def a_camera_writes(stop):
        await station.until(lambda: station.progress.state == "running")
        for number in (1, 2):
            unfinished = path / f".new_{number}.jpg"
            unfinished.write_bytes(b"frame")
            unfinished.rename(path / f"new_{number}.jpg")
            await station.until(lambda number=number: station.progress.counts["sent"] == number)
        stop.set()

    asyncio.run(station.run(a_camera_writes))
    (path / "while_away.jpg").write_bytes(b"frame")
    again = flow(source="watch", path=path)

    async def until_the_third(stop):
        await again.until(lambda: again.progress.counts["sent"] == 3)
        stop.set()

    asyncio.run(again.run(until_the_third))

    names = [event["data"]["part_id"] for event in again.events()]
    assert names == ["new_1.jpg", "new_2.jpg", "while_away.jpg"], (
        "what lay there before the first start is no part"
    )


def watched(flow, path, count, before=lambda: None):
    """Runs a watching station until `count` parts are recorded and one more; the others' part ids.

    By when the last one is taken, which comes last, two looks saw all the others: time enough to take too many.
    """
    station = flow(source="watch", path=path)
    last = f"last-{station.counts().get('sent', 0)}.jpg"

    async def until_recorded(stop):
        await station.until(lambda: station.progress.state == "running")
        before()
        await station.until(lambda: station.progress.counts["sent"] >= count)
        (path / last).write_bytes(b"frame")
        await station.until(lambda: last in parts_of(station.events()))
        stop.set()

    asyncio.run(station.run(until_recorded))
    return [name for name in parts_of(station.events()) if not name.startswith("last-")]


def parts_of(events):
    return [event["data"]["part_id"] for event in events if "part_id" in event["data"]]


def sent(state_dir):
    with contextlib.closing(sqlite3.connect(state_dir / "capture.db")) as db:
        return db.execute("SELECT value FROM counts WHERE name = 'sent'").fetchone()[0]


def marks(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT count(*) FROM marks").fetchone()[0]


def test_a_file_that_is_renamed_or_gets_other_permissions_is_no_new_part(flow, folder, tmp_path):
    path = folder(0)
    watched(flow, path, 1, lambda: (path / "one.jpg").write_bytes(b"frame"))

    (path / "one.jpg").chmod(0o600)
    (path / "one.jpg").rename(path / "moved.jpg")
    (path / "two.jpg").write_bytes(b"frame")

    assert watched(flow, path, 3) == ["one.jpg", "two.jpg"]
    assert sent(tmp_path) == 4, "with the two that came last; none was taken and skipped"


def test_a_file_from_before_a_clock_was_set_back_is_a_part(flow, folder, tmp_path, settings):
    path = folder(0)
    watched(flow, path, 1, lambda: (path / "one.jpg").write_bytes(b"frame"))
    with contextlib.closing(sqlite3.connect(tmp_path / "capture.db")) as db:
        # Where a position is a time, it is now an hour ahead.
        db.execute(
            "UPDATE counts SET value = value + 3600000000000 WHERE name LIKE 'position:%' AND value > 1e15"
        )
        db.commit()

    (path / "two.jpg").write_bytes(b"frame")
    os.utime(path / "two.jpg", (1, 1))

    assert watched(flow, path, 3) == ["one.jpg", "two.jpg"]


def test_a_skipped_file_is_not_taken_again_after_a_restart(flow, folder, inspector, taken):
    path, go_on = folder(0), threading.Event()
    answer = inspector.script

    def slow(request, context):
        go_on.wait(60)
        return answer(request, context)

    inspector.script = slow

    async def many(stop):
        await station.until(lambda: station.progress.state == "running")
        for number in range(5):
            (path / f"{number}.jpg").write_bytes(b"frame")
        await station.until(lambda: taken() == 5)  # and the others replace each other
        go_on.set()
        await station.until(lambda: station.progress.counts["sent"] == 5)
        stop.set()

    station = flow(source="watch", path=path)
    asyncio.run(station.run(many))
    assert station.counts()["skipped"] >= 3

    watched(flow, path, 5)
    assert station.counts()["sent"] == 5 + 1, "the one that comes last"


def test_files_that_have_left_are_forgotten(flow, folder, tmp_path):
    path = folder(3)
    watched(flow, path, 1, lambda: (path / "new.jpg").write_bytes(b"frame"))
    assert marks(tmp_path / "capture.db") == 3 + 2, "one that is new, and the last"
    for file in path.iterdir():
        file.unlink()

    watched(flow, path, 3, lambda: (path / "newer.jpg").write_bytes(b"frame"))

    assert marks(tmp_path / "capture.db") == 2


def test_a_file_that_still_grows_is_left_until_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "POLL_S", 0.01)
    chunks = [b"0123456789" * 50] * 20
    written, left = tmp_path / "slow.jpg", list(chunks)

    class SlowCamera(WatchedFolder):
        """One that writes a piece between two looks."""

        def present(self):
            found = super().present()
            if left:
                with written.open("ab") as file:
                    file.write(left.pop())
            return found

    async def watch():
        stop = asyncio.Event()
        taken = []
        async for part in SlowCamera(tmp_path, stop).parts(1):
            taken.append(part)
            stop.set()
        return taken

    (part,) = asyncio.run(watch())
    assert part.content.encoded == b"".join(chunks)
