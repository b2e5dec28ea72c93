# SPDX-License-Identifier: Apache-2.0
"""The flow against a real gRPC server and a real spool."""

import asyncio
import threading
from itertools import pairwise

import grpc
import pytest


def parts_of(events):
    return [event["data"]["part_id"] for event in events if "part_id" in event["data"]]


def adds_up(counts):
    return counts["sent"] == counts.get("judged", 0) + counts.get("not_inspected", 0) + counts.get(
        "skipped", 0
    )


def abort_with(code, reason=None):
    def script(_request, context):
        if reason:
            context.set_trailing_metadata((("linewatch-reason", reason),))
        context.abort(code, "scripted")

    return script


def test_every_part_becomes_one_event_in_order(flow, folder, inspector, a_verdict):
    bad = b"2"
    inspector.script = lambda request, _: (
        a_verdict("NG", "crack", 0.97) if request.encoded_image.data.endswith(bad) else a_verdict()
    )
    station = flow(path=folder(4))

    asyncio.run(station.run())

    events = station.events()
    assert parts_of(events) == [f"cell_000{number}.jpg" for number in range(4)]
    assert [event["data"]["origin"]["sequence"] for event in events] == [1, 2, 3, 4]
    assert len({event["data"]["origin"]["epoch"] for event in events}) == 1
    assert [event["data"]["verdict"]["result"] for event in events] == ["OK", "OK", "NG", "OK"]
    assert events[0]["data"]["verdict"]["is_anomalous"] is False
    assert events[0]["type"] == "InferenceCompleted"
    assert events[0]["source"] == "/linewatch/v1/plant-1/line-1/station-1"
    assert events[0]["data"]["frame_to_verdict_s"] > 0
    assert [event["id"] for event in events] == [request.id for request in inspector.asked]
    counts = station.counts()
    assert (
        counts["sent"],
        counts["judged"],
        counts.get("not_inspected", 0),
    ) == (4, 4, 0)
    assert station.progress.state == "stopped"


def test_the_files_bytes_reach_inference_unchanged(flow, folder, inspector):
    path = folder(1)

    asyncio.run(flow(path=path).run())

    assert inspector.asked[0].encoded_image.data == (path / "cell_0000.jpg").read_bytes()
    assert inspector.asked[0].model_name == "pv-el-cells"


@pytest.mark.parametrize(
    ("code", "metadata", "reason"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "unreadable_image", "unreadable_image"),
        (grpc.StatusCode.INVALID_ARGUMENT, "frozen_channel", "frozen_channel"),
        (grpc.StatusCode.INVALID_ARGUMENT, "a reason from the future", "internal"),
        (grpc.StatusCode.NOT_FOUND, None, "model_not_found"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "image_too_large", "image_too_large"),
        (grpc.StatusCode.INTERNAL, None, "internal"),
    ],
)
def test_a_refused_part_is_recorded_with_its_reason(flow, folder, inspector, code, metadata, reason):
    inspector.script = abort_with(code, metadata)
    station = flow(path=folder(1))

    asyncio.run(station.run())

    (event,) = station.events()
    assert event["type"] == "InferenceError"
    assert event["data"]["not_inspected"]["reason"] == reason
    assert "scripted" in event["data"]["not_inspected"]["message"]
    assert station.counts()["not_inspected"] == 1


def test_a_late_answer_is_a_missed_deadline(flow, folder, inspector, a_verdict):
    release = threading.Event()
    inspector.script = lambda _request, _context: release.wait(60) and a_verdict()
    station = flow(path=folder(1), inspect_deadline_s=0.2)

    asyncio.run(station.run())

    release.set()
    assert station.events()[0]["data"]["not_inspected"]["reason"] == "deadline"


def test_an_image_over_the_limit_is_refused_without_asking(flow, folder, inspector):
    path = folder(1)
    with (path / "cell_0000.jpg").open("r+b") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    station = flow(path=path)

    asyncio.run(station.run())

    assert station.events()[0]["data"]["not_inspected"]["reason"] == "image_too_large"
    assert inspector.asked == []


def test_a_file_that_is_gone_is_not_passed_over_in_silence(flow, folder, inspector, a_verdict):
    path = folder(2)

    def remove_the_next(_request, _context):
        (path / "cell_0001.jpg").unlink(missing_ok=True)
        return a_verdict()

    inspector.script = remove_the_next
    station = flow(path=path)

    asyncio.run(station.run())

    assert [event["type"] for event in station.events()] == ["InferenceCompleted", "InferenceError"]
    assert station.events()[1]["data"]["not_inspected"]["reason"] == "unreadable_image"


def test_the_newest_part_wins_and_the_skipped_are_counted_and_told(flow, folder, inspector, a_verdict, taken):
    gate = threading.Semaphore(1)
    inspector.script = lambda _request, _context: gate.acquire(timeout=60) and a_verdict()
    station = flow(path=folder(40), live=True, rate=200)

    async def open_the_gate_late(_stop):
        await station.until(lambda: len(inspector.asked) == 2)
        await station.until(lambda: taken() == 40)  # the rest passes at the closed gate
        gate.release(100)

    asyncio.run(station.run(open_the_gate_late))

    events, counts = station.events(), station.counts()
    told = [event for event in events if event["type"] == "PartsSkipped"]
    assert counts["sent"] == 40
    assert counts["skipped"] >= 37, "but the first, the one at the gate and the newest"
    assert adds_up(counts)
    assert sum(event["data"]["count"] for event in told) == counts["skipped"]
    assert {event["data"]["reason"] for event in told} == {"replaced_by_newer"}
    assert parts_of(events)[-1] == "cell_0039.jpg", "the newest part is always judged"
    assert len(set(parts_of(events))) == counts["judged"]
    assert [event["data"]["origin"]["sequence"] for event in events] == list(range(1, len(events) + 1))
    for event, following in pairwise(events):
        assert event["type"] != "PartsSkipped" or "part_id" in following["data"]


def test_a_replay_waits_for_inference_and_loses_nothing(flow, folder, inspector):
    inspector.stop()
    station = flow(path=folder(5))

    async def bring_it_back(_stop):
        await station.until(
            lambda: station.progress.state == "waiting" and "inference" in station.progress.detail
        )
        assert station.events() == []
        inspector.start()

    asyncio.run(station.run(bring_it_back))

    assert len(set(parts_of(station.events()))) == 5
    assert station.counts()["judged"] == 5


def test_a_replay_waits_while_inference_is_busy_stopping_or_loading(flow, folder, inspector, a_verdict):
    # CANCELLED: what a server says that stops while it has the call.
    codes = iter([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED])

    def script(request, context):
        code = next(codes, None)
        return a_verdict() if code is None else abort_with(code)(request, context)

    inspector.script = script
    station = flow(path=folder(1))

    asyncio.run(station.run())

    assert len(inspector.asked) == 4
    assert len({request.id for request in inspector.asked}) == 1, "the event id is minted once"
    assert station.counts()["judged"] == 1


def test_a_live_source_records_what_inference_missed(flow, folder, inspector):
    inspector.stop()
    station = flow(path=folder(3), live=True, rate=20)

    asyncio.run(station.run())

    counts = station.counts()
    assert counts["sent"] == 3
    assert adds_up(counts)
    reasons = {
        event["data"]["not_inspected"]["reason"] for event in station.events() if "part_id" in event["data"]
    }
    assert reasons == {"inference_unavailable"}


def test_a_full_spool_stops_judging_until_there_is_room(flow, folder, inspector):
    station = flow(path=folder(60), spool_max_bytes=16 * 1024)
    held, tries = [], []
    append = station.worker.spool.append

    def counted(*arguments):
        tries.append(arguments)
        return append(*arguments)

    station.worker.spool.append = counted

    async def make_room(_stop):
        await station.until(lambda: station.progress.spool_full)
        asked, tried = len(inspector.asked), len(tries)
        assert station.progress.state == "stopped"
        assert "spool full" in station.progress.detail
        await station.until(lambda: len(tries) >= tried + 3)
        assert len(inspector.asked) == asked, "no part is judged that can't be recorded"
        while len(held) < 60:
            events = await asyncio.to_thread(station.events)
            held.extend(events)
            await station.worker.run(station.worker.spool.settle, [event["id"] for event in events])
            await asyncio.sleep(0.02)

    asyncio.run(station.run(make_room))

    assert sorted(parts_of(held)) == [f"cell_{number:04}.jpg" for number in range(60)]
    assert station.counts()["sent"] == station.counts()["judged"] == 60
    assert not station.progress.spool_full


def test_parts_skipped_while_the_spool_is_full_say_so(flow, folder, inspector, taken):
    earlier = flow(path=folder(60), spool_max_bytes=16 * 1024)

    async def until_full(stop):
        await earlier.until(lambda: earlier.progress.spool_full)
        stop.set()

    asyncio.run(earlier.run(until_full))
    recorded, before = earlier.counts()["sent"], taken()
    path = folder(0, "camera")
    station = flow(source="watch", path=path, spool_max_bytes=16 * 1024)
    held = {event["id"]: event for event in station.events()}

    async def a_camera_goes_on(stop):
        await station.until(lambda: station.progress.state == "running")
        number = 0
        while not station.progress.spool_full:  # a few bytes less may have fitted
            number += 1
            (path / f"part_{number:04}.jpg").write_bytes(b"frame")
            await station.until(
                lambda all_of_them=recorded + number: (
                    station.progress.spool_full or station.counts()["sent"] == all_of_them
                )
            )
        for more in range(1, 6):
            (path / f"part_{number + more:04}.jpg").write_bytes(b"frame")
        await station.until(lambda: taken() - before == number + 5)  # and replace each other
        held.update({event["id"]: event for event in station.events()})
        await station.worker.run(station.worker.spool.settle, list(held))
        await station.until(lambda: station.counts()["sent"] == recorded + number + 5)
        stop.set()

    asyncio.run(station.run(a_camera_goes_on))

    held |= {event["id"]: event for event in station.events()}
    told = [event["data"] for event in held.values() if event["type"] == "PartsSkipped"]
    assert {data["reason"] for data in told} == {"spool_full"}
    assert sum(data["count"] for data in told) == station.counts()["skipped"] == 4
    assert adds_up(station.counts())


def test_a_stop_leaves_the_rest_for_the_next_start(flow, folder, inspector, a_verdict):
    path = folder(10)
    first = flow(path=path)
    inspector.script = lambda _request, _context: a_verdict()

    async def stop_after_three(stop):
        await first.until(lambda: first.progress.counts["sent"] >= 3)
        stop.set()

    asyncio.run(first.run(stop_after_three))
    recorded = first.counts()["sent"]
    second = flow(path=path)

    asyncio.run(second.run())

    assert 3 <= recorded <= 10
    assert parts_of(second.events()) == [f"cell_{number:04}.jpg" for number in range(10)]
    assert second.counts()["sent"] == 10


def test_a_stop_ends_the_wait_for_inference(flow, folder, inspector):
    inspector.stop()
    station = flow(path=folder(3))

    async def stop_it(stop):
        # Not by its state: it is "waiting" from its start on.
        await station.until(lambda: station.progress.detail.startswith("inference: "))
        stop.set()

    asyncio.run(station.run(stop_it))

    assert station.events() == []
    assert station.counts().get("sent", 0) == 0


def test_loop_and_parts_count_over_restarts(flow, folder):
    path = folder(3)

    asyncio.run(flow(path=path, loop=True, parts=5).run())
    again = flow(path=path, loop=True, parts=7)
    asyncio.run(again.run())

    names = [int(name[5:9]) for name in parts_of(again.events())]
    assert names == [0, 1, 2, 0, 1, 2, 0]


def test_another_folder_begins_at_its_beginning(flow, folder):
    asyncio.run(flow(path=folder(3)).run())
    other = flow(path=folder(2, "others"))

    asyncio.run(other.run())

    assert other.counts()["sent"] == 5


def test_an_event_never_outgrows_the_wire(flow, folder, inspector, a_verdict):
    long_verdict = a_verdict("NG", "crack", 0.9)
    for _ in range(100):
        long_verdict.regions.add(
            label="crack", score=1 / 3, x=1 / 3, y=1 / 3, width=1 / 3, height=1 / 3, area_px=1 / 3
        )
    inspector.script = lambda _request, _context: long_verdict
    station = flow(path=folder(1))

    asyncio.run(station.run())

    (event,) = station.events()
    assert 0 < len(event["data"]["verdict"]["regions"]) < 100
