# SPDX-License-Identifier: Apache-2.0
"""`linewatch deploy` and `cancel`: whole-state deployments that keep what is somebody else's, over HTTP."""

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError
from greengrass_account import AwsAccount

from linewatch_fleet import rolling_out
from linewatch_fleet.aws import explained
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import CommandFailed
from linewatch_fleet.greengrass import Greengrass

# Of every wait; the machine may be busy.
DEADLINE_S = 120.0


def published(aws: AwsAccount, version: str, *changed: str) -> Any:
    """A release file whose components stand."""
    release = aws.release(version, *changed)
    result = aws.run("publish", aws.name, "--release", release)
    assert result.exit_code == 0, result.stderr
    return release


def deploy(aws: AwsAccount, *arguments: Any) -> Any:
    return aws.run("deploy", aws.name, *arguments)


def versions(deployment: dict[str, Any]) -> dict[str, str]:
    return {name: one["componentVersion"] for name, one in deployment["components"].items()}


def settings(deployment: dict[str, Any], component: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(deployment["components"][component]["configurationUpdate"]["merge"])
    return found


def test_a_release_is_deployed_with_every_policy(aws: AwsAccount) -> None:
    aws.write_fleet(rollout={"base_per_minute": 2, "abort_percentage": 20, "timeout_minutes": 30})
    result = deploy(aws, "--release", published(aws, "0.2.0"))
    assert result.exit_code == 0, result.stderr
    made = aws.latest()
    assert made["deploymentName"] == "linewatch-0.2.0"
    assert made["tags"]["linewatch:release"] == "0.2.0"
    assert made["deploymentPolicies"] == {
        "failureHandlingPolicy": "ROLLBACK",
        "componentUpdatePolicy": {"action": "NOTIFY_COMPONENTS", "timeoutInSeconds": 60},
        "configurationValidationPolicy": {"timeoutInSeconds": 60},
    }
    job = made["iotJobConfiguration"]
    assert job["jobExecutionsRolloutConfig"]["exponentialRate"]["baseRatePerMinute"] == 2
    assert job["abortConfig"]["criteriaList"][0]["thresholdPercentage"] == 20
    assert job["timeoutConfig"] == {"inProgressTimeoutInMinutes": 30}


def test_aws_components_are_pinned_and_do_not_move_by_themselves(aws: AwsAccount) -> None:
    release = published(aws, "0.2.0")
    deploy(aws, "--release", release)
    before = versions(aws.latest())
    assert before["aws.greengrass.Nucleus"] == "2.18.0"
    assert before["aws.greengrass.DockerApplicationManager"] == "2.0.16"
    assert "aws.greengrass.StreamManager" not in before
    # AWS brings out a newer patch: it is for whoever asks for it.
    registry = aws.greengrass.components
    registry._keep(
        "aws", {"ComponentName": "aws.greengrass.Nucleus", "ComponentVersion": "2.18.9"}, {}, "DEPLOYABLE"
    )
    deploy(aws, "--release", published(aws, "0.3.0", "capture"))
    assert versions(aws.latest())["aws.greengrass.Nucleus"] == "2.18.0"
    aws.write_fleet(components={"aws.greengrass.Nucleus": "2.18.9", "aws.greengrass.Cli": ""})
    result = deploy(aws, "--release", aws.directory / "release-0.3.0.yaml")
    assert result.exit_code == 0, result.stderr
    after = versions(aws.latest())
    assert after["aws.greengrass.Nucleus"] == "2.18.9"
    assert "aws.greengrass.Cli" not in after


def test_a_forwarder_on_stream_manager_brings_it_into_the_deployment(aws: AwsAccount) -> None:
    aws.write_fleet(configuration={"io.linewatch.Forwarder": {"Streams": "stream_manager"}})
    result = deploy(aws, "--release", published(aws, "0.2.0"))
    assert result.exit_code == 0, result.stderr
    assert versions(aws.latest())["aws.greengrass.StreamManager"].startswith("2.3.")


def test_a_pin_that_aws_does_not_have_is_refused_with_those_it_has(aws: AwsAccount) -> None:
    aws.write_fleet(components={"aws.greengrass.Nucleus": "2.99.0"})
    result = deploy(aws, "--release", published(aws, "0.2.0"))
    assert result.exit_code == 3
    assert "AWS has no version 2.99.0 in eu-central-1; it has 2.18.0, 2.17.0" in result.stderr


def test_what_is_somebody_elses_stays_as_it_is(aws: AwsAccount) -> None:
    greengrass = aws.client("greengrassv2")
    foreign = {
        "com.example.Plc": {
            "componentVersion": "4.2.0",
            "configurationUpdate": {"merge": '{"host": "10.0.0.7"}', "reset": ["/old"]},
            "runWith": {"posixUser": "plc"},
        },
        "aws.greengrass.StreamManager": {"componentVersion": "2.3.0"},
        "aws.greengrass.LogManager": {
            "componentVersion": "2.3.10",
            "configurationUpdate": {
                "merge": '{"logsUploaderConfiguration": {"componentLogsConfigurationMap": {"com.example.Plc": {}}}}'
            },
        },
    }
    greengrass.create_deployment(targetArn=aws.target, deploymentName="plc", components=foreign)
    result = deploy(aws, "--release", published(aws, "0.2.0"))
    assert result.exit_code == 0, result.stderr
    made = aws.latest()
    assert made["components"]["com.example.Plc"] == foreign["com.example.Plc"]
    assert versions(made)["aws.greengrass.StreamManager"] == "2.3.0"
    assert versions(made)["aws.greengrass.LogManager"] == "2.3.10", "inside the series: it stays"
    logs = settings(made, "aws.greengrass.LogManager")["logsUploaderConfiguration"][
        "componentLogsConfigurationMap"
    ]
    assert {"com.example.Plc", "io.linewatch.Capture"} <= set(logs)


def test_deploying_again_makes_no_new_revision(aws: AwsAccount) -> None:
    release = published(aws, "0.2.0")
    deploy(aws, "--release", release)
    result = deploy(aws, "--release", release)
    assert result.exit_code == 0
    assert "already deployed" in result.stderr
    assert aws.revisions() == 1
    aws.run("cancel", aws.name)
    deploy(aws, "--release", release)
    assert aws.revisions() == 2, "a cancelled deployment reached nobody who joins later"


def test_a_dry_run_shows_the_difference_and_changes_nothing(aws: AwsAccount) -> None:
    deploy(aws, "--release", published(aws, "0.2.0"))
    aws.write_fleet(configuration={"io.linewatch.Capture": {"Line": "line-7"}})
    result = deploy(aws, "--release", published(aws, "0.3.0", "inference"), "--dry-run", "--json")
    changes = {one["component"]: one for one in json.loads(result.stdout)["changes"]}
    assert (changes["io.linewatch.Inference"]["from"], changes["io.linewatch.Inference"]["to"]) == (
        "0.2.0",
        "0.3.0",
    )
    assert changes["io.linewatch.Capture"]["configuration"] == ["Line: - -> line-7"]
    assert aws.revisions() == 1


def test_a_release_that_is_not_published_is_refused(aws: AwsAccount) -> None:
    result = deploy(aws, "--release", aws.release("0.9.0"))
    assert result.exit_code == 3
    assert "release 0.9.0 is not published here; run `linewatch publish` first" in result.stderr


def test_a_component_version_that_is_gone_is_refused(aws: AwsAccount) -> None:
    release = published(aws, "0.2.0")
    arn = "arn:aws:greengrass:eu-central-1:000000000000:components:io.linewatch.Broker:versions:0.2.0"
    aws.client("greengrassv2").delete_component(arn=arn)
    result = deploy(aws, "--release", release)
    assert result.exit_code == 3
    assert "io.linewatch.Broker 0.2.0 is missing" in result.stderr


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"io.linewatch.Capture": {"Lien": "line-1"}}, "has no Lien; it has: "),
        ({"io.linewatch.Camera": {"Line": "line-1"}}, "io.linewatch.Camera would not be deployed"),
    ],
)
def test_a_mistyped_configuration_is_refused(
    aws: AwsAccount, configuration: dict[str, Any], named: str
) -> None:
    aws.write_fleet(configuration=configuration)
    result = deploy(aws, "--release", published(aws, "0.2.0"))
    assert result.exit_code == 2
    assert named in result.stderr
    assert aws.revisions() == 0


def test_a_value_that_lite_would_cut_off_is_refused_for_lite_only(aws: AwsAccount) -> None:
    aws.write_fleet(configuration={"io.linewatch.Console": {"OperatorName": "Line 1; reboot"}})
    release = published(aws, "0.2.0")
    assert deploy(aws, "--release", release, "--dry-run").exit_code == 0
    aws.add_device("lite-1", runtime="aws_nucleus_lite")
    refused = deploy(aws, "--release", release)
    assert refused.exit_code == 2
    assert "OperatorName: 'Line 1; reboot'" in refused.stderr


def test_a_deployment_that_is_too_large_for_lite_is_refused(aws: AwsAccount) -> None:
    aws.write_fleet(configuration={"io.linewatch.Console": {"OperatorName": "x" * 7000}})
    release = published(aws, "0.2.0")
    aws.add_device("lite-1", runtime="aws_nucleus_lite")
    refused = deploy(aws, "--release", release)
    assert refused.exit_code == 3
    assert "nucleus lite takes about 7000" in refused.stderr


def test_s3_that_only_says_403_names_the_page_too() -> None:
    refusal = ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")
    with (
        pytest.raises(CommandFailed, match=r"docs/deploying\.md lists"),
        documented("docs/deploying.md"),
        explained(),
    ):
        raise refusal


def test_what_the_environment_knows_need_not_be_written_down(aws: AwsAccount) -> None:
    aws.write_fleet(
        site="plant-9", configuration={"io.linewatch.Console": {"CloudApiUrl": "https://own.example.com"}}
    )
    deploy(aws, "--release", published(aws, "0.2.0"))
    made = aws.latest()
    assert settings(made, "io.linewatch.Forwarder")["UplinkHost"].startswith(
        aws.client("iot").describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    )
    assert settings(made, "io.linewatch.Console")["CloudApiUrl"] == "https://own.example.com"
    assert settings(made, "io.linewatch.Capture")["Site"] == "plant-9"


def test_a_key_that_leaves_the_fleet_file_leaves_the_devices(aws: AwsAccount) -> None:
    release = published(aws, "0.2.0")
    aws.write_fleet(configuration={"io.linewatch.Capture": {"Line": "line-7"}})
    deploy(aws, "--release", release)
    assert "reset" not in aws.latest()["components"]["io.linewatch.Capture"]["configurationUpdate"]
    aws.write_fleet()
    deploy(aws, "--release", release)
    update = aws.latest()["components"]["io.linewatch.Capture"]["configurationUpdate"]
    assert update["reset"] == [""]
    assert "Line" not in json.loads(update["merge"])


def test_other_defaults_of_a_new_version_reach_the_devices(aws: AwsAccount) -> None:
    deploy(aws, "--release", published(aws, "0.2.0"))
    registry = aws.greengrass.components
    key = (aws.greengrass.account, "io.linewatch.Console", "0.2.0")
    registry._components[key]["recipe"]["ComponentConfiguration"]["DefaultConfiguration"]["Port"] = "9999"
    deploy(aws, "--release", published(aws, "0.3.0", "console", "inference"))
    components = aws.latest()["components"]
    assert components["io.linewatch.Console"]["configurationUpdate"]["reset"] == [""]
    assert "reset" not in components["io.linewatch.Inference"].get("configurationUpdate", {})


def test_a_rollout_under_way_is_not_overrun(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    deploy(aws, "--release", published(aws, "0.2.0"))
    core.starts(aws.target)
    release = published(aws, "0.3.0", "inference")
    refused = deploy(aws, "--release", release)
    assert refused.exit_code == 3
    assert "1 of 1 devices work on it" in refused.stderr
    replaced = deploy(aws, "--release", release, "--replace")
    assert replaced.exit_code == 0, replaced.stderr
    assert aws.revisions() == 2


def test_two_groups_that_want_two_versions_are_told(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    other = aws.greengrass.group_arn("pilot")
    core.targets.append(other)
    aws.client("greengrassv2").create_deployment(
        targetArn=other,
        deploymentName="pilot",
        components={"io.linewatch.Broker": {"componentVersion": "0.1.0"}},
    )
    result = deploy(aws, "--release", published(aws, "0.2.0"))
    assert "core-1: io.linewatch.Broker 0.2.0 here, 0.1.0 by pilot for thinggroup/pilot" in result.stderr
    assert "Greengrass will fail this deployment there" in result.stderr


def test_a_group_of_both_nuclei_is_refused_and_lite_gets_its_own(aws: AwsAccount) -> None:
    aws.add_device("lite-1", runtime="aws_nucleus_lite")
    release = published(aws, "0.2.0")
    deploy(aws, "--release", release)
    pinned = versions(aws.latest())
    assert pinned["aws.greengrass.NucleusLite"] == "2.6.0"
    assert not {"aws.greengrass.Nucleus", "aws.greengrass.Cli", "aws.greengrass.LogManager"} & set(pinned)
    aws.add_device("classic-1")
    mixed = deploy(aws, "--release", release)
    assert mixed.exit_code == 3
    assert "put them into two thing groups" in mixed.stderr


def test_one_thing_is_deployed_to_by_its_name(aws: AwsAccount) -> None:
    aws.add_device("core-1")
    release = published(aws, "0.2.0")
    result = deploy(aws, "--release", release, "--thing", "core-1", "--json")
    assert json.loads(result.stdout)["target"].endswith(":thing/core-1")
    unknown = deploy(aws, "--release", release, "--thing", "core-9")
    assert unknown.exit_code == 1
    assert "there is no thing 'core-9'" in unknown.stderr


@pytest.mark.parametrize("thing", ["../core", "core 1", "a;b", "", "ä", "a" * 129, "core\n1"])
def test_a_hostile_thing_name_is_a_usage_error(aws: AwsAccount, thing: str) -> None:
    result = deploy(aws, "--release", aws.release("0.2.0", promoted=False), "--thing", thing)
    assert result.exit_code == 2
    assert "--thing" in result.stderr


def test_wait_follows_to_the_end_and_tells_why_it_failed(aws: AwsAccount) -> None:
    good, bad = aws.add_device("good"), aws.add_device("bad")
    aws.client("iot").create_thing(thingName="never")
    aws.client("iot").add_thing_to_thing_group(thingGroupName=aws.group, thingName="never")
    release = published(aws, "0.2.0")

    def devices() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while (
            aws.target not in good.effective or aws.target not in bad.effective
        ) and time.monotonic() < deadline:
            time.sleep(0.005)
        good.starts(aws.target)
        good.succeeds(aws.target)
        stack = ["DEPLOYMENT_FAILURE", "ARTIFACT_DOWNLOAD_ERROR", "DOCKER_IMAGE_NOT_FOUND"]
        bad.fails(aws.target, "FAILED_ROLLBACK_COMPLETE", stack)

    watched = threading.Thread(target=devices, daemon=True)
    watched.start()
    result = deploy(aws, "--release", release, "--wait", "--every", "0.05", "--json")
    watched.join(DEADLINE_S)
    assert result.exit_code == 4, result.stderr
    told = json.loads(result.stdout)
    assert told["outcome"] == "failed"
    wrong = {one["device"]: one["wrong"] for one in told["states"]}
    assert wrong["good"] == ""
    assert "FAILED_ROLLBACK_COMPLETE: ARTIFACT_DOWNLOAD_ERROR > DOCKER_IMAGE_NOT_FOUND" in wrong["bad"]
    assert wrong["never"] == "never connected"
    assert aws.latest()["tags"]["linewatch:outcome"] == "failed"


def test_wait_ends_at_its_limit(aws: AwsAccount) -> None:
    aws.add_device("off")
    result = deploy(aws, "--release", published(aws, "0.2.0"), "--wait", "--every", "0.05", "--limit", "0")
    assert result.exit_code == 4
    assert "not all devices finished within 0 minutes" in result.stderr
    assert "linewatch:outcome" not in aws.latest()["tags"]


def test_somebody_who_deploys_in_between_is_not_overwritten(
    aws: AwsAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = published(aws, "0.2.0")
    quiet = rolling_out.check_quiet

    def meanwhile(*arguments: Any, **named: Any) -> None:
        quiet(*arguments, **named)
        aws.client("greengrassv2").create_deployment(targetArn=aws.target, deploymentName="theirs")

    monkeypatch.setattr(rolling_out, "check_quiet", meanwhile)
    result = deploy(aws, "--release", release)
    assert result.exit_code == 1
    assert "theirs" in result.stderr
    assert "nothing was changed" in result.stderr
    assert aws.latest()["deploymentName"] == "theirs"


def test_somebody_who_slips_in_at_the_last_moment_is_told(
    aws: AwsAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = published(aws, "0.2.0")
    real = Greengrass.deploy

    def slower(self: Greengrass, request: Any) -> str:
        aws.client("greengrassv2").create_deployment(targetArn=aws.target, deploymentName="theirs")
        return real(self, request)

    monkeypatch.setattr(Greengrass, "deploy", slower)
    deploy_first = deploy(aws, "--release", release)
    assert deploy_first.exit_code == 1
    assert "made in the same moment" in deploy_first.stderr


def test_two_that_deploy_the_same_at_once_make_one_state(aws: AwsAccount) -> None:
    release = published(aws, "0.2.0")
    command = [sys.executable, "-m", "linewatch_fleet.cli", "--fleet", str(aws.directory / "fleet.yaml"), "deploy",
               aws.name, "--release", str(release)]  # fmt: skip
    environ: Any = {**os.environ, **aws.environ}
    both = [
        subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    codes = [one.wait(DEADLINE_S) for one in both]
    # The second either comes later ("already deployed"), shares the first's client token, or is told to look again.
    assert 0 in codes
    assert set(codes) <= {0, 1}
    assert aws.revisions() == 1


def test_a_model_of_ones_own_is_added_kept_and_taken_away(aws: AwsAccount) -> None:
    deploy(aws, "--release", published(aws, "0.2.0"))
    recipe = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": "io.linewatch.model.mine",
        "ComponentVersion": "1.0.0",
        "Manifests": [{"Platform": {"os": "linux"}}],
    }
    greengrass = aws.client("greengrassv2")
    arn = greengrass.create_component_version(inlineRecipe=json.dumps(recipe).encode())["arn"]
    greengrass.describe_component(arn=arn)
    added = deploy(aws, "--with", "io.linewatch.model.mine=1.0.0")
    assert added.exit_code == 0, added.stderr
    deploy(aws, "--release", published(aws, "0.3.0", "inference"))
    assert versions(aws.latest())["io.linewatch.model.mine"] == "1.0.0"
    assert deploy(aws, "--without", "io.linewatch.model.mine").exit_code == 0
    assert "io.linewatch.model.mine" not in versions(aws.latest())
    assert versions(aws.latest())["io.linewatch.Inference"] == "0.3.0"


@pytest.mark.parametrize("below", [False, True], ids=["ours", "below somebody else's deployment"])
def test_a_component_that_left_the_release_leaves_the_devices(aws: AwsAccount, below: bool) -> None:
    deploy(aws, "--release", published(aws, "0.2.0"))
    if below:
        theirs = {**aws.latest()["components"], "com.example.Plc": {"componentVersion": "4.2.0"}}
        aws.client("greengrassv2").create_deployment(
            targetArn=aws.target, deploymentName="plc", components=theirs
        )
    path = aws.directory / "fleet.yaml"
    path.write_text(path.read_text() + "captures: 1\n")
    release = aws.release("0.3.0", "inference", "broker")
    assert aws.run("publish", aws.name, "--release", release).exit_code == 0
    deploy(aws, "--release", release)
    assert "io.linewatch.Capture2" not in versions(aws.latest())
    assert "io.linewatch.Capture" in versions(aws.latest())


def test_cancel_tells_what_it_means_for_each_device(aws: AwsAccount) -> None:
    done, busy, waiting = (aws.add_device(name) for name in ("done", "busy", "waiting"))
    deploy(aws, "--release", published(aws, "0.2.0"))
    done.succeeds(aws.target)
    busy.starts(aws.target)
    dry = aws.run("cancel", aws.name, "--dry-run")
    assert "would cancel" in dry.stderr
    assert aws.latest()["deploymentStatus"] == "ACTIVE"
    result = aws.run("cancel", aws.name, "--json")
    means = {one["device"]: one["means"] for one in json.loads(result.stdout)["devices"]}
    assert means == {
        "done": "keeps the new release",
        "busy": "finishes it",
        "waiting": "never gets it, keeps what it runs",
    }
    assert waiting.effective[aws.target]["coreDeviceExecutionStatus"] == "CANCELED"
    again = aws.run("cancel", aws.name)
    assert again.exit_code == 3
    assert "there is nothing to cancel" in again.stderr


@pytest.mark.parametrize("operation", ["ListDeployments", "GetComponent", "CreateDeployment"])
def test_a_missing_permission_names_the_page(aws: AwsAccount, operation: str) -> None:
    release = published(aws, "0.2.0")
    aws.greengrass.service.denied = {operation}
    result = deploy(aws, "--release", release)
    assert result.exit_code == 1
    assert f"greengrass:{operation}" in result.stderr
    assert "docs/deploying.md lists the permissions" in result.stderr


def test_nothing_succeeded_where_no_device_ever_connected(aws: AwsAccount) -> None:
    release = published(aws, "0.2.0")
    empty = deploy(aws, "--release", release, "--wait", "--every", "0.05")
    assert empty.exit_code == 4
    assert "has no devices" in empty.stderr
    aws.client("iot").create_thing(thingName="never")
    aws.client("iot").add_thing_to_thing_group(thingGroupName=aws.group, thingName="never")
    result = deploy(aws, "--release", release, "--wait", "--every", "0.05")
    assert result.exit_code == 4
    assert "no device ever connected (never)" in result.stderr
    assert "linewatch:outcome" not in aws.latest()["tags"]


def run_into(aws: AwsAccount, stdout: int, *arguments: Any) -> Any:
    command = [
        sys.executable,
        "-m",
        "linewatch_fleet.cli",
        "--fleet",
        str(aws.directory / "fleet.yaml"),
        *arguments,
    ]
    return subprocess.run(
        [str(one) for one in command], check=False, env={**os.environ, **aws.environ}, stdout=stdout,
        stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip


def test_a_result_that_nobody_reads_or_can_write_stops_nothing(aws: AwsAccount) -> None:
    release = published(aws, "0.2.0")
    read, write = os.pipe()
    os.close(read)
    unread = run_into(aws, write, "deploy", aws.name, "--release", release)
    os.close(write)
    assert unread.returncode == 0, unread.stderr
    assert "nobody reads the rest of the result" in unread.stderr
    assert aws.revisions() == 1, "what it had to do was done"
    full = os.open("/dev/full", os.O_WRONLY)
    for arguments in (("status", aws.name, "--json"), ("status", aws.name)):
        unwritten = run_into(aws, full, *arguments)
        assert unwritten.returncode == 1
        assert "the result could not be written: No space left on device" in unwritten.stderr
        assert "Traceback" not in unwritten.stderr
    help_ = run_into(aws, full, "--help")
    os.close(full)
    assert help_.returncode == 1
    assert "Traceback" not in help_.stderr
    assert "No space left on device" in help_.stderr
