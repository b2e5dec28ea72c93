# SPDX-License-Identifier: Apache-2.0
"""Folders: the order of a played one, and one that a camera writes to."""

import asyncio
import os

import pytest

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


def test_a_file_that_still_grows_is_left_until_it_is_whole(tmp_path):
    whole = b"0123456789" * 1000

    async def watch():
        stop = asyncio.Event()
        taken = []

        async def write_slowly():
            with (tmp_path / "slow.jpg").open("wb") as file:
                for start in range(0, len(whole), 500):
                    file.write(whole[start : start + 500])
                    file.flush()
                    await asyncio.sleep(0.02)

        writing = asyncio.create_task(write_slowly())
        async for part in WatchedFolder(tmp_path, stop).parts(1):
            taken.append(part)
            stop.set()
        await writing
        return taken

    (part,) = asyncio.run(watch())
    assert part.content.encoded == whole
