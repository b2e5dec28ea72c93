# SPDX-License-Identifier: Apache-2.0
"""A decision stands in two logs, the console's own and the order's chain, and each proves the other."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from cloud_line import Eventually, Line
from operators import operator_of
from patient_console import wait_longer
from test_orders import Shop

from erp.port import ErpOrder
from linewatch_console.audit.log import utc_now
from linewatch_console.audit.segments import Segments, newest, verify
from linewatch_console.cloud_api import CloudApi
from linewatch_console.people import Person
from linewatch_plant.standin_cloud import ANSWER_S, StandinCloud

KELLER = Person("M. Keller", "approver")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_longer(monkeypatch)


@pytest.fixture
def order(machine: Line, eventually: Eventually) -> dict[str, Any]:
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    shown: dict[str, Any] = eventually(lambda: machine.order("awaiting_approval"), "the order")
    eventually(machine.all_decided, "the rest")
    return shown


def test_each_decision_names_the_consoles_own_entry_of_it(
    cloud: StandinCloud, machine: Line, order: dict[str, Any], tmp_path: Path, eventually: Eventually
) -> None:
    reference, token = order["reference"], tmp_path / "token"
    token.write_text(cloud.api_token)
    log = Segments(tmp_path / "audit", 1 << 20, utc_now)

    def decided(verb: str, **body: str) -> str:
        """As the console does it: written down, then sent with the entry's digest."""
        digest = log.append("decision", KELLER.name, {"verb": verb, "reference": reference}).digest

        async def sent() -> None:
            api = CloudApi(cloud.api_url, token)
            try:
                await api.send(f"/work-orders/{reference}/{verb}", body, KELLER, digest)
            finally:
                await api.close()

        asyncio.run(sent())
        return digest

    approved = decided("approve", reason="heard it")
    eventually(lambda: machine.order("created"), "the order in the ERP")
    closed = decided("close", finding="no_fault")
    corrected = decided("close", finding="confirmed", note="after a day")

    why = cloud.api("GET", f"/work-orders/{reference}/why").json()
    assert why["verified"]
    audited = {
        entry["what"]: entry["detail"]["audit"] for entry in why["entries"] if "audit" in entry["detail"]
    }
    assert audited == {"approved": approved, "closed": closed, "corrected": corrected}
    assert verify(tmp_path / "audit").fault == ""
    mine = {entry.digest: json.loads(entry.detail)["verb"] for entry in newest(tmp_path / "audit", 3)}
    assert [mine[audited[what]] for what in ("approved", "closed", "corrected")] == [
        "approve",
        "close",
        "close",
    ]
    said = operator_of(cloud, tmp_path).run("why", "test", reference)
    assert all(digest in said.output for digest in audited.values()), said.output


@pytest.mark.parametrize("wrong", ["sha256:12", "SHA256:" + "0" * 64, "sha256:" + "0" * 65, "x" * 3000])
def test_a_header_that_is_no_digest_is_refused_by_name_and_decides_nothing(
    wrong: str, cloud: StandinCloud, order: dict[str, Any]
) -> None:
    headers = {
        "Authorization": f"Bearer {cloud.api_token}", "X-Linewatch-User": "M. Keller",
        "X-Linewatch-Role": "approver", "X-Linewatch-Audit": wrong,
    }  # fmt: skip
    path = f"/work-orders/{order['reference']}"

    refused = requests.post(f"{cloud.api_url}{path}/approve", json={}, headers=headers, timeout=ANSWER_S)

    assert (refused.status_code, refused.json()["field"]) == (400, "X-Linewatch-Audit")
    assert cloud.api("GET", path).json()["status"] == "awaiting_approval"


def test_every_kind_of_decision_keeps_the_digest_in_the_chain_of_each_order_it_changes() -> None:
    shop, digest = Shop(), "sha256:" + "a" * 64
    rejected, merged, into = shop.open("A"), shop.open("B"), shop.open("C")
    assert shop.orders.reject(rejected, shop.closed_episodes("A"), "mei", "loose", audit=digest)
    assert shop.orders.merge(merged, into, "mei", "one cause", audit=digest)
    assert shop.orders.confirm(into.reference, "mei", "heard it", audit=digest)
    leased = shop.orders.lease(into.reference, 90)
    assert leased is not None
    shop.orders.created(leased, ErpOrder("WO-1", "OPEN"))
    assert shop.orders.close(into, shop.closed_episodes("C", "B"), "mei", "confirmed", "", audit=digest)
    assert shop.orders.correct(shop.now_of(into), "mei", "no_fault", "", audit=digest)
    parked = shop.orders.lease(shop.open("D", "creating").reference, 90)
    assert parked is not None
    assert shop.orders.failed(parked, "away", status="parked", wait_s=0, due_s=0) is not None
    assert shop.orders.replay(parked.reference, "mei", "again", audit=digest)

    kept = {
        entry.what
        for one in (rejected, merged, into, parked)
        for entry in shop.records.of(one.reference)
        if json.loads(entry.detail).get("audit") == digest
    }
    assert kept == {"rejected", "merged", "absorbed", "approved", "closed", "corrected", "replayed"}


def test_a_decision_without_the_header_says_nothing_of_one() -> None:
    shop = Shop()
    order = shop.open("A")
    assert shop.orders.confirm(order.reference, "mei", "heard it") is not None

    assert [json.loads(entry.detail).get("audit") for entry in shop.records.of(order.reference)] == [
        None,
        None,
    ]
