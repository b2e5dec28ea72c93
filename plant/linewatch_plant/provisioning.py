# SPDX-License-Identifier: Apache-2.0
"""What an operator does once in an account, done here through boto3: deploy, seed the assets, enrol the forwarder."""

import csv
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from linewatch_plant.processes import PlantError

Clients = Callable[[str], Any]

TEMPLATE = Path(__file__).resolve().parents[2] / "cloud" / "template.yaml"
CODE_BUCKET = "linewatch-code"
STACK = "linewatch"
FORWARDER_THING = "linewatch-plant-1-device-1-forwarder"
DEVICE_THING = "linewatch-plant-1-device-1"


@dataclass(frozen=True, slots=True)
class Device:
    """How the forwarder proves who it is."""

    client_id: str
    ca_file: Path
    certificate_file: Path
    key_file: Path


def deploy(clients: Clients, parameters: dict[str, str], code: Path, layer: Path) -> dict[str, str]:
    """Creates the stack and returns its outputs. Raises PlantError with the reason of the first failed resource."""
    s3 = clients("s3")
    s3.create_bucket(Bucket=CODE_BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    for path in (code, layer):
        s3.put_object(Bucket=CODE_BUCKET, Key=path.name, Body=path.read_bytes())
    where = {"CodeBucket": CODE_BUCKET, "CodeKey": code.name, "LayerKey": layer.name}
    formation = clients("cloudformation")
    formation.create_stack(
        StackName=STACK,
        TemplateBody=TEMPLATE.read_text(),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": name, "ParameterValue": value} for name, value in {**parameters, **where}.items()
        ],
    )
    waiter = formation.get_waiter("stack_create_complete")
    waiter.config.delay, waiter.config.max_attempts = 0.2, 300
    try:
        waiter.wait(StackName=STACK)
    except Exception as error:
        events = formation.describe_stack_events(StackName=STACK)["StackEvents"]
        reasons = [
            f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
            for event in reversed(events)
            if "FAILED" in event["ResourceStatus"] and event.get("ResourceStatusReason")
        ]
        raise PlantError("the stack was not created: " + "; ".join(reasons[:3])) from error
    _numbers_as_numbers(clients, int(parameters["MaximumConcurrency"]))
    outputs = formation.describe_stacks(StackName=STACK)["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}


def _numbers_as_numbers(clients: Clients, maximum_concurrency: int) -> None:
    """CloudFormation makes a number of a parameter where one is due; ministack 1.5.33 leaves text, and its poller stops."""
    functions = clients("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        functions.update_event_source_mapping(
            UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": maximum_concurrency}
        )


def seed_assets(clients: Clients, table: str, path: Path) -> None:
    """Writes the asset registry from its CSV; `failure_modes` is "label=code;label=code"."""
    dynamodb = clients("dynamodb")
    with path.open(newline="") as rows:
        for row in csv.DictReader(rows):
            modes = dict(pair.split("=", 1) for pair in row.pop("failure_modes").split(";") if pair)
            item: dict[str, Any] = {name: {"S": value} for name, value in row.items()}
            item["failure_modes"] = {"M": {label: {"S": code} for label, code in modes.items()}}
            item["station_key"] = {"S": "/".join((row["site"], row["line"], row["station"]))}
            dynamodb.put_item(TableName=table, Item=item)


def set_erp_secret(clients: Clients, secret_id: str, client_id: str, client_secret: str) -> None:
    """Puts the ERP's OAuth 2 client credentials where the Lambdas read them."""
    value = json.dumps({"client_id": client_id, "client_secret": client_secret})
    clients("secretsmanager").put_secret_value(
        SecretId=secret_id, SecretString=value, ClientRequestToken=str(uuid.uuid4())
    )


def api_token(clients: Clients, secret_id: str) -> str:
    """The bearer token that the template made for the console."""
    value = clients("secretsmanager").get_secret_value(SecretId=secret_id)["SecretString"]
    return str(json.loads(value)["token"])


def forwarder(clients: Clients, endpoint: str, policy: str, directory: Path) -> Device:
    """Enrols the forwarder as a thing with a certificate, and the device whose shadow shows work orders."""
    directory.mkdir(parents=True, exist_ok=True)
    iot = clients("iot")
    for thing in (DEVICE_THING, FORWARDER_THING):
        iot.create_thing(thingName=thing)
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_policy(policyName=policy, target=made["certificateArn"])
    iot.attach_thing_principal(thingName=FORWARDER_THING, principal=made["certificateArn"])
    authority = requests.get(f"{endpoint}/_ministack/iot/ca.pem", timeout=10)
    authority.raise_for_status()
    device = Device(
        FORWARDER_THING, directory / "ca.pem", directory / "certificate.pem", directory / "key.pem"
    )
    device.ca_file.write_text(authority.text)
    device.certificate_file.write_text(made["certificatePem"])
    device.key_file.touch(mode=0o600)
    device.key_file.write_text(made["keyPair"]["PrivateKey"])
    return device
