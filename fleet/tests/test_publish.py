# SPDX-License-Identifier: Apache-2.0
"""`linewatch publish` against ministack (s3, ecr, sts, cloudformation) and the greengrassv2 stand-in, over HTTP."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from greengrass_account import AwsAccount

from linewatch_fleet import preparing
from linewatch_fleet.recipes.render import Component

OURS = {"Broker", "Capture", "Capture2", "Console", "Forwarder", "Inference"}


def created(aws: AwsAccount) -> list[str]:
    return [name for name, _ in aws.greengrass.service.calls if name == "CreateComponentVersion"]


def test_a_release_is_published_once(aws: AwsAccount) -> None:
    release = aws.release("0.2.0", models=True)
    first = aws.run("publish", aws.name, "--release", release)
    assert first.exit_code == 0, first.stderr
    assert len(created(aws)) == 8
    second = aws.run("publish", aws.name, "--release", release, "--json")
    assert {step["action"] for step in json.loads(second.stdout)["plan"]} == {"keep"}
    assert len(created(aws)) == 8
    record = json.loads(
        aws.client("s3").get_object(Bucket=aws.bucket, Key="releases/0.2.0.json")["Body"].read()
    )
    assert {name.removeprefix("io.linewatch.") for name in record["components"]} == {
        *OURS,
        "model.pv-el-cells",
        "model.turbofan",
    }


def test_a_dry_run_changes_nothing(aws: AwsAccount) -> None:
    result = aws.run("publish", aws.name, "--release", aws.release("0.2.0", models=True), "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "create  component io.linewatch.Broker 0.2.0" in result.stdout
    assert created(aws) == []
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=aws.bucket)


def test_what_did_not_change_keeps_its_version(aws: AwsAccount) -> None:
    aws.run("publish", aws.name, "--release", aws.release("0.2.0"))
    result = aws.run("publish", aws.name, "--release", aws.release("0.3.0", "inference"), "--json")
    versions = json.loads(result.stdout)["components"]
    assert versions.pop("io.linewatch.Inference") == "0.3.0"
    assert set(versions.values()) == {"0.2.0"}


def test_the_same_version_with_other_content_is_refused(aws: AwsAccount) -> None:
    aws.run("publish", aws.name, "--release", aws.release("0.2.0"))
    before = len(created(aws))
    aws.write_fleet(registry="")
    changed = aws.release("0.2.0", "console", "inference")
    result = aws.run("publish", aws.name, "--release", changed)
    assert result.exit_code == 3
    assert "io.linewatch.Inference 0.2.0 is there with other content" in result.stderr
    assert "io.linewatch.Console 0.2.0" in result.stderr, "every refusal is told, not the first alone"
    assert len(created(aws)) == before


def test_a_recipe_that_devices_would_not_take_is_refused(
    aws: AwsAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = preparing.components

    def spoilt(*arguments: Any) -> list[Component]:
        made = real(*arguments)
        made[0].recipe["Lifecycle"]["all"]["run"] = {"Script": "docker run ${IMAGE}"}
        return made

    monkeypatch.setattr(preparing, "components", spoilt)
    result = aws.run("publish", aws.name, "--release", aws.release("0.2.0"))
    assert result.exit_code == 3
    assert "io.linewatch.Broker: Lifecycle.all.run" in result.stderr
    assert created(aws) == []


def test_images_must_be_promoted_first(aws: AwsAccount) -> None:
    result = aws.run("publish", aws.name, "--release", aws.release("0.2.0", promoted=False))
    assert result.exit_code == 3
    assert f"run `linewatch promote {aws.name}` first" in result.stderr
    assert created(aws) == []


def test_a_version_that_failed_tells_why_and_is_made_again(
    aws: AwsAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = aws.release("0.2.0", models=True)
    registry = aws.greengrass.components
    with monkeypatch.context() as broken:
        broken.setattr(registry, "_artifact", lambda _: None)
        failed = aws.run("publish", aws.name, "--release", release)
    assert failed.exit_code == 1
    assert (
        "io.linewatch.model.pv-el-cells 1.0.0 is FAILED: artifact: Failed to get the artifact s3://"
        in failed.stderr
    )
    again = aws.run("publish", aws.name, "--release", release)
    assert again.exit_code == 0, again.stderr
    assert "an earlier try failed" in again.stdout


def test_a_version_that_another_tool_made_is_compared_by_its_recipe(aws: AwsAccount) -> None:
    release = aws.release("0.2.0")
    aws.run("publish", aws.name, "--release", release)
    greengrass = aws.client("greengrassv2")
    arn = "arn:aws:greengrass:eu-central-1:000000000000:components:io.linewatch.Broker:versions:0.2.0"
    greengrass.untag_resource(resourceArn=arn, tagKeys=["linewatch:content"])
    result = aws.run("publish", aws.name, "--release", release, "--json")
    assert {step["action"] for step in json.loads(result.stdout)["plan"]} == {"keep"}


def test_a_release_of_another_checkout_is_refused(aws: AwsAccount) -> None:
    release = aws.release("0.2.0")
    text = release.read_text()
    start = text.index("recipes/broker.sh") + len("recipes/broker.sh\n    digest: sha256:")
    release.write_text(text[:start] + "0" * 64 + text[start + 64 :])
    result = aws.run("publish", aws.name, "--release", release)
    assert result.exit_code == 3, result.stderr
    assert "this checkout is not release 0.2.0: recipes/broker.sh differ" in result.stderr


def test_an_unsigned_release_is_refused_where_the_gate_wants_a_signature(aws: AwsAccount) -> None:
    aws.write_fleet(gate={"signature": True})
    result = aws.run("publish", aws.name, "--release", aws.release("0.2.0"))
    assert result.exit_code == 3
    assert "wants a signed release" in result.stderr


def test_an_object_with_other_content_is_never_overwritten(aws: AwsAccount) -> None:
    s3 = aws.client("s3")
    key = "io.linewatch.model.turbofan/1.0.0/turbofan-1.0.0.tar"
    s3.put_object(Bucket=aws.bucket, Key=key, Body=b"somebody else's")
    result = aws.run("publish", aws.name, "--release", aws.release("0.2.0", models=True))
    assert result.exit_code == 3
    assert "holds other content" in result.stderr
    assert s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read() == b"somebody else's"


def test_without_a_stack_the_remedy_is_named(aws: AwsAccount) -> None:
    aws.client("cloudformation").delete_stack(StackName=f"linewatch-{aws.name}")
    result = aws.run("publish", aws.name, "--release", aws.release("0.2.0"))
    assert result.exit_code == 1
    assert f"`linewatch provision {aws.name}`" in result.stderr


def test_two_that_publish_at_once_both_end_well(aws: AwsAccount) -> None:
    release = aws.release("0.2.0")
    both = [publish(aws, release) for _ in range(2)]
    assert [one.wait(120) for one in both] == [0, 0]
    again = aws.run("publish", aws.name, "--release", release, "--json")
    assert {step["action"] for step in json.loads(again.stdout)["plan"]} == {"keep"}


def test_killed_in_between_it_goes_on_from_there(aws: AwsAccount) -> None:
    release = aws.release("0.2.0", models=True)
    handlers = aws.greengrass.service._handlers
    create = handlers["CreateComponentVersion"]

    def killing(asked: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = create(asked)
        if len(created(aws)) == 3:
            # It waits for this answer: however busy the machine, it is killed here.
            running.send_signal(signal.SIGKILL)
            running.wait()
        return made

    handlers["CreateComponentVersion"] = killing
    running = publish(aws, release)
    assert running.wait(120) == -signal.SIGKILL
    handlers["CreateComponentVersion"] = create
    assert len(created(aws)) == 3, "the third was made, and it never learned of it"
    deployed = aws.run("deploy", aws.name, "--release", release)
    assert deployed.exit_code == 3
    assert "is not published here" in deployed.stderr
    result = aws.run("publish", aws.name, "--release", release)
    assert result.exit_code == 0, result.stderr
    assert len(created(aws)) == 8


@pytest.mark.parametrize("name", ["../x", "t1;rm", "", "ünv", "a" * 200])
def test_a_hostile_environment_name_is_a_usage_error(aws: AwsAccount, name: str) -> None:
    result = aws.run("publish", name, "--release", aws.release("0.2.0", promoted=False))
    assert result.exit_code == 2
    assert "there is no environment" in result.stderr


@pytest.mark.parametrize(
    "operation", ["DescribeComponent", "ListComponentVersions", "CreateComponentVersion"]
)
def test_a_missing_permission_names_the_page(aws: AwsAccount, operation: str) -> None:
    aws.greengrass.service.denied = {operation}
    result = aws.run("publish", aws.name, "--release", aws.release("0.2.0"))
    assert result.exit_code == 1
    assert f"greengrass:{operation}" in result.stderr
    assert "docs/deploying.md lists the permissions" in result.stderr


def publish(aws: AwsAccount, release: Path) -> "subprocess.Popen[str]":
    """`linewatch publish` as a process."""
    command = [sys.executable, "-m", "linewatch_fleet.cli", "--fleet", str(aws.directory / "fleet.yaml"), "publish",
               aws.name, "--release", str(release)]  # fmt: skip
    environ: Any = {**os.environ, **aws.environ}
    return subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
