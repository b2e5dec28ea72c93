# SPDX-License-Identifier: Apache-2.0
"""R7: one work order for each fault, with an ERP that fails and falls silent, repeats, and workers killed -9.

The ERP dedupes nothing, so a double is seen. Its one mode that the product has is search by reference. Beside the long
run stands one fixed crash point, the ERP has committed and has not answered, where the control doubles every time:
check, post, store.

Guards: cloud/work_orders, cloud/enrich.
"""

import asyncio
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from brokers import Child, running, wait_for
from faults.gate import UP, Gate, gate_before
from pumped_cloud import ENRICH, WORK_ORDERS, PumpedCloud, pumped_cloud

from linewatch_plant.counts import doubled

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

SEED = 20261121
PARTS = 4
"""Bad parts of each fault: as many as the policy wants before it orders (4 of 5)."""

REPEATS = 1 / 3
CLOUD_DEADLINE_S = 900.0
ERP_FAULTS = {"error_500_percent": 5, "error_500_after_create_percent": 5, "hang_after_create_percent": 14,
              "find_500_percent": 3}  # fmt: skip
POISON = {"no JSON at all": "InspectionsQueueUrl", '{"event": 5}': "EnrichedQueueUrl"}


@pytest.fixture(scope="module")
def pumped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PumpedCloud]:
    with pumped_cloud(tmp_path_factory.mktemp("exactly-once")) as made:
        yield made


def bad_part(line: str, sequence: int) -> dict[str, Any]:
    """A machine's cycle with a severity far in the automatic band, as capture publishes it."""
    verdict = {"result": "NG", "score": 0.95, "severity": 0.95, "label": "HPC"}
    origin = {"site": "plant-1", "line": line, "station": "machine-1", "epoch": 1, "sequence": sequence}
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{line} {sequence}")),
        "source": f"/linewatch/v1/plant-1/{line}/machine-1",
        "type": "InferenceCompleted",
        "time": "2026-11-21T04:00:00.123Z",
        "data": {"origin": origin, "part_id": f"cycle {sequence}", "verdict": verdict},
    }


def send(pumped: PumpedCloud, queue: str, bodies: list[str]) -> None:
    """In batches of ten, SQS's largest."""
    for at in range(0, len(bodies), 10):
        entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[at : at + 10])]
        answer = pumped.cloud.client("sqs").send_message_batch(
            QueueUrl=pumped.cloud.outputs[queue], Entries=entries
        )
        assert not answer.get("Failed"), answer


def with_repeats(bodies: list[str], chance: random.Random) -> list[str]:
    """In order, and a share of them again, somewhere behind the first: as a killed forwarder sends them."""
    places = [(float(at), body) for at, body in enumerate(bodies)]
    again = chance.sample(places, round(len(bodies) * REPEATS))
    places += [(chance.uniform(at, len(bodies)), body) for at, body in again]
    return [body for _, body in sorted(places)]


def send_and_kill(
    pumped: PumpedCloud, bodies: list[str], workers: list[Child], kills: int, chance: random.Random
) -> int:
    """Kills whenever one more share of the work was received, however fast that goes. Returns how many kills met work.

    Each distinct part is received twice at least, by enrich and by work_orders: at the last kill the last share of them
    is still to be received.
    """
    met_work, before = 0, pumped.received()
    share = 2 * len(set(bodies)) / (kills + 1)
    send(pumped, "InspectionsQueueUrl", bodies)
    for kill in range(1, kills + 1):
        due = before + kill * share
        wait_for(lambda: pumped.received() >= due, "the work goes on", CLOUD_DEADLINE_S)  # noqa: B023
        time.sleep(chance.uniform(0, 0.1))  # where it dies is the point of the test
        met_work += not pumped.cloud.queues_are_empty()
        victim = chance.choice(workers)
        assert victim.runs, victim.told()[-2000:]
        victim.kill()
        victim.start()
    return met_work


def test_every_fault_gets_exactly_one_order_whoever_dies(pumped: PumpedCloud, tally, long: bool) -> None:
    faults, kills = (1000, 100) if long else (100, 15)
    chance = random.Random(SEED)
    assets = {f"ASSET-{number}": f"fault-{number}" for number in range(faults)}
    for asset_id, line in assets.items():
        pumped.register(f"plant-1/{line}/machine-1", asset_id)
    parts = [json.dumps(bad_part(line, 1 + part)) for line in assets.values() for part in range(PARTS)]
    sent = with_repeats(parts, chance)
    pumped.erp.set_faults(**ERP_FAULTS)
    workers = [pumped.pump(ENRICH), *(pumped.pump(WORK_ORDERS, batch=5) for _ in range(3))]
    for worker in workers:
        worker.start()
    for body, queue in POISON.items():
        send(pumped, queue, [body])
    # Before the kills: who is killed between the letter and the end of its message leaves a second copy
    # (dead_letters/burying.py).
    wait_for(
        lambda: pumped.cloud.dead_letters() == len(POISON) and pumped.cloud.queues_are_empty(),
        "the poison is buried", CLOUD_DEADLINE_S,
    )  # fmt: skip

    met_work = send_and_kill(pumped, sent, workers, kills, chance)
    wait_for(pumped.cloud.queues_are_empty, "the queues are empty", CLOUD_DEADLINE_S)
    pumped.erp.set_faults(**dict.fromkeys(ERP_FAULTS, 0))
    parked = pumped.cloud.counts()["work_orders"]["parked"]
    wait_for(lambda: pumped.unplaced_after_a_sweep() == 0, "every parked order is placed", 300)
    for worker in workers:
        worker.kill()

    orders, calls = pumped.erp.orders(), pumped.erp.calls()
    by_asset = Counter(order["asset_id"] for order in orders)
    missing = assets.keys() - by_asset.keys()
    tally.accepted, tally.lost, tally.doubled = faults, len(missing), doubled(orders)
    tally.note = (
        f"{kills} kills, {len(sent) - len(parts)} repeats, {calls['hang_after_create']} orders made and never answered, "
        f"{calls['error_500'] + calls['error_500_after_create']} answers 500, {parked} parked and placed by the sweep"
    )
    assert not missing
    assert by_asset == dict.fromkeys(assets, 1)
    assert doubled(orders) == 0
    assert sorted(pumped.dead_letters()) == sorted(POISON)
    assert calls["hang_after_create"] > faults / 20, "the ERP must have fallen silent"
    assert met_work > kills / 2, "the kills fell while nothing was worked on"


def at_the_crash_point(pumped: PumpedCloud, worker: Child, asset_id: str) -> int:
    """Kills the worker while the ERP has made its order and not answered. Returns how many orders there are at rest."""
    line = asset_id.removeprefix("ASSET-")
    pumped.register(f"plant-1/{line}/machine-1", asset_id)
    enrich = pumped.pump(ENRICH)
    enrich.start()
    before = pumped.erp.calls().get("hang_after_create", 0)
    pumped.erp.set_faults(hang_after_create=1)
    worker.start()
    wait_for(lambda: "ready" in worker.told(), "the worker is ready", 180)
    send(pumped, "InspectionsQueueUrl", [json.dumps(bad_part(line, 1 + part)) for part in range(PARTS)])
    wait_for(lambda: pumped.erp.calls().get("hang_after_create", 0) > before, "the ERP falls silent", 180)

    worker.kill()

    assert len(_orders_of(pumped, asset_id)) == 1, "the ERP has it"
    worker.start()
    wait_for(pumped.cloud.queues_are_empty, "what the dead worker had is worked off", 300)
    enrich.kill()
    worker.kill()
    return len(_orders_of(pumped, asset_id))


def _orders_of(pumped: PumpedCloud, asset_id: str) -> list[dict[str, Any]]:
    return [order for order in pumped.erp.orders() if order["asset_id"] == asset_id]


def test_worker_that_dies_before_the_erp_answers_doubles_nothing_and_the_control_does(
    pumped: PumpedCloud, tally
) -> None:
    patient = {"ERP_TIMEOUT_S": "60", "LEASE_S": "2"}  # it waits for the answer when it dies
    table = "control-orders"
    pumped.cloud.client("dynamodb").create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "asset_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "asset_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    here = str(Path(__file__).parent)
    ours = pumped.pump(WORK_ORDERS, environment=patient, visibility_s=4)
    control = pumped.pump(
        "check_then_post",
        function=WORK_ORDERS,
        environment={**patient, "CONTROL_TABLE": table, "PYTHONPATH": here},
        visibility_s=4,
    )

    of_ours = at_the_crash_point(pumped, ours, "ASSET-crash-ours")
    of_control = at_the_crash_point(pumped, control, "ASSET-crash-control")

    tally.accepted, tally.doubled, tally.control_lost = 1, of_ours - 1, of_control - 1
    tally.note = (
        "a worker dies after the ERP's commit and before its answer; the control checks, posts, stores"
    )
    assert of_ours == 1
    assert of_control == 2, "the control must double, or the tests beside it see nothing"


@pytest.mark.anyio
async def test_enrich_that_dies_between_storing_and_passing_on_costs_no_order_and_the_control_does(
    pumped: PumpedCloud, tally
) -> None:
    async with gate_before(urlsplit(pumped.cloud.endpoint_url).port) as gate:
        at_the_gate = f"http://127.0.0.1:{gate.port}"
        here = {"PYTHONPATH": str(Path(__file__).parent)}
        ours = pumped.pump(ENRICH, visibility_s=4, endpoint_url=at_the_gate)
        control = pumped.pump(
            "pass_on_new_only", environment=here, visibility_s=4, endpoint_url=at_the_gate, function=ENRICH
        )

        of_ours = await orders_after_enrich_died(pumped, gate, ours, "ASSET-passed-on")
        of_control = await orders_after_enrich_died(pumped, gate, control, "ASSET-stored-only")

    tally.accepted, tally.lost, tally.control_lost = 1, 1 - of_ours, 1 - of_control
    tally.note = "enrich dies between the event's row and the queue; the control passes on only what is new"
    assert of_ours == 1
    assert of_control == 0, "the control must lose the order, or the test beside it sees nothing"


async def orders_after_enrich_died(pumped: PumpedCloud, gate: Gate, enrich: Child, asset_id: str) -> int:
    """Kills enrich between the row of the first bad part and the queue. Returns how many orders there are at rest."""
    line = asset_id.removeprefix("ASSET-")
    pumped.register(f"plant-1/{line}/machine-1", asset_id)
    parts = [bad_part(line, 1 + number) for number in range(PARTS)]
    gate.hold(UP, b"AmazonSQS.SendMessage")
    with running(pumped.pump(WORK_ORDERS, visibility_s=4, environment={"LEASE_S": "2"})), running(enrich):
        # One message, as a drain sends them: the crash meets the first event and holds up all four.
        await asyncio.to_thread(send, pumped, "InspectionsQueueUrl", [json.dumps({"events": parts})])
        await asyncio.wait_for(gate.held.wait(), 180)

        enrich.kill()

        rows = await asyncio.to_thread(pumped.cloud.scan, "EventsTable")
        assert sum(row["line"]["S"] == line for row in rows) >= 1, "it has stored something"
        gate.open()
        enrich.start()
        await asyncio.to_thread(wait_for, pumped.cloud.queues_are_empty, "all is worked off", 300)
    return len(_orders_of(pumped, asset_id))
