# SPDX-License-Identifier: Apache-2.0
"""`linewatch rollback`: the release before, as it was, and nobody else's parts touched."""

import json
from typing import Any

import pytest
from greengrass_account import AwsAccount


def deploy(aws: AwsAccount, version: str, *changed: str) -> None:
    release = aws.release(version, *changed)
    assert aws.run("publish", aws.name, "--release", release).exit_code == 0
    result = aws.run("deploy", aws.name, "--release", release)
    assert result.exit_code == 0, result.stderr


def rolled_back(aws: AwsAccount, *arguments: str) -> dict[str, Any]:
    result = aws.run("rollback", aws.name, *arguments)
    assert result.exit_code == 0, result.stderr
    return aws.latest()


def inference(deployment: dict[str, Any]) -> str:
    return str(deployment["components"]["io.linewatch.Inference"]["componentVersion"])


def test_the_release_before_is_deployed_again(aws: AwsAccount) -> None:
    deploy(aws, "0.2.0")
    deploy(aws, "0.3.0", "inference")
    result = aws.run("rollback", aws.name, "--dry-run", "--json")
    changed = [one["component"] for one in json.loads(result.stdout)["changes"] if one["from"] != one["to"]]
    assert changed == ["io.linewatch.Inference"]
    assert aws.revisions() == 2
    made = rolled_back(aws)
    assert (made["deploymentName"], inference(made)) == ("linewatch-0.2.0", "0.2.0")
    assert made["tags"]["linewatch:rolled-back"] == "0.3.0"


def test_a_second_rollback_goes_further_back_and_not_forth_again(aws: AwsAccount) -> None:
    for version in ("0.2.0", "0.3.0", "0.4.0"):
        deploy(aws, version, "inference")
    assert inference(rolled_back(aws)) == "0.3.0"
    assert inference(rolled_back(aws)) == "0.2.0"
    result = aws.run("rollback", aws.name)
    assert result.exit_code == 3
    assert "no release before 0.2.0" in result.stderr


def test_a_release_that_came_back_after_a_rollback_counts_again(aws: AwsAccount) -> None:
    deploy(aws, "0.2.0", "inference")
    deploy(aws, "0.3.0", "inference")
    rolled_back(aws)
    deploy(aws, "0.3.0", "inference")
    deploy(aws, "0.4.0", "inference")
    assert inference(rolled_back(aws)) == "0.3.0"


def test_releases_that_failed_or_were_cancelled_are_passed_over(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    deploy(aws, "0.2.0", "inference")
    aws.greengrass.finish(aws.latest()["deploymentId"])
    deploy(aws, "0.3.0", "inference")
    aws.run("cancel", aws.name)
    deploy(aws, "0.4.0", "inference")
    core.fails(aws.target, "FAILED_ROLLBACK_COMPLETE")
    seen = aws.run(
        "deploy", aws.name, "--release", aws.directory / "release-0.4.0.yaml", "--wait", "--every", "0.05"
    )
    assert seen.exit_code == 4
    deploy(aws, "0.5.0", "inference")
    assert inference(rolled_back(aws)) == "0.2.0"


def test_foreign_components_and_aws_own_stay_as_they_are_now(aws: AwsAccount) -> None:
    deploy(aws, "0.2.0")
    aws.write_fleet(components={"aws.greengrass.Nucleus": "2.18.0", "aws.greengrass.StreamManager": "2.3.0"})
    deploy(aws, "0.3.0", "inference")
    now = aws.latest()["components"]
    now["com.example.Plc"] = {"componentVersion": "4.2.0"}
    aws.client("greengrassv2").create_deployment(
        targetArn=aws.target,
        deploymentName="linewatch-0.3.0",
        components=now,
        tags={"linewatch:release": "0.3.0"},
    )
    aws.write_fleet()
    made = rolled_back(aws)["components"]
    assert made["com.example.Plc"] == {"componentVersion": "4.2.0"}
    assert made["aws.greengrass.StreamManager"]["componentVersion"] == "2.3.0"


def test_the_configuration_is_that_of_then(aws: AwsAccount) -> None:
    aws.write_fleet(configuration={"io.linewatch.Capture": {"Line": "line-7"}})
    deploy(aws, "0.2.0")
    aws.write_fleet(configuration={"io.linewatch.Capture": {"Line": "line-8", "Station": "station-3"}})
    deploy(aws, "0.3.0", "inference")
    update = rolled_back(aws)["components"]["io.linewatch.Capture"]["configurationUpdate"]
    assert json.loads(update["merge"])["Line"] == "line-7"
    assert update["reset"] == [""], "Station must leave the devices again"


def test_a_fleet_file_that_is_what_is_wrong_does_not_stop_a_rollback(aws: AwsAccount) -> None:
    deploy(aws, "0.2.0")
    deploy(aws, "0.3.0", "inference")
    nucleus = aws.latest()["components"]["aws.greengrass.Nucleus"]
    aws.write_fleet(
        configuration={"io.linewatch.Capture": {"Lien": "line-1"}, "io.linewatch.New": {"A": "b"}},
        components={"aws.greengrass.Nucleus": "2.99.0", "aws.greengrass.Cli": ""},
    )
    made = rolled_back(aws)["components"]
    assert made["aws.greengrass.Nucleus"] == nucleus
    assert "aws.greengrass.Cli" in made


def test_to_a_named_release(aws: AwsAccount) -> None:
    for version in ("0.2.0", "0.3.0", "0.4.0"):
        deploy(aws, version, "inference")
    assert inference(rolled_back(aws, "--to", "0.2.0")) == "0.2.0"
    unknown = aws.run("rollback", aws.name, "--to", "9.9.9")
    assert unknown.exit_code == 2
    assert "was never deployed here; there were: 0.2.0, 0.4.0, 0.3.0" in unknown.stderr


def test_a_component_version_that_was_deleted_is_named(aws: AwsAccount) -> None:
    deploy(aws, "0.2.0", "inference")
    deploy(aws, "0.3.0", "inference")
    arn = "arn:aws:greengrass:eu-central-1:000000000000:components:io.linewatch.Inference:versions:0.2.0"
    aws.client("greengrassv2").delete_component(arn=arn)
    result = aws.run("rollback", aws.name)
    assert result.exit_code == 3
    assert "io.linewatch.Inference 0.2.0 is missing" in result.stderr


def test_nothing_to_roll_back(aws: AwsAccount) -> None:
    assert aws.run("rollback", aws.name).exit_code == 3
    deploy(aws, "0.2.0")
    result = aws.run("rollback", aws.name)
    assert result.exit_code == 3
    assert "no release before 0.2.0" in result.stderr


@pytest.mark.parametrize("operation", ["ListDeployments", "GetDeployment", "CreateDeployment"])
def test_a_missing_permission_names_the_page(aws: AwsAccount, operation: str) -> None:
    deploy(aws, "0.2.0")
    deploy(aws, "0.3.0", "inference")
    aws.greengrass.service.denied = {operation}
    result = aws.run("rollback", aws.name)
    assert result.exit_code == 1
    assert "docs/rolling-back.md lists the permissions" in result.stderr


def by_somebody_else(aws: AwsAccount) -> None:
    """The present deployment copied by hand, with a component of theirs: no tag and no name of ours."""
    theirs = {**aws.latest()["components"], "com.example.Plc": {"componentVersion": "4.2.0"}}
    aws.client("greengrassv2").create_deployment(
        targetArn=aws.target, deploymentName="plc rollout", components=theirs
    )


def test_somebody_elses_deployment_above_ours_is_no_end_of_it(aws: AwsAccount) -> None:
    deploy(aws, "0.2.0", "inference")
    deploy(aws, "0.3.0", "inference")
    by_somebody_else(aws)
    again = aws.run("deploy", aws.name, "--release", aws.directory / "release-0.3.0.yaml")
    assert again.exit_code == 0, again.stderr
    assert "was not made by linewatch; the release below it is 0.3.0" in again.stderr
    repaired = aws.latest()
    assert repaired["tags"]["linewatch:release"] == "0.3.0", "the same components, and now ours"
    assert repaired["components"]["com.example.Plc"] == {"componentVersion": "4.2.0"}
    by_somebody_else(aws)
    changed = aws.run("deploy", aws.name, "--without", "io.linewatch.Console")
    assert changed.exit_code == 0, changed.stderr
    by_somebody_else(aws)
    made = rolled_back(aws)
    assert (inference(made), made["tags"]["linewatch:rolled-back"]) == ("0.2.0", "0.3.0")
    assert made["components"]["com.example.Plc"] == {"componentVersion": "4.2.0"}


def test_a_release_that_failed_everywhere_without_wait_is_passed_over(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    deploy(aws, "0.2.0", "inference")
    deploy(aws, "0.3.0", "inference")
    core.fails(aws.target, "FAILED_ROLLBACK_COMPLETE")
    deploy(aws, "0.4.0", "inference")
    # 0.2.0 was replaced before the device took it: nobody can say what it would have done.
    result = aws.run("rollback", aws.name)
    assert result.exit_code == 0, result.stderr
    assert inference(aws.latest()) == "0.2.0"
    assert "passed over 0.3.0 (" in result.stderr
    assert "nothing is known of how 0.2.0 ended here" in result.stderr


def test_what_the_devices_still_say_counts_too(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    deploy(aws, "0.2.0", "inference")
    core.succeeds(aws.target)
    deploy(aws, "0.3.0", "inference")
    # AWS lists a device's earlier deployments for a while; here the failure came after it was replaced.
    core.effective["earlier"] = {**core.effective[aws.target], "coreDeviceExecutionStatus": "FAILED"}
    deploy(aws, "0.4.0", "inference")
    result = aws.run("rollback", aws.name, "--dry-run")
    assert "it failed on 1 of 1 devices and succeeded on none" in result.stderr
    assert "from 0.4.0 to 0.2.0" in result.stderr
    assert "nothing is known" not in result.stderr, "the deployment after it wrote down that it succeeded"


def test_to_a_release_prefers_a_deployment_of_it_that_did_not_fail(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    aws.write_fleet(configuration={"io.linewatch.Capture": {"Line": "good"}})
    deploy(aws, "0.2.0", "inference")
    core.succeeds(aws.target)
    aws.write_fleet(configuration={"io.linewatch.Capture": {"Line": "bad"}})
    deploy(aws, "0.2.0", "inference")
    core.fails(aws.target, "FAILED_ROLLBACK_COMPLETE")
    deploy(aws, "0.3.0", "inference")
    aws.run("cancel", aws.name)
    deploy(aws, "0.4.0", "inference")
    update = rolled_back(aws, "--to", "0.2.0")["components"]["io.linewatch.Capture"]["configurationUpdate"]
    assert json.loads(update["merge"])["Line"] == "good"
    only = aws.run("rollback", aws.name, "--to", "0.3.0", "--dry-run")
    assert only.exit_code == 0, only.stderr
    assert "warning: every deployment of 0.3.0 here failed or was cancelled" in only.stderr
    assert "it is CANCELED" in only.stderr


def test_a_change_by_with_only_is_said_to_be_undone_another_way(aws: AwsAccount) -> None:
    deploy(aws, "0.2.0", "inference")
    deploy(aws, "0.3.0", "inference")
    greengrass = aws.client("greengrassv2")
    for version in ("1.0.0", "1.1.0"):
        recipe = {"RecipeFormatVersion": "2020-01-25", "ComponentName": "io.linewatch.model.mine",
                  "ComponentVersion": version, "Manifests": [{"Platform": {"os": "linux"}}]}  # fmt: skip
        arn = greengrass.create_component_version(inlineRecipe=json.dumps(recipe).encode())["arn"]
        greengrass.describe_component(arn=arn)
        assert aws.run("deploy", aws.name, "--with", f"io.linewatch.model.mine={version}").exit_code == 0
    result = aws.run("rollback", aws.name)
    assert f"linewatch deploy {aws.name} --with io.linewatch.model.mine=1.0.0" in result.stderr
    made = aws.latest()["components"]
    assert made["io.linewatch.model.mine"]["componentVersion"] == "1.1.0", "a rollback leaves it"
    assert made["io.linewatch.Inference"]["componentVersion"] == "0.2.0"
