# SPDX-License-Identifier: Apache-2.0
"""`linewatch why`, `verify` and `orders` over real tables and a real ERP simulator, and what tampering leads to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cloud_line import Eventually, Line
from operators import Operator, operator_of

from api.dossier import gather
from api.policies import bundled
from api.verifying import findings
from linewatch.records import Entry, following
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from work_orders.observing import Desk
from work_orders.records import from_item, to_item
from work_orders.wiring import desk_of


@pytest.fixture(scope="session")
def desk(environment: dict[str, str]) -> Desk:
    return desk_of(environment)


@pytest.fixture
def operator(cloud: StandinCloud, tmp_path: Path) -> Operator:
    return operator_of(cloud, tmp_path)


@pytest.fixture
def placed(machine: Line, eventually: Eventually) -> dict[str, Any]:
    """An order that a person approved and that is in the ERP."""
    # The first four raise it, in whatever order the queue gives them out; with the fifth among them it could be another four.
    machine.send(*(machine.severity(0.65) for _ in range(4)))
    order = eventually(lambda: machine.order("awaiting_approval"), "the order")
    machine.send(machine.severity(0.65))
    eventually(machine.all_decided, "the rest")
    machine.cloud.api(
        "POST", f"/work-orders/{order['reference']}/approve", {"by": "M. Keller", "reason": "heard it"}
    )
    found: dict[str, Any] = eventually(lambda: machine.order("created"), "the order in the ERP")
    return found


def stored(desk: Desk, reference: str) -> list[dict[str, Any]]:
    return [to_item(entry) for entry in desk.records.of(reference)]


def rewrite(desk: Desk, table: str, *items: dict[str, Any]) -> None:
    """As somebody does who may write the table and none of our code."""
    for item in items:
        desk.dynamodb.put_item(TableName=table, Item=item)


def test_the_timeline_tells_frame_model_rule_approver_and_every_call_of_the_erp(
    operator: Operator, placed: dict[str, Any], machine: Line, desk: Desk
) -> None:
    said = operator.run("why", "test", placed["reference"])

    assert said.exit_code == 0, said.output
    over = machine.events[:4]
    order = desk.orders.get(placed["reference"])
    assert order is not None
    # The one that held: another test of this account may have put its own.
    policy = order.document["policy_version"]
    for wanted in (
        *(part["id"] for part in over), over[-1]["data"]["evidence"][0]["digest"], "turbofan 1.0.0", f"policy {policy}",
        "M. Keller approved it: heard it", placed["erp_id"], "POST", "201", "are as they were written",
        ", by a clock that was not synchronised",
    ):  # fmt: skip
        assert wanted in said.output, wanted
    told = json.loads(operator.run("why", "test", placed["reference"], "--json").stdout)
    assert told["verified"]
    assert told == told | {"reference": placed["reference"], "fault": None, "head": placed["head"]}
    assert told["erp"]["record_digest"] in [entry["digest"] for entry in told["entries"]]
    assert [entry["number"] for entry in told["entries"]] == list(range(len(told["entries"])))


def test_the_api_tells_the_same_as_the_command(
    cloud: StandinCloud, operator: Operator, placed: dict[str, Any], tmp_path: Path
) -> None:
    by_api = cloud.api("GET", f"/work-orders/{placed['reference']}/why").json()
    by_command = json.loads(operator.run("why", "test", placed["reference"], "--json").stdout)

    assert by_api["not_checked"] == [
        "the ERP was not asked: chain and head replaced together would not be seen"
    ]
    assert by_command["not_checked"] == []
    assert {**by_api, "not_checked": []} == by_command
    asked = cloud.api("GET", f"/work-orders/{placed['reference']}/why?erp=true&stored=true").json()
    assert {name: value for name, value in asked.items() if name != "stored"} == by_command
    file = tmp_path / "by_api.json"
    file.write_text(json.dumps(asked["stored"]))
    assert operator.run("verify", "--file", file).exit_code == 0


@pytest.mark.parametrize("field", ["at", "what", "by", "detail", "previous", "digest"])
def test_one_changed_byte_in_the_table_is_named(
    operator: Operator, desk: Desk, environment: dict[str, str], placed: dict[str, Any], field: str
) -> None:
    items = stored(desk, placed["reference"])
    number = len(items) // 2
    changed = {**items[number], field: items[number][field][:-1] + chr(ord(items[number][field][-1]) ^ 1)}
    rewrite(desk, environment["RECORDS_TABLE"], changed)

    said = operator.run("verify", "test", placed["reference"], "--json")

    assert said.exit_code == 4
    fault = json.loads(said.stdout)["orders"][0]["faults"][0]
    assert (fault["where"], fault["number"]) == (placed["reference"], number)
    assert operator.run("why", "test", placed["reference"]).exit_code == 4
    rewrite(desk, environment["RECORDS_TABLE"], items[number])
    assert operator.run("verify", "test", placed["reference"]).exit_code == 0


def test_who_replaces_the_chain_and_its_head_is_seen_by_what_the_erp_bears(
    operator: Operator, desk: Desk, environment: dict[str, str], placed: dict[str, Any]
) -> None:
    reference = placed["reference"]
    last = None
    forged = []
    for item in stored(desk, reference):
        by = item["by"].replace("Keller", "Killer")
        last = following(last, reference, item["at"], item["what"], by, json.loads(item["detail"]))
        forged.append(to_item(last))
    assert last is not None
    rewrite(desk, environment["RECORDS_TABLE"], *forged)
    desk.dynamodb.update_item(
        TableName=environment["WORK_ORDERS_TABLE"],
        Key={"reference": reference},
        UpdateExpression="SET head = :head, decided_by = :by",
        ExpressionAttributeValues={":head": last.digest, ":by": "M. Killer"},
    )

    asked, not_asked = (
        operator.run("verify", "test", reference),
        operator.run("verify", "test", reference, "--no-erp"),
    )

    assert asked.exit_code == 4
    assert "the whole chain was replaced" in asked.output
    # The control: without the ERP's word such a forgery can't be seen, and the command says that it did not ask.
    assert not_asked.exit_code == 0
    assert "the ERP was not asked" in not_asked.output


def test_a_saved_order_is_checked_without_an_account(
    operator: Operator, placed: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "order.json"
    assert operator.run("why", "test", placed["reference"], "--save", file).exit_code == 0

    operator.fleet_file.unlink()

    assert operator.run("verify", "--file", file).exit_code == 0
    content = json.loads(file.read_text())
    entries = content["chains"][placed["reference"]]
    entries[1]["by"] = "nobody"
    file.write_text(json.dumps(content))
    said = operator.run("verify", "--file", file)
    assert said.exit_code == 4
    assert "entry 1 was changed" in said.output
    file.write_text("{")
    assert operator.run("verify", "--file", file).exit_code == 2
    assert operator.run("verify").exit_code == 2


class ReadBeside:
    """The records, beside somebody who closes the order at the moment in which its chain is read."""

    def __init__(self, desk: Desk, close: Callable[[], object], *, before: bool) -> None:
        self.desk, self.close, self.before = desk, close, before
        self.reads = 0

    def of(self, chain: str) -> list[Entry]:
        self.reads += 1
        if self.reads == 1 and self.before:
            self.close()
        entries = self.desk.records.of(chain)
        if self.reads == 1 and not self.before:
            self.close()
        return entries


@pytest.mark.parametrize("before", [True, False], ids=["chain-newer", "order-newer"])
def test_an_order_that_changes_while_it_is_read_is_not_called_changed(
    desk: Desk, placed: dict[str, Any], cloud: StandinCloud, before: bool
) -> None:
    """The order was read first and its chain later: an entry between the two looked like one that was added or cut off."""
    reference = placed["reference"]
    closing = {"finding": "confirmed", "note": "worn seal", "by": "R. Amsler"}
    records = ReadBeside(
        desk, lambda: cloud.api("POST", f"/work-orders/{reference}/close", closing), before=before
    )
    order = desk.orders.get(reference)
    assert order is not None

    dossier = gather(order, desk.orders, records, desk.events, desk.policies, bundled())

    assert dossier.order["status"] == dossier.entries[-1].what == "closed"
    assert findings(dossier) == []


def test_every_order_is_checked_at_once(operator: Operator, desk: Desk, placed: dict[str, Any]) -> None:
    said = operator.run("verify", "test", "--all", "--no-erp", "--json")

    checked = {one["reference"]: one for one in json.loads(said.stdout)["orders"]}
    assert checked[placed["reference"]]["faults"] == []
    assert checked[placed["reference"]]["records"] == len(stored(desk, placed["reference"]))
    assert operator.run("verify", "test").exit_code == 2
    assert operator.run("verify", "test", "lw-none").exit_code == 2


def test_a_parked_order_is_listed_explained_and_replayed_once(
    operator: Operator, cloud: StandinCloud, erp: ErpClient, machine: Line, desk: Desk, eventually: Eventually
) -> None:
    # However often: were it tried again, it would be refused again, and the first try not be the one that parks it.
    erp.set_faults(refuse=1_000)
    machine.send(*(machine.severity(0.95) for _ in range(4)))
    parked = eventually(lambda: machine.order("parked"), "the parked order")
    erp.set_faults(refuse=0)
    reference = parked["reference"]

    listed = operator.run("orders", "list", "test")
    explained = operator.run("orders", "explain", "test", reference)
    dry = operator.run("orders", "replay", "test", reference, "--dry-run")

    assert listed.exit_code == 4
    assert reference in listed.output
    assert "the ERP refused it" in explained.output
    assert "mend the cause" in explained.output
    assert "Try 1 at the ERP failed and the order was parked" in explained.output
    assert f"would replay {reference}" in dry.output
    cloud.sweep()
    assert machine.order("parked"), "what the ERP refused is not tried by itself"

    first = operator.run(
        "orders", "replay", "test", reference, "--by", "A. Yılmaz", "--reason", "asset made known"
    )
    second = operator.run("orders", "replay", "test", reference)

    assert (first.exit_code, second.exit_code) == (0, 0)

    def swept() -> Any:
        cloud.sweep()
        return machine.order("created")

    eventually(swept, "the order")
    third = operator.run("orders", "replay", "test", reference)
    assert "is created, nothing to replay" in third.output
    assert [one["external_reference"] for one in erp.orders()].count(reference) == 1
    what = [from_item(item).what for item in stored(desk, reference)]
    assert what.count("replayed") >= 1
    assert "A. Yılmaz had it tried again: asset made known" in operator.run("why", "test", reference).output
    assert operator.run("orders", "replay", "test").exit_code == 2


def test_a_file_that_cannot_be_written_is_named(operator: Operator, placed: dict[str, Any]) -> None:
    """A saved order goes where it can't be written: a message, no traceback."""
    said = operator.run("why", "test", placed["reference"], "--save", "/proc/order.json")

    assert said.exit_code == 1
    assert "--save /proc/order.json" in said.output
