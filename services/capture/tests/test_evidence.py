# SPDX-License-Identifier: Apache-2.0
"""Evidence: what is kept, what goes first, what a broken disk costs."""

import asyncio
import contextlib
import hashlib
import shutil
import struct
import zlib

import pytest

from linewatch.v1 import inspector_pb2
from linewatch_capture.evidence import EvidenceDirectory, window_csv
from linewatch_capture.grey_png import grey_png
from linewatch_capture.parts import Frame, Judged, NotInspected, Part, Window
from linewatch_runtime.events import new_event_id


def keep(directory, outcome, content=b"\xff\xd8\xff frame", event_id=None):
    part = Part("part", Frame(content), 1)
    return asyncio.run(directory.keep(event_id or new_event_id(), part, outcome))


@pytest.fixture
def directory_of():
    """Makes evidence directories that are closed after the test."""
    with contextlib.ExitStack() as opened:

        def make(root, ok_share, max_bytes):
            made = EvidenceDirectory(root, "line-1", "s", ok_share, max_bytes)
            return opened.enter_context(contextlib.closing(made))

        yield make


@pytest.fixture
def judged(a_verdict):
    return lambda result="OK": Judged(a_verdict(result))


def test_ng_and_review_are_kept_and_the_event_names_what_is_on_disk(
    flow, folder, inspector, a_verdict, tmp_path
):
    results = {b"0": "OK", b"1": "NG", b"2": "REVIEW"}

    def script(request, _context):
        assert request.with_heatmap
        return inspector_pb2.InspectResponse(
            id=request.id, verdict=a_verdict(results[request.encoded_image.data[-1:]]),
            heatmap=inspector_pb2.Heatmap(values=bytes(range(6)), width=3, height=2),
        )  # fmt: skip

    inspector.script = script
    root = tmp_path / "evidence"
    station = flow(path=folder(3), evidence_dir=root, evidence_ok_share=0)

    asyncio.run(station.run())

    good, bad, review = station.events()
    assert "evidence" not in good["data"]
    for event in (bad, review):
        assert [item["kind"] for item in event["data"]["evidence"]] == ["frame", "heatmap"]
        for item in event["data"]["evidence"]:
            content = (root / item["path"]).read_bytes()
            assert item["digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
            assert item["size_bytes"] == len(content)
    frame = bad["data"]["evidence"][0]
    assert frame["path"].startswith("line-1/")
    assert frame["path"].endswith(f"/{bad['id']}.jpg")
    assert review["data"]["evidence"][0]["path"].endswith(f"/{review['id']}.review.jpg")
    assert (root / "latest/line-1/station-1.jpg").read_bytes().endswith(b"2"), (
        "the newest part, whatever its verdict"
    )
    assert (root / "latest/line-1/station-1.png").exists()
    assert not list(root.glob("line-1/*/.*")), "nothing half written"


def test_a_share_of_the_good_parts_is_kept(tmp_path, judged, directory_of):
    all_of_them = directory_of(tmp_path / "all", 1.0, 1 << 20)
    some = directory_of(tmp_path / "some", 0.195, 1 << 20)

    assert keep(all_of_them, judged())
    kept = sum(
        bool(keep(some, judged(), event_id=f"0198{'0' * 24}{number * 2**32 // 100:08x}"))
        for number in range(100)
    )
    assert kept == 20


def test_the_oldest_good_evidence_goes_first_and_the_budget_holds(tmp_path, judged, directory_of):
    directory = directory_of(tmp_path, 1.0, 10_000)
    frame = b"\xff\xd8\xff" + bytes(997)
    good = [keep(directory, judged(), frame)[0].path for _ in range(5)]
    bad = [keep(directory, judged("NG"), frame)[0].path for _ in range(8)]

    remaining = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "line-1").rglob("*.jpg"))
    assert remaining == sorted(good[3:] + bad)

    more = [keep(directory, judged("NG"), frame)[0].path for _ in range(6)]

    remaining = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "line-1").rglob("*.jpg"))
    assert remaining == sorted(bad[4:] + more), "without good ones left the oldest of all goes"


def test_a_restart_knows_what_is_there(tmp_path, judged, directory_of):
    first = directory_of(tmp_path, 1.0, 5_000)
    frame = b"\xff\xd8\xff" + bytes(997)
    (old_bad,) = keep(first, judged("NG"), frame)
    (old_good,) = keep(first, judged(), frame)
    (tmp_path / old_bad.path).with_name(".half-written.jpg").write_bytes(bytes(4000))

    again = directory_of(tmp_path, 1.0, 3_000)
    keep(again, judged("NG"), frame)
    keep(again, judged("NG"), frame)

    assert (tmp_path / old_bad.path).exists()
    assert not (tmp_path / old_good.path).exists()


def test_a_disk_that_fails_costs_the_evidence_and_not_the_event(
    flow, folder, inspector, a_verdict, tmp_path, caplog
):
    root = tmp_path / "evidence"
    inspector.script = lambda _request, _context: a_verdict("NG")
    station = flow(path=folder(3), evidence_dir=root)

    async def break_it(_stop):
        shutil.rmtree(root / "line-1")
        (root / "line-1").write_text("in the way: no directory can be made here")

    asyncio.run(station.run(break_it))

    assert station.counts()["judged"] == 3
    assert all("evidence" not in event["data"] for event in station.events())
    assert [record.message for record in caplog.records].count("evidence_failed") == 1, (
        "said once, not per part"
    )


def test_a_part_without_a_verdict_leaves_no_evidence_and_garbage_is_not_shown(tmp_path, directory_of):
    directory = directory_of(tmp_path, 1.0, 1 << 20)

    assert keep(directory, NotInspected("unreadable_image", "not an image"), b"garbage") == []
    assert not (tmp_path / "latest/line-1/s.jpg").exists()
    (tmp_path / "latest/line-1/s.png").write_bytes(b"heat map of an older frame")
    assert keep(directory, NotInspected("busy", "later")) == []
    assert not (tmp_path / "latest/line-1/s.png").exists()
    assert (tmp_path / "latest/line-1/s.jpg").exists()


def test_a_png_frame_keeps_its_format(tmp_path, judged, directory_of):
    directory = directory_of(tmp_path, 1.0, 1 << 20)

    (kept,) = keep(directory, judged("NG"), b"\x89PNG\r\n\x1a\n rest")

    assert kept.media_type == "image/png"
    assert kept.path.endswith(".png")


def test_a_window_is_kept_as_its_real_records():
    window = Window(((1.5, 2.0), (1.5, 2.0), (3.25, 4.0)), ("s1", "s2"), (7, 7, 8), padded_rows=1)

    assert window_csv(window) == b"cycle,s1,s2\n7,1.5,2\n8,3.25,4\n"


def test_the_heat_map_is_a_png_of_its_cells():
    values = bytes([0, 128, 255, 1, 2, 3])

    png = grey_png(values, 3, 2)

    assert struct.unpack(">II", png[16:24]) == (3, 2)
    start = png.index(b"IDAT") + 4
    length = struct.unpack(">I", png[start - 8 : start - 4])[0]
    assert zlib.decompress(png[start : start + length]) == b"\0" + values[:3] + b"\0" + values[3:]
    with pytest.raises(ValueError, match="values for"):
        grey_png(values, 4, 2)
