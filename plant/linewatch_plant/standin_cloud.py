# SPDX-License-Identifier: Apache-2.0
"""The stand-in for the AWS account: ministack as a child process, with cloud/template.yaml deployed into it.

MQTT 5 over mutual TLS as IoT Core, topic rules, queues, the Lambda code in worker processes, tables, event bus and the
HTTP API, all on loopback, with every IAM and IoT policy of the template evaluated. It loses what it holds when it is
stopped. What it does not do is listed in cloud/README.md.

    python -m linewatch_plant.standin_cloud --erp-url http://127.0.0.1:8600      until SIGTERM or SIGINT
"""

import argparse
import json
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import requests
from botocore.config import Config
from lambda_package import ROOT, code_zip, layer_zip

from linewatch_plant import provisioning
from linewatch_plant.erp_simulator import DEFAULT_CLIENT_ID, DEFAULT_SECRET
from linewatch_plant.ministack_process import REGION, delete, end, launched
from linewatch_plant.processes import PlantError

ANSWER_S = 120.0
"""For any answer: a Lambda starts for its first one, and the machine may be busy with others."""

# ministack takes any; "test" may do everything, as an account's administrator.
ADMINISTRATOR = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
# For the demo and tests: what takes minutes in a plant takes seconds here.
QUICK = {
    "RetryBaseSeconds": "2",
    "SettleSeconds": "2",
    # Four times ErpTimeoutSeconds and SettleSeconds: the functions take no shorter one.
    "LeaseSeconds": "22",
    "MaximumConcurrency": "2",
    "WatchRate": "rate(1 minute)",
    "OutcomePollSeconds": "10",
}


@dataclass(slots=True)
class StandinCloud:
    """A running stand-in; `StandinCloud.start` makes one."""

    # State, certificates and the log; `stop` leaves the log.
    directory: Path
    endpoint_url: str
    mqtt_host: str
    mqtt_port: int
    # MQTT client id and thing name of the forwarder.
    client_id: str
    ca_file: Path
    certificate_file: Path
    key_file: Path
    api_url: str
    api_token: str
    # The template's outputs: table, queue and function names.
    outputs: Mapping[str, str]
    _process: subprocess.Popen[bytes]
    _clients: dict[str, Any] = field(default_factory=dict)
    _making: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        erp_url: str = "http://127.0.0.1:9",
        *,
        pilot: bool = False,
        parameters: Mapping[str, str] | None = None,
        erp_credentials: tuple[str, str] = (DEFAULT_CLIENT_ID, DEFAULT_SECRET),
        enforce_policies: bool = True,
        warm: bool = True,
    ) -> "StandinCloud":
        """Starts, deploys, seeds the asset registry, provisions the forwarder and warms the Lambdas.

        `directory`: empty or new; a temporary one, deleted at `stop`, when None. `parameters` override the template's.
        Raises PlantError when it does not come up.
        """
        place = directory or Path(tempfile.mkdtemp(prefix="linewatch-cloud-"))
        place.mkdir(parents=True, exist_ok=True)
        process, http_port, mqtt_port = launched(place, enforce_policies)
        try:
            endpoint = f"http://127.0.0.1:{http_port}"
            wanted = {
                "ErpBaseUrl": erp_url,
                "PilotMode": "true" if pilot else "false",
                "IsStandIn": "true",
                **QUICK,
                **(parameters or {}),
            }
            outputs = provisioning.deploy(_client_of(endpoint), wanted, code_zip(), layer_zip())
            provisioning.seed_assets(_tables(endpoint), outputs, ROOT / "cloud" / "assets.csv")
            provisioning.set_erp_secret(_client_of(endpoint), outputs["ErpSecretId"], *erp_credentials)
            device = provisioning.forwarder(
                _client_of(endpoint), endpoint, outputs["DevicePolicyName"], place / "device"
            )
            cloud = cls(
                directory=place,
                endpoint_url=endpoint,
                mqtt_host="127.0.0.1",
                mqtt_port=mqtt_port,
                client_id=device.client_id,
                ca_file=device.ca_file,
                certificate_file=device.certificate_file,
                key_file=device.key_file,
                api_url=f"{endpoint}/_aws/execute-api/{outputs['ApiId']}/$default",
                api_token=provisioning.api_token(_client_of(endpoint), outputs["ApiSecretId"]),
                outputs=outputs,
                _process=process,
            )
            if warm:
                cloud.warm_up()
        except BaseException:
            end(process)
            delete(place, everything=directory is None)
            raise
        return cloud

    @property
    def pid(self) -> int:
        """Of ministack, and id of the process group of it and its Lambda workers."""
        return self._process.pid

    def client(self, service: str) -> Any:
        """A boto3 client of the stand-in, as administrator; for every thread."""
        # boto3 may use a client in several threads, but not make one in them.
        with self._making:
            if service not in self._clients:
                self._clients[service] = _client(self.endpoint_url, service)
            return self._clients[service]

    def warm_up(self) -> None:
        """Starts one worker of each Lambda: the first event then takes milliseconds, not seconds."""
        nothing = json.dumps({"Records": []}).encode()
        names = ("EnrichFunctionName", "WorkOrdersFunctionName")
        calls = [(self.outputs[name], nothing) for name in names]
        lambda_client = self.client("lambda")
        with ThreadPoolExecutor(len(calls) + 1) as pool:
            api = pool.submit(self.api, "GET", "/summary")
            for answer in pool.map(
                lambda call: lambda_client.invoke(FunctionName=call[0], Payload=call[1]), calls
            ):
                if "FunctionError" in answer:
                    raise PlantError(f"Lambda does not start: {answer['Payload'].read().decode()}")
            if not api.result().ok:
                raise PlantError(f"API does not start: {api.result().status_code} {api.result().text}")

    def api(self, method: str, path: str, body: Mapping[str, str] | None = None) -> requests.Response:
        """Calls the console's API with its token."""
        headers = {"Authorization": f"Bearer {self.api_token}"}
        return requests.request(method, self.api_url + path, json=body, headers=headers, timeout=ANSWER_S)

    def sweep(self) -> dict[str, int]:
        """Runs the scheduled sweep now."""
        answer = self.client("lambda").invoke(FunctionName=self.outputs["SweepFunctionName"], Payload=b"{}")
        seen: dict[str, int] = json.loads(answer["Payload"].read())
        return seen

    def watch(self) -> dict[str, Any]:
        """Runs the scheduled watch now. Raises PlantError with what a job that failed said."""
        answer = self.client("lambda").invoke(FunctionName=self.outputs["WatchFunctionName"], Payload=b"{}")
        told = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise PlantError(f"watch failed: {told}")
        counted: dict[str, Any] = told
        return counted

    def counts(self) -> dict[str, Any]:
        """Distinct inspection events that were enriched, engine events, and work orders by what became of them."""
        # Called every second: an order's document and a station's memory, most of what is stored, stay where they are.
        counters = self._scan(self.outputs["CountersTable"], "inspections", "engine")
        orders = self._scan(self.outputs["WorkOrdersTable"], "status", "erp_id")
        states = self._scan(self.outputs["PolicyStateTable"], "crossed")
        statuses = Counter(order["status"]["S"] for order in orders)
        crossed = sum(int(n["N"]) for state in states for n in state.get("crossed", {"M": {}})["M"].values())
        shown = ("awaiting_approval", "rejected", "creating", "parked", "closed")
        return {
            "enriched": sum(_number(item, "inspections") for item in counters),
            "engine_events": sum(_number(item, "engine") for item in counters),
            "work_orders": {
                "created": sum("erp_id" in order for order in orders),
                "suppressed": max(0, crossed - len(orders)),
                **{name: statuses[name] for name in shown},
            },
        }

    def queues_are_empty(self) -> bool:
        """Whether no event is waiting or being worked on between the rules and the ERP."""
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        for queue in ("InspectionsQueueUrl", "EnrichedQueueUrl"):
            answer = self.client("sqs").get_queue_attributes(
                QueueUrl=self.outputs[queue], AttributeNames=list(names)
            )
            if any(int(answer["Attributes"].get(name, "0")) for name in names):
                return False
        return True

    def dead_letters(self) -> int:
        """Messages that wait for a person."""
        waiting = 0
        for queue in ("InspectionsDeadLettersUrl", "EnrichedDeadLettersUrl"):
            answer = self.client("sqs").get_queue_attributes(
                QueueUrl=self.outputs[queue], AttributeNames=["ApproximateNumberOfMessages"]
            )
            waiting += int(answer["Attributes"]["ApproximateNumberOfMessages"])
        return waiting

    def stop(self) -> None:
        """Ends ministack and its Lambda workers and deletes what they wrote; the log stays where a directory was given."""
        end(self._process)
        delete(self.directory, everything=self.directory.name.startswith("linewatch-cloud-"))

    def scan(self, output: str) -> list[dict[str, Any]]:
        """Every item of a table, named by the template's output, such as "EventsTable"."""
        return self._scan(self.outputs[output])

    def _scan(self, table: str, *attributes: str) -> list[dict[str, Any]]:
        """Every item, cut down to these attributes where some are named."""
        wanted: dict[str, Any] = {}
        if attributes:
            names = {f"#{name}": name for name in attributes}
            wanted = {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}
        scan = self.client("dynamodb").get_paginator("scan")
        pages = scan.paginate(TableName=table, ConsistentRead=True, **wanted)
        return [item for page in pages for item in page["Items"]]


def _number(item: Mapping[str, Any], name: str) -> int:
    return int(item.get(name, {"N": "0"})["N"])


def _client(endpoint: str, service: str) -> Any:
    config = Config(
        retries={"mode": "standard", "max_attempts": 3}, max_pool_connections=20, read_timeout=ANSWER_S
    )
    return boto3.client(service, endpoint_url=endpoint, region_name=REGION, config=config, **ADMINISTRATOR)


def _tables(endpoint: str) -> Any:
    """DynamoDB that takes and gives Python's types, as cloud/ has it."""
    return boto3.resource("dynamodb", endpoint_url=endpoint, region_name=REGION, **ADMINISTRATOR).meta.client


def _client_of(endpoint: str) -> provisioning.Clients:
    return lambda service: _client(endpoint, service)


def main() -> None:
    """Runs the stand-in in the foreground and prints how to reach it."""
    parser = argparse.ArgumentParser(description="Stand-in for the AWS account, on loopback")
    parser.add_argument("--erp-url", default="http://127.0.0.1:8600")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--pilot", action="store_true")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    cloud = StandinCloud.start(arguments.directory, arguments.erp_url, pilot=arguments.pilot)
    try:
        names = (
            "pid",
            "endpoint_url",
            "mqtt_host",
            "mqtt_port",
            "client_id",
            "ca_file",
            "certificate_file",
            "key_file",
            "api_url",
            "api_token",
        )
        print(json.dumps({name: str(getattr(cloud, name)) for name in names}, indent=2), flush=True)
        stop.wait()
    finally:
        cloud.stop()


__all__ = ["REGION", "StandinCloud"]

if __name__ == "__main__":
    main()
