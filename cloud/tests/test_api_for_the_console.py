# SPDX-License-Identifier: Apache-2.0
"""What the API answers is what the console reads: its shapes and its client, against the API over HTTP."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cloud_line import Eventually, Line
from patient_console import wait_longer

from linewatch.records import Entry, first_fault
from linewatch_console.cloud_api import CloudApi, CloudRefused
from linewatch_console.people import Person
from linewatch_plant.standin_cloud import StandinCloud


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_longer(monkeypatch)


@pytest.fixture
def order(machine: Line, eventually: Eventually) -> dict[str, Any]:
    machine.send(*(machine.severity(0.65) for _ in range(5)))
    shown: dict[str, Any] = eventually(lambda: machine.order("awaiting_approval"), "the order")
    eventually(machine.all_decided, "the rest")
    return shown


def test_the_console_reads_every_answer_and_checks_the_chain_itself(
    cloud: StandinCloud, order: dict[str, Any], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(cloud.api_token)
    reference = order["reference"]

    async def walked() -> dict[str, Any]:
        api = CloudApi(cloud.api_url, token)
        try:
            listed = (await api.page({"limit": "200", "asset_id": order["asset_id"]})).work_orders
            detail = await api.work_order(reference)
            summary = await api.summary()
            why = await api.document(f"/work-orders/{reference}/why")
            policy = await api.document("/policy")
            chain = await api.records(reference)
        finally:
            await api.close()
        return {
            "listed": listed,
            "detail": detail,
            "summary": summary,
            "why": why,
            "policy": policy,
            "chain": chain,
        }

    told = asyncio.run(walked())

    assert reference in [one.reference for one in told["listed"]]
    assert told["detail"].approval.on_expiry in ("reject", "create", "keep")
    assert told["detail"].thresholds["approval"] == {"on": 0.5, "inclusive": True, "off": 0.4}
    assert told["detail"].raised_in == "approval"
    assert told["summary"].work_orders.awaiting_approval >= 1
    assert told["why"]["verified"]
    assert told["policy"]["document"]["version"] == told["policy"]["version"]
    entries = [
        Entry(reference, one.number, one.at, one.what, one.by, one.detail, one.previous, one.digest)
        for one in told["chain"]
    ]
    assert first_fault(entries, told["detail"].head) is None


def test_the_console_shows_who_was_faster(cloud: StandinCloud, order: dict[str, Any], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(cloud.api_token)
    path = f"/work-orders/{order['reference']}/reject"
    assert cloud.api("POST", path, {"by": "M. Keller", "reason": "loose"}).status_code == 200

    async def second() -> CloudRefused:
        api = CloudApi(cloud.api_url, token)
        try:
            with pytest.raises(CloudRefused) as refused:
                await api.send(
                    path, {"reason": "again"}, Person("A. Yılmaz", "approver"), "sha256:" + "0" * 64
                )
        finally:
            await api.close()
        return refused.value

    refused = asyncio.run(second())

    assert refused.status == 409
    assert "rejected by M. Keller" in str(refused)
    assert refused.order is not None
    assert refused.order["status"] == "rejected"
