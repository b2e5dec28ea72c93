# SPDX-License-Identifier: Apache-2.0
"""The alarms of the rehearsal: a machine near its end of life, as the device's forwarder tells of it."""

import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from linewatch_plant.processes import PlantError

ORDER_S = 900.0
"""How long the first work order may take: its Lambdas start cold."""
PLACE = {"site": "plant-1", "line": "line-2", "station": "machine-1", "epoch": 1}
"""The machine of cloud/assets.csv."""
CYCLES = 5
"""As many as the bundled policy looks at."""


def send_alarms(sqs: Any, queue_url: str) -> None:
    """Verdicts as they come from the device, where the topic rule puts them."""
    for sequence in range(1, CYCLES + 1):
        verdict = {
            "result": "NG", "score": 0.9, "severity": 0.9, "label": "HPC", "failure_mode": "hpc-degradation",
            "time_to_failure": {"p10": 9.0, "p50": 12.0, "p90": 16.0, "unit": "cycle", "horizon": 125.0},
            "model": {"name": "turbofan", "version": "1.0.0", "digest": "sha256:" + "0" * 64},
        }  # fmt: skip
        taken_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        origin = {**PLACE, "sequence": sequence, "taken_at": taken_at}
        event = {
            "specversion": "1.0", "id": str(uuid.uuid4()), "source": "/linewatch/v1/plant-1/line-2/machine-1",
            "type": "InferenceCompleted", "time": taken_at, "datacontenttype": "application/json",
            "dataschema": "linewatch/v1/event.proto",
            "data": {"origin": origin, "part_id": f"cycle {sequence}", "verdict": verdict, "cycle_period_s": 3600.0},
        }  # fmt: skip
        sqs.send_message(QueueUrl=queue_url, MessageBody=json.dumps(event))


def first_order(dynamodb: Any, table: str) -> str:
    """The reference of the first work order, once it is there. Raises PlantError."""
    deadline = time.monotonic() + ORDER_S
    while time.monotonic() < deadline:
        for item in dynamodb.scan(TableName=table)["Items"]:
            if "document" in item:
                return str(item["reference"]["S"])
        time.sleep(0.5)
    raise PlantError(f"no work order came within {ORDER_S:.0f} s")
