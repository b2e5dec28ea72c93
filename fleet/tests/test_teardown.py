# SPDX-License-Identifier: Apache-2.0
"""linewatch teardown: what provision made goes, and nothing else; data only when asked."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests
from clouds import Cloud, Cut, cut, running

from linewatch_fleet.provisioning.marks import tags


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An account; every test has an environment of its own."""
    with running(tmp_path_factory.mktemp("cloud")) as made:
        made.ca_file.write_text(requests.get(f"{made.endpoint}/_ministack/iot/ca.pem", timeout=60).text)
        yield made


def provisioned(cloud: Cloud, environment: str, *devices: str) -> None:
    # On a slow machine the account's schedules would come due while a test compares inventories.
    rates = dict.fromkeys(("SweepRate", "WatchRate"), "rate(1 day)")
    cloud.fleet(environment, parameters={"DeviceLogs": "false", **rates})
    said = cloud.run("provision", environment)
    assert said.exit_code == 0, said.output
    # ministack gives a stack's buckets none of its tags, as CloudFormation does.
    s3 = cloud.client("s3")
    for one in s3.list_buckets()["Buckets"]:
        if one["Name"].startswith(f"linewatch-{environment}-evidence"):
            s3.put_bucket_tagging(Bucket=one["Name"], Tagging={"TagSet": tags(environment)})
    for name in devices:
        said = cloud.run("provision", environment, "--device", name)
        assert said.exit_code == 0, said.output


def inventory(cloud: Cloud) -> dict[str, list[str]]:
    """Everything that an environment leaves in an account, by kind."""
    iot = cloud.client("iot")
    formation = cloud.client("cloudformation")
    stacks = formation.describe_stacks()["Stacks"]
    return {
        "things": [one["thingName"] for one in iot.list_things()["things"]],
        "certificates": list(cloud.certificates()),
        "policies": [one["policyName"] for one in iot.list_policies()["policies"]],
        "groups": [one["groupName"] for one in iot.list_thing_groups()["thingGroups"]],
        "rules": [one["ruleName"] for one in iot.list_topic_rules()["rules"]],
        "stacks": [one["StackName"] for one in stacks if one["StackStatus"] != "DELETE_COMPLETE"],
        "buckets": [one["Name"] for one in cloud.client("s3").list_buckets()["Buckets"]],
        "tables": cloud.client("dynamodb").list_tables()["TableNames"],
        "functions": [one["FunctionName"] for one in cloud.client("lambda").list_functions()["Functions"]],
        "roles": [one["RoleName"] for one in cloud.client("iam").list_roles()["Roles"]],
        "queues": cloud.client("sqs").list_queues().get("QueueUrls", []),
        "log groups": [
            one["logGroupName"] for one in cloud.client("logs").describe_log_groups()["logGroups"]
        ],
        "secrets": [one["Name"] for one in cloud.client("secretsmanager").list_secrets()["SecretList"]],
        "topics": [one["TopicArn"] for one in cloud.client("sns").list_topics()["Topics"]],
        "alarms": [one["AlarmName"] for one in cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]],
        "buses": [one["Name"] for one in cloud.client("events").list_event_buses()["EventBuses"]],
    }


def test_an_account_is_as_it_was_before_once_the_data_is_deleted_too(cloud: Cloud) -> None:
    iot = cloud.client("iot")
    iot.create_thing(
        thingName="linewatch-gone-neighbour", attributePayload={"attributes": {"owner": "somebody"}}
    )
    iot.create_keys_and_certificate(setAsActive=True)
    cloud.client("s3").create_bucket(
        Bucket="somebodys-bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    cloud.client("dynamodb").create_table(
        TableName="somebodys-table", BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )  # fmt: skip
    before = inventory(cloud)
    provisioned(cloud, "gone", "linewatch-gone-1", "linewatch-gone-2")
    bucket = next(name for name in inventory(cloud)["buckets"] if name.startswith("linewatch-gone-component"))
    for content in (b"first", b"second"):
        cloud.client("s3").put_object(Bucket=bucket, Key="io.linewatch.model/1.0.0/model.zip", Body=content)
    cloud.client("s3").delete_object(Bucket=bucket, Key="io.linewatch.model/1.0.0/model.zip")
    evidence = next(
        name for name in inventory(cloud)["buckets"] if name.startswith("linewatch-gone-evidence")
    )
    picture = {"Bucket": evidence, "Key": "evidence/linewatch-gone-1-forwarder/sha256/ab/abcd.jpg"}
    cloud.client("s3").put_object(**picture, Body=b"a defect")

    assert cloud.run("teardown", "gone", "--yes").exit_code == 0
    assert cloud.client("s3").get_object(**picture)["Body"].read() == b"a defect", "evidence is data"
    kept = cloud.plan("teardown", "gone", "--dry-run")
    assert cloud.run("teardown", "gone", "--yes", "--delete-data").exit_code == 0

    assert [step["action"] for step in kept] == ["keep"] * 11
    assert f"AWS::S3::Bucket {evidence}" in [step["what"] for step in kept]
    assert sum("DynamoDB" in step["what"] for step in kept) == 9
    assert inventory(cloud) == before
    assert cloud.plan("teardown", "gone", "--yes") == []


def test_tables_with_deletion_protection_are_refused_until_it_is_lifted(cloud: Cloud) -> None:
    provisioned(cloud, "shielded")
    dynamodb = cloud.client("dynamodb")
    table = next(name for name in dynamodb.list_tables()["TableNames"] if "shielded" in name)
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=True)

    said = cloud.run("teardown", "shielded", "--yes", "--delete-data")

    assert said.exit_code == 3
    assert f"table {table} has deletion protection" in said.output
    assert table in dynamodb.list_tables()["TableNames"]
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
    assert cloud.run("teardown", "shielded", "--yes", "--delete-data").exit_code == 0
    assert table not in dynamodb.list_tables()["TableNames"]


def test_it_asks_for_the_environments_name_and_removes_nothing_for_another(cloud: Cloud) -> None:
    provisioned(cloud, "asks")
    before = inventory(cloud)

    said = cloud.run("teardown", "asks", typed="yes\n")

    assert said.exit_code == 1
    assert "nothing was removed" in said.stderr
    assert inventory(cloud) == before
    assert cloud.run("teardown", "asks", typed="asks\n").exit_code == 0
    assert "linewatch-asks" not in inventory(cloud)["stacks"]


def test_where_nobody_can_answer_it_says_which_option_to_give(cloud: Cloud) -> None:
    provisioned(cloud, "silent")
    before = inventory(cloud)

    said = subprocess.run(
        [sys.executable, "-m", "linewatch_fleet.cli", *cloud.arguments("teardown", "silent")],
        env={**os.environ, **cloud.variables}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert said.returncode == 2, said.stderr
    assert "--yes" in said.stderr
    assert inventory(cloud) == before


@pytest.mark.parametrize("stack", ["none", "without outputs", "somebody's"])
def test_deployments_of_a_group_that_provision_did_not_make_stay(cloud: Cloud, stack: str) -> None:
    environment = f"group{stack[0]}"
    cloud.fleet(environment, thing_group="somebodys-group")
    control, formation = cloud.client("greengrassv2"), cloud.client("cloudformation")
    target = cloud.greengrass.group_arn("somebodys-group")
    made = control.create_deployment(targetArn=target)["deploymentId"]
    if stack != "none":
        template = "Resources: {Queue: {Type: AWS::SQS::Queue}}"
        if stack == "somebody's":
            template += "\nOutputs: {ThingGroupName: {Value: somebodys-group}}"
        formation.create_stack(
            StackName=f"linewatch-{environment}", Tags=tags(environment) if stack == "without outputs" else [],
            TemplateBody=template,
        )  # fmt: skip
        formation.get_waiter("stack_create_complete").wait(StackName=f"linewatch-{environment}")

    said = cloud.run("teardown", environment, "--yes")

    assert said.exit_code == (3 if stack == "somebody's" else 0), said.output
    left = control.list_deployments(targetArn=target, historyFilter="ALL")["deployments"]
    assert made in [one["deploymentId"] for one in left]
    assert control.get_deployment(deploymentId=made)["deploymentStatus"] == "ACTIVE"


def test_a_core_device_whose_things_provision_did_not_make_stays(cloud: Cloud) -> None:
    cloud.greengrass.add_core("linewatch-ghost", "somebodys")
    thing = cloud.greengrass.thing_arn("linewatch-phantom")
    made = cloud.client("greengrassv2").create_deployment(targetArn=thing)["deploymentId"]

    for name, word in (
        ("linewatch-ghost", "core device linewatch-ghost"),
        ("linewatch-phantom", "deployment "),
    ):
        said = cloud.run("teardown", "ghostly", "--device", name, "--yes")
        assert said.exit_code == 3, said.output
        assert word in said.stderr
        assert "is left alone" in said.stderr

    assert "linewatch-ghost" in cloud.greengrass.cores
    assert cloud.client("greengrassv2").get_deployment(deploymentId=made)["deploymentStatus"] == "ACTIVE"


def test_a_dry_run_removes_nothing_and_json_does_not_ask(cloud: Cloud) -> None:
    provisioned(cloud, "shows", "linewatch-shows-1")
    before = inventory(cloud)

    plan = cloud.plan("teardown", "shows", "--dry-run")
    said = cloud.run("teardown", "shows", "--json")

    assert {"thing linewatch-shows-1", "policy linewatch-shows-1-core", "stack linewatch-shows"} <= {
        step["what"] for step in plan
    }
    assert said.exit_code == 2
    assert inventory(cloud) == before


def test_one_device_goes_and_the_others_stay(cloud: Cloud) -> None:
    provisioned(cloud, "one", "linewatch-one-1", "linewatch-one-10")
    others = cloud.certificates_of("linewatch-one-10")

    assert cloud.run("teardown", "one", "--device", "linewatch-one-1", "--yes").exit_code == 0

    left = inventory(cloud)
    assert not {"linewatch-one-1", "linewatch-one-1-forwarder"} & set(left["things"])
    assert "linewatch-one-1-core" not in left["policies"]
    assert {"linewatch-one-10", "linewatch-one-10-forwarder"} <= set(left["things"])
    assert cloud.certificates_of("linewatch-one-10") == others
    assert "linewatch-one" in left["stacks"]
    said = cloud.run("teardown", "one", "--device", "linewatch-one-1", "--yes")
    assert said.exit_code == 0
    assert "nothing" in said.stderr


def test_a_thing_and_a_certificate_that_provision_did_not_make_are_left_alone(cloud: Cloud) -> None:
    provisioned(cloud, "theirs", "linewatch-theirs-1")
    iot = cloud.client("iot")
    iot.create_thing(thingName="linewatch-theirs-2")
    arn = iot.create_keys_and_certificate(setAsActive=True)["certificateArn"]
    iot.attach_thing_principal(thingName="linewatch-theirs-1", principal=arn)
    before = inventory(cloud)

    for arguments, word in (
        (("--device", "linewatch-theirs-2"), "was not provisioned for theirs"),
        (("--device", "linewatch-theirs-1"), "did not make"),
        ((), "did not make"),
    ):
        said = cloud.run("teardown", "theirs", "--yes", *arguments)
        assert said.exit_code == 3, said.output
        assert word in said.stderr
    assert inventory(cloud) == before


def test_a_stack_of_that_name_that_somebody_else_made_is_left_alone(cloud: Cloud) -> None:
    cloud.client("cloudformation").create_stack(
        StackName="linewatch-other",
        TemplateBody='{"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}',
    )
    cloud.client("cloudformation").get_waiter("stack_create_complete").wait(StackName="linewatch-other")

    said = cloud.run("teardown", "other", "--yes")

    assert said.exit_code == 3
    assert "was not made by linewatch provision" in said.stderr
    assert "linewatch-other" in inventory(cloud)["stacks"]


def test_a_stack_that_is_there_for_a_change_set_only_goes_when_provision_made_it(cloud: Cloud) -> None:
    formation = cloud.client("cloudformation")
    for name, change_set, code in (("mine", "linewatch-provision-1", 0), ("yours", "somebodys", 3)):
        formation.create_change_set(
            StackName=f"linewatch-{name}", ChangeSetName=change_set, ChangeSetType="CREATE",
            TemplateBody='{"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}',
        )  # fmt: skip

        assert cloud.run("teardown", name, "--yes").exit_code == code
    left = inventory(cloud)["stacks"]
    assert "linewatch-mine" not in left
    assert "linewatch-yours" in left


def test_a_protected_environment_needs_a_word_more(cloud: Cloud) -> None:
    provisioned(cloud, "prod")

    said = cloud.run("teardown", "prod", "--yes")

    assert said.exit_code == 3
    assert "--unprotect" in said.stderr
    assert "linewatch-prod" in inventory(cloud)["stacks"]
    assert cloud.run("teardown", "prod", "--yes", "--unprotect").exit_code == 0
    assert "linewatch-prod" not in inventory(cloud)["stacks"]


def test_deployments_end_and_the_core_device_is_forgotten(cloud: Cloud) -> None:
    provisioned(cloud, "rolled", "linewatch-rolled-1")
    core = cloud.greengrass.add_core("linewatch-rolled-1", "linewatch-rolled")
    control = cloud.client("greengrassv2")
    group = control.create_deployment(targetArn=cloud.greengrass.group_arn("linewatch-rolled"))[
        "deploymentId"
    ]
    thing = control.create_deployment(targetArn=cloud.greengrass.thing_arn("linewatch-rolled-1"))[
        "deploymentId"
    ]
    other = control.create_deployment(targetArn=cloud.greengrass.group_arn("somebodys"))["deploymentId"]
    core.starts(cloud.greengrass.thing_arn("linewatch-rolled-1"))
    core.succeeds(cloud.greengrass.thing_arn("linewatch-rolled-1"))

    said = cloud.run("teardown", "rolled", "--yes")

    assert said.exit_code == 0, said.output
    left = {one["deploymentId"] for one in control.list_deployments(historyFilter="ALL")["deployments"]}
    assert other in left
    assert not {group, thing} & left
    assert "linewatch-rolled-1" not in cloud.greengrass.cores


def test_it_goes_on_after_a_cut_at_any_change(cloud: Cloud) -> None:
    provisioned(cloud, "cut", "linewatch-cutdown-1")
    cuts = 0
    for at in range(1, 120):
        with cut(cloud, at, "before" if at % 3 == 0 else "after"):
            try:
                said = cloud.run("teardown", "cut", "--yes", "--delete-data")
            except Cut:
                cuts += 1
                continue
        assert said.exit_code == 0, said.output
        break

    left = inventory(cloud)
    assert cuts >= 5
    assert not [name for kind in left.values() for name in kind if "linewatch-cut" in name]


def test_what_a_cut_provision_left_is_removed_too(cloud: Cloud) -> None:
    provisioned(cloud, "half")
    known = set(cloud.certificates())
    for at in range(1, 13, 2):
        with cut(cloud, at, "after"), pytest.raises(Cut):
            cloud.run("provision", "half", "--device", f"linewatch-half-{at}")

    said = cloud.run("teardown", "half", "--yes", "--delete-data")

    assert said.exit_code == 0, said.output
    left = inventory(cloud)
    assert not [name for kind in left.values() for name in kind if "linewatch-half" in name]
    # Inactive, unattached, and known to its folder alone: the next `provision --device` there takes it up again.
    unknown = {one: status for one, status in cloud.certificates().items() if one not in known}
    assert set(unknown.values()) <= {"INACTIVE"}


def test_two_runs_at_once_remove_it_once(cloud: Cloud) -> None:
    provisioned(cloud, "both", "linewatch-bothdown-1")

    runs = [cloud.start("teardown", "both", "--yes", "--delete-data") for _ in range(2)]
    ended = [(run.communicate(timeout=300)[1], run.returncode) for run in runs]

    again = cloud.run("teardown", "both", "--yes", "--delete-data")
    assert again.exit_code == 0, (ended, again.output)
    left = inventory(cloud)
    assert not [name for kind in left.values() for name in kind if "linewatch-both" in name]
    assert 0 in {code for _, code in ended}, ended


def test_an_environment_that_is_not_there_needs_no_removing(cloud: Cloud) -> None:
    said = cloud.run("teardown", "never", "--yes")

    assert said.exit_code == 0
    assert "nothing" in said.stderr
