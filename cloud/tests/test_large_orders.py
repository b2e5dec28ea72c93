# SPDX-License-Identifier: Apache-2.0
"""An order stays far under what DynamoDB takes for one item, however many files its events name: its alarm is not lost."""

import json
from typing import Any

import pytest
from faults.schedule_world import Station, world_of

from api import views
from work_orders.document import MOST_EVIDENCE_BYTES, bounded

LARGEST_ITEM = 400 * 1024
FILES = 150


def files(event: str, count: int = FILES) -> list[dict[str, Any]]:
    name = f"{event}-" + "a" * 200
    return [
        {"kind": "window", "path": f"{name}-{number:04}.csv", "digest": "sha256:" + "0" * 64}
        for number in range(count)
    ]


def test_an_order_of_events_with_hundreds_of_files_each_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with world_of(1, faults=False, engine="stand-in") as world:
        station = Station("ASSET-0", "line-0")
        world.stations.append(station)
        put = world.dynamodb.put_item

        def fat(**request: Any) -> Any:
            if request["TableName"] == "EventsTable":
                event = json.loads(request["Item"]["event"])
                event["data"]["evidence"] = files(event["id"], 400)
                request["Item"]["event"] = json.dumps(event)
            return put(**request)

        monkeypatch.setattr(world.dynamodb, "put_item", fat)
        for _ in range(5):
            world.bad_part(station, 0.95, times=1)
        world.hub.run_until(world.hub.now + 10_000)

        assert world.dead == []
        (item,) = world.dynamodb.scan(TableName="WorkOrdersTable")["Items"]
        order = world.desk().orders.get(item["reference"])
    assert order is not None
    assert order.status == "created"
    assert len(json.dumps(item, default=float)) < LARGEST_ITEM / 2
    shown = views.work_order(order)
    counted = len(order.document["event_ids"])
    assert len(shown["evidence"]) + shown["evidence_left_out"] == counted * 400
    assert shown["evidence_left_out"] > 0


def test_evidence_is_bounded_by_its_bytes_and_no_event_loses_all_of_its_own() -> None:
    events = [files(f"e{number:03}") for number in range(100)]

    left = bounded(events)

    kept = left["evidence"]
    assert len(json.dumps(kept, separators=(",", ":"))) <= MOST_EVIDENCE_BYTES + 2
    assert len(kept) + left["evidence_left_out"] == 100 * FILES
    # The first of each, oldest first; what room is left is the newest events'.
    assert [one["path"] for one in kept if one["path"].endswith("-0000.csv")] == [
        of_event[0]["path"] for of_event in events
    ]
    more = {one["path"][:4] for one in kept if one["path"].endswith("-0001.csv")}
    assert more == {f"e{number:03}" for number in range(100 - len(more), 100)}
    assert more


def test_a_file_too_large_to_be_named_costs_the_others_nothing() -> None:
    huge = {"kind": "frame", "path": "p", "digest": "d" * MOST_EVIDENCE_BYTES}

    assert bounded([[huge, *files("e", 3)]]) == {"evidence": files("e", 3), "evidence_left_out": 1}


def test_what_has_room_is_named_whole_and_in_its_order() -> None:
    events = [files("old", 2), [], files("new", 3)]

    assert bounded(events) == {"evidence": [*files("old", 2), *files("new", 3)], "evidence_left_out": 0}
