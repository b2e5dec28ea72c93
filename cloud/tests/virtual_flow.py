# SPDX-License-Identifier: Apache-2.0
"""The whole flow in virtual time (tests/faults) with stations that a test speaks for."""

from collections.abc import Iterator
from contextlib import contextmanager

from faults.schedule_world import Station, World, world_of

from work_orders.order_items import WorkOrder

MACHINE = Station("ASSET-0", "line-0")


@contextmanager
def flow_with(*stations: Station) -> Iterator[World]:
    """A world without faults in which these have said nothing yet."""
    with world_of(1, faults=False) as made:
        for station in stations:
            station.sequence = 0
            station.sent.clear()
            made.stations.append(station)
        yield made


def says(world: World, *severities: float, of: Station = MACHINE) -> None:
    """The station's next cycles, and everything that follows at once."""
    for severity in severities:
        world.bad_part(of, severity, times=1)
    world.hub.run_until(world.hub.now + 100)


def order_of(world: World, asset_id: str = "ASSET-0") -> WorkOrder:
    """The asset's newest order."""
    items = world.dynamodb.scan(TableName=world.tables["WorkOrdersTable"])["Items"]
    newest = max(
        (item for item in items if item["asset_id"] == asset_id), key=lambda item: int(item["episode"])
    )
    return now_of(world, newest["reference"])


def now_of(world: World, reference: str) -> WorkOrder:
    """That order as it is stored now."""
    order = world.desk().orders.get(reference)
    assert order is not None
    return order
