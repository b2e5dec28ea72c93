# SPDX-License-Identifier: Apache-2.0
"""A stack of 0.2.0 is updated to this template in one step, and nothing that holds data is replaced.

template_0_2_0.json holds of that release's template what an update must not change. CloudFormation replaces a resource when a
property that can't be changed does; a replaced one with a fixed name can't even be made.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

HERE = Path(__file__).parent
BEFORE: dict[str, Any] = json.loads((HERE / "template_0_2_0.json").read_text())


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    # As JSON, so that both sides are plain.
    return dict(json.loads(json.dumps(cfn_yaml.load(str(HERE.parent / "template.yaml")))))


@pytest.mark.parametrize("name", BEFORE["resources"])
def test_a_resource_of_the_release_before_is_kept_as_what_it_is(now: dict[str, Any], name: str) -> None:
    before, after = BEFORE["resources"][name], now["Resources"][name]

    assert after["Type"] == before["Type"]
    assert after.get("DeletionPolicy") == before.get("DeletionPolicy")
    assert after.get("Condition") == before.get("Condition")
    for key, value in before["Properties"].items():
        if key != "GlobalSecondaryIndexes":
            assert after["Properties"].get(key) == value, key
    # None of the names that CloudFormation made up has become a fixed one.
    fixed = {key for key in after.get("Properties", {}) if key in FIXED_NAMES.get(before["Type"], ())}
    assert fixed <= before["Properties"].keys()


FIXED_NAMES = {
    "AWS::DynamoDB::Table": ("TableName",),
    "AWS::SQS::Queue": ("QueueName",),
    "AWS::S3::Bucket": ("BucketName",),
    "AWS::IAM::Role": ("RoleName",),
    "AWS::IAM::ManagedPolicy": ("ManagedPolicyName",),
    "AWS::IoT::Policy": ("PolicyName",),
    "AWS::IoT::TopicRule": ("RuleName",),
    "AWS::Lambda::Function": ("FunctionName",),
    "AWS::SecretsManager::Secret": ("Name",),
    "AWS::CloudWatch::Alarm": ("AlarmName",),
    "AWS::Events::Rule": ("Name",),
}


def test_a_table_gets_one_new_index_at_most_and_loses_or_changes_none(now: dict[str, Any]) -> None:
    """DynamoDB makes one index per table and update; a second one fails it."""
    gained = {}
    for name, entry in BEFORE["resources"].items():
        if entry["Type"] != "AWS::DynamoDB::Table":
            continue
        before = {one["IndexName"]: one for one in entry["Properties"].get("GlobalSecondaryIndexes", [])}
        properties = now["Resources"][name]["Properties"]
        after = {one["IndexName"]: one for one in properties.get("GlobalSecondaryIndexes", [])}
        assert {index: after[index] for index in before} == before
        gained[name] = sorted(after.keys() - before.keys())

    assert {name: indexes for name, indexes in gained.items() if indexes} == {"EventsTable": ["by_station"]}


def test_an_update_needs_no_parameter_that_was_not_needed_and_takes_all_that_were_given(
    now: dict[str, Any],
) -> None:
    """`provision` hands over what fleet.yaml says, and nothing of the stack that is there."""
    needed_before = {name for name, default in BEFORE["parameters"].items() if default is None}

    assert BEFORE["parameters"].keys() <= now["Parameters"].keys()
    assert {n for n, p in now["Parameters"].items() if "Default" not in p} <= needed_before
    changed = {
        name: (default, now["Parameters"][name]["Default"])
        for name, default in BEFORE["parameters"].items()
        if default is not None and now["Parameters"][name]["Default"] != default
    }
    # The bundled policy keeps the pilot on, as "true" did, until somebody stores another one or gives it an end.
    assert changed == {"PilotMode": ("true", "policy")}
    assert {"true", "false"} <= set(now["Parameters"]["PilotMode"]["AllowedValues"])
    policy = json.loads((HERE.parent / "work_orders" / "policy.json").read_text())
    assert policy["pilot"]["is_on"] is True


def test_what_the_commands_of_the_release_before_read_is_still_told(now: dict[str, Any]) -> None:
    assert set(BEFORE["outputs"]) <= now["Outputs"].keys()
