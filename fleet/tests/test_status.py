# SPDX-License-Identifier: Apache-2.0
"""`linewatch status`: what each device runs, what is wrong and why, over HTTP."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from greengrass_account import AwsAccount


def deployed(aws: AwsAccount, version: str = "0.2.0", *changed: str) -> str:
    release = aws.release(version, *changed)
    assert aws.run("publish", aws.name, "--release", release).exit_code == 0
    result = aws.run("deploy", aws.name, "--release", release, "--json")
    return str(json.loads(result.stdout)["deployment"])


def status(aws: AwsAccount) -> tuple[int, dict[str, dict[str, Any]]]:
    result = aws.run("status", aws.name, "--json")
    return result.exit_code, {one["device"]: one for one in json.loads(result.stdout)["devices"]}


def test_a_well_device_and_an_unwell_one(aws: AwsAccount) -> None:
    well, unwell = aws.add_device("well"), aws.add_device("unwell")
    aws.greengrass.finish(deployed(aws))
    assert status(aws)[0] == 0
    unwell.reports(
        "io.linewatch.Forwarder",
        "BROKEN",
        "uplink: put ca.pem,\n certificate.pem and key.pem there",
        ["STARTUP_ERROR"],
    )
    code, told = status(aws)
    assert code == 4
    assert told["well"]["wrong"] == []
    assert told["well"]["release"] == "0.2.0"
    assert told["well"]["components"]["io.linewatch.Capture"] == {"version": "0.2.0", "state": "RUNNING"}
    assert told["unwell"]["wrong"] == [
        "io.linewatch.Forwarder 0.2.0 BROKEN (STARTUP_ERROR: uplink: put ca.pem, certificate.pem and key.pem there)"
    ]
    well.reports("io.linewatch.Console", "STARTING")
    assert status(aws)[1]["well"]["starting"] == ["io.linewatch.Console STARTING"]
    shown = aws.run("status", aws.name)
    assert "2 devices, 1 unwell" in shown.stderr
    assert "BROKEN (STARTUP_ERROR" in shown.stdout


def test_a_device_that_went_back_shows_what_it_runs_and_why(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    aws.greengrass.finish(deployed(aws))
    deployed(aws, "0.3.0", "inference")
    core.starts(aws.target)
    assert status(aws)[1]["core-1"]["deployment"] == "IN_PROGRESS"
    core.fails(
        aws.target,
        "FAILED_ROLLBACK_COMPLETE",
        ["DEPLOYMENT_FAILURE", "COMPONENT_BROKEN"],
        ["COMPONENT_ERROR"],
    )
    code, told = status(aws)
    assert code == 4
    assert told["core-1"]["release"] == "0.2.0"
    assert told["core-1"]["wrong"] == [
        "deployment linewatch-0.3.0 FAILED: FAILED_ROLLBACK_COMPLETE: COMPONENT_BROKEN"
    ]


def test_a_failure_that_was_overcome_is_no_longer_told(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    deployed(aws)
    core.fails(aws.target, "FAILED_NO_STATE_CHANGE")
    assert status(aws)[0] == 4
    aws.greengrass.finish(deployed(aws, "0.3.0", "inference"))
    assert status(aws)[0] == 0


@pytest.mark.parametrize(("hours", "code"), [(24, 0), (26, 4)])
def test_a_silent_device_is_unwell(aws: AwsAccount, hours: int, code: int) -> None:
    core = aws.add_device("core-1")
    aws.greengrass.finish(deployed(aws))
    core.seen = datetime.now(UTC) - timedelta(hours=hours)
    found, told = status(aws)
    assert found == code
    assert told["core-1"]["age"] == f"{hours} h"
    assert told["core-1"]["wrong"] == ([f"silent for {hours} h"] if code else [])


def test_a_thing_that_never_connected_is_told(aws: AwsAccount) -> None:
    iot = aws.client("iot")
    iot.create_thing(thingName="new")
    iot.add_thing_to_thing_group(thingGroupName=aws.group, thingName="new")
    code, told = status(aws)
    assert code == 4
    assert told["new"]["wrong"] == ["never connected"]
    assert told["new"]["age"] == "never"


def test_a_device_that_left_the_group_is_no_longer_looked_at(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    aws.greengrass.finish(deployed(aws))
    assert aws.target in core.followed, "Greengrass itself still lists it below the group"
    aws.client("iot").remove_thing_from_thing_group(thingGroupName=aws.group, thingName="core-1")
    assert status(aws) == (0, {})


def test_every_page_is_read(aws: AwsAccount) -> None:
    for number in range(7):
        aws.add_device(f"core-{number}")
    aws.greengrass.finish(deployed(aws))
    code, told = status(aws)
    assert code == 0
    assert len(told) == 7
    assert all(len(one["components"]) == 11 for one in told.values()), "more than three pages each"


def test_nothing_was_ever_deployed(aws: AwsAccount) -> None:
    aws.add_device("core-1")
    result = aws.run("status", aws.name)
    assert result.exit_code == 0
    assert "deployed: nothing" in result.stderr


def test_names_with_markup_are_shown_as_they_are(aws: AwsAccount) -> None:
    core = aws.add_device("core-1")
    aws.greengrass.finish(deployed(aws))
    core.reports("io.linewatch.Console", "ERRORED", "[red]no[/red] [link=file:///etc]x[/]\x1b[2J")
    result = aws.run("status", aws.name)
    assert "[red]no[/red]" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_missing_permission_names_the_page(aws: AwsAccount) -> None:
    aws.add_device("core-1")
    aws.greengrass.service.denied = {"GetCoreDevice"}
    result = aws.run("status", aws.name)
    assert result.exit_code == 1
    assert "docs/deploying.md lists the permissions" in result.stderr


def test_a_device_that_runs_not_everything_is_not_well(aws: AwsAccount) -> None:
    empty, partial = aws.add_device("empty"), aws.add_device("partial")
    aws.greengrass.finish(deployed(aws))
    empty.installed.clear()
    del partial.installed["io.linewatch.Console"]
    partial.installed["io.linewatch.Capture"]["componentVersion"] = "0.1.0"
    code, told = status(aws)
    assert code == 4
    assert told["empty"]["wrong"] == ["SUCCEEDED linewatch-0.2.0, and runs no component"]
    assert told["partial"]["wrong"] == [
        "SUCCEEDED linewatch-0.2.0, but io.linewatch.Capture is 0.1.0, not 0.2.0",
        "SUCCEEDED linewatch-0.2.0, but io.linewatch.Console 0.2.0 is missing",
    ]


def test_a_device_that_was_never_sent_the_deployment(aws: AwsAccount) -> None:
    runs, empty = aws.add_device("runs"), aws.add_device("empty")
    aws.greengrass.finish(deployed(aws))
    deployed(aws, "0.3.0", "inference")
    for core in (runs, empty):
        core.effective.clear()  # a rollout goes out at a rate: these two have not had their turn
    empty.installed.clear()
    code, told = status(aws)
    assert code == 4
    assert told["runs"]["wrong"] == []
    assert told["runs"]["starting"] == ["linewatch-0.3.0 not sent here yet"]
    assert told["empty"]["wrong"] == ["runs no component: linewatch-0.3.0 was not sent here"]


@pytest.mark.parametrize("listed", [True, False], ids=["CANCELED", "NOT SENT"])
def test_a_cancelled_deployment_is_told_where_it_did_not_come(aws: AwsAccount, listed: bool) -> None:
    done, waiting = aws.add_device("done"), aws.add_device("waiting")
    aws.greengrass.finish(deployed(aws))
    deployed(aws, "0.3.0", "inference")
    done.succeeds(aws.target)
    assert aws.run("cancel", aws.name).exit_code == 0
    if not listed:
        waiting.effective.clear()
    code, told = status(aws)
    assert code == 4
    assert told["done"]["wrong"] == []
    assert told["waiting"]["release"] == "0.2.0"
    assert told["waiting"]["wrong"] == [
        "does not run linewatch-0.3.0: cancelled before it was sent here (io.linewatch.Inference is 0.2.0, not 0.3.0)"
    ]
    assert "deployed: linewatch-0.3.0 (CANCELED)" in aws.run("status", aws.name).stderr


@pytest.mark.parametrize(("minutes", "wrong"), [(50, False), (70, True)])
def test_what_takes_longer_than_its_time_is_wrong(aws: AwsAccount, minutes: int, wrong: bool) -> None:
    queued, works, starts = (aws.add_device(name) for name in ("queued", "works", "starts"))
    deployed(aws)
    works.starts(aws.target)
    starts.succeeds(aws.target)
    starts.reports("io.linewatch.Console", "STARTING")
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    for core in (queued, works):
        core.effective[aws.target]["modifiedTimestamp"] = since
    starts.installed["io.linewatch.Console"]["lastStatusChangeTimestamp"] = since
    code, told = status(aws)
    assert code == (4 if wrong else 0)
    limit = "longer than 60 min (rollout.timeout_minutes)"
    assert told["queued"]["wrong"] == [f"deployment linewatch-0.2.0 QUEUED for 70 min, {limit}"][: int(wrong)]
    assert (
        told["works"]["wrong"]
        == [f"deployment linewatch-0.2.0 IN_PROGRESS for 70 min, {limit}"][: int(wrong)]
    )
    assert told["starts"]["wrong"] == ["io.linewatch.Console 0.2.0 STARTING for 70 min"][: int(wrong)]


def test_a_group_that_is_not_there_names_account_and_region(aws: AwsAccount) -> None:
    aws.write_fleet(region="eu-west-1")
    result = aws.run("status", aws.name)
    assert result.exit_code == 1
    assert f"there is no thing group {aws.group} in account 000000000000, region eu-west-1" in result.stderr
