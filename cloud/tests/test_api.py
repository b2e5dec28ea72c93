# SPDX-License-Identifier: Apache-2.0
"""What people see and decide through the HTTP API."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from cloud_line import Eventually, Line

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import ANSWER_S, StandinCloud

BY = {"by": "M. Keller", "reason": "heard it too"}


@pytest.fixture
def awaiting(machine: Line, eventually: Eventually) -> dict[str, Any]:
    """An order in the approval band."""
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    order: dict[str, Any] = eventually(lambda: machine.order("awaiting_approval"), "the order")
    eventually(machine.all_decided, "the rest")
    return order


def references(erp: ErpClient) -> list[str]:
    return [order["external_reference"] for order in erp.orders()]


@pytest.mark.parametrize("header", [None, "", "Bearer ", "Bearer wrong", "Basic dGVzdDp0ZXN0"])
def test_without_the_token_nobody_gets_in(cloud: StandinCloud, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}

    assert requests.get(f"{cloud.api_url}/summary", headers=headers, timeout=ANSWER_S).status_code == 401


def test_the_summary_agrees_with_the_tables(cloud: StandinCloud, awaiting: dict[str, Any]) -> None:
    shown, counted = cloud.api("GET", "/summary").json(), cloud.counts()

    assert shown["enriched"] == counted["enriched"]
    for name in ("awaiting_approval", "rejected", "created", "suppressed"):
        assert shown["work_orders"][name] == counted["work_orders"][name], name
    assert shown["pilot"] is False


def test_the_middle_band_waits_and_an_approval_places_it(
    cloud: StandinCloud, erp: ErpClient, awaiting: dict[str, Any]
) -> None:
    assert awaiting["reference"] not in references(erp)

    answer = cloud.api("POST", f"/work-orders/{awaiting['reference']}/approve", BY)

    assert answer.status_code == 200
    order = answer.json()
    assert (order["status"], order["decided_by"], order["reason"]) == ("created", "M. Keller", "heard it too")
    assert order["erp_id"].startswith("WO-")
    assert [entry["what"] for entry in order["history"]] == ["opened", "approved", "created"]
    assert references(erp).count(awaiting["reference"]) == 1
    assert cloud.api("POST", f"/work-orders/{awaiting['reference']}/approve", BY).status_code == 409


def test_two_approvals_at_once_give_one_order(
    cloud: StandinCloud, erp: ErpClient, awaiting: dict[str, Any]
) -> None:
    path = f"/work-orders/{awaiting['reference']}/approve"

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: cloud.api("POST", path, BY).status_code, range(2)))

    assert sorted(answers) == [200, 409]
    assert references(erp).count(awaiting["reference"]) == 1


def test_an_approval_while_the_erp_is_away_is_carried_out_later(
    cloud: StandinCloud, erp: ErpClient, machine: Line, awaiting: dict[str, Any], eventually: Eventually
) -> None:
    erp.set_faults(error_500=1)

    answer = cloud.api("POST", f"/work-orders/{awaiting['reference']}/approve", BY).json()

    assert answer["status"] == "creating"
    eventually(lambda: machine.order("created"), "the order")
    assert references(erp).count(awaiting["reference"]) == 1


def test_a_rejection_keeps_the_band_silent_but_not_a_stronger_one(
    cloud: StandinCloud, erp: ErpClient, machine: Line, awaiting: dict[str, Any], eventually: Eventually
) -> None:
    path = f"/work-orders/{awaiting['reference']}/reject"
    assert cloud.api("POST", path, {"by": "M. Keller"}).status_code == 400
    assert (
        cloud.api("POST", path, {"by": "M. Keller", "reason": "sensor was loose"}).json()["status"]
        == "rejected"
    )
    assert cloud.api("POST", path, {"by": "M. Keller", "reason": "again"}).status_code == 409
    machine.send(*(machine.severity(0.65) for _ in range(6)))
    eventually(machine.all_decided, "the silent band")
    assert [order["status"] for order in machine.orders()] == ["rejected"]

    machine.send(*(machine.severity(0.95) for _ in range(5)))

    eventually(
        lambda: [o["status"] for o in machine.orders()] == ["rejected", "created"], "the stronger band"
    )
    assert awaiting["reference"] not in references(erp)


def test_after_a_rejection_and_quiet_the_same_band_asks_again(
    cloud: StandinCloud, machine: Line, awaiting: dict[str, Any], eventually: Eventually
) -> None:
    cloud.api(
        "POST", f"/work-orders/{awaiting['reference']}/reject", {"by": "M. Keller", "reason": "loose sensor"}
    )
    machine.send(*(machine.severity(0.35) for _ in range(6)))
    eventually(machine.all_decided, "the quiet")

    machine.send(*(machine.severity(0.65) for _ in range(5)))

    eventually(
        lambda: [o["status"] for o in machine.orders()] == ["rejected", "awaiting_approval"], "the new order"
    )


def test_a_rising_risk_orders_what_nobody_had_approved_yet(
    erp: ErpClient, machine: Line, awaiting: dict[str, Any], eventually: Eventually
) -> None:
    machine.send(*(machine.severity(0.95) for _ in range(5)))

    order = eventually(lambda: machine.order("created"), "the order")

    assert (order["reference"], order["decided_by"], order["band"]) == (
        awaiting["reference"],
        "policy",
        "automatic",
    )
    assert references(erp).count(awaiting["reference"]) == 1


def test_a_technicians_outcome_ends_the_episode_and_the_next_fault_gets_its_own_order(
    cloud: StandinCloud, erp: ErpClient, machine: Line, eventually: Eventually
) -> None:
    machine.send(*(machine.severity(0.95) for _ in range(8)))
    first = eventually(lambda: machine.order("created"), "the first order")
    eventually(machine.all_decided, "the rest")

    outcome = {"by": "A. Yilmaz", "finding": "confirmed", "note": "blade replaced"}
    closed = cloud.api("POST", f"/work-orders/{first['reference']}/close", outcome)

    assert closed.json()["status"] == "closed"
    machine.send(machine.events[-1], *(machine.severity(0.95) for _ in range(3)))
    eventually(machine.all_decided, "three of a new episode")
    assert len(machine.orders()) == 1
    machine.send(machine.severity(0.95))
    second = eventually(lambda: machine.orders()[1:], "the second order")[0]
    assert (first["episode"], second["episode"]) == (1, 2)
    eventually(lambda: references(erp).count(second["reference"]) == 1, "the second order in the ERP")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/work-orders/lw-none", 404),
        ("POST", "/work-orders/lw-none/approve", 404),
        ("GET", "/events/none", 404),
        ("GET", "/work-orders?limit=many", 400),
        ("GET", "/work-orders?status=created&limit=3", 200),
    ],
)
def test_wrong_questions_get_an_answer(cloud: StandinCloud, method: str, path: str, status: int) -> None:
    assert cloud.api(method, path, BY if method == "POST" else None).status_code == status
