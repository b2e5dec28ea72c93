# SPDX-License-Identifier: Apache-2.0
"""The template is valid, grants nothing by wildcard that is not listed here, and leaves no queue without an end."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import cfn_yaml

from enrich.enrichment import MESSAGES
from linewatch.v1 import event_pb2
from linewatch_forwarder.uplinks.event_bus import SOURCE
from linewatch_plant.ministack_process import REGION, end, launched

TEMPLATE = Path(__file__).parents[1] / "template.yaml"

# Resources with a "*", each with its reason.
LISTED_WILDCARDS = {
    "topic/linewatch/v1/${Site}/*": "a forwarder publishes for every line of its site",
    "topic/$aws/rules/${IngestRule}/linewatch/v1/${Site}/*": "the same by Basic Ingest, where that is chosen",
    "thing/linewatch-*/work-orders": "an asset's device is known from the asset registry only",
    "thing/linewatch-*": "the same in the stand-in, which asks for the thing alone",
    "evidence/${!credentials-iot:ThingName}/*": "a device's evidence lies below its digests",
    "EvidenceBucket.Arn}/evidence/*": "the console shows the evidence of any part",
    "EvidenceBucket.Arn}/*": "the bucket's own policy denies for every key",
    "ComponentBucket.Arn}/*": "a device fetches whichever component is deployed to it",
    "repository/${RepositoryPrefix}linewatch/*": "and any image of ours; promote makes the repositories",
    **{
        f"${{AWS::Region}}/{name}:*": "the streams of one log group"
        for name in (
            "System",
            *(
                f"io.linewatch.{part}"
                for part in (
                    "Broker",
                    "Inference",
                    "Capture",
                    "Capture2",
                    "Capture3",
                    "Capture4",
                    "Forwarder",
                    "Console",
                )
            ),
        )
    },
}
# AWS takes no narrower resource for these: a registry's token, and a core device's reading of its own deployment.
UNSCOPED = {
    ("ecr:GetAuthorizationToken",),
    (
        "greengrass:GetComponentVersionArtifact",
        "greengrass:GetDeploymentConfiguration",
        "greengrass:ListThingGroupsForCoreDevice",
        "greengrass:ResolveComponentCandidates",
    ),
}


@pytest.fixture(scope="module")
def iam(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An account that evaluates policies."""
    process, http_port, _ = launched(tmp_path_factory.mktemp("account"), enforce_policies=False)
    try:
        yield boto3.client(
            "iam", endpoint_url=f"http://127.0.0.1:{http_port}", region_name=REGION, aws_access_key_id="test",
            aws_secret_access_key="test",
        )  # fmt: skip
    finally:
        end(process)


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    return dict(cfn_yaml.load(str(TEMPLATE))["Resources"])


def test_cfn_lint_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("cfn-lint")
    found = subprocess.run(
        [str(linter), "--template", str(TEMPLATE)], capture_output=True, text=True, check=False
    )

    assert found.returncode == 0, found.stdout + found.stderr


def test_no_action_and_no_resource_is_granted_by_an_unlisted_wildcard(resources: dict[str, Any]) -> None:
    statements = [statement for resource in resources.values() for statement in statements_in(resource)]
    allowed = [statement for statement in statements if statement["Effect"] == "Allow"]

    assert len(allowed) > 20
    for statement in allowed:
        assert "*" not in str(statement["Action"])
        resource_texts = texts(statement.get("Resource", []))
        if "*" in resource_texts:
            assert tuple(sorted(texts(statement["Action"]))) in UNSCOPED
            continue
        for text in resource_texts:
            assert "*" not in text or any(text.endswith(known) for known in LISTED_WILDCARDS), text


def test_the_device_role_is_assumed_by_the_credentials_provider_alone(resources: dict[str, Any]) -> None:
    trust = resources["TokenExchangeRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]

    assert [dict(statement["Principal"]) for statement in trust] == [
        {"Service": "credentials.iot.amazonaws.com"}
    ]


def test_a_forwarders_certificate_gives_it_one_bus_one_source_and_its_own_evidence(
    resources: dict[str, Any],
) -> None:
    role, alias = (resources[name]["Properties"] for name in ("ForwarderRole", "ForwarderRoleAlias"))
    (policy,) = role["Policies"]
    to_bus, evidence = policy["PolicyDocument"]["Statement"]
    (assumed,) = [
        statement
        for statement in statements_in(resources["DevicePolicy"])
        if statement["Action"] == "iot:AssumeRoleWithCertificate"
    ]

    assert resources["ForwarderRoleAlias"]["Condition"] == "IsRealCloud"
    assert alias["RoleArn"] == {"Fn::GetAtt": ["ForwarderRole", "Arn"]}
    assert assumed["Resource"]["Fn::Sub"].endswith(f":rolealias/{alias['RoleAlias']['Fn::Sub']}")
    trust = role["AssumeRolePolicyDocument"]["Statement"]
    assert [one["Principal"] for one in trust] == [{"Service": "credentials.iot.amazonaws.com"}]
    assert (to_bus["Action"], to_bus["Resource"]) == ("events:PutEvents", {"Fn::GetAtt": ["EventBus", "Arn"]})
    assert to_bus["Condition"] == {"StringEquals": {"events:source": SOURCE}}
    assert "EvidenceBucket" in str(evidence["Resource"])


@pytest.mark.parametrize(
    ("action", "resource", "decision"),
    [
        ("events:PutEvents", "event-bus/linewatch-test", "allowed"),
        ("events:PutEvents", "event-bus/default", "implicitDeny"),
        ("events:PutRule", "event-bus/linewatch-test", "implicitDeny"),
        ("s3:GetObject", "event-bus/linewatch-test", "implicitDeny"),
    ],
)
def test_what_the_forwarders_role_allows_is_decided_by_an_evaluator_of_policies(
    resources: dict[str, Any], iam: Any, action: str, resource: str, decision: str
) -> None:
    arn = "arn:aws:events:eu-central-1:000000000000:"
    (to_bus, _) = resources["ForwarderRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    # The stand-in's evaluator knows no events:source; that condition is looked at above.
    statement = {"Effect": "Allow", "Action": to_bus["Action"], "Resource": f"{arn}event-bus/linewatch-test"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    answer = iam.simulate_custom_policy(
        PolicyInputList=[policy], ActionNames=[action], ResourceArns=[arn + resource]
    )

    assert answer["EvaluationResults"][0]["EvalDecision"] == decision


def test_a_device_may_write_to_the_groups_that_the_template_makes_and_to_no_other(
    resources: dict[str, Any],
) -> None:
    made = {
        f"{entry['Properties']['LogGroupName']['Fn::Sub']}:*"
        for entry in resources.values()
        if entry["Type"] == "AWS::Logs::LogGroup" and entry.get("Condition") == "MakesDeviceLogs"
    }
    policy = resources["TokenExchangeRole"]["Properties"]["Policies"][0]["PolicyDocument"]
    granted = {
        text.partition("log-group:")[2]
        for statement in policy["Statement"]
        if "logs:PutLogEvents" in statement["Action"]
        for text in texts(statement["Resource"])
    }

    assert granted == made
    assert len(made) == 9
    for entry in resources.values():
        if entry["Type"] == "AWS::Logs::LogGroup":
            assert entry["Properties"]["RetentionInDays"] == 30


def test_the_component_bucket_is_versioned_encrypted_private_and_forgets_old_versions(
    resources: dict[str, Any],
) -> None:
    bucket = resources["ComponentBucket"]["Properties"]

    assert bucket["VersioningConfiguration"]["Status"] == "Enabled"
    assert "SSEAlgorithm" in str(bucket["BucketEncryption"])
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["LifecycleConfiguration"]["Rules"][0]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 90
    refusal = resources["ComponentBucketTakesTlsOnly"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert refusal["Effect"] == "Deny"
    assert refusal["Condition"]["Bool"]["aws:SecureTransport"] == "false"


def test_the_evidence_bucket_is_private_encrypted_kept_written_once_and_forgets(
    resources: dict[str, Any],
) -> None:
    bucket = resources["EvidenceBucket"]

    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert "SSEAlgorithm" in str(bucket["Properties"]["BucketEncryption"])
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    assert "VersioningConfiguration" not in bucket["Properties"]
    (rule,) = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
    assert rule["ExpirationInDays"] == {"Ref": "EvidenceDays"}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    plain, again = resources["EvidenceBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (plain["Effect"], plain["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert (again["Effect"], again["Action"]) == ("Deny", "s3:PutObject")
    assert again["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }


def test_a_device_may_add_to_its_own_evidence_and_to_no_other_and_reads_none(
    resources: dict[str, Any],
) -> None:
    statements = [
        statement
        for entry in resources.values()
        if entry["Type"] == "AWS::IAM::Role"
        if "credentials.iot.amazonaws.com" in str(entry)
        for statement in statements_in(entry)
        if "EvidenceBucket" in str(statement.get("Resource"))
    ]

    assert statements
    for statement in statements:
        assert sorted(statement["Action"]) == [
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
            "s3:PutObject",
        ]
        assert statement["Resource"] == {
            "Fn::Sub": "${EvidenceBucket.Arn}/evidence/${!credentials-iot:ThingName}/*"
        }


def test_a_forwarder_reads_its_own_shadow_and_writes_none(resources: dict[str, Any]) -> None:
    own = "$aws/things/${!iot:Connection.Thing.ThingName}/shadow/name/work-orders/"
    granted: dict[str, set[str]] = {}
    for statement in statements_in(resources["DevicePolicy"]):
        for text in texts(statement["Resource"]):
            if "$aws/things" in text:
                granted.setdefault(statement["Action"], set()).add(text.partition("AccountId}:")[2])

    heard = {f"{own}get/accepted", f"{own}update/documents"}
    assert granted == {
        "iot:Publish": {f"topic/{own}get"},
        "iot:Subscribe": {f"topicfilter/{topic}" for topic in heard},
        "iot:Receive": {f"topic/{topic}" for topic in heard},
    }


def test_basic_ingest_is_allowed_for_its_own_rule_and_only_where_it_is_chosen(
    resources: dict[str, Any],
) -> None:
    statements = resources["DevicePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    (chosen,) = [one["Fn::If"] for one in statements if "Fn::If" in one]
    rule = resources["IngestRule"]

    assert chosen[0] == rule["Condition"] == "HasBasicIngest"
    assert chosen[1]["Action"] == "iot:Publish"
    assert chosen[2] == {"Ref": "AWS::NoValue"}
    assert "topic/$aws/rules/${IngestRule}/" in chosen[1]["Resource"]["Fn::Sub"]
    assert "$aws/rules" not in str([one for one in statements if "Fn::If" not in one])
    assert "FROM" not in rule["Properties"]["TopicRulePayload"]["Sql"], (
        "it hears no topic of the message broker"
    )


def test_the_template_fits_into_what_cloudformation_reads_from_a_bucket() -> None:
    assert TEMPLATE.stat().st_size < 1_000_000


def test_every_queue_that_feeds_a_function_ends_in_dead_letters_with_an_alarm(
    resources: dict[str, Any],
) -> None:
    queues = {
        name: entry["Properties"] for name, entry in resources.items() if entry["Type"] == "AWS::SQS::Queue"
    }
    watched = str([e for e in resources.values() if e["Type"] == "AWS::CloudWatch::Alarm"])

    for name, properties in queues.items():
        assert properties["MessageRetentionPeriod"] == 14 * 24 * 3600
        if "RedrivePolicy" in properties:
            dead_letters = properties["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"]
            assert str(dead_letters[0]) in watched
        else:
            assert name in watched


def test_functions_and_visibility_leave_the_lease_and_retries_room(resources: dict[str, Any]) -> None:
    parameters = cfn_yaml.load(str(TEMPLATE))["Parameters"]

    longest = max(
        e["Properties"]["Timeout"] for e in resources.values() if e["Type"] == "AWS::Lambda::Function"
    )

    assert parameters["LeaseSeconds"]["Default"] > longest
    assert parameters["RetryBaseSeconds"]["Default"] * (1 + 2) <= 15 * 60
    for queue, function in (("InspectionsQueue", "EnrichFunction"), ("EnrichedQueue", "WorkOrdersFunction")):
        visibility = resources[queue]["Properties"]["VisibilityTimeout"]
        assert visibility >= 6 * resources[function]["Properties"]["Timeout"]


def test_every_table_can_be_restored(resources: dict[str, Any]) -> None:
    tables = [e for e in resources.values() if e["Type"] == "AWS::DynamoDB::Table"]

    assert len(tables) == 9
    for table in tables:
        assert table["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
        assert table["DeletionPolicy"] == "Retain"


def test_the_bus_rule_names_the_engines_five_types_and_the_two_of_parts(resources: dict[str, Any]) -> None:
    engine = {name for name, message in MESSAGES.items() if message is event_pb2.Engine}
    named = resources["LifecycleRule"]["Properties"]["EventPattern"]["detail-type"]

    assert len(named) == 7
    assert set(named) == engine | {"InferenceCompleted", "InferenceError"}
    assert set(named) <= MESSAGES.keys()


def test_events_and_what_belongs_to_ended_orders_are_forgotten_and_nothing_else(
    resources: dict[str, Any],
) -> None:
    forgetful = {
        name: entry["Properties"]["TimeToLiveSpecification"]
        for name, entry in resources.items()
        if "TimeToLiveSpecification" in entry.get("Properties", {})
    }

    assert forgetful == {
        name: {"AttributeName": "expires_at", "Enabled": True}
        for name in ("EventsTable", "WorkOrdersTable", "RecordsTable", "OutcomesTable")
    }


def test_every_function_reads_every_variable_that_it_gets(resources: dict[str, Any]) -> None:
    functions = [e["Properties"] for e in resources.values() if e["Type"] == "AWS::Lambda::Function"]

    assert len(functions) == 5
    for function in functions:
        code = code_behind(function["Handler"].rpartition(".")[0])
        given = set(function["Environment"]["Variables"]) - {"POWERTOOLS_SERVICE_NAME"}
        read = set(re.findall(r'(?:\[|\.get\()"(\w+)"', code))
        assert given - read == set(), function["Handler"]


def code_behind(module: str) -> str:
    """The source of a module of ours and of all those of ours that it imports."""
    found: dict[str, str] = {}
    wanted = [module]
    while wanted:
        name = wanted.pop()
        path = TEMPLATE.parent / (name.replace(".", "/") + ".py")
        if name in found or not path.exists():
            continue
        found[name] = path.read_text()
        for node in ast.walk(ast.parse(found[name])):
            if isinstance(node, ast.ImportFrom) and node.module:
                wanted += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                wanted += [alias.name for alias in node.names]
    return "".join(found.values())


def statements_in(node: Any) -> list[Any]:
    """Every policy statement below a node."""
    if isinstance(node, dict):
        own = [node] if "Effect" in node else []
        return own + [found for value in node.values() for found in statements_in(value)]
    if isinstance(node, list):
        return [found for value in node for found in statements_in(value)]
    return []


def texts(node: Any) -> list[str]:
    """Every text below a node."""
    if isinstance(node, dict):
        return [text for value in node.values() for text in texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in texts(value)]
    return [str(node)]
