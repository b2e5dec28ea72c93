# SPDX-License-Identifier: Apache-2.0
"""The permissions that docs/assets.md and docs/dead-letters.md list are enough, and are needed."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from operators import operator_of

from assets.asset import Asset
from assets.csv_file import written
from dead_letters.burying import bury
from dead_letters.poison import PoisonError
from linewatch_fleet.cli import linewatch
from linewatch_plant.standin_cloud import REGION, StandinCloud

QUEUES = ("InspectionsDeadLettersUrl", "EnrichedDeadLettersUrl", "RuleErrorsUrl", "LifecycleDeadLettersUrl")
Run = Callable[..., Result]


@pytest.fixture
def arns(cloud: StandinCloud) -> dict[str, str]:
    """By the template's output."""
    dynamodb, sqs, events = (cloud.client(name) for name in ("dynamodb", "sqs", "events"))
    tables = ("AssetsTable", "RecordsTable", "CountersTable")
    found = {
        name: dynamodb.describe_table(TableName=cloud.outputs[name])["Table"]["TableArn"] for name in tables
    }
    for name in (*QUEUES, "InspectionsQueueUrl", "EnrichedQueueUrl"):
        told = sqs.get_queue_attributes(QueueUrl=cloud.outputs[name], AttributeNames=["QueueArn"])
        found[name] = told["Attributes"]["QueueArn"]
    found["EventBusName"] = events.describe_event_bus(Name=cloud.outputs["EventBusName"])["Arn"]
    return found


@pytest.fixture
def user(cloud: StandinCloud, tmp_path: Path) -> Iterator[Callable[[list[dict[str, object]]], Run]]:
    """`linewatch` as a user who has these statements and the two that every verb needs."""
    iam, name = cloud.client("iam"), f"operator-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    fleet_file = operator_of(cloud, tmp_path).fleet_file
    every = [
        {
            "Effect": "Allow",
            "Action": ["sts:GetCallerIdentity", "cloudformation:DescribeStacks"],
            "Resource": "*",
        }
    ]

    def allowed(statements: list[dict[str, object]]) -> Run:
        policy = {"Version": "2012-10-17", "Statement": [*every, *statements]}
        iam.put_user_policy(UserName=name, PolicyName="operator", PolicyDocument=json.dumps(policy))
        own = {
            "AWS_ENDPOINT_URL": cloud.endpoint_url, "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }  # fmt: skip
        return lambda *arguments: CliRunner().invoke(
            linewatch, ["--fleet", str(fleet_file), *map(str, arguments)], env=own
        )

    yield allowed
    iam.delete_user_policy(UserName=name, PolicyName="operator")
    iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName=name)


def allow(resource: str | list[str], *actions: str) -> dict[str, object]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def test_assets(cloud: StandinCloud, user: Callable[..., Run], arns: dict[str, str], tmp_path: Path) -> None:
    row = Asset("plant-8", "line-1", "station-1", "N8", "press", "", "B", "machine", "d", {})
    (tmp_path / "one.csv").write_bytes(written([row]))
    reading = [allow(arns["AssetsTable"], "dynamodb:Scan")]
    listing = [*reading, allow(arns["CountersTable"], "dynamodb:GetItem")]
    importing = [
        allow(arns["AssetsTable"], "dynamodb:Scan", "dynamodb:PutItem", "dynamodb:DeleteItem"),
        allow(arns["RecordsTable"], "dynamodb:Query", "dynamodb:PutItem"),
        allow(arns["CountersTable"], "dynamodb:GetItem", "dynamodb:UpdateItem"),
    ]

    refused = user([])("assets", "export", "test", tmp_path / "all.csv")
    assert refused.exit_code == 1
    assert "docs/assets.md lists the permissions" in refused.stderr
    assert user(reading)("assets", "export", "test", tmp_path / "all.csv").exit_code == 0
    assert user(reading)("assets", "check", "test", tmp_path / "one.csv").exit_code == 4
    assert user(listing)("assets", "unknown", "test").exit_code in (0, 4)
    assert user(reading)("assets", "import", "test", tmp_path / "one.csv").exit_code == 1
    assert user(importing)("assets", "import", "test", tmp_path / "one.csv").exit_code == 0
    removed = user(importing)("assets", "import", "test", tmp_path / "all.csv", "--prune")
    assert removed.exit_code == 0, removed.output


def test_discarding_dead_letters(cloud: StandinCloud, user: Callable[..., Run], arns: dict[str, str]) -> None:
    for output in QUEUES:
        cloud.client("sqs").purge_queue(QueueUrl=cloud.outputs[output])
    poison = PoisonError("not_json", "a letter that nobody needs", "discarded-by-permission")
    bury(cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"], "not json", poison)
    queues = [arns[name] for name in QUEUES]
    reading = allow(queues, "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes")
    deleting = allow(queues, "sqs:DeleteMessage")
    recording = allow(arns["RecordsTable"], "dynamodb:Query", "dynamodb:PutItem")
    asked = ("dead-letters", "discard", "test", "--id", poison.event_id, "--reason", "of no use")

    for too_few in ([reading], [reading, deleting], [reading, recording]):
        refused = user(too_few)(*asked)
        assert refused.exit_code == 1, refused.output
        assert "docs/dead-letters.md lists the permissions" in refused.stderr
        assert user([reading])("dead-letters", "list", "test").exit_code == 4, "it is there"
    assert user([reading, deleting, recording])(*asked).exit_code == 0
    assert user([reading])("dead-letters", "list", "test").exit_code == 0


def test_dead_letters(cloud: StandinCloud, user: Callable[..., Run], arns: dict[str, str]) -> None:
    sqs, url = cloud.client("sqs"), cloud.outputs["InspectionsDeadLettersUrl"]
    for output in QUEUES:
        sqs.purge_queue(QueueUrl=cloud.outputs[output])
    bury(sqs, url, json.dumps({"events": []}), PoisonError("not_json", "a letter that goes"))
    queues = [arns[name] for name in QUEUES]
    reading = [
        allow(queues, "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"),
        allow(arns["AssetsTable"], "dynamodb:GetItem"),
    ]
    replaying = [
        *reading,
        allow(queues, "sqs:DeleteMessage"),
        allow([arns["InspectionsQueueUrl"], arns["EnrichedQueueUrl"]], "sqs:SendMessage"),
        allow(arns["EventBusName"], "events:PutEvents"),
    ]

    refused = user([])("dead-letters", "list", "test")
    assert refused.exit_code == 1
    assert "docs/dead-letters.md lists the permissions" in refused.stderr
    listed = user(reading)("dead-letters", "list", "test")
    assert listed.exit_code == 4, listed.output
    assert user(reading)("dead-letters", "explain", "test").exit_code == 0
    assert user(reading)("dead-letters", "replay", "test", "--all").exit_code == 1
    assert user(reading)("dead-letters", "list", "test").exit_code == 4, (
        "the letter that could not go is there"
    )
    assert user(replaying)("dead-letters", "replay", "test", "--all").exit_code == 0
    assert user(reading)("dead-letters", "list", "test").exit_code == 0
