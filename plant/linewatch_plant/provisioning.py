# SPDX-License-Identifier: Apache-2.0
"""What an operator does once in an account, done here through boto3: deploy, seed the assets, enrol the forwarder."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from assets.csv_file import read
from assets.importing import carry_out
from assets.registry import Registry
from linewatch_plant.processes import PlantError
from work_orders.records import Records

Clients = Callable[[str], Any]

TEMPLATE = Path(__file__).resolve().parents[2] / "cloud" / "template.yaml"
CODE_BUCKET = "linewatch-code"
# As an environment named "test" has it, so that `linewatch` finds the stand-in like an account (see fleet_file).
STACK = "linewatch-test"
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
    for path in (code, layer, TEMPLATE):
        s3.put_object(Bucket=CODE_BUCKET, Key=path.name, Body=path.read_bytes())
    where = {"CodeBucket": CODE_BUCKET, "CodeKey": code.name, "LayerKey": layer.name}
    formation = clients("cloudformation")
    formation.create_stack(
        StackName=STACK,
        # Larger than what fits into a request.
        TemplateURL=f"{s3.meta.endpoint_url}/{CODE_BUCKET}/{TEMPLATE.name}",
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
    numbers_as_numbers(clients, int(parameters["MaximumConcurrency"]))
    outputs = formation.describe_stacks(StackName=STACK)["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}


def numbers_as_numbers(clients: Clients, maximum_concurrency: int) -> None:
    """CloudFormation makes a number of a parameter where one is due; ministack 1.5.33 leaves text, and its poller stops."""
    functions = clients("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        functions.update_event_source_mapping(
            UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": maximum_concurrency}
        )


def seed_assets(tables: Any, outputs: dict[str, str], path: Path) -> None:
    """Imports the asset registry from its CSV, as `linewatch assets import` does. `tables`: DynamoDB in Python's types."""
    content = path.read_bytes()
    registry = Registry(tables, outputs["AssetsTable"])
    records = Records(tables, outputs["RecordsTable"])
    carry_out(registry, records, read(content), content, "provisioning", prune=False)


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
