# SPDX-License-Identifier: Apache-2.0
"""An order through the real `place` into each product: exactly one, whatever the answers are. Real tables, real HTTP."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from cloud_line import wait_for
from erp_products import CANARY, HASTY_S, PRODUCTS, TIMEOUT_S, Connected, credentials, serving
from erp_products import environment as erp_environment

from erp.choose import erp_of
from erp.port import ErpUnavailableError
from work_orders.orders import WorkOrders
from work_orders.placing import Patience, TryLaterError, place
from work_orders.wiring import desk_of

DOCUMENT: dict[str, Any] = {
    "asset_name": "Compressor 7", "failure_type": "Fan degradation", "location": "hall A", "criticality": "A",
    "severity": 0.93, "risk": 0.91, "priority": "urgent", "recommended_action": "Inspect fan blades",
    "time_to_failure": None, "ai_generated": True, "event_ids": ["e1"], "evidence": [], "model": {"name": "turbofan"},
    "observed_at": "2026-11-21T10:11:12Z",
}  # fmt: skip
FAULTS = (
    {}, {"error_500_after_create": 1}, {"hang_after_create": 1}, {"html_200_after_create": 1},
    {"truncated_after_create": 1}, {"error_500_create_late": 1, "late_ms": 300}, {"error_500": 2}, {"too_many": 1},
    {"find_500": 1}, {"down": 2}, {"conflict": 1}, {"revoke_tokens": 1}, {"redirect_after_create": 1, "find_500": 1},
    {"another_after_create": 1}, {"another_after_create": 1, "find_500": 1},
)  # fmt: skip


class Clock:
    """Jumps over every wait."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Iterator[Connected]:
    with serving(request.param) as connected:
        yield connected


def test_every_fault_gives_exactly_one_order(product: Connected, environment: dict[str, str]) -> None:
    desk = desk_of(environment)
    # The secret lies where the functions read it.
    manager = boto3.client("secretsmanager")
    name = f"erp-{product.product}-{uuid.uuid4().hex[:8]}"
    manager.create_secret(Name=name, SecretString=json.dumps(credentials(product.product, CANARY)))
    patient, hasty = (
        erp_of({**erp_environment(product.product, product.url, s), "ERP_SECRET_ID": name}, manager)
        for s in (TIMEOUT_S, HASTY_S)
    )
    clock = Clock()
    orders = WorkOrders(
        desk.dynamodb, environment["WORK_ORDERS_TABLE"], desk.episodes, desk.records,
        outcomes_table=environment["OUTCOMES_TABLE"], order_days=1, clock=clock,
    )  # fmt: skip
    patience = Patience(tries=5, retry_base_s=1, lease_s=90, settle_s=30)
    placed: dict[str, Any] = {}

    for number, fault in enumerate(FAULTS):
        episode = desk.episodes.get(f"{product.product}-{name}-{number}"[:60], "fan-degradation")
        opened = orders.open(episode, "creating", "automatic", DOCUMENT)
        assert opened is not None
        product.simulator.set_faults(**fault)
        # In haste only where no answer comes: a busy simulator is no fault, and each late answer would cost a try.
        erp = hasty if "hang_after_create" in fault else patient
        for _ in range(6):
            try:
                placed[opened.reference] = place(opened.reference, orders, erp, patience)
                break
            except TryLaterError:
                clock.now += 1000
                _settled(product)

    assert len(placed) == len(FAULTS)
    for reference, order in placed.items():
        (kept,) = product.kept(reference)
        assert (order.status, order.item["erp_id"]) == ("created", str(kept["id"]))
    assert len(product.simulator.orders()) == len(FAULTS)


def _settled(product: Connected) -> None:
    """The product has done what it goes on with after its answer: `settle_s` is longer than that takes."""

    def is_settled() -> bool:
        calls = product.simulator.calls()
        return calls.get("created_late", 0) == calls.get("error_500_create_late", 0)

    wait_for(is_settled, "the late commit")


class Blind:
    """An adapter that never finds what is there: the control, by which the test above is known to see doubles."""

    def __init__(self, erp: Any) -> None:
        self._erp = erp

    def find_by_reference(self, _reference: str) -> None:
        return None

    def create(self, order: Any) -> Any:
        return self._erp.create(order)


@pytest.mark.parametrize(
    ("kind", "settings", "made"),
    [("rest", {}, 2), ("rest", {"idempotency_key": True}, 1), ("sap", {"repeatability": False}, 2), ("sap", {}, 1)],
    ids=["control", "idempotency key", "control sap", "repeatable request"],
)  # fmt: skip
def test_who_does_not_search_doubles_but_for_the_second_line_of_defence(
    kind: str, settings: dict[str, Any], made: int
) -> None:
    """What is held is that the two headers do what they are there for, against a product that honours them."""
    with serving(kind) as connected:
        erp = Blind(connected.adapter(**settings))
        order = {
            **DOCUMENT,
            "reserved_at": "2026-11-21T10:11:30.123Z",
            "external_reference": "lw-00000000000000aa",
            "asset_id": "A-1",
            "title": "Fan: Compressor",
        }
        connected.simulator.set_faults(error_500_after_create=1)

        with pytest.raises(ErpUnavailableError):
            erp.create(order)
        erp.create(order)

        assert len(connected.kept("lw-00000000000000aa")) == made
