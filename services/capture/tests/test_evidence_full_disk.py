# SPDX-License-Identifier: Apache-2.0
"""A volume for evidence that is really full: it costs the evidence, no event, and nothing names what is not there."""

import asyncio
import os
import shutil
import subprocess
import threading

import pytest

from linewatch.v1 import inspector_pb2

FRAME = b"\xff\xd8\xff" + bytes(60_000)


def mount(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def volume(tmp_path):
    """512 KB of memory as a file system."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root, to mount a small tmpfs")
    place = tmp_path / "volume"
    place.mkdir()
    done = mount("-t", "tmpfs", "-o", "size=512k", "linewatch-test", str(place))
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_volume_costs_the_evidence_and_no_event_and_room_brings_it_back(
    flow, folder, inspector, a_verdict, volume, tmp_path, caplog
):
    caplog.set_level("INFO")
    pictures = folder(0)
    for number in range(40):
        (pictures / f"cell_{number:04}.jpg").write_bytes(FRAME + str(number).encode())

    has_room = threading.Event()

    def script(request, _context):
        if len(inspector.asked) > 25:
            has_room.wait(60)
        heatmap = inspector_pb2.Heatmap(values=bytes(range(6)), width=3, height=2)
        return inspector_pb2.InspectResponse(id=request.id, verdict=a_verdict("NG"), heatmap=heatmap)

    inspector.script = script
    root = volume / "evidence"
    station = flow(path=pictures, evidence_dir=root, parts=40)

    async def make_room(_stop):
        await station.until(lambda: station.counts().get("judged", 0) >= 25)
        assert mount("-o", "remount,size=8m", str(volume)).returncode == 0
        has_room.set()

    asyncio.run(station.run(make_room))

    events = station.events()
    assert len(events) == station.counts()["judged"] == 40
    named = [[one["path"] for one in event["data"].get("evidence", ())] for event in events]
    assert [] in named[:25], "some had no room"
    assert len(named[-1]) == 2, "and the last has its evidence again"
    assert all(len(paths) in (0, 2) for paths in named), "a frame never without its heat map"
    for event in events:
        for one in event["data"].get("evidence", ()):
            assert (root / one["path"]).stat().st_size == one["size_bytes"]
    there = {path.relative_to(root).as_posix() for path in root.glob("line-1/*/*")}
    assert there == {path for paths in named for path in paths}, "and nothing else is there"
    told = [record.message for record in caplog.records]
    assert (told.count("evidence_failed"), told.count("evidence_works_again")) == (1, 1)
