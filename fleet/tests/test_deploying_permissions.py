# SPDX-License-Identifier: Apache-2.0
"""The policies of docs/deploying.md and docs/rolling-back.md are what the commands call: no more and no less."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient
from greengrass_account import STACK, AwsAccount

DOCS = Path(__file__).resolve().parents[2] / "docs"
PREFIXES = {
    "CloudFormation": "cloudformation",
    "ECR": "ecr",
    "GreengrassV2": "greengrass",
    "IoT": "iot",
    "S3": "s3",
}
SAME_ACTION = {"s3:HeadObject": "s3:GetObject"}

# What AWS's service authorization reference lists as dependent actions: Greengrass calls them in the caller's name.
READS = {"iot:DescribeJob", "iot:DescribeJobExecution", "iot:DescribeThing", "iot:DescribeThingGroup", "iot:GetThingShadow"}  # fmt: skip
CHANGES = {"iot:CancelJob", "iot:DeleteThingShadow", "iot:UpdateJob", "iot:UpdateThingShadow"}
DEPENDENT = {
    "greengrass:GetDeployment": READS,
    "greengrass:ListEffectiveDeployments": READS,
    "greengrass:CancelDeployment": READS | CHANGES,
    "greengrass:CreateDeployment": READS | CHANGES | {"iot:CreateJob", "greengrass:TagResource"},
    "greengrass:CreateComponentVersion": {"greengrass:TagResource"},
    # Without it S3 says 403 for an object that is not there.
    "s3:GetObject": {"s3:ListBucket"},
}


def policy(page: str, name: str) -> list[dict[str, Any]]:
    text = (DOCS / page).read_text()
    block = re.search(rf"<!-- policy: {name} -->\n```json\n(.*?)```", text, re.DOTALL)
    assert block, f"docs/{page} has no policy {name}"
    statements: list[dict[str, Any]] = json.loads(block[1])["Statement"]
    return statements


def allowed(page: str, name: str) -> set[str]:
    return {action for statement in policy(page, name) for action in statement["Action"]}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The IAM actions of every AWS operation that is called from here on."""
    actions: set[str] = set()
    real = BaseClient._make_api_call

    def noted(self: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        service = self.meta.service_model.service_id
        if service != "STS":
            action = f"{PREFIXES[str(service)]}:{operation}"
            actions.add(SAME_ACTION.get(action, action))
        return real(self, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", noted)
    return actions


def with_dependent(actions: set[str]) -> set[str]:
    return actions.union(*(DEPENDENT.get(action, set()) for action in actions))


def run(aws: AwsAccount, called: set[str], *arguments: Any) -> set[str]:
    called.clear()
    result = aws.run(*arguments)
    assert result.exit_code == 0, result.stderr
    return set(called)


def test_publish(aws: AwsAccount, called: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = aws.release("0.2.0", models=True)
    with monkeypatch.context() as broken:
        broken.setattr(aws.greengrass.components, "_artifact", lambda _: None)
        aws.run("publish", aws.name, "--release", first)
    seen = run(aws, called, "publish", aws.name, "--release", first)
    # The tag of another tool's version is missing: the recipe is read.
    arn = "arn:aws:greengrass:eu-central-1:000000000000:components:io.linewatch.Broker:versions:0.2.0"
    aws.client("greengrassv2").untag_resource(resourceArn=arn, tagKeys=["linewatch:content"])
    second = aws.release("0.3.0", "inference", models=True)
    seen |= run(aws, called, "publish", aws.name, "--release", second)
    assert with_dependent(seen) == allowed("deploying.md", "publish")


def test_deploy_and_status(aws: AwsAccount, called: set[str]) -> None:
    core = aws.add_device("core-1")
    release = aws.release("0.2.0")
    assert aws.run("publish", aws.name, "--release", release).exit_code == 0
    seen = run(aws, called, "deploy", aws.name, "--release", release)
    core.succeeds(aws.target)
    seen |= run(aws, called, "deploy", aws.name, "--release", release, "--wait", "--every", "0.05")
    seen |= run(aws, called, "deploy", aws.name, "--release", release, "--thing", "core-1", "--dry-run")
    assert with_dependent(seen) == allowed("deploying.md", "deploy")
    seen = run(aws, called, "status", aws.name) | run(aws, called, "status", aws.name, "--thing", "core-1")
    assert with_dependent(seen) == allowed("deploying.md", "status")


def test_rollback_and_cancel(aws: AwsAccount, called: set[str]) -> None:
    core = aws.add_device("core-1")
    for version in ("0.2.0", "0.3.0"):
        release = aws.release(version, "inference")
        assert aws.run("publish", aws.name, "--release", release).exit_code == 0
        assert aws.run("deploy", aws.name, "--release", release).exit_code == 0
    assert with_dependent(run(aws, called, "cancel", aws.name)) == allowed("rolling-back.md", "cancel")
    seen = run(aws, called, "rollback", aws.name)
    core.succeeds(aws.target)
    seen |= run(aws, called, "rollback", aws.name, "--to", "0.2.0", "--wait", "--every", "0.05")
    # Versions are listed only where the target lacks one of AWS's components.
    assert with_dependent(seen) | {"greengrass:ListComponentVersions"} == allowed(
        "rolling-back.md", "rollback"
    )


@pytest.mark.parametrize(
    ("page", "name"),
    [("deploying.md", "publish"), ("deploying.md", "deploy"), ("deploying.md", "status"), ("rolling-back.md", "rollback"),
     ("rolling-back.md", "cancel")],
)  # fmt: skip
def test_no_action_is_a_wildcard_and_every_resource_but_one_is_scoped(page: str, name: str) -> None:
    for statement in policy(page, name):
        assert not any(fnmatchcase(action, "*[*]*") for action in statement["Action"])
        if statement["Resource"] == "*":
            assert statement["Action"] == ["iot:DescribeEndpoint"], "it takes no resource"


@pytest.mark.parametrize("page", ["deploying.md", "upgrading.md", "rolling-back.md"])
def test_every_command_and_link_of_the_page_is_there(page: str) -> None:
    text = (DOCS / page).read_text()
    for link in re.findall(r"\]\(([\w./-]+\.md)[)#]", text):
        assert (DOCS / link).is_file(), link
    from linewatch_fleet.cli import VERBS

    used = set(re.findall(r"linewatch ([a-z]+) ", text)) | set(re.findall(r"`linewatch ([a-z]+)`", text))
    assert used <= set(VERBS)


def test_the_template_has_the_outputs_that_these_commands_read() -> None:
    text = (DOCS.parent / "cloud" / "template.yaml").read_text()
    outputs = text[text.index("\nOutputs:") :]
    for name in STACK["Outputs"]:
        assert re.search(rf"^  {name}:", outputs, re.MULTILINE), f"cloud/template.yaml has no output {name}"
