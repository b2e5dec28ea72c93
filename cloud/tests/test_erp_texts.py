# SPDX-License-Identifier: Apache-2.0
"""What an ERP writes is kept clean and bounded, and what we wrote ourselves is nobody's finding."""

from collections.abc import Iterator
from typing import Any

import pytest
from erp_products import PRODUCTS, Connected, serving
from faults.schedule_erp import ErpServer
from faults.schedule_world import Station, world_of
from test_erp_contract import a_reference, an_order

from erp.port import NOTE, WORD, ErpError, ErpOrder, ErpRefusedError, ErpStatus
from erp.text import FIRST, REST, describe, noted, without_own


@pytest.fixture(scope="module", params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Iterator[Connected]:
    with serving(request.param) as connected:
        yield connected


def test_our_own_text_is_no_note_of_a_technician(product: Connected) -> None:
    made = product.erp.create(an_order(a_reference()))
    product.erp.add_note(made.id, "escalated/1", "Severity rose: risk 0.83\nto 0.95")

    assert product.erp.status(made.id).note == ""


def test_a_technicians_note_comes_back_without_ours() -> None:
    with serving("sap") as sap:
        made = sap.erp.create(an_order(a_reference()))
        sap.simulator.technician(made.id, state="in_progress", note="Opened the casing.\nblade 3 is cracked")
        sap.erp.add_note(made.id, "escalated/1", "Severity rose: risk 0.83\nto 0.95")
        sap.simulator.technician(made.id, state="completed", note="Replaced: blade 3")

        assert sap.erp.status(made.id).note == "Opened the casing.\nblade 3 is cracked\nReplaced: blade 3"


def test_every_field_that_we_describe_is_known_as_ours() -> None:
    order = an_order(a_reference())

    assert set(FIRST) | set(REST) == set(order)
    for limit in (60, 200, 1333, 100_000):
        assert without_own(describe(order, limit) + "\n" + noted("key", "one line", 100) + "\nworn") == "worn"
    assert without_own("it was worn") == "it was worn"


HOSTILE = ("WO-\ud800", "x\x00\x1b[2J\x7f", "W" * 500_000)


@pytest.mark.parametrize("text", HOSTILE, ids=("surrogate", "control", "long"))
def test_what_an_erp_says_can_be_stored(text: str) -> None:
    status = ErpStatus("completed", text, found_failure=text, note=text, by=text, ended_at=text)
    said = [ErpOrder(text, text).id, ErpOrder(text, text).status, str(ErpError(text)), str(ErpRefusedError(text)),
            status.status, status.found_failure, status.note, status.by, status.ended_at]  # fmt: skip

    for one in said:
        one.encode()
        assert 0 < len(one) <= NOTE
        assert one.isprintable()
    assert max(len(status.status), len(status.by), len(status.found_failure), len(said[0])) <= WORD


@pytest.mark.parametrize("name", ["id", "status"])
@pytest.mark.parametrize("text", HOSTILE, ids=("surrogate", "control", "long"))
def test_an_order_with_a_hostile_answer_is_recorded_as_created(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = ErpServer._make

    def hostile(self: ErpServer, order: dict[str, Any]) -> dict[str, Any]:
        made = make(self, order)
        made[name] = text
        return made

    monkeypatch.setattr(ErpServer, "_make", hostile)
    with world_of(1, faults=False) as world:
        station = Station("ASSET-0", "line-0")
        world.stations.append(station)
        for _ in range(5):
            world.bad_part(station, 0.95, times=1)
        world.hub.run_until(world.hub.now + 100)
        [item] = world.dynamodb.scan(TableName=world.tables["WorkOrdersTable"])["Items"]
        order = world.desk().orders.get(item["reference"])

    assert order is not None
    assert order.status == "created"
    assert len(world.erp.orders) == 1
