# SPDX-License-Identifier: Apache-2.0
"""The stand-in cloud with its queue-driven functions as processes of the test, which can be killed -9.

The stand-in itself is never killed: it loses what it acknowledged.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brokers import Child, wait_for
from faults.sink import events_of

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.processes import free_port
from linewatch_plant.standin_cloud import REGION, StandinCloud

PUMP = Path(__file__).parent / "faults" / "pump.py"
ENRICH, WORK_ORDERS = "enrich.handler", "work_orders.handler"

VISIBILITY_S = 10
"""Longer than a lease, as in the template: what a dead worker had is due again when its message comes back."""

QUICK = {"ErpTimeoutSeconds": "1", "RetryBaseSeconds": "1", "SettleSeconds": "2", "LeaseSeconds": "8",
         "SweepRate": "rate(1 day)"}  # fmt: skip
"""The schedule would place parked orders behind a test's back; tests sweep themselves."""

_OUTPUTS = {ENRICH: ("EnrichFunctionName", "InspectionsQueueUrl"),
            WORK_ORDERS: ("WorkOrdersFunctionName", "EnrichedQueueUrl")}  # fmt: skip


@dataclass(slots=True)
class PumpedCloud:
    """The stand-in, its ERP, and the processes that stand for its functions."""

    cloud: StandinCloud
    erp: ErpClient
    folder: Path
    pumps: list[Child] = field(default_factory=list)

    def pump(
        self, handler: str, *, environment: Mapping[str, str] | None = None, visibility_s: int = VISIBILITY_S,
        batch: int = 10, endpoint_url: str = "", function: str = "",
    ) -> Child:  # fmt: skip
        """One more process for a function, not started.

        `function`: whose queue and variables it has where the handler is a control; `endpoint_url`: of a gate before
        the stand-in.
        """
        function, queue = _OUTPUTS[function or handler]
        configured = self.cloud.client("lambda").get_function_configuration(
            FunctionName=self.cloud.outputs[function]
        )
        own = {
            **configured["Environment"]["Variables"],
            "AWS_ENDPOINT_URL": endpoint_url or self.cloud.endpoint_url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            **(environment or {}),
        }
        arguments = {
            "--handler": handler,
            "--queue-url": self.cloud.outputs[queue],
            "--ledger": self.ledger(handler),
            "--visibility-s": visibility_s,
            "--batch": batch,
        }
        command = [sys.executable, PUMP, *(part for pair in arguments.items() for part in pair)]
        made = Child(command, self.folder / f"pump-{len(self.pumps)}.log", own)
        self.pumps.append(made)
        return made

    def ledger(self, handler: str) -> Path:
        """What this function's processes received."""
        return self.folder / f"{handler}.jsonl"

    def accepted(self) -> Counter[str]:
        """Event id -> how often the cloud accepted it; a redelivery by the queue is none.

        Of what has reached a process; the whole once the queue is empty.
        """
        bodies: dict[str, str] = {}
        path = self.ledger(ENRICH)
        for line in path.read_text().splitlines() if path.exists() else []:
            message_id, body = json.loads(line)
            bodies[message_id] = body
        ids: Counter[str] = Counter()
        for body in bodies.values():
            ids.update(event["id"] for event in events_of(body.encode()))
        return ids

    def dead_letters(self) -> list[str]:
        """Bodies that wait for a person; taken away from their queues."""
        found = []
        for output in ("InspectionsDeadLettersUrl", "EnrichedDeadLettersUrl"):
            while True:
                answer = self.cloud.client("sqs").receive_message(
                    QueueUrl=self.cloud.outputs[output], MaxNumberOfMessages=10, VisibilityTimeout=600
                )
                if not answer.get("Messages"):
                    break
                found += [message["Body"] for message in answer["Messages"]]
        return found

    def unplaced_after_a_sweep(self) -> int:
        """Orders that are decided and not in the ERP, after one run of the sweep."""
        self.cloud.sweep()
        said = self.cloud.counts()["work_orders"]
        return int(said["parked"] + said["creating"])

    def received(self) -> int:
        """Messages that the functions were given, repeats and all."""
        paths = (self.ledger(handler) for handler in _OUTPUTS)
        return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())

    def register(self, station_key: str, asset_id: str) -> None:
        """One machine whose failing part is the high-pressure compressor."""
        words = {"station_key": station_key, "asset_id": asset_id, "asset_name": asset_id, "location": "hall A",
                 "criticality": "A", "kind": "machine", "thing_name": ""}  # fmt: skip
        item: dict[str, Any] = {name: {"S": value} for name, value in words.items()}
        item["failure_modes"] = {"M": {"HPC": {"S": "hpc-degradation"}}}
        self.cloud.client("dynamodb").put_item(TableName=self.cloud.outputs["AssetsTable"], Item=item)


@contextmanager
def pumped_cloud(folder: Path, **parameters: str) -> Iterator[PumpedCloud]:
    """Stand-in and ERP run inside the block, the stand-in's own workers don't; pumps are killed at its end."""
    port = free_port()
    erp = Child(
        [sys.executable, "-m", "linewatch_plant.erp_simulator", "--port", str(port)], folder / "erp.log"
    )
    erp.start()
    made: PumpedCloud | None = None
    try:
        client = ErpClient(f"http://127.0.0.1:{port}", timeout_s=60)
        wait_for(client.is_up, "the ERP simulator answers", 120)
        cloud = StandinCloud.start(
            folder / "cloud", client.url, parameters={**QUICK, **parameters}, warm=False
        )
        made = PumpedCloud(cloud, client, folder)
        mappings = cloud.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        assert mappings, "the template's mappings are there"
        for mapping in mappings:
            cloud.client("lambda").delete_event_source_mapping(UUID=mapping["UUID"])
        yield made
    finally:
        if made is not None:
            for pump in made.pumps:
                pump.kill()
            made.cloud.stop()
        erp.kill()
