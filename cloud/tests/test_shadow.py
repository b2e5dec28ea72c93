# SPDX-License-Identifier: Apache-2.0
"""What the shadows say of an order, and what happens when one is full or the order moves on meanwhile."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from work_orders.orders import WorkOrder
from work_orders.shadow import MOST_EVENTS, DeviceShadow, events_with_evidence, held

LIMIT = 8 * 1024
"""Bytes of a shadow's state (AWS: Device Shadow quotas)."""


class Shadows:
    """The data plane, as far as it counts bytes."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.desired: dict[str, dict[str, dict[str, Any]]] = {}
        self.refused = 0

    def update_thing_shadow(self, thingName: str, shadowName: str, payload: str) -> None:  # noqa: N803
        assert shadowName == "work-orders"
        before = self.desired.get(thingName, {})
        merged = {asset: dict(modes) for asset, modes in before.items()}
        for asset, modes in json.loads(payload)["state"]["desired"].items():
            merged.setdefault(asset, {}).update(modes)
            merged[asset] = {mode: entry for mode, entry in merged[asset].items() if entry is not None}
        if len(json.dumps({"desired": merged}, separators=(",", ":"))) > self.limit:
            self.refused += 1
            raise ClientError({"Error": {"Code": "RequestEntityTooLargeException"}}, "UpdateThingShadow")
        self.desired[thingName] = merged


class Orders:
    def __init__(self) -> None:
        self.written: list[str] = []

    def shadow_written(self, order: WorkOrder) -> None:
        self.written.append(order.reference)


def order(number: int, status: str = "created", events: int = 12) -> WorkOrder:
    path = "line-1/20261121/0198c0de-0000-7000-8000-{:012x}.review{}"
    evidence = [
        {"path": path.format(number * 100 + event, ending)}
        for event in range(events)
        for ending in (".jpg", ".heatmap.png")
    ]
    document = {"thing_name": "linewatch-a", "evidence": evidence}
    return WorkOrder(
        f"lw-{number:016x}", status, f"ASSET-{number}", "cell-crack", "automatic", document, 0, 0.0, "pending",
        {"erp_id": f"WO-{number}"},
    )  # fmt: skip


def test_the_newest_events_are_named_once_each() -> None:
    ids = events_with_evidence(order(1).document)

    assert len(ids) == 12
    assert held(order(1), 8) == {"reference": "lw-0000000000000001", "event_ids": ids[-8:]}
    assert held(order(1), 1) == {"reference": "lw-0000000000000001", "event_ids": ids[-1:]}


@pytest.mark.parametrize("status", ["awaiting_approval", "creating", "created", "parked"])
def test_every_order_that_has_not_ended_holds_its_evidence(status: str) -> None:
    assert held(order(1, status), 8) is not None


@pytest.mark.parametrize("status", ["rejected", "closed"])
def test_an_order_that_has_ended_holds_none(status: str) -> None:
    shadows, orders = Shadows(), Orders()
    DeviceShadow(shadows).show(order(1), orders)  # type: ignore[arg-type]
    DeviceShadow(shadows).show(order(1, status), orders)  # type: ignore[arg-type]

    assert shadows.desired == {"linewatch-a": {"ASSET-1": {}}, "linewatch-a-forwarder": {"ASSET-1": {}}}


def test_eighteen_open_orders_of_a_device_fit_and_of_further_ones_fewer_events_or_none_for_now() -> None:
    shadows, orders = Shadows(), Orders()
    for number in range(1, 19):
        DeviceShadow(shadows).show(order(number), orders)  # type: ignore[arg-type]
    assert shadows.refused == 0

    for number in range(19, 24):
        DeviceShadow(shadows).show(order(number), orders)  # type: ignore[arg-type]

    named = shadows.desired["linewatch-a-forwarder"]
    counts = [len(entry["cell-crack"]["event_ids"]) for entry in named.values()]
    assert counts[:18] == [MOST_EVENTS[0]] * 18
    assert set(counts[18:]) <= set(MOST_EVENTS)
    assert len(orders.written) == len(named) < 23, "the others stay pending"
    assert len(shadows.desired["linewatch-a"]) == 23, "the core device's shadow shows every one"

    DeviceShadow(shadows).show(order(1, "closed"), orders)  # type: ignore[arg-type]
    DeviceShadow(shadows).show(order(23), orders)  # type: ignore[arg-type]
    assert named is not shadows.desired["linewatch-a-forwarder"]
    assert "ASSET-23" in shadows.desired["linewatch-a-forwarder"]


@pytest.mark.parametrize(("limit", "events"), [(500, 8), (300, 2), (150, 1)])
def test_as_many_of_the_newest_events_are_named_as_fit(limit: int, events: int) -> None:
    shadows, orders = Shadows(limit), Orders()

    DeviceShadow(shadows).show(order(1), orders)  # type: ignore[arg-type]

    entry = shadows.desired["linewatch-a-forwarder"]["ASSET-1"]["cell-crack"]
    assert entry["event_ids"] == events_with_evidence(order(1).document)[-events:]
    assert orders.written


def test_an_order_without_a_device_is_shown_nowhere() -> None:
    alone = order(1)
    shadows, orders = Shadows(), Orders()
    DeviceShadow(shadows).show(  # type: ignore[arg-type]
        WorkOrder(**{name: getattr(alone, name) for name in alone.__slots__} | {"document": {}}),
        orders,  # type: ignore[arg-type]
    )

    assert shadows.desired == {}
    assert orders.written == ["lw-0000000000000001"]
