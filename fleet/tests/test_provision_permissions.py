# SPDX-License-Identifier: Apache-2.0
"""The permissions that the pages list are those that the commands use: recorded from botocore, command by command."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cfnlint.decode import cfn_yaml
from clouds import Cloud, listening, running

ROOT = Path(__file__).resolve().parents[2]
# Where IAM's name is not the operation's. An operation that lists versions or reads a head needs another right.
ACTIONS = {
    "s3:HeadBucket": {"s3:ListBucket"},
    "s3:HeadObject": {"s3:GetObject"},
    "s3:ListObjectVersions": {"s3:ListBucketVersions"},
    "s3:GetBucketEncryption": {"s3:GetEncryptionConfiguration"},
    "s3:PutBucketEncryption": {"s3:PutEncryptionConfiguration"},
    "s3:GetPublicAccessBlock": {"s3:GetBucketPublicAccessBlock"},
    "s3:PutPublicAccessBlock": {"s3:PutBucketPublicAccessBlock"},
    "s3:DeleteObjects": {"s3:DeleteObject", "s3:DeleteObjectVersion"},
    "resourcegroupstaggingapi:GetResources": {"tag:GetResources"},
    # Anybody may ask who they are.
    "sts:GetCallerIdentity": set(),
}
# What CloudFormation calls at least, to make and to remove a resource of each type.
RESOURCES = {
    "AWS::ApiGatewayV2::Api": {"apigateway:POST", "apigateway:DELETE"},
    "AWS::ApiGatewayV2::Integration": {"apigateway:POST", "apigateway:DELETE"},
    "AWS::ApiGatewayV2::Route": {"apigateway:POST", "apigateway:DELETE"},
    "AWS::ApiGatewayV2::Stage": {"apigateway:POST", "apigateway:DELETE"},
    "AWS::CloudWatch::Alarm": {"cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"},
    "AWS::CloudWatch::Dashboard": {"cloudwatch:PutDashboard", "cloudwatch:DeleteDashboards"},
    "AWS::DynamoDB::Table": {
        "dynamodb:CreateTable",
        "dynamodb:UpdateTimeToLive",
        "dynamodb:UpdateContinuousBackups",
    },
    "AWS::Events::Archive": {"events:CreateArchive", "events:DeleteArchive"},
    "AWS::Events::EventBus": {"events:CreateEventBus", "events:DeleteEventBus"},
    "AWS::Events::EventBusPolicy": {"events:PutPermission", "events:RemovePermission"},
    "AWS::Events::Rule": {"events:PutRule", "events:PutTargets", "events:RemoveTargets", "events:DeleteRule"},
    "AWS::IAM::ManagedPolicy": {"iam:CreatePolicy", "iam:DeletePolicy"},
    "AWS::IAM::Role": {
        "iam:CreateRole",
        "iam:PutRolePolicy",
        "iam:DeleteRolePolicy",
        "iam:DeleteRole",
        "iam:PassRole",
    },
    "AWS::IoT::Policy": {"iot:CreatePolicy", "iot:CreatePolicyVersion", "iot:DeletePolicy"},
    "AWS::IoT::RoleAlias": {"iot:CreateRoleAlias", "iot:DeleteRoleAlias"},
    "AWS::IoT::ThingGroup": {"iot:CreateThingGroup", "iot:DeleteThingGroup"},
    "AWS::IoT::TopicRule": {"iot:CreateTopicRule", "iot:DeleteTopicRule"},
    "AWS::Lambda::EventSourceMapping": {"lambda:CreateEventSourceMapping", "lambda:DeleteEventSourceMapping"},
    "AWS::Lambda::Function": {"lambda:CreateFunction", "lambda:DeleteFunction"},
    "AWS::Lambda::LayerVersion": {"lambda:PublishLayerVersion", "lambda:DeleteLayerVersion"},
    "AWS::Lambda::Permission": {"lambda:AddPermission", "lambda:RemovePermission"},
    "AWS::Logs::LogGroup": {"logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:DeleteLogGroup"},
    "AWS::Logs::ResourcePolicy": {"logs:PutResourcePolicy", "logs:DeleteResourcePolicy"},
    "AWS::S3::Bucket": {"s3:CreateBucket", "s3:PutLifecycleConfiguration", "s3:DeleteBucket"},
    "AWS::S3::BucketPolicy": {"s3:PutBucketPolicy", "s3:DeleteBucketPolicy"},
    "AWS::SNS::Subscription": {"sns:Subscribe", "sns:Unsubscribe"},
    "AWS::SNS::Topic": {"sns:CreateTopic", "sns:DeleteTopic"},
    "AWS::SNS::TopicPolicy": {"sns:SetTopicAttributes"},
    "AWS::SQS::Queue": {"sqs:CreateQueue", "sqs:DeleteQueue"},
    "AWS::SQS::QueuePolicy": {"sqs:SetQueueAttributes"},
    "AWS::SecretsManager::Secret": {"secretsmanager:CreateSecret", "secretsmanager:DeleteSecret"},
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with running(tmp_path_factory.mktemp("cloud")) as made:
        made.ca_file.write_text(requests.get(f"{made.endpoint}/_ministack/iot/ca.pem", timeout=60).text)
        yield made


def policies() -> dict[str, dict[str, Any]]:
    """The policies of both pages, by the name in the comment above each."""
    found = {}
    for page in ("first-device.md", "cleaning-up.md"):
        text = (ROOT / "docs" / page).read_text()
        for name, policy in re.findall(r"<!-- policy: (\w+) -->\n```json\n(.+?)```", text, re.DOTALL):
            found[name] = json.loads(policy)
    return found


def granted(name: str) -> set[str]:
    return {action for statement in policies()[name]["Statement"] for action in statement["Action"]}


def needed(operations: set[str]) -> set[str]:
    actions: set[str] = set()
    for operation in operations:
        service, _, call = operation.partition(":")
        actions |= ACTIONS.get(operation, {f"{service.removesuffix('v2')}:{call}"})
    return actions


def recorded(cloud: Cloud, *commands: tuple[str, ...]) -> set[str]:
    """The operations that commands asked for."""
    cloud.operations.clear()
    with listening(cloud):
        for verb, *arguments in commands:
            said = cloud.run(verb, "perm", *arguments)
            assert said.exit_code == 0, said.output
    return set(cloud.operations)


def test_each_command_uses_the_permissions_of_its_page_and_no_other(cloud: Cloud) -> None:
    account = recorded(
        cloud, ("provision", "--dry-run"), ("provision", "--protect"), ("provision", "--no-protect")
    )
    # A stack that is gone, with its code bucket still there: CloudFormation describes a new one, which is taken back.
    formation = cloud.client("cloudformation")
    formation.delete_stack(StackName="linewatch-perm")
    formation.get_waiter("stack_delete_complete").wait(
        StackName="linewatch-perm", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    account |= recorded(cloud, ("provision", "--dry-run"), ("provision",))
    device = recorded(
        cloud,
        ("provision", "--device", "linewatch-perm"),
        ("provision", "--device", "linewatch-perm"),
        ("provision", "--device", "linewatch-perm", "--replace-certificate"),
    )
    iot = cloud.client("iot")
    for _ in range(4):
        iot.create_policy_version(
            policyName="linewatch-perm-core",
            policyDocument='{"Version": "2012-10-17", "Statement": []}',
            setAsDefault=True,
        )
    device |= recorded(cloud, ("provision", "--device", "linewatch-perm"))
    cloud.greengrass.add_core("linewatch-perm", "linewatch-perm")
    cloud.client("greengrassv2").create_deployment(targetArn=cloud.greengrass.group_arn("gone"))
    teardown = recorded(cloud, ("teardown", "--yes"), ("teardown", "--yes", "--delete-data"))

    assert "iot:CreateCertificateFromCsr" in device
    assert "iot:CreatePolicyVersion" in device
    assert "cloudformation:ExecuteChangeSet" in account
    assert "greengrassv2:DeleteCoreDevice" in teardown
    assert needed(account) - granted("account") == set()
    assert needed(device) - granted("device") == set()
    assert needed(teardown) - granted("teardown") == set()
    # A page asks for nothing that no command uses, but for what only a cut, a refusal or AWS itself makes it call.
    assert granted("account") - needed(account) <= {"s3:ListBucketVersions", "cloudformation:TagResource"}
    assert granted("device") - needed(device) <= {"iot:ListCertificates", "iot:TagResource"}
    assert granted("teardown") - needed(teardown) <= {
        "cloudformation:ListChangeSets",
        "cloudformation:UpdateTerminationProtection",
        "greengrass:CancelDeployment",
        "greengrass:DeleteDeployment",
        "greengrass:GetDeployment",
        "iot:CancelJob",
        "iot:DeleteJob",
        "iot:DescribeJob",
    }


def test_no_page_grants_an_action_by_wildcard() -> None:
    assert set(policies()) == {"account", "stack", "device", "teardown"}
    for name in policies():
        assert not [action for action in granted(name) if "*" in action]


def test_a_name_that_environments_share_may_be_changed_with_the_environments_tag_only() -> None:
    """Secrets get their logical names, and devices' policies bear no environment's."""
    changing = {
        "secretsmanager:DeleteSecret",
        "secretsmanager:UpdateSecret",
        "iot:CreatePolicyVersion",
        "iot:DeletePolicy",
        "iot:DeletePolicyVersion",
    }
    looked_at = 0
    for policy in policies().values():
        for statement in policy["Statement"]:
            resources = statement["Resource"]
            shared = [
                one
                for one in ([resources] if isinstance(resources, str) else resources)
                if one == "*" or (re.search(":(secret:|policy/)", one) and "linewatch-dev" not in one)
            ]
            if shared and set(statement["Action"]) & changing:
                looked_at += 1
                assert statement.get("Condition") == {
                    "StringEquals": {"aws:ResourceTag/linewatch:environment": "dev"}
                }, statement["Action"]
    assert looked_at == 4


def test_cloudformation_may_make_and_remove_every_resource_of_the_template() -> None:
    resources = cfn_yaml.load(str(ROOT / "cloud" / "template.yaml"))["Resources"]
    types = {resource["Type"] for resource in resources.values()}

    assert types == set(RESOURCES)
    for kind, actions in RESOURCES.items():
        assert actions <= granted("stack"), kind


def test_the_costs_count_what_the_template_makes() -> None:
    resources = cfn_yaml.load(str(ROOT / "cloud" / "template.yaml"))["Resources"]
    page = (ROOT / "docs" / "first-device.md").read_text()

    for kind, words in (
        ("AWS::CloudWatch::Alarm", "{} alarms"),
        ("AWS::SecretsManager::Secret", "| {} secrets"),
        ("AWS::DynamoDB::Table", "size of {} tables"),
    ):
        count = sum(resource["Type"] == kind for resource in resources.values())
        assert words.format(count) in page


def test_the_pages_name_no_option_that_the_commands_do_not_have(cloud: Cloud) -> None:
    text = "".join((ROOT / "docs" / page).read_text() for page in ("first-device.md", "cleaning-up.md"))
    for verb in ("provision", "teardown"):
        known = set(re.findall(r"--[a-z-]+", cloud.run(verb, "x", "--help").stdout))
        used = {
            option
            for line in re.findall(rf"linewatch {verb} ([^`\n]*)", text)
            for option in re.findall(r"--[a-z-]+", line.partition("#")[0])
        }
        assert used
        assert used <= known
