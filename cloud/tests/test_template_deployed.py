# SPDX-License-Identifier: Apache-2.0
"""The whole template, every option on, in the stand-in: each resource is looked at in the service that it belongs to.

What the stand-in can't take is listed in STAND_IN_REFUSES, with why, and held by a static test of its own below.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cfnlint.decode import cfn_yaml
from cloud_line import Eventually
from test_template import statements_in

from linewatch_plant.provisioning import STACK
from linewatch_plant.standin_cloud import StandinCloud

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
WHERE = "eu-central-1:000000000000:"
ALARM_TOPIC = f"arn:aws:sns:{WHERE}alarms"
OPTIONS = {
    "AnnounceEmail": "shift@example.com",
    "AnnounceWebhook": "https://example.com/hook",
    "BasicIngest": "true",
    "AlarmTopicArn": ALARM_TOPIC,
    "DeletionProtection": "true",
    "SweepRate": "rate(1 day)",
    "WatchRate": "rate(1 day)",
}
# Logical name -> why the stand-in does not have it.
STAND_IN_REFUSES = {
    "ForwarderRoleAlias": "the type is refused",
    "RoleAlias": "the type is refused",
    "EventArchive": "the type is refused",
    "EventBusPolicy": "the type is refused",
    "ComponentBucketTakesTlsOnly": "its loopback has no TLS",
    "EvidenceBucketPolicy": "its loopback has no TLS",
    "QueuesTakeTlsOnly": "its loopback has no TLS",
    "AnnouncementsTakeTlsOnly": "its loopback has no TLS",
}
# (type, property) that the stand-in's CloudFormation takes and does not carry out; test_template.py has them statically.
STAND_IN_LEAVES_OUT = (
    ("AWS::DynamoDB::Table", "PointInTimeRecoverySpecification"),
    ("AWS::DynamoDB::Table", "TimeToLiveSpecification"),
    ("AWS::S3::Bucket", "LifecycleConfiguration"),
)


@dataclass(frozen=True, slots=True)
class Deployed:
    """The stack in the stand-in."""

    cloud: StandinCloud
    template: Mapping[str, Any]
    # Logical name -> physical id.
    names: Mapping[str, str]

    def of(self, kind: str) -> list[tuple[str, Mapping[str, Any], str]]:
        """Logical name, properties and physical id of every resource of a type that is there."""
        return [
            (name, entry.get("Properties", {}), self.names[name])
            for name, entry in self.template.items()
            if entry["Type"] == kind and name in self.names
        ]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    cloud = StandinCloud.start(tmp_path_factory.mktemp("deployed"), parameters=OPTIONS, warm=False)
    try:
        pages = cloud.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
        names = {
            one["LogicalResourceId"]: one["PhysicalResourceId"]
            for page in pages
            for one in page["StackResourceSummaries"]
            if one.get("PhysicalResourceId") and one["ResourceStatus"] == "CREATE_COMPLETE"
        }
        yield Deployed(cloud, cfn_yaml.load(str(TEMPLATE))["Resources"], names)
    finally:
        cloud.stop()


def test_everything_is_made_but_what_the_list_names(deployed: Deployed) -> None:
    assert set(deployed.template) - set(deployed.names) == set(STAND_IN_REFUSES)
    for name in STAND_IN_REFUSES:
        assert deployed.template[name]["Condition"] == "IsRealCloud"
    assert {e["Type"] for e in deployed.template.values()} == CHECKS.keys() | {
        deployed.template[name]["Type"] for name in STAND_IN_REFUSES
    }


@pytest.mark.parametrize("name", [n for n, why in STAND_IN_REFUSES.items() if why == "the type is refused"])
def test_a_type_that_is_said_to_be_refused_is_refused(deployed: Deployed, name: str) -> None:
    """The list gets shorter when the stand-in learns."""
    formation = deployed.cloud.client("cloudformation")
    kind = deployed.template[name]["Type"]
    stack = f"refused-{name.lower()}"
    body = json.dumps({"Resources": {"One": {"Type": kind, "Properties": {}}}})
    with pytest.raises(ClientError, match=f"Unrecognized resource types: .{kind}"):
        formation.create_stack(StackName=stack, TemplateBody=body)


def test_what_the_stand_in_leaves_out_is_still_left_out(deployed: Deployed) -> None:
    """Runs before the next test, which sets both by hand."""
    dynamodb = deployed.cloud.client("dynamodb")
    name = deployed.names["EventsTable"]

    for kind, property_name in STAND_IN_LEAVES_OUT:
        assert any(property_name in properties for _, properties, _ in deployed.of(kind)), kind
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "DISABLED"
    ttl = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert ttl["TimeToLiveStatus"] == "DISABLED"
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        deployed.cloud.client("s3").get_bucket_lifecycle_configuration(
            Bucket=deployed.names["EvidenceBucket"]
        )


def test_each_resource_is_in_its_service_as_the_template_says(deployed: Deployed) -> None:
    looked_at = Counter[str]()
    for kind, check in CHECKS.items():
        for name, properties, physical in deployed.of(kind):
            try:
                check(deployed, properties, physical)
            except AssertionError as error:
                raise AssertionError(f"{kind} {name}: {error}") from error
            looked_at[kind] += 1

    assert looked_at.total() == len(deployed.names)


def _queue(made: Deployed, properties: Mapping[str, Any], url: str) -> None:
    found = made.cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert int(found["MessageRetentionPeriod"]) == 14 * 24 * 3600
    if "RedrivePolicy" in properties:
        wanted = properties["RedrivePolicy"]
        (dead_letters, _) = wanted["deadLetterTargetArn"]["Fn::GetAtt"]
        redrive = json.loads(found["RedrivePolicy"])
        assert redrive["deadLetterTargetArn"].endswith(made.names[dead_letters].rpartition("/")[2])
        assert int(redrive["maxReceiveCount"]) == wanted["maxReceiveCount"]
        assert int(found["VisibilityTimeout"]) == properties["VisibilityTimeout"]


def _queue_policy(made: Deployed, properties: Mapping[str, Any], _: str) -> None:
    for queue in properties["Queues"]:
        url = made.names[queue["Ref"]]
        found = made.cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])
        (statement,) = json.loads(found["Attributes"]["Policy"])["Statement"]
        assert statement["Condition"]["ArnEquals"]["aws:SourceArn"].startswith("arn:aws:events:")


def _table(made: Deployed, properties: Mapping[str, Any], name: str) -> None:
    dynamodb = made.cloud.client("dynamodb")
    found = dynamodb.describe_table(TableName=name)["Table"]
    assert found["KeySchema"] == [dict(one) for one in properties["KeySchema"]]
    indexes = {one["IndexName"]: one for one in found.get("GlobalSecondaryIndexes", [])}
    for wanted in properties.get("GlobalSecondaryIndexes", []):
        index = indexes.pop(wanted["IndexName"])
        assert index["KeySchema"] == [dict(one) for one in wanted["KeySchema"]]
        assert index["Projection"]["ProjectionType"] == wanted["Projection"]["ProjectionType"]
    assert indexes == {}
    assert found["DeletionProtectionEnabled"] is True
    # These two are left out by the stand-in's CloudFormation (STAND_IN_LEAVES_OUT); its DynamoDB takes them as they are.
    recovery = properties["PointInTimeRecoverySpecification"]
    dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=dict(recovery))
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    if forgetting := properties.get("TimeToLiveSpecification"):
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=dict(forgetting))
        found_ttl = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        assert found_ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def _function(made: Deployed, properties: Mapping[str, Any], name: str) -> None:
    found = made.cloud.client("lambda").get_function_configuration(FunctionName=name)
    assert (found["Handler"], found["Runtime"]) == (properties["Handler"], "python3.13")
    assert (found["Timeout"], found["MemorySize"]) == (properties["Timeout"], properties["MemorySize"])
    assert found["Environment"]["Variables"].keys() == properties["Environment"]["Variables"].keys()
    assert not any(
        "${" in value or value.startswith("{'") for value in found["Environment"]["Variables"].values()
    )
    assert len(found["Layers"]) == 1


def _mapping(made: Deployed, properties: Mapping[str, Any], uuid: str) -> None:
    found = made.cloud.client("lambda").get_event_source_mapping(UUID=uuid)
    assert found["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert found["BatchSize"] == properties["BatchSize"]


def _layer(made: Deployed, _: Mapping[str, Any], arn: str) -> None:
    name, version = arn.rsplit(":", 1)
    assert made.cloud.client("lambda").get_layer_version(LayerName=name, VersionNumber=int(version))


def _permission(made: Deployed, properties: Mapping[str, Any], _: str) -> None:
    function = made.names[properties["FunctionName"]["Ref"]]
    policy = json.loads(made.cloud.client("lambda").get_policy(FunctionName=function)["Policy"])
    assert any(properties["Principal"] in str(one["Principal"]) for one in policy["Statement"])
    assert all("SourceArn" in str(one["Condition"]) for one in policy["Statement"])


def _topic_rule(made: Deployed, properties: Mapping[str, Any], name: str) -> None:
    found = made.cloud.client("iot").get_topic_rule(ruleName=name.rpartition("/")[2])["rule"]
    wanted = properties["TopicRulePayload"]
    assert found["sql"] == wanted["Sql"]
    (action,) = found["actions"]
    assert action["sqs"]["queueUrl"] == made.names["InspectionsQueue"]
    assert found["errorAction"]["sqs"]["queueUrl"] == made.names["RuleErrorsQueue"]


def _iot_policy(made: Deployed, _: Mapping[str, Any], name: str) -> None:
    document = made.cloud.client("iot").get_policy(policyName=name)["policyDocument"]
    assert statements_in(json.loads(document))


def _thing_group(made: Deployed, _: Mapping[str, Any], __: str) -> None:
    assert made.cloud.client("iot").describe_thing_group(thingGroupName="linewatch-test")["thingGroupArn"]


def _bucket(made: Deployed, properties: Mapping[str, Any], name: str) -> None:
    s3 = made.cloud.client("s3")
    versions = properties.get("VersioningConfiguration", {}).get("Status")
    assert s3.get_bucket_versioning(Bucket=name).get("Status") == versions
    assert "AES256" in str(s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"])
    blocked = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}
    assert len(blocked) == 4


def _role(made: Deployed, properties: Mapping[str, Any], name: str) -> None:
    iam = made.cloud.client("iam")
    trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    assert trust == json.loads(json.dumps(properties["AssumeRolePolicyDocument"]))
    assert set(iam.list_role_policies(RoleName=name)["PolicyNames"]) == {
        policy["PolicyName"] for policy in properties["Policies"]
    }
    attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    assert len(attached) == len(properties.get("ManagedPolicyArns", []))


def _managed_policy(made: Deployed, _: Mapping[str, Any], arn: str) -> None:
    assert made.cloud.client("iam").get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 4


def _log_group(made: Deployed, properties: Mapping[str, Any], name: str) -> None:
    groups = made.cloud.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    (found,) = [group for group in groups if group["logGroupName"] == name]
    assert found["retentionInDays"] == properties["RetentionInDays"] == 30


def _logs_policy(made: Deployed, _: Mapping[str, Any], __: str) -> None:
    (found,) = made.cloud.client("logs").describe_resource_policies()["resourcePolicies"]
    (statement,) = json.loads(found["policyDocument"])["Statement"]
    assert "events.amazonaws.com" in statement["Principal"]["Service"]
    assert "/aws/events/linewatch-test" in statement["Resource"]


def _bus(made: Deployed, _: Mapping[str, Any], name: str) -> None:
    assert made.cloud.client("events").describe_event_bus(Name=name)["Name"] == "linewatch-test"


def _rule(made: Deployed, properties: Mapping[str, Any], physical: str) -> None:
    events = made.cloud.client("events")
    bus = {"EventBusName": "linewatch-test"} if "EventBusName" in properties else {}
    name = re.split(r"[|/]", physical)[-1]
    found = events.describe_rule(Name=name, **bus)
    (target,) = events.list_targets_by_rule(Rule=name, **bus)["Targets"]
    if bus:
        assert json.loads(found["EventPattern"]) == json.loads(json.dumps(properties["EventPattern"]))
        assert ":log-group:/aws/events/linewatch-test" in target["Arn"]
        assert target["DeadLetterConfig"]["Arn"].endswith(
            made.names["LifecycleDeadLetters"].rpartition("/")[2]
        )
    else:
        assert found["ScheduleExpression"] == "rate(1 day)"
        assert ":function:" in target["Arn"]


def _secret(made: Deployed, properties: Mapping[str, Any], name: str) -> None:
    value = json.loads(made.cloud.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])
    made_up = properties["GenerateSecretString"]
    assert value[made_up["GenerateStringKey"]]
    assert len(value[made_up["GenerateStringKey"]]) >= made_up.get("PasswordLength", 0)


def _topic(made: Deployed, properties: Mapping[str, Any], arn: str) -> None:
    found = made.cloud.client("sns").get_topic_attributes(TopicArn=arn)["Attributes"]
    assert found["DisplayName"] == properties["DisplayName"]


def _subscription(made: Deployed, properties: Mapping[str, Any], _: str) -> None:
    topic = made.names["Announcements"]
    found = made.cloud.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    endpoints = {one["Protocol"]: one["Endpoint"] for one in found}
    assert endpoints == {"email": OPTIONS["AnnounceEmail"], "https": OPTIONS["AnnounceWebhook"]}
    assert properties["Protocol"] in endpoints


def _http(made: Deployed, _: Mapping[str, Any], __: str) -> None:
    api = made.cloud.client("apigatewayv2")
    of = {"ApiId": made.names["HttpApi"]}
    assert api.get_api(**of)["ProtocolType"] == "HTTP"
    assert {route["RouteKey"] for route in api.get_routes(**of)["Items"]} == {"$default", "POST /erp/events"}
    (integration,) = api.get_integrations(**of)["Items"]
    assert integration["PayloadFormatVersion"] == "2.0"
    assert [stage["StageName"] for stage in api.get_stages(**of)["Items"]] == ["$default"]


def _alarm(made: Deployed, properties: Mapping[str, Any], name: str) -> None:
    (found,) = made.cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    assert found["AlarmActions"] == found["OKActions"] == [ALARM_TOPIC]
    assert (found["Namespace"], found["MetricName"]) == (properties["Namespace"], properties["MetricName"])
    assert {one["Name"] for one in found["Dimensions"]} == {one["Name"] for one in properties["Dimensions"]}


def _dashboard(made: Deployed, _: Mapping[str, Any], name: str) -> None:
    watching = made.cloud.client("cloudwatch")
    text = watching.get_dashboard(DashboardName=name)["DashboardBody"]
    body = json.loads(text)
    assert name == "linewatch-test"
    assert "${" not in text
    alarms = {one["AlarmArn"] for one in watching.describe_alarms()["MetricAlarms"]}
    widgets = body["widgets"]
    assert {arn for widget in widgets for arn in widget["properties"].get("alarms", [])} == alarms
    assert all(w["x"] >= 0 and w["x"] + w["width"] <= 24 for w in widgets)
    here = {name.rpartition("/")[2] for name in made.names.values()}
    for widget in widgets:
        for metric in widget["properties"].get("metrics", []):
            if isinstance(metric[0], str) and metric[0].startswith("AWS/"):
                assert metric[3] in here, metric
        for group in re.findall(r"SOURCE '([^']+)'", widget["properties"].get("query", "")):
            assert group in made.names.values()


CHECKS: Mapping[str, Callable[[Deployed, Mapping[str, Any], str], None]] = {
    "AWS::ApiGatewayV2::Api": _http,
    "AWS::ApiGatewayV2::Integration": _http,
    "AWS::ApiGatewayV2::Route": _http,
    "AWS::ApiGatewayV2::Stage": _http,
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::CloudWatch::Dashboard": _dashboard,
    "AWS::DynamoDB::Table": _table,
    "AWS::Events::EventBus": _bus,
    "AWS::Events::Rule": _rule,
    "AWS::IAM::ManagedPolicy": _managed_policy,
    "AWS::IAM::Role": _role,
    "AWS::IoT::Policy": _iot_policy,
    "AWS::IoT::ThingGroup": _thing_group,
    "AWS::IoT::TopicRule": _topic_rule,
    "AWS::Lambda::EventSourceMapping": _mapping,
    "AWS::Lambda::Function": _function,
    "AWS::Lambda::LayerVersion": _layer,
    "AWS::Lambda::Permission": _permission,
    "AWS::Logs::LogGroup": _log_group,
    "AWS::Logs::ResourcePolicy": _logs_policy,
    "AWS::S3::Bucket": _bucket,
    "AWS::SNS::Subscription": _subscription,
    "AWS::SNS::Topic": _topic,
    "AWS::SQS::Queue": _queue,
    "AWS::SQS::QueuePolicy": _queue_policy,
    "AWS::SecretsManager::Secret": _secret,
}


def test_every_alarm_rises_at_its_own_threshold_and_tells_the_topic(
    deployed: Deployed, eventually: Eventually
) -> None:
    sns, sqs = deployed.cloud.client("sns"), deployed.cloud.client("sqs")
    assert sns.create_topic(Name="alarms")["TopicArn"] == ALARM_TOPIC
    may = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": f"arn:aws:sqs:{WHERE}operator",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    url = sqs.create_queue(QueueName="operator", Attributes={"Policy": policy})["QueueUrl"]
    sns.subscribe(TopicArn=ALARM_TOPIC, Protocol="sqs", Endpoint=f"arn:aws:sqs:{WHERE}operator")
    watching = deployed.cloud.client("cloudwatch")
    states = {alarm["AlarmName"]: alarm["StateValue"] for alarm in watching.describe_alarms()["MetricAlarms"]}
    assert len(states) == 17
    told = set[str]()

    def has_told(name: str) -> bool:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            told.add(json.loads(json.loads(message["Body"])["Message"])["AlarmName"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return name in told

    for _, _, name in deployed.of("AWS::CloudWatch::Alarm"):
        (alarm,) = watching.describe_alarms(AlarmNames=[name])["MetricAlarms"]
        reading = {"MetricName": alarm["MetricName"], "Dimensions": alarm["Dimensions"]}
        if alarm["StateValue"] != "ALARM":
            # Of several functions or queues the stand-in does not tell the dimensions apart: one reading raises all.
            threshold = float(alarm["Threshold"])
            # The lowest reading of a period counts for a Minimum: one that is not enough would hold it down.
            readings = [threshold] if alarm["Statistic"] == "Minimum" else [threshold - 1, threshold]
            for value in readings:
                watching.put_metric_data(
                    Namespace=alarm["Namespace"], MetricData=[{**reading, "Value": value}]
                )
                (alarm,) = watching.describe_alarms(AlarmNames=[name])["MetricAlarms"]
                assert alarm["StateValue"] == ("ALARM" if value >= threshold else "OK"), name
        eventually(lambda name=name: has_told(name), f"word of {name}")


# ---------------------------------------------------------------- what the stand-in refuses, held statically


def test_the_archive_keeps_what_was_on_the_bus_for_a_month() -> None:
    archive = cfn_yaml.load(str(TEMPLATE))["Resources"]["EventArchive"]["Properties"]

    assert archive == {"SourceArn": {"Fn::GetAtt": ["EventBus", "Arn"]}, "RetentionDays": 30}


def test_the_two_role_aliases_last_an_hour_and_name_their_own_roles() -> None:
    resources = cfn_yaml.load(str(TEMPLATE))["Resources"]

    for alias, role in (("RoleAlias", "TokenExchangeRole"), ("ForwarderRoleAlias", "ForwarderRole")):
        properties = resources[alias]["Properties"]
        assert properties["RoleArn"] == {"Fn::GetAtt": [role, "Arn"]}
        assert properties["CredentialDurationSeconds"] == 3600


def test_on_the_bus_nobody_speaks_for_another_source() -> None:
    policy = cfn_yaml.load(str(TEMPLATE))["Resources"]["EventBusPolicy"]["Properties"]

    assert policy["Statement"] == {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "events:PutEvents",
        "Resource": {"Fn::GetAtt": ["EventBus", "Arn"]},
        "Condition": {"StringNotEquals": {"events:source": "edge.ai.inference"}},
    }


@pytest.mark.parametrize("name", [n for n, why in STAND_IN_REFUSES.items() if "TLS" in why])
def test_without_tls_nobody_reads_or_writes(name: str) -> None:
    resources = cfn_yaml.load(str(TEMPLATE))["Resources"]
    properties = resources[name]["Properties"]
    refusal = properties["PolicyDocument"]["Statement"][0]

    assert (refusal["Effect"], refusal["Principal"]) == ("Deny", "*")
    assert refusal["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    if "Queues" in properties:
        queues = {n for n, e in resources.items() if e["Type"] == "AWS::SQS::Queue"}
        # EventBridge alone sends there, and needs a policy of its own.
        assert {one["Ref"] for one in properties["Queues"]} == queues - {"LifecycleDeadLetters"}
        assert len(refusal["Resource"]) == len(properties["Queues"])
