# SPDX-License-Identifier: Apache-2.0
"""The greengrassv2 stand-in, by a real boto3 client: it must refuse what AWS refuses."""

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from linewatch_plant.standin_greengrass import OPERATIONS, StandinGreengrass

GROUP = "linewatch-dev"


@pytest.fixture
def standin() -> Iterator[StandinGreengrass]:
    running = StandinGreengrass(artifact=lambda uri: b"zip" if uri.endswith("good.zip") else None)
    yield running
    running.stop()


@pytest.fixture
def greengrass(standin: StandinGreengrass) -> Any:
    return client(standin)


def client(standin: StandinGreengrass, **config: Any) -> Any:
    return boto3.client(
        "greengrassv2",
        endpoint_url=standin.endpoint_url,
        region_name=standin.region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 1}, **config),
    )


def recipe(name: str = "com.example.A", version: str = "1.0.0", uri: str = "s3://b/good.zip") -> bytes:
    return json.dumps(
        {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": name,
            "ComponentVersion": version,
            "Manifests": [{"Platform": {"os": "linux"}, "Artifacts": [{"Uri": uri}]}],
        }
    ).encode()


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_component_version_becomes_deployable_and_never_changes(greengrass: Any) -> None:
    made = greengrass.create_component_version(inlineRecipe=recipe(), tags={"a": "b"})
    assert made["status"]["componentState"] == "REQUESTED"
    described = greengrass.describe_component(arn=made["arn"])
    assert described["status"]["componentState"] == "DEPLOYABLE"
    assert described["tags"] == {"a": "b"}
    with pytest.raises(ClientError) as conflict:
        greengrass.create_component_version(inlineRecipe=recipe())
    assert code_of(conflict) == "ConflictException"
    got = json.loads(greengrass.get_component(arn=made["arn"], recipeOutputFormat="JSON")["recipe"])
    assert got["Manifests"][0]["Artifacts"][0]["Algorithm"] == "SHA-256"


def test_an_artifact_that_is_not_there_fails_the_version_with_a_reason(greengrass: Any) -> None:
    made = greengrass.create_component_version(inlineRecipe=recipe(uri="s3://b/lost.zip"))
    status = greengrass.describe_component(arn=made["arn"])["status"]
    assert status["componentState"] == "FAILED"
    assert "lost.zip" in status["errors"]["artifact"]


def test_every_list_is_paged(standin: StandinGreengrass, greengrass: Any) -> None:
    for number in range(7):
        greengrass.create_component_version(inlineRecipe=recipe(version=f"1.{number}.0"))
        greengrass.create_deployment(targetArn=standin.group_arn(GROUP), components={})
        standin.add_core(f"core-{number}")
    arn = f"arn:aws:greengrass:{standin.region}:{standin.account}:components:com.example.A"
    assert "nextToken" in greengrass.list_component_versions(arn=arn)
    pages = list(greengrass.get_paginator("list_component_versions").paginate(arn=arn))
    versions = [version["componentVersion"] for page in pages for version in page["componentVersions"]]
    assert versions == [f"1.{number}.0" for number in reversed(range(7))]
    cores = [
        core
        for page in greengrass.get_paginator("list_core_devices").paginate()
        for core in page["coreDevices"]
    ]
    assert len(cores) == 7
    deployments = [
        one
        for page in greengrass.get_paginator("list_deployments").paginate(historyFilter="ALL")
        for one in page["deployments"]
    ]
    assert len(deployments) == 7
    assert sum(one["isLatestForTarget"] for one in deployments) == 1
    with pytest.raises(ClientError):
        greengrass.list_core_devices(nextToken="nonsense")


def test_a_new_deployment_replaces_the_targets_whole_state(
    standin: StandinGreengrass, greengrass: Any
) -> None:
    core = standin.add_core("core-1", GROUP)
    target = standin.group_arn(GROUP)
    first = greengrass.create_deployment(targetArn=target, components={"a": {"componentVersion": "1.0.0"}})
    standin.finish(first["deploymentId"])
    second = greengrass.create_deployment(targetArn=target, components={"b": {"componentVersion": "1.0.0"}})
    assert greengrass.get_deployment(deploymentId=first["deploymentId"])["deploymentStatus"] == "INACTIVE"
    core.starts(target)
    effective = greengrass.list_effective_deployments(coreDeviceThingName="core-1")["effectiveDeployments"]
    assert [one["coreDeviceExecutionStatus"] for one in effective] == ["IN_PROGRESS"]
    standin.finish(second["deploymentId"])
    installed = greengrass.list_installed_components(coreDeviceThingName="core-1")["installedComponents"]
    assert [one["componentName"] for one in installed] == ["b"]


def test_two_groups_that_want_two_versions_fail_the_device(
    standin: StandinGreengrass, greengrass: Any
) -> None:
    core = standin.add_core("core-1", GROUP, "other")
    for group, version in ((GROUP, "1.0.0"), ("other", "2.0.0")):
        greengrass.create_deployment(
            targetArn=standin.group_arn(group), components={"a": {"componentVersion": version}}
        )
    core.succeeds(standin.group_arn("other"))
    effective = greengrass.list_effective_deployments(coreDeviceThingName="core-1")["effectiveDeployments"]
    assert {one["coreDeviceExecutionStatus"] for one in effective} == {"QUEUED", "FAILED"}


def test_a_device_is_listed_below_its_group_only_once_it_has_deployed(
    standin: StandinGreengrass, greengrass: Any
) -> None:
    standin.add_core("core-1", GROUP)
    target = standin.group_arn(GROUP)
    made = greengrass.create_deployment(targetArn=target, components={})
    assert greengrass.list_core_devices(thingGroupArn=target)["coreDevices"] == []
    standin.finish(made["deploymentId"])
    assert len(greengrass.list_core_devices(thingGroupArn=target)["coreDevices"]) == 1


def test_only_an_active_deployment_is_cancelled_and_only_queued_devices_are_spared(
    standin: StandinGreengrass, greengrass: Any
) -> None:
    busy, waiting = standin.add_core("busy", GROUP), standin.add_core("waiting", GROUP)
    target = standin.group_arn(GROUP)
    made = greengrass.create_deployment(targetArn=target, components={})["deploymentId"]
    busy.starts(target)
    greengrass.cancel_deployment(deploymentId=made)
    assert busy.effective[target]["coreDeviceExecutionStatus"] == "IN_PROGRESS"
    assert waiting.effective[target]["coreDeviceExecutionStatus"] == "CANCELED"
    with pytest.raises(ClientError) as conflict:
        greengrass.cancel_deployment(deploymentId=made)
    assert code_of(conflict) == "ConflictException"
    greengrass.delete_deployment(deploymentId=made)
    with pytest.raises(ClientError) as missing:
        greengrass.get_deployment(deploymentId=made)
    assert code_of(missing) == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"targetArn": "arn:aws:s3:::bucket"}, "targetArn"),
        ({"components": {"a": {"componentVersion": ">=1.0.0"}}}, "one version"),
        (
            {"components": {"a": {"componentVersion": "1.0.0", "configurationUpdate": {"merge": "[1]"}}}},
            "object",
        ),
        (
            {"components": {"a": {"componentVersion": "1.0.0", "configurationUpdate": {"reset": ["x"]}}}},
            "pointer",
        ),
        ({"deploymentPolicies": {"failureHandlingPolicy": "MAYBE"}}, "MAYBE"),
        ({"iotJobConfiguration": {"jobExecutionsRolloutConfig": {"maximumPerMinute": 5000}}}, "5000"),
    ],
)
def test_what_aws_refuses_is_refused(standin: StandinGreengrass, changed: dict[str, Any], named: str) -> None:
    lenient = client(standin, parameter_validation=False)
    asked = {"targetArn": standin.group_arn(GROUP), "components": {}, **changed}
    with pytest.raises(ClientError, match=named) as refused:
        lenient.create_deployment(**asked)
    assert code_of(refused) == "ValidationException"


def test_a_field_that_aws_does_not_know_is_refused(standin: StandinGreengrass) -> None:
    connection = http.client.HTTPConnection(urlsplit(standin.endpoint_url).netloc)
    body = json.dumps({"targetArn": standin.group_arn(GROUP), "componentz": {}})
    connection.request("POST", "/greengrass/v2/deployments", body)
    answer = connection.getresponse()
    assert answer.status == 400
    assert "componentz" in answer.read().decode()
    connection.close()


def test_the_same_client_token_makes_one_deployment(standin: StandinGreengrass, greengrass: Any) -> None:
    made = {
        greengrass.create_deployment(targetArn=standin.group_arn(GROUP), clientToken="one")["deploymentId"]
        for _ in range(2)
    }
    assert len(made) == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_denied_operation_is_denied(standin: StandinGreengrass, greengrass: Any, operation: str) -> None:
    standin.service.denied = {operation}
    shape = greengrass.meta.service_model.operation_model(operation).input_shape
    arn = f"arn:aws:greengrass:{standin.region}:{standin.account}:components:a:versions:1.0.0"
    values = {
        "arn": arn,
        "resourceArn": arn,
        "tags": {"a": "b"},
        "tagKeys": ["a"],
        "targetArn": standin.group_arn("a"),
    }
    method = {name: key for key, name in greengrass.meta.method_to_api_mapping.items()}[operation]
    with pytest.raises(ClientError) as denied:
        getattr(greengrass, method)(**{name: values.get(name, "a") for name in shape.required_members})
    assert code_of(denied) == "AccessDeniedException"


def test_tags_are_added_and_taken_away(standin: StandinGreengrass, greengrass: Any) -> None:
    made = greengrass.create_deployment(targetArn=standin.group_arn(GROUP))["deploymentId"]
    arn = f"arn:aws:greengrass:{standin.region}:{standin.account}:deployments:{made}"
    greengrass.tag_resource(resourceArn=arn, tags={"a": "1", "b": "2"})
    greengrass.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert greengrass.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "2"}
