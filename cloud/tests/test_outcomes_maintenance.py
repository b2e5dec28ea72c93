# SPDX-License-Identifier: Apache-2.0
"""What a technician found stands in the asset's maintenance history, whoever ended the order and whatever failed then."""

from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cloud_line import PATIENT, Eventually, Line
from test_api_orders import call
from test_outcomes_closing import again, orders_of, see, swept

from assets.asset import Maintenance, from_item
from assets.registry import Registry
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from outcomes.closing import close
from work_orders.maintenance import remember
from work_orders.observing import Desk
from work_orders.order_items import WorkOrder
from work_orders.sweep import sweep
from work_orders.wiring import desk_of


@pytest.fixture(scope="module")
def desk(environment: dict[str, str], cloud: StandinCloud) -> Desk:
    """The desk of a function that ends orders, without a pilot."""
    assets = {"ASSETS_TABLE": cloud.outputs["AssetsTable"]}
    return replace(desk_of({**environment, **assets, **PATIENT, "LEASE_S": "1"}), pilot=False)


@pytest.fixture
def created(machine: Line, desk: Desk) -> WorkOrder:
    """An order that the ERP has."""
    see(machine, desk, *(machine.severity(0.95) for _ in range(5)))
    (order,) = orders_of(machine, desk)
    assert order.status == "created"
    return order


def history(line: Line) -> list[Maintenance]:
    registry = Registry(desk_tables(line), line.cloud.outputs["AssetsTable"])
    asset = registry.get(f"plant-1/{line.line}/station-1")
    assert asset is not None
    return list(asset.maintenance_history)


def desk_tables(line: Line) -> Any:
    return boto3.resource("dynamodb", endpoint_url=line.cloud.endpoint_url).meta.client


class Refusing(Registry):
    """A registry that may not be written."""

    def remember_maintenance(self, asset_id: str, entry: Maintenance) -> int:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, asset_id)


def test_the_next_order_shows_in_its_asset_card_what_was_found_at_the_last(
    created: WorkOrder, machine: Line, desk: Desk, cloud: StandinCloud
) -> None:
    body = {"finding": "confirmed", "note": "compressor washed"}

    closed = call(cloud, "POST", f"/work-orders/{created.reference}/close", body)
    assert closed.status_code == 200, closed.text
    see(machine, desk, *(machine.severity(0.95) for _ in range(5)))

    first, second = orders_of(machine, desk)
    shown = call(cloud, "GET", f"/work-orders/{second.reference}").json()
    day = first.item["closed_at"][:10]
    assert shown["asset"]["maintenance_history"] == [
        {
            "date": day, "what": "hpc-degradation confirmed: compressor washed", "order": first.reference,
            "by": "M. Keller",
        }
    ]  # fmt: skip
    assert shown["asset"]["last_maintenance"] == day


def test_a_finding_that_the_deployed_watch_polls_is_remembered_by_its_own_role(
    created: WorkOrder, machine: Line, erp: ErpClient, desk: Desk, cloud: StandinCloud, eventually: Eventually
) -> None:
    erp.technician(
        created.erp_id, state="completed", finding="other_fault", found_failure="bearing", by="A. Yilmaz"
    )

    eventually(lambda: cloud.watch()["failed"] == [] and again(created, desk).status == "closed", "the end")

    (entry,) = history(machine)
    assert (entry.what, entry.by) == ("bearing instead of hpc-degradation", "A. Yilmaz")


@pytest.mark.parametrize("finding", ["no_fault", "unstated"])
def test_where_nothing_was_found_nothing_was_maintained(
    finding: Any, created: WorkOrder, machine: Line, desk: Desk
) -> None:
    assert close(created, desk, by="M. Keller", finding=finding)

    assert history(machine) == []


def test_a_registry_that_fails_undoes_no_closing_and_the_deployed_sweep_catches_up(
    created: WorkOrder, machine: Line, desk: Desk, cloud: StandinCloud, eventually: Eventually
) -> None:
    broken = Refusing(desk.dynamodb, cloud.outputs["AssetsTable"])

    assert close(created, replace(desk, assets=broken), by="M. Keller", finding="confirmed")

    assert again(created, desk).status == "closed"
    assert history(machine) == []
    # It stays due as long as it fails, and fails the sweep, for the alarm.
    assert sweep(replace(desk, assets=broken))["failed"] >= 1
    eventually(lambda: cloud.sweep()["failed"] == 0 and history(machine), "the entry")
    assert [entry.order for entry in history(machine)] == [created.reference]
    before = machine_row(machine)
    remember(created.reference, desk)
    swept(desk)
    assert machine_row(machine) == before, "a repeat changes nothing"


def test_a_correction_that_the_registry_missed_is_caught_up_by_the_sweep(
    created: WorkOrder, machine: Line, desk: Desk, cloud: StandinCloud
) -> None:
    broken = Refusing(desk.dynamodb, cloud.outputs["AssetsTable"])
    assert close(created, desk, by="M. Keller", finding="no_fault")
    swept(desk)

    assert close(again(created, desk), replace(desk, assets=broken), by="M. Keller", finding="confirmed")

    assert history(machine) == []
    swept(desk)
    assert [entry.what for entry in history(machine)] == ["hpc-degradation confirmed"]


def test_a_corrected_finding_corrects_the_history(created: WorkOrder, machine: Line, desk: Desk) -> None:
    assert close(created, desk, by="M. Keller", finding="confirmed", note="washed")
    assert close(again(created, desk), desk, by="A. Yilmaz", finding="other_fault", found_failure="bearing")
    (entry,) = history(machine)
    assert (entry.what, entry.by) == ("bearing instead of hpc-degradation", "A. Yilmaz")

    assert close(again(created, desk), desk, by="A. Yilmaz", finding="no_fault")

    assert history(machine) == []


def test_a_correction_that_comes_between_leaves_no_older_finding_behind(
    created: WorkOrder, machine: Line, desk: Desk, cloud: StandinCloud
) -> None:
    class Overtaken(Registry):
        """Somebody corrects the finding after it was read, and before it is in the registry."""

        def remember_maintenance(self, asset_id: str, entry: Maintenance) -> int:
            assert close(again(created, desk), desk, by="A. Yilmaz", finding="no_fault")
            return super().remember_maintenance(asset_id, entry)

    slow = Overtaken(desk.dynamodb, cloud.outputs["AssetsTable"])

    assert close(created, replace(desk, assets=slow), by="M. Keller", finding="confirmed")

    assert history(machine) == []


def machine_row(line: Line) -> Any:
    key = {"station_key": f"plant-1/{line.line}/station-1"}
    row = desk_tables(line).get_item(TableName=line.cloud.outputs["AssetsTable"], Key=key)["Item"]
    assert from_item(row)
    return row
