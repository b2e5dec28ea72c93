# SPDX-License-Identifier: Apache-2.0
"""Events as capture publishes them, for one station of one test."""

import hashlib
import json
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud

# The deadline of every wait, which costs a test that passes nothing: twenty processes for each core have been seen.
DEADLINE_S = 120.0

TAKEN_AT = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
"""Of today: the cloud refuses an event from days to come, and one that it would have forgotten (EventDays)."""

PATIENT = {"ERP_TIMEOUT_S": "60"}
"""Of a desk in the test's own process: an ERP that shares a busy machine with the tests may answer after any time-out of
the functions, and a try that ended so is not what is tested."""

Eventually = Callable[[Callable[[], Any], str], Any]

FAILURE_MODES = {
    "machine": {"HPC": "hpc-degradation"},
    "product": {"crack": "cell-crack", "dark": "cell-inactive-area"},
}


@dataclass(slots=True)
class Line:
    """One station with an asset of its own, and the next place in its sequence."""

    cloud: StandinCloud
    line: str
    asset_id: str
    kind: str
    sequence: int = 0
    epoch: int = 1
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def register(cls, cloud: StandinCloud, test: str, kind: str) -> "Line":
        name = "line-" + hashlib.sha256(test.encode()).hexdigest()[:10]
        asset = {
            "station_key": f"plant-1/{name}/station-1",
            "asset_id": f"ASSET-{name}",
            "asset_name": test,
            "location": "hall A",
            "criticality": "A",
            "kind": kind,
            "thing_name": "linewatch-plant-1-device-1",
        }
        item: dict[str, Any] = {key: {"S": value} for key, value in asset.items()}
        item["failure_modes"] = {"M": {label: {"S": code} for label, code in FAILURE_MODES[kind].items()}}
        cloud.client("dynamodb").put_item(TableName=cloud.outputs["AssetsTable"], Item=item)
        return cls(cloud, name, f"ASSET-{name}", kind)

    def severity(self, severity: float) -> dict[str, Any]:
        """One cycle of a machine."""
        result = "NG" if severity >= 0.8 else "REVIEW" if severity >= 0.5 else "OK"
        failing = (
            {"label": "HPC", "failure_mode": "hpc-degradation"} if severity >= 0.3 else {"label": "none"}
        )
        cycles = 125 * (1 - severity)
        ttf = {"p10": cycles * 0.7, "p50": cycles, "p90": cycles * 1.3, "unit": "cycle", "horizon": 125}
        verdict = {
            "result": result,
            "score": severity,
            "severity": severity,
            "time_to_failure": ttf,
            **failing,
        }
        return self.event("InferenceCompleted", {"verdict": verdict, "cycle_period_s": 227.0})

    def product(self, result: str, label: str = "crack") -> dict[str, Any]:
        """One inspected part."""
        verdict = {
            "result": result,
            "label": label if result != "OK" else "ok",
            "severity": 0.9 if result == "NG" else 0.1,
        }
        return self.event("InferenceCompleted", {"verdict": verdict})

    def not_inspected(self) -> dict[str, Any]:
        """A part without a verdict."""
        return self.event("InferenceError", {"not_inspected": {"reason": "busy", "message": "busy"}})

    def event(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """A CloudEvent at the next place of the sequence."""
        self.sequence += 1
        event_id = str(uuid.uuid4())
        model = {"name": "turbofan", "version": "1.0.0", "digest": "sha256:" + "0" * 64}
        if "verdict" in data:
            data["verdict"]["model"] = model
            data["evidence"] = [
                {
                    "kind": "window",
                    "digest": f"sha256:{event_id}",
                    "path": f"{event_id}.csv",
                    "media_type": "text/csv",
                }
            ]
        origin = {
            "site": "plant-1",
            "line": self.line,
            "station": "station-1",
            "epoch": self.epoch,
            "sequence": self.sequence,
            "taken_at": TAKEN_AT,
        }
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": f"/linewatch/v1/plant-1/{self.line}/station-1",
            "type": kind,
            "time": TAKEN_AT,
            "datacontenttype": "application/json",
            "dataschema": "linewatch/v1/event.proto",
            "data": {"origin": origin, "part_id": f"part {self.sequence}", **data},
        }
        self.events.append(event)
        return event

    def send(self, *bodies: Any) -> None:
        """Puts events where the IoT rule puts them."""
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            self.cloud.client("sqs").send_message(
                QueueUrl=self.cloud.outputs["InspectionsQueueUrl"], MessageBody=text
            )

    def is_stored(self, *events: dict[str, Any]) -> bool:
        """Whether every one of these events is in the table."""
        dynamodb, table = self.cloud.client("dynamodb"), self.cloud.outputs["EventsTable"]
        return all(
            "Item"
            in dynamodb.get_item(TableName=table, Key={"event_id": {"S": event["id"]}}, ConsistentRead=True)
            for event in events
        )

    def orders(self) -> list[dict[str, Any]]:
        """This asset's work orders, by the API, oldest first."""
        # Asked for by the asset: the newest of all are other files' orders, some of them of next year by their own clock.
        answer = self.cloud.api("GET", f"/work-orders?limit=200&asset_id={quote(self.asset_id)}")
        return list(reversed(answer.json()["work_orders"]))

    def order(self, status: str) -> dict[str, Any] | None:
        """The one order of this asset when it is in this status."""
        orders = self.orders()
        assert len(orders) <= 1
        return orders[0] if orders and orders[0]["status"] == status else None

    def all_decided(self) -> bool:
        """Whether work_orders has seen every part that this line produced."""
        item = self.cloud.client("dynamodb").get_item(
            TableName=self.cloud.outputs["PolicyStateTable"],
            Key={"asset_id": {"S": self.asset_id}, "station": {"S": f"plant-1/{self.line}/station-1"}},
            ConsistentRead=True,
        )
        seen = {row[2] for row in json.loads(item["Item"]["observations"]["S"])} if "Item" in item else set()
        return seen >= {event["id"] for event in self.events} and self.cloud.queues_are_empty()


def wait_for_erp(process: subprocess.Popen[bytes], simulator: ErpClient) -> None:
    """Until the simulator answers; one that ended, as on a port that is taken, is told at once."""
    wait_for(lambda: process.poll() is not None or simulator.is_up(), "the simulator of an ERP")
    assert process.poll() is None, f"the simulator of an ERP ended with {process.returncode}"


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value; fails after DEADLINE_S."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {DEADLINE_S:.0f} s")
