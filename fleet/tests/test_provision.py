# SPDX-License-Identifier: Apache-2.0
"""linewatch provision: an account and its devices, made once, whatever happens meanwhile."""

import hashlib
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import requests
import yaml
from click.testing import CliRunner
from clouds import Cloud, Cut, cut, listening, running
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from linewatch_fleet.cli import linewatch
from linewatch_fleet.errors import BadInput
from linewatch_fleet.provisioning.authorities import ROOTS, root_certificates
from linewatch_fleet.provisioning.core_policy import policy_document
from linewatch_fleet.provisioning.devices import checked_names, read_names
from linewatch_fleet.provisioning.marks import tags
from linewatch_fleet.provisioning.nucleus import Connection, Runtime, configuration
from linewatch_runtime.mqtt_client import SessionClient
from work_orders.policy_data import PATH

CONNECTION = Connection("eu-central-1", "linewatch-dev", "data.example.com", "credentials.example.com")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An account with the environment `dev`; every test has devices or an environment of its own."""
    with running(tmp_path_factory.mktemp("cloud")) as made:
        authority = requests.get(f"{made.endpoint}/_ministack/iot/ca.pem", timeout=60)
        made.ca_file.write_text(authority.text)
        said = made.run("provision", "dev")
        assert said.exit_code == 0, said.output
        yield made


# ---------------------------------------------------------------- the account


def test_a_dry_run_shows_every_resource_and_leaves_nothing(cloud: Cloud) -> None:
    plan = cloud.plan("provision", "dry", "--dry-run")

    shown = [step["what"].strip() for step in plan]
    assert "AWS::IAM::Role TokenExchangeRole" in shown
    assert "AWS::S3::Bucket ComponentBucket" in shown
    assert {step["action"] for step in plan} == {"create", "copy"}
    assert not [
        s
        for s in cloud.client("cloudformation").describe_stacks()["Stacks"]
        if s["StackName"] == "linewatch-dry"
    ]
    assert not [b for b in cloud.client("s3").list_buckets()["Buckets"] if "dry" in b["Name"]]


def test_a_second_run_keeps_everything(cloud: Cloud) -> None:
    plan = cloud.plan("provision", "dev")

    assert {step["action"] for step in plan} == {"keep"}
    assert [step["what"] for step in plan if step["what"].startswith("stack")] == ["stack linewatch-dev"]


def test_the_buckets_are_encrypted_closed_to_the_public_and_versioned_but_for_evidence(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    names = [b["Name"] for b in s3.list_buckets()["Buckets"] if b["Name"].startswith("linewatch-dev-")]

    assert len(names) == 3
    for name in names:
        # Evidence lies under its digest and is written once: a version more would only keep what expired.
        is_evidence = "-evidence" in name
        assert s3.get_bucket_versioning(Bucket=name).get("Status") == (None if is_evidence else "Enabled")
        assert "AES256" in str(s3.get_bucket_encryption(Bucket=name))
        assert set(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values()) == {
            True
        }
    code = next(name for name in names if "-code-" in name)
    policy = json.loads(s3.get_bucket_policy(Bucket=code)["Policy"])
    assert policy["Statement"][0]["Effect"] == "Deny"
    assert policy["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_a_setting_that_somebody_removed_from_the_code_bucket_comes_back(cloud: Cloud) -> None:
    cloud.run("provision", "lost")
    name = "linewatch-lost-code-000000000000-eu-central-1"
    cloud.client("s3").delete_bucket_policy(Bucket=name)

    plan = cloud.plan("provision", "lost")

    assert [step["detail"] for step in plan if step["action"] == "update"] == ["TLS only"]
    assert cloud.client("s3").get_bucket_policy(Bucket=name)


def test_the_stack_bears_the_environment_and_its_group_is_the_environments(cloud: Cloud) -> None:
    stack = cloud.client("cloudformation").describe_stacks(StackName="linewatch-dev")["Stacks"][0]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}

    assert {"Key": "linewatch:environment", "Value": "dev"} in stack["Tags"]
    assert outputs["ThingGroupName"] == "linewatch-dev"
    assert cloud.client("iot").describe_thing_group(thingGroupName="linewatch-dev")
    group = cloud.client("logs").describe_log_groups(logGroupNamePrefix="/aws/greengrass/")["logGroups"]
    assert {one["retentionInDays"] for one in group} == {30}


def test_a_changed_parameter_changes_what_depends_on_it_and_no_data(cloud: Cloud) -> None:
    cloud.fleet("change", parameters={"DeviceLogs": "false"})
    cloud.run("provision", "change")
    cloud.fleet("change", parameters={"DeviceLogs": "false", "RetryBaseSeconds": "120"})

    changed = [
        step["what"].strip() for step in cloud.plan("provision", "change") if step["action"] == "update"
    ]

    assert changed[0] == "stack linewatch-change"
    # CloudFormation also looks at what refers to a changed function.
    assert "AWS::Lambda::Function SweepFunction" in changed
    assert not [
        what for what in changed if "Table" in what or "Queue" in what or "Bucket" in what or "Enrich" in what
    ]
    function = cloud.client("cloudformation").describe_stack_resource(
        StackName="linewatch-change", LogicalResourceId="SweepFunction"
    )["StackResourceDetail"]["PhysicalResourceId"]
    found = cloud.client("lambda").get_function_configuration(FunctionName=function)
    assert found["Environment"]["Variables"]["RETRY_BASE_S"] == "120"


def test_only_prod_is_protected_unless_told_otherwise(cloud: Cloud) -> None:
    for name, options, protected in (
        ("prod", (), True),
        ("prod", ("--no-protect",), False),
        ("qa", ("--protect",), True),
    ):
        cloud.fleet(name, parameters={"DeviceLogs": "false"})
        said = cloud.run("provision", name, *options)
        stack = cloud.client("cloudformation").describe_stacks(StackName=f"linewatch-{name}")["Stacks"][0]

        assert said.exit_code == 0, said.output
        assert bool(stack["EnableTerminationProtection"]) is protected


def test_a_failure_names_the_first_resource_and_its_reason_and_the_next_run_goes_on(cloud: Cloud) -> None:
    cloud.fleet("fail", parameters={"DeviceLogs": "false"})
    cloud.client("iot").create_thing_group(thingGroupName="linewatch-fail")

    said = cloud.run("provision", "fail")

    assert said.exit_code == 1
    assert "AWS::IoT::ThingGroup CoreDevices" in said.stderr
    assert "already exists" in said.stderr
    cloud.client("iot").delete_thing_group(thingGroupName="linewatch-fail")
    assert cloud.run("provision", "fail").exit_code == 0
    assert {step["action"] for step in cloud.plan("provision", "fail")} == {"keep"}


def test_it_goes_on_after_a_cut_at_any_change(cloud: Cloud) -> None:
    cloud.fleet("cut", parameters={"DeviceLogs": "false"})
    cuts = 0
    for at in range(1, 60):
        with cut(cloud, at, "before" if at % 3 == 0 else "after"):
            try:
                said = cloud.run("provision", "cut")
            except Cut:
                cuts += 1
                continue
        assert said.exit_code == 0, said.output
        break

    assert cuts >= 5
    assert {step["action"] for step in cloud.plan("provision", "cut")} == {"keep"}


def test_two_runs_at_once_make_one_stack(cloud: Cloud) -> None:
    cloud.fleet("twice", parameters={"DeviceLogs": "false"})

    runs = [cloud.start("provision", "twice") for _ in range(2)]
    ended = [(run.communicate(timeout=300), run.returncode) for run in runs]

    assert [code for _, code in ended] == [0, 0], ended
    assert {step["action"] for step in cloud.plan("provision", "twice")} == {"keep"}


def test_a_bucket_that_another_run_fills_while_it_is_looked_at_is_no_strangers(cloud: Cloud) -> None:
    """Untagged at the first look, full at the second: two runs at once, of which one refused the other's bucket."""
    name = "linewatch-fills-code-000000000000-eu-central-1"
    cloud.client("s3").create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    cloud.fleet("fills", parameters={"DeviceLogs": "false"})
    others: list[str] = []

    def meanwhile(moment: str, operation: str) -> None:
        if (moment, operation) == ("before", "ListObjectVersions") and not others:
            others.append("tags it, then fills it")
            s3 = cloud.client("s3")
            s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags("fills")})
            s3.put_object(Bucket=name, Key="functions.zip", Body=b"PK")

    with listening(cloud, meanwhile):
        said = cloud.run("provision", "fills", "--dry-run")

    assert others
    assert said.exit_code == 0, said.output


def test_a_bucket_that_is_somebody_elses_is_refused(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    name = "linewatch-theirs-code-000000000000-eu-central-1"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_object(Bucket=name, Key="theirs", Body=b"theirs")

    said = cloud.run("provision", "theirs")

    assert said.exit_code == 3
    assert name in said.stderr
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=name)["Contents"]] == ["theirs"]


def test_wrong_parameters_and_a_wrong_account_are_told_before_anything_happens(cloud: Cloud) -> None:
    cloud.fleet("bad", parameters={"CodeBucket": "mine"})
    assert "CodeBucket is set by provision" in cloud.run("provision", "bad").stderr

    fleet = yaml.safe_load(cloud.fleet("bad").read_text())
    del fleet["environments"][0]["parameters"]["ErpBaseUrl"]
    (cloud.directory / "bad.yaml").write_text(yaml.safe_dump(fleet))
    said = cloud.run("provision", "bad")
    assert said.exit_code == 2
    assert "ErpBaseUrl is missing" in said.stderr

    fleet["environments"][0]["account"] = "123456789012"
    (cloud.directory / "bad.yaml").write_text(yaml.safe_dump(fleet))
    assert "these credentials belong to account 000000000000" in cloud.run("provision", "bad").stderr


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"LeaseSeconds": "49.9"}, "LeaseSeconds (LEASE_S) is 49.9; with ErpTimeoutSeconds (ERP_TIMEOUT_S) 5 and"),
        ({"LeaseSeconds": "49.9"}, "set LeaseSeconds to at least 50"),
        ({"SettleSeconds": "71"}, "set LeaseSeconds to at least 91"),
        ({"ErpTimeoutSeconds": "60", "LeaseSeconds": "89"}, "set LeaseSeconds to at least 90"),
        ({"SettleSeconds": "0.5"}, "SettleSeconds (SETTLE_S) is 0.5; set it to at least 1"),
        ({"LeaseSeconds": "soon"}, "LeaseSeconds is 'soon'; set it to a number of seconds"),
        ({"SettleSeconds": "nan"}, "SettleSeconds (SETTLE_S) is nan"),
    ],
)  # fmt: skip
def test_times_that_the_functions_would_refuse_are_refused_before_anything_changes(
    cloud: Cloud, parameters: dict[str, str], told: str
) -> None:
    cloud.fleet("hasty", parameters=parameters)

    for options in ((), ("--dry-run",)):
        said = cloud.run("provision", "hasty", *options)

        assert said.exit_code == 2, said.output
        assert "environments: hasty: parameters: " in said.stderr
        assert told in said.stderr
    buckets = [one["Name"] for one in cloud.client("s3").list_buckets()["Buckets"]]
    assert not [name for name in buckets if "hasty" in name]
    stacks = cloud.client("cloudformation").describe_stacks()["Stacks"]
    assert "linewatch-hasty" not in [one["StackName"] for one in stacks]


def test_the_shortest_times_that_the_functions_take_are_taken(cloud: Cloud) -> None:
    cloud.fleet(
        "swift", parameters={"ErpTimeoutSeconds": "1", "LeaseSeconds": "5", "SettleSeconds": "1", "DeviceLogs": "false"}
    )  # fmt: skip

    assert cloud.run("provision", "swift", "--dry-run").exit_code == 0


def test_a_stored_policy_that_this_release_refuses_stops_the_update(cloud: Cloud, tmp_path: Path) -> None:
    cloud.fleet("word", parameters={"DeviceLogs": "false"})
    assert cloud.run("provision", "word").exit_code == 0
    assert {step["action"] for step in cloud.plan("provision", "word")} == {"keep"}, "nobody put a policy"
    table = _outputs(cloud, "word")["PoliciesTable"]
    dynamodb = cloud.client("dynamodb")
    refused = {**json.loads(PATH.read_text()), "version": "9.0.0", "needed": 9, "remember": 10}
    # As an earlier release took it.
    dynamodb.put_item(
        TableName=table, Item={"name": {"S": "version/9.0.0"}, "document": {"S": json.dumps(refused)}}
    )
    dynamodb.put_item(TableName=table, Item={"name": {"S": "current"}, "version": {"S": "9.0.0"}})
    cloud.fleet("word", parameters={"DeviceLogs": "false", "RetryBaseSeconds": "120"})

    for options in ((), ("--dry-run",)):
        said = cloud.run("provision", "word", *options)

        assert said.exit_code == 3, said.output
        assert "the policy that holds in word is refused by this release" in said.stderr
        assert "needed: must be a whole number from 1 to 5, got 9" in said.stderr
        assert "linewatch policy put word policy.json" in said.stderr
    assert _parameter(cloud, "word", "RetryBaseSeconds") == "300"

    mended = tmp_path / "policy.json"
    mended.write_text(json.dumps({**json.loads(PATH.read_text()), "version": "9.0.1"}))
    command = ["--fleet", str(cloud.directory / "word.yaml"), "policy", "put", "word", str(mended)]
    put = CliRunner().invoke(linewatch, command, env=cloud.variables)
    assert put.exit_code == 0, put.output
    assert cloud.run("provision", "word").exit_code == 0
    assert _parameter(cloud, "word", "RetryBaseSeconds") == "120"

    dynamodb.put_item(TableName=table, Item={"name": {"S": "version/9.0.1"}, "document": {"S": "{"}})
    assert "what is stored is no policy" in cloud.run("provision", "word").stderr


def test_a_stored_policy_that_cannot_be_read_is_told_and_stops_nothing(cloud: Cloud) -> None:
    cloud.fleet("mute", parameters={"DeviceLogs": "false", "DeletionProtection": "false"})
    assert cloud.run("provision", "mute").exit_code == 0
    cloud.client("dynamodb").delete_table(TableName=_outputs(cloud, "mute")["PoliciesTable"])

    said = cloud.run("provision", "mute")

    assert said.exit_code == 0, said.output
    assert "the policy that holds is not checked against this release: AWS refused GetItem" in said.output


# ---------------------------------------------------------------- devices


def test_a_device_gets_two_things_each_with_its_own_active_certificate(cloud: Cloud) -> None:
    said = cloud.run("provision", "dev", "--device", "linewatch-both", "--line", "line-1")

    assert said.exit_code == 0, said.output
    iot = cloud.client("iot")
    for thing, folder, count in (("linewatch-both", "nucleus", 2), ("linewatch-both-forwarder", "uplink", 1)):
        attributes = iot.describe_thing(thingName=thing)["attributes"]
        pem = (cloud.device("linewatch-both") / folder / "certificate.pem").read_text()
        [certificate_id] = cloud.certificates_of(thing)
        found = iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]
        policies = iot.list_attached_policies(target=found["certificateArn"])["policies"]
        assert attributes["linewatch:environment"] == "dev"
        assert attributes["linewatch:line"] == "line-1"
        assert attributes["linewatch:certificates"] == certificate_id
        assert found["status"] == "ACTIVE"
        assert found["certificatePem"].strip() == pem.strip()
        assert len(policies) == count
    groups = iot.list_thing_groups_for_thing(thingName="linewatch-both")["thingGroups"]
    assert [group["groupName"] for group in groups] == ["linewatch-dev"]
    assert not iot.list_thing_groups_for_thing(thingName="linewatch-both-forwarder")["thingGroups"]


def test_the_forwarders_certificate_publishes_for_its_site_and_for_no_other(cloud: Cloud) -> None:
    cloud.run("provision", "dev", "--device", "linewatch-speaks")
    uplink = cloud.device("linewatch-speaks") / "uplink"

    assert _publishes(
        cloud, uplink, "linewatch-speaks-forwarder", "linewatch/v1/plant-1/line-1/station-1/inspection"
    )
    assert not _publishes(
        cloud, uplink, "linewatch-speaks-forwarder", "linewatch/v1/plant-2/line-1/station-1/inspection"
    )


def test_private_keys_stay_in_the_folder(cloud: Cloud) -> None:
    cloud.bodies = []
    with listening(cloud):
        cloud.run("provision", "dev", "--device", "linewatch-secret")
    sent, cloud.bodies = b"\n".join(cloud.bodies), None

    folder = cloud.device("linewatch-secret")
    assert b"CERTIFICATE REQUEST" in sent
    assert b"PRIVATE KEY" not in sent
    for path in (folder / "nucleus" / "key.pem", folder / "uplink" / "key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "PRIVATE KEY" in path.read_text()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_second_run_keeps_the_device_as_it_is(cloud: Cloud) -> None:
    cloud.run("provision", "dev", "--device", "linewatch-again")
    before = _digests(cloud.device("linewatch-again"))

    plan = cloud.plan("provision", "dev", "--device", "linewatch-again")

    assert {step["action"] for step in plan} == {"keep"}
    assert _digests(cloud.device("linewatch-again")) == before


def test_a_device_is_whole_after_a_cut_at_any_change(cloud: Cloud) -> None:
    """Of every change it is cut off once: before it is sent, or after AWS did it and the answer was lost."""
    at, is_done = 0, False
    while not is_done:
        at += 1
        name = f"linewatch-cut-{at}"
        known = set(cloud.certificates())
        when = "before" if at % 4 == 0 else "after"
        with cut(cloud, at, when):
            try:
                is_done = cloud.run("provision", "dev", "--device", name).exit_code == 0
            except Cut:
                is_done = False
        if is_done:
            break
        unclaimed = {one for one, status in cloud.certificates().items() if status == "ACTIVE"} - known
        assert unclaimed <= _claimed(cloud, name), (
            f"cut {when} change {at} left an active certificate that no thing claims"
        )

        said = cloud.run("provision", "dev", "--device", name)

        assert said.exit_code == 0, said.output
        made = {one: status for one, status in cloud.certificates().items() if one not in known}
        attached = [*cloud.certificates_of(name), *cloud.certificates_of(f"{name}-forwarder")]
        assert sorted(made) == sorted(attached), f"cut {when} change {at} left a certificate behind"
        assert set(made.values()) == {"ACTIVE"}
    assert at > 12


def test_of_two_writers_that_read_the_same_thing_the_second_is_refused(cloud: Cloud) -> None:
    """What the next test rests on: a claim names the version of the thing that it read."""
    iot = cloud.client("iot")
    iot.create_thing(thingName="linewatch-claimed")
    read = iot.describe_thing(thingName="linewatch-claimed")["version"]
    first, second = (
        {"attributes": {"linewatch:certificates": one}, "merge": True} for one in ("first", "second")
    )
    iot.update_thing(thingName="linewatch-claimed", attributePayload=first, expectedVersion=read)

    with pytest.raises(iot.exceptions.VersionConflictException):
        iot.update_thing(thingName="linewatch-claimed", attributePayload=second, expectedVersion=read)

    kept = iot.describe_thing(thingName="linewatch-claimed")["attributes"]
    assert kept["linewatch:certificates"] == "first"
    iot.delete_thing(thingName="linewatch-claimed")


def test_of_two_runs_at_once_from_two_folders_one_device_comes_out(cloud: Cloud, tmp_path: Path) -> None:
    known = set(cloud.certificates())
    folders = [tmp_path / "one", tmp_path / "two"]

    runs = [
        cloud.start("provision", "dev", "--device", "linewatch-race", "--out", str(folder))
        for folder in folders
    ]
    said = [run.communicate(timeout=300) for run in runs]

    winners = [folder for folder, run in zip(folders, runs, strict=True) if run.returncode == 0]
    assert len(winners) == 1, said
    made = {one: status for one, status in cloud.certificates().items() if one not in known}
    assert len(made) == 2
    assert set(made.values()) == {"ACTIVE"}
    assert (
        cloud.run("provision", "dev", "--device", "linewatch-race", "--out", str(winners[0])).exit_code == 0
    )


def test_of_two_runs_at_once_in_one_folder_the_second_steps_back(cloud: Cloud) -> None:
    runs = [cloud.start("provision", "dev", "--device", "linewatch-lock") for _ in range(2)]
    said = [(run.communicate(timeout=300)[1], run.returncode) for run in runs]

    # The second may come when the first is done: then it keeps all.
    assert all(code == 0 or "another run" in words for words, code in said), said
    assert {step["action"] for step in cloud.plan("provision", "dev", "--device", "linewatch-lock")} == {
        "keep"
    }
    assert len(cloud.certificates_of("linewatch-lock")) == 1


def test_a_lost_folder_needs_a_new_certificate_and_the_old_one_is_gone(cloud: Cloud, tmp_path: Path) -> None:
    cloud.run("provision", "dev", "--device", "linewatch-lost")
    [old] = cloud.certificates_of("linewatch-lost")
    elsewhere = ("--device", "linewatch-lost", "--out", str(tmp_path))

    said = cloud.run("provision", "dev", *elsewhere)

    assert said.exit_code == 3
    assert "--replace-certificate" in said.stderr
    assert cloud.certificates_of("linewatch-lost") == [old]
    assert cloud.run("provision", "dev", *elsewhere, "--replace-certificate").exit_code == 0
    [new] = cloud.certificates_of("linewatch-lost")
    assert new != old
    assert old not in cloud.certificates()
    assert {step["action"] for step in cloud.plan("provision", "dev", *elsewhere)} == {"keep"}


def test_a_replacement_that_was_cut_again_and_again_leaves_one_certificate_in_the_end(cloud: Cloud) -> None:
    name = "linewatch-swap"
    cloud.run("provision", "dev", "--device", name)
    others = set(cloud.certificates()) - {
        *cloud.certificates_of(name),
        *cloud.certificates_of(f"{name}-forwarder"),
    }
    for at in range(1, 60, 2):
        with cut(cloud, at, "before" if at % 3 == 0 else "after"):
            try:
                cloud.run("provision", "dev", "--device", name, "--replace-certificate")
            except Cut:
                continue
        break

    left = set(cloud.certificates()) - others
    assert left == {*cloud.certificates_of(name), *cloud.certificates_of(f"{name}-forwarder")}
    assert len(left) == 2
    assert {step["action"] for step in cloud.plan("provision", "dev", "--device", name)} == {"keep"}


def test_what_provision_did_not_make_is_refused(cloud: Cloud) -> None:
    iot = cloud.client("iot")
    iot.create_thing(thingName="linewatch-foreign")
    iot.create_policy(
        policyName="linewatch-named-core", policyDocument='{"Version": "2012-10-17", "Statement": []}'
    )

    for name, word in (
        ("linewatch-foreign", "was not provisioned for dev"),
        ("linewatch-named", "was not made by"),
    ):
        said = cloud.run("provision", "dev", "--device", name)
        assert said.exit_code == 3
        assert word in said.stderr
    assert iot.describe_thing(thingName="linewatch-foreign")["attributes"] == {}


def test_many_devices_come_from_a_file(cloud: Cloud, tmp_path: Path) -> None:
    names = [f"linewatch-many-{number:02}" for number in range(1, 13)]
    listed = tmp_path / "devices.txt"
    listed.write_text("# hall 3\n" + "\n".join(names) + "\n\n")

    assert cloud.run("provision", "dev", "--devices", str(listed)).exit_code == 0

    members = cloud.client("iot").list_things_in_thing_group(thingGroupName="linewatch-dev")["things"]
    assert set(names) <= set(members)
    assert all((cloud.device(name) / "install.sh").is_file() for name in names)


def test_a_device_of_an_account_that_is_not_provisioned_is_refused(cloud: Cloud) -> None:
    said = cloud.run("provision", "empty", "--device", "linewatch-x")

    assert said.exit_code == 1
    assert "run `linewatch provision` for the environment first" in said.stderr


@pytest.mark.parametrize(
    "name", ["device-1", "linewatch-", "linewatch-ä", "linewatch-a b", "linewatch-a-forwarder"]
)
def test_a_name_that_the_cloud_would_not_let_write_its_shadow_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="linewatch-"):
        checked_names([name])


def test_a_file_without_devices_and_a_device_named_twice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("# nobody\n")
    with pytest.raises(BadInput, match="names no device"):
        read_names(tmp_path / "none")
    with pytest.raises(BadInput, match="twice"):
        checked_names(["linewatch-a", "linewatch-a"])


# ---------------------------------------------------------------- what the device gets


@pytest.mark.parametrize("runtime", ["classic", "lite"])
def test_the_nucleus_finds_its_credentials_and_endpoints(runtime: Runtime) -> None:
    content = yaml.safe_load(configuration(runtime, "linewatch-a", CONNECTION, "2.18.0", ""))

    name = {"classic": "aws.greengrass.Nucleus", "lite": "aws.greengrass.NucleusLite"}[runtime]
    settings = content["services"][name]["configuration"]
    assert content["system"]["thingName"] == "linewatch-a"
    assert settings["iotRoleAlias"] == "linewatch-dev"
    assert settings["iotDataEndpoint"] == "data.example.com"
    assert settings["iotCredEndpoint"] == "credentials.example.com"
    assert content["services"][name]["componentType"] == "NUCLEUS"


def test_classic_is_pinned_and_told_of_its_accelerator_and_lite_is_not() -> None:
    classic = yaml.safe_load(configuration("classic", "linewatch-a", CONNECTION, "2.18.0", "jetson"))
    nucleus = classic["services"]["aws.greengrass.Nucleus"]
    lite = yaml.safe_load(configuration("lite", "linewatch-a", CONNECTION, "2.18.0", ""))

    assert nucleus["version"] == "2.18.0"
    assert nucleus["configuration"]["platformOverride"] == {"io.linewatch.accelerator": "jetson"}
    assert nucleus["configuration"]["mqtt"]["spooler"]["maxSizeInBytes"] > 2_621_440
    assert "version" not in lite["services"]["aws.greengrass.NucleusLite"]
    assert lite["system"]["rootPath"] == "/var/lib/greengrass"


def test_lite_takes_no_accelerator(cloud: Cloud) -> None:
    said = cloud.run(
        "provision", "dev", "--device", "linewatch-j", "--nucleus", "lite", "--accelerator", "jetson"
    )

    assert said.exit_code == 2
    assert "--nucleus classic" in said.stderr


def test_a_core_device_may_do_nothing_in_anothers_name() -> None:
    policy = json.loads(policy_document("aws", "eu-central-1", "111111111111", "linewatch-1"))

    for statement in policy["Statement"]:
        assert not any("*" in action for action in statement["Action"])
        for resource in statement["Resource"]:
            assert "linewatch-1" in resource
            # linewatch-10 is another device.
            assert "linewatch-1*" not in resource


def test_amazons_authorities_are_the_published_ones() -> None:
    found = x509.load_pem_x509_certificates(root_certificates(None))

    digests = {hashlib.sha256(one.public_bytes(Encoding.DER)).hexdigest() for one in found}
    assert digests == set(ROOTS.values())
    assert {one.subject.rfc4514_string().partition(",")[0] for one in found} == {
        f"CN={name}" for name in ROOTS
    }


def test_an_authority_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(BadInput, match="no certificates in PEM form"):
        root_certificates(tmp_path / "ca.pem")


def _stack(cloud: Cloud, environment: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.client("cloudformation").describe_stacks(
        StackName=f"linewatch-{environment}"
    )
    stack: dict[str, Any] = found["Stacks"][0]
    return stack


def _outputs(cloud: Cloud, environment: str) -> dict[str, str]:
    return {one["OutputKey"]: one["OutputValue"] for one in _stack(cloud, environment)["Outputs"]}


def _parameter(cloud: Cloud, environment: str, name: str) -> str:
    given = {one["ParameterKey"]: one["ParameterValue"] for one in _stack(cloud, environment)["Parameters"]}
    return str(given[name])


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _claimed(cloud: Cloud, name: str) -> set[str]:
    """Certificates that a device's things claim."""
    things = cloud.client("iot").list_things(attributeName="linewatch:environment", attributeValue="dev")[
        "things"
    ]
    return {
        one
        for thing in things
        if thing["thingName"].startswith(name)
        for one in thing["attributes"].get("linewatch:certificates", "").split(",")
    }


def _publishes(cloud: Cloud, uplink: Path, client_id: str, topic: str) -> bool:
    """Whether the account takes a publish from this certificate: MQTT over mutual TLS, acknowledged."""
    taken = threading.Event()
    ended = threading.Event()
    client = SessionClient(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
    client.tls_set(str(uplink / "ca.pem"), str(uplink / "certificate.pem"), str(uplink / "key.pem"))

    def on_publish(*told: object) -> None:
        if not told[3].is_failure:  # type: ignore[attr-defined]
            taken.set()
        ended.set()

    client.on_publish = on_publish
    client.on_connect = lambda *_: client.publish(topic, b"{}", qos=1)
    client.on_disconnect = lambda *_: ended.set()
    client.connect("localhost", cloud.mqtt_port)
    client.loop_start()
    assert ended.wait(60)
    client.close()
    return taken.is_set()
