# SPDX-License-Identifier: Apache-2.0
"""Every statement of every policy in the template, one by one; and what the deployed policies decide.

The decisions are the stand-in's evaluator of IAM policies on the documents as they were deployed, every reference filled in.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml
from test_template import LISTED_WILDCARDS, UNSCOPED, code_behind, statements_in, texts

from linewatch_plant.provisioning import STACK
from linewatch_plant.standin_cloud import StandinCloud

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
README = TEMPLATE.parent / "README.md"
SERVICES = {"lambda.amazonaws.com", "iot.amazonaws.com", "credentials.iot.amazonaws.com"}
FUNCTIONS = ("Enrich", "WorkOrders", "Sweep", "Watch", "Api")

# The calls that an action stands for, as the code writes them. A paginator names its operation as a text.
CALLS = {
    "dynamodb:GetItem": r"\.get_item\(|\"Get\":",
    "dynamodb:PutItem": r"\.put_item\(|\"Put\":",
    "dynamodb:UpdateItem": r"\.update_item\(|\"Update\":",
    "dynamodb:BatchGetItem": r"\.batch_get_item\(",
    "dynamodb:ConditionCheckItem": r"\"ConditionCheck\":",
    "dynamodb:Query": r"\.query\(|\"query\"",
    "dynamodb:Scan": r"\.scan\(|\"scan\"",
    "sqs:SendMessage": r"\.send_message\(",
    "sqs:ChangeMessageVisibility": r"\.change_message_visibility\(",
    "events:PutEvents": r"\.put_events\(",
    "sns:ListSubscriptionsByTopic": r"\.list_subscriptions_by_topic\(",
    "sns:Publish": r"\.publish\(",
    "secretsmanager:GetSecretValue": r"\.get_secret_value\(",
    "iot:GetThingShadow": r"\.get_thing_shadow\(",
    "iot:UpdateThingShadow": r"\.update_thing_shadow\(",
    "s3:GetObject": r"generate_presigned_url\(",
}
# Not called by our code.
BY_LAMBDA = {
    "sqs:ReceiveMessage": "the event source mapping",
    "sqs:DeleteMessage": "the event source mapping",
    "sqs:GetQueueAttributes": "the event source mapping",
    "logs:CreateLogStream": "the runtime",
    "logs:PutLogEvents": "the runtime",
}


@dataclass(frozen=True, slots=True)
class Grant:
    """One action on one resource of the template."""

    action: str
    resource: str


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    return dict(cfn_yaml.load(str(TEMPLATE))["Resources"])


def allowing(resources: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement that grants something to somebody of this account, with the resource that it belongs to."""
    for name, entry in resources.items():
        if entry["Type"] in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy", "AWS::IoT::Policy"):
            for statement in statements_in(entry):
                if "Principal" not in statement and statement["Effect"] == "Allow":
                    yield name, statement


def grants_of(resources: dict[str, Any], function: str) -> set[Grant]:
    """What a function may do, by the logical names of the resources."""
    found: set[Grant] = set()
    for name in (f"{function}Role", "PlacingPolicy"):
        if name == "PlacingPolicy" and "PlacingPolicy" not in str(resources[f"{function}Role"]):
            continue
        for owner, statement in allowing({name: resources[name]}):
            assert owner == name
            for action in texts(statement["Action"]):
                for logical in re.findall(
                    r"'Fn::GetAtt': \['(\w+)'|'Ref': '(\w+)'|\$\{(\w+)\.Arn\}(/index/\w+)?|(thing/linewatch-)",
                    str(statement["Resource"]),
                ):
                    found.add(Grant(action, "".join(logical)))
    return found


def test_every_statement_is_one_of_seven_kinds_and_each_is_looked_at(resources: dict[str, Any]) -> None:
    looked_at = {"grant": 0, "trust": 0, "invoke": 0, "service": 0, "tls": 0, "deny": 0, "logs": 0}
    for name, entry in resources.items():
        if entry["Type"] == "AWS::Lambda::Permission":
            # Who calls a function is one rule or one route of one API.
            assert "SourceArn" in entry["Properties"], name
            assert not str(entry["Properties"]["SourceArn"]).endswith("*"), name
            looked_at["invoke"] += 1
        if entry["Type"] == "AWS::Logs::ResourcePolicy":
            text = str(entry["Properties"]["PolicyDocument"]["Fn::Sub"])
            (statement,) = json.loads(text)["Statement"]
            assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
            assert statement["Resource"] == "${LifecycleLogs.Arn}"
            assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": "${LifecycleRule.Arn}"}}
            looked_at["logs"] += 1
            continue
        for statement in statements_in(entry):
            assert "NotAction" not in statement, name
            assert "NotResource" not in statement, name
            assert "NotPrincipal" not in statement, name
            looked_at[_kind(name, statement)] += 1

    assert sum(looked_at.values()) >= 70
    assert all(looked_at.values()), looked_at


def _kind(name: str, statement: dict[str, Any]) -> str:
    """What kind of statement it is; fails where it is none of those that we know."""
    if statement["Effect"] == "Deny":
        assert statement["Principal"] == "*", name
        if statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}:
            return "tls"
        assert statement["Action"] in ("s3:PutObject", "events:PutEvents"), name
        return "deny"
    assert statement["Effect"] == "Allow"
    if "Principal" not in statement:
        for action in texts(statement["Action"]):
            assert re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action), (name, action)
        for text in texts(statement["Resource"]):
            is_unscoped = text == "*" and tuple(sorted(texts(statement["Action"]))) in UNSCOPED
            is_listed = any(text.endswith(known) for known in LISTED_WILDCARDS)
            assert "*" not in text or is_unscoped or is_listed, (name, text)
        return "grant"
    (service,) = texts(statement["Principal"])
    if statement["Action"] == "sts:AssumeRole":
        assert service in SERVICES, name
        return "trust"
    # A service that may use a resource may do so for one thing of ours, and for nobody else's.
    assert "aws:SourceArn" in str(statement["Condition"]), name
    assert not any("*" in text for text in texts(statement["Action"]))
    return "service"


def test_the_page_has_a_row_for_every_wildcard() -> None:
    table = README.read_text().partition("\n## Privileges\n")[2].partition("\n## ")[0]

    assert "topic/linewatch/v1/<site>/*" in table
    assert "thing/linewatch-*/work-orders" in table
    assert "evidence/<thing>/*" in table
    assert "evidence/*" in table
    assert "repository/<prefix>linewatch/*" in table
    assert "component bucket" in table
    for actions in UNSCOPED:
        assert any(action.partition(":")[0] + ":" in table for action in actions)


def unused_of(resources: dict[str, Any], function: str) -> list[Grant]:
    """What a function may do, and its code does not."""
    properties = resources[f"{function}Function"]["Properties"]
    code = code_behind(properties["Handler"].rpartition(".")[0])
    variables = properties["Environment"]["Variables"]
    unused = []
    for grant in sorted(grants_of(resources, function), key=str):
        if grant.action in BY_LAMBDA:
            continue
        if grant.action not in CALLS or not re.search(CALLS[grant.action], code):
            unused.append(grant)
            continue
        # The function is told of the resource, and reads what it is told; an index it names itself.
        resource, _, index = grant.resource.partition("/index/")
        named = [name for name, value in variables.items() if f"'{resource}'" in str(value)]
        is_thing = resource.startswith("thing/")
        is_told = is_thing or any(f'["{name}"]' in code for name in named)
        if not is_told or (index and f'"{index}"' not in code):
            unused.append(grant)
    return unused


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_grant_of_a_function_is_used_by_its_code(resources: dict[str, Any], function: str) -> None:
    assert len(grants_of(resources, function)) > 8
    assert unused_of(resources, function) == []


@pytest.mark.parametrize(
    "surplus",
    [
        # A call that it never makes; a table that it is not told of; an index that it does not name.
        {"Action": "sns:Publish", "Resource": {"Ref": "Announcements"}},
        {"Action": "dynamodb:PutItem", "Resource": {"Fn::GetAtt": ["OutcomesTable", "Arn"]}},
        {"Action": "dynamodb:Query", "Resource": {"Fn::Sub": "${EventsTable.Arn}/index/by_shadow"}},
        {"Action": "dynamodb:DeleteItem", "Resource": {"Fn::GetAtt": ["EventsTable", "Arn"]}},
    ],
    ids=lambda surplus: surplus["Action"],
)
def test_a_grant_too_many_is_seen(resources: dict[str, Any], surplus: dict[str, Any]) -> None:
    """The control of the test above."""
    more = json.loads(json.dumps(resources))
    document = more["EnrichRole"]["Properties"]["Policies"][0]["PolicyDocument"]
    document["Statement"].append({"Effect": "Allow", **surplus})

    (found,) = unused_of(more, "Enrich")
    assert found.action == surplus["Action"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_write_to_its_own_log_and_to_no_other(
    resources: dict[str, Any], function: str
) -> None:
    logs = {grant.resource for grant in grants_of(resources, function) if grant.action.startswith("logs:")}

    assert logs == {f"{function}Logs"}
    assert resources[f"{function}Function"]["Properties"]["LoggingConfig"] == {
        "LogGroup": {"Ref": f"{function}Logs"}
    }


# ---------------------------------------------------------------- what the deployed policies decide

ALLOWED, DENIED = "allowed", "implicitDeny"
TABLES = "arn:aws:dynamodb:eu-central-1:000000000000:table/"
# (role, action, resource, decision). A resource is a logical name, with what follows its ARN, or an ARN of its own.
CASES = [
    # The way of an event.
    ("RuleRole", "sqs:SendMessage", "InspectionsQueue", ALLOWED),
    ("RuleRole", "sqs:SendMessage", "RuleErrorsQueue", ALLOWED),
    ("RuleRole", "sqs:SendMessage", "EnrichedQueue", DENIED),
    ("RuleRole", "sqs:ReceiveMessage", "InspectionsQueue", DENIED),
    ("EnrichRole", "sqs:ReceiveMessage", "InspectionsQueue", ALLOWED),
    ("EnrichRole", "sqs:SendMessage", "InspectionsDeadLetters", ALLOWED),
    ("EnrichRole", "sqs:SendMessage", "EnrichedQueue", ALLOWED),
    ("EnrichRole", "sqs:SendMessage", "InspectionsQueue", DENIED),
    ("EnrichRole", "sqs:ReceiveMessage", "EnrichedQueue", DENIED),
    ("EnrichRole", "dynamodb:GetItem", "AssetsTable", ALLOWED),
    ("EnrichRole", "dynamodb:PutItem", "AssetsTable", DENIED),
    ("EnrichRole", "dynamodb:PutItem", "EventsTable", ALLOWED),
    ("EnrichRole", "dynamodb:DeleteItem", "EventsTable", DENIED),
    ("EnrichRole", "dynamodb:PutItem", "RecordsTable", ALLOWED),
    ("EnrichRole", "dynamodb:PutItem", "WorkOrdersTable", DENIED),
    ("EnrichRole", "dynamodb:PutItem", "PoliciesTable", DENIED),
    ("EnrichRole", "events:PutEvents", "EventBus", ALLOWED),
    ("EnrichRole", "events:PutEvents", "arn:aws:events:eu-central-1:000000000000:event-bus/default", DENIED),
    ("EnrichRole", "secretsmanager:GetSecretValue", "ErpSecret", DENIED),
    ("EnrichRole", "sns:Publish", "Announcements", DENIED),
    ("EnrichRole", "logs:PutLogEvents", "EnrichLogs", ALLOWED),
    ("EnrichRole", "logs:PutLogEvents", "ApiLogs", DENIED),
    # Orders: nobody deletes one, nobody changes a record.
    ("WorkOrdersRole", "dynamodb:UpdateItem", "WorkOrdersTable", ALLOWED),
    ("WorkOrdersRole", "dynamodb:DeleteItem", "WorkOrdersTable", DENIED),
    ("WorkOrdersRole", "dynamodb:Scan", "WorkOrdersTable", DENIED),
    ("WorkOrdersRole", "dynamodb:PutItem", "RecordsTable", ALLOWED),
    ("WorkOrdersRole", "dynamodb:UpdateItem", "RecordsTable", DENIED),
    ("WorkOrdersRole", "dynamodb:DeleteItem", "RecordsTable", DENIED),
    ("WorkOrdersRole", "dynamodb:GetItem", "PoliciesTable", ALLOWED),
    ("WorkOrdersRole", "dynamodb:PutItem", "PoliciesTable", DENIED),
    ("WorkOrdersRole", "dynamodb:PutItem", "AssetsTable", DENIED),
    ("WorkOrdersRole", "secretsmanager:GetSecretValue", "ErpSecret", ALLOWED),
    ("WorkOrdersRole", "secretsmanager:GetSecretValue", "ApiSecret", DENIED),
    ("WorkOrdersRole", "secretsmanager:PutSecretValue", "ErpSecret", DENIED),
    ("WorkOrdersRole", "sns:Publish", "Announcements", ALLOWED),
    ("WorkOrdersRole", "sns:ListSubscriptionsByTopic", "Announcements", ALLOWED),
    ("WorkOrdersRole", "sns:Subscribe", "Announcements", DENIED),
    ("WorkOrdersRole", "iot:UpdateThingShadow", "arn:aws:iot:eu-central-1:000000000000:thing/linewatch-plant-1-device-1", ALLOWED),
    ("WorkOrdersRole", "iot:UpdateThingShadow", "arn:aws:iot:eu-central-1:000000000000:thing/press-4", DENIED),
    ("WorkOrdersRole", "s3:GetObject", "EvidenceBucket/evidence/thing/sha256/ab/abcd.jpg", DENIED),
    ("SweepRole", "dynamodb:Query", "WorkOrdersTable/index/by_tried", ALLOWED),
    ("SweepRole", "dynamodb:Query", "WorkOrdersTable/index/by_created", DENIED),
    # A closed order adds itself to its asset's history.
    ("SweepRole", "dynamodb:Scan", "AssetsTable", ALLOWED),
    ("SweepRole", "dynamodb:PutItem", "AssetsTable", ALLOWED),
    ("SweepRole", "dynamodb:GetItem", "AssetsTable", ALLOWED),
    ("SweepRole", "dynamodb:DeleteItem", "AssetsTable", DENIED),
    # What parts since an order's end ask for.
    ("SweepRole", "dynamodb:Query", "PolicyStateTable", ALLOWED),
    ("SweepRole", "dynamodb:PutItem", "PolicyStateTable", DENIED),
    ("SweepRole", "dynamodb:BatchGetItem", "EventsTable", ALLOWED),
    ("SweepRole", "dynamodb:GetItem", "EventsTable", DENIED),
    ("SweepRole", "sqs:SendMessage", "EnrichedQueue", DENIED),
    ("WatchRole", "dynamodb:Query", "EventsTable/index/by_station", DENIED),
    ("WatchRole", "dynamodb:Query", "EventsTable", DENIED),
    ("WatchRole", "dynamodb:Scan", "AssetsTable", ALLOWED),
    ("WatchRole", "dynamodb:PutItem", "AssetsTable", ALLOWED),
    ("WatchRole", "dynamodb:DeleteItem", "AssetsTable", DENIED),
    ("WatchRole", "dynamodb:Query", "WorkOrdersTable/index/by_status", ALLOWED),
    ("WatchRole", "sns:Publish", "Announcements", ALLOWED),
    ("WatchRole", "secretsmanager:GetSecretValue", "WebhookSecret", DENIED),
    # What people reach.
    ("ApiRole", "dynamodb:PutItem", "PoliciesTable", ALLOWED),
    ("ApiRole", "dynamodb:DeleteItem", "PoliciesTable", DENIED),
    ("ApiRole", "dynamodb:PutItem", "AssetsTable", ALLOWED),
    ("ApiRole", "dynamodb:DeleteItem", "AssetsTable", DENIED),
    ("ApiRole", "dynamodb:Query", "OutcomesTable", ALLOWED),
    ("ApiRole", "dynamodb:UpdateItem", "OutcomesTable", DENIED),
    ("ApiRole", "dynamodb:PutItem", "EventsTable", DENIED),
    ("ApiRole", "s3:GetObject", "EvidenceBucket/evidence/thing/sha256/ab/abcd.jpg", ALLOWED),
    ("ApiRole", "s3:GetObject", "EvidenceBucket/elsewhere.jpg", DENIED),
    ("ApiRole", "s3:PutObject", "EvidenceBucket/evidence/thing/sha256/ab/abcd.jpg", DENIED),
    ("ApiRole", "s3:GetObject", "ComponentBucket/model.zip", DENIED),
    ("ApiRole", "secretsmanager:GetSecretValue", "WebhookSecret", ALLOWED),
    ("ApiRole", "sqs:SendMessage", "EnrichedQueue", ALLOWED),
    ("ApiRole", "sqs:ReceiveMessage", "EnrichedQueue", DENIED),
    ("ApiRole", "sqs:PurgeQueue", "EnrichedQueue", DENIED),
    # What a device reaches.
    ("TokenExchangeRole", "s3:GetObject", "ComponentBucket/io.linewatch.model/1.0.0/model.zip", ALLOWED),
    ("TokenExchangeRole", "s3:PutObject", "ComponentBucket/io.linewatch.model/1.0.0/model.zip", DENIED),
    ("TokenExchangeRole", "s3:GetObject", "EvidenceBucket/evidence/thing/sha256/ab/abcd.jpg", DENIED),
    ("TokenExchangeRole", "dynamodb:GetItem", "WorkOrdersTable", DENIED),
    ("TokenExchangeRole", "iam:PassRole", "TokenExchangeRole", DENIED),
]  # fmt: skip


@pytest.fixture(scope="module")
def physical(cloud: StandinCloud) -> dict[str, str]:
    """Logical name -> physical id, of the deployed stack."""
    pages = cloud.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
    found = {
        one["LogicalResourceId"]: one["PhysicalResourceId"]
        for page in pages
        for one in page["StackResourceSummaries"]
        if one.get("PhysicalResourceId")
    }
    # A secret's ARN ends with letters that nobody can know before.
    secrets = cloud.client("secretsmanager")
    return {
        name: secrets.describe_secret(SecretId=physical)["ARN"] if name.endswith("Secret") else physical
        for name, physical in found.items()
    }


@pytest.fixture(scope="module")
def documents(cloud: StandinCloud, physical: dict[str, str]) -> dict[str, list[str]]:
    """Role -> its policies as they were deployed: inline and attached."""
    iam = cloud.client("iam")
    found: dict[str, list[str]] = {}
    for role in {role for role, *_ in CASES}:
        name = physical[role]
        inline = [
            json.dumps(iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"])
            for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
        ]
        for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            version = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["DefaultVersionId"]
            document = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=version)
            inline.append(json.dumps(document["PolicyVersion"]["Document"]))
        found[role] = inline
    return found


def test_there_are_enough_cases_of_both_kinds() -> None:
    decisions = [decision for *_, decision in CASES]

    assert decisions.count(ALLOWED) >= 20
    assert decisions.count(DENIED) >= 20
    assert len(set(CASES)) == len(CASES)
    assert f"decide {len(CASES)} cases" in README.read_text()


@pytest.mark.parametrize(("role", "action", "resource", "decision"), CASES)
def test_what_a_role_may_do(
    cloud: StandinCloud,
    physical: dict[str, str],
    documents: dict[str, list[str]],
    role: str,
    action: str,
    resource: str,
    decision: str,
) -> None:
    answer = cloud.client("iam").simulate_custom_policy(
        PolicyInputList=documents[role], ActionNames=[action], ResourceArns=[arn_of(resource, physical)]
    )

    assert answer["EvaluationResults"][0]["EvalDecision"] == decision


def test_nobody_changes_a_record_but_the_sweep_and_it_changes_one_attribute(
    resources: dict[str, Any],
) -> None:
    """The stand-in's simulator passes over context entries, so the condition is looked at here."""
    changing = [
        (name, statement)
        for name, statement in allowing(resources)
        if "RecordsTable" in str(statement["Resource"])
        and {"dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem"}
        & set(texts(statement["Action"]))
    ]

    ((name, statement),) = changing
    assert name == "SweepRole"
    assert texts(statement["Action"]) == ["dynamodb:UpdateItem"]
    assert statement["Condition"] == {
        "ForAllValues:StringEquals": {"dynamodb:Attributes": ["chain", "number", "expires_at"]}
    }


def arn_of(resource: str, physical: dict[str, str]) -> str:
    """The ARN of a logical name of the template, with what follows it."""
    if resource.startswith("arn:"):
        return resource
    logical, _, rest = resource.partition("/")
    name = physical[logical]
    where = "eu-central-1:000000000000:"
    tail = f"/{rest}" if rest else ""
    if logical.endswith("Table"):
        return f"{TABLES}{name}{tail}"
    if logical.endswith(("Queue", "DeadLetters")):
        return f"arn:aws:sqs:{where}{name.rpartition('/')[2]}"
    if logical.endswith("Bucket"):
        return f"arn:aws:s3:::{name}{tail}"
    if logical.endswith("Logs"):
        return f"arn:aws:logs:{where}log-group:{name}:*"
    if logical == "EventBus":
        return f"arn:aws:events:{where}event-bus/{name}"
    if logical.endswith("Role"):
        return f"arn:aws:iam::000000000000:role/{name}"
    assert name.startswith("arn:"), logical
    return name
