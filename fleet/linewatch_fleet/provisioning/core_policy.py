# SPDX-License-Identifier: Apache-2.0
"""The IoT policy of one core device: the part of the minimal one that names the device.

AWS evaluates no thing variables for core devices, so each has its own. The template's CorePolicy is what all share.
"""

import json
from typing import Any

from botocore.exceptions import ClientError

from linewatch_fleet.aws import explained
from linewatch_fleet.errors import GateRefused
from linewatch_fleet.plan import Plan
from linewatch_fleet.provisioning.marks import code, is_ours, tags

# IoT keeps no more versions of a policy.
_VERSIONS = 5


def policy_name(thing: str) -> str:
    """The name of a core device's own policy."""
    return f"{thing}-core"


def policy_document(partition: str, region: str, account: str, thing: str) -> str:
    """The policy: connect, jobs, shadows and health of this thing, and of nothing else.

    The nucleus's further connections have client ids `<thing>#2` and so on.
    """
    here = f"arn:{partition}:iot:{region}:{account}"
    topics = f"$aws/things/{thing}"
    reported = [f"{topics}/{kind}/health/json" for kind in ("greengrass", "greengrassv2")]
    followed = [f"{topics}/jobs/*", f"{topics}/shadow/*"]
    statements: list[dict[str, Any]] = [
        {"Action": ["iot:Connect"], "Resource": [f"{here}:client/{thing}", f"{here}:client/{thing}#*"]},
        {
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": [f"{here}:topic/{topic}" for topic in (*reported, *followed)],
        },
        {"Action": ["iot:Subscribe"], "Resource": [f"{here}:topicfilter/{topic}" for topic in followed]},
        {
            "Action": ["iot:GetThingShadow", "iot:UpdateThingShadow", "iot:DeleteThingShadow"],
            "Resource": [f"{here}:thing/{thing}"],
        },
    ]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **one} for one in statements]}
    return json.dumps(document, indent=1)


def plan_policy(iot: Any, environment: str, thing: str, document: str, plan: Plan) -> None:
    """Plans the device's policy. Raises GateRefused where one of that name isn't provision's."""
    name = policy_name(thing)
    try:
        found = iot.get_policy(policyName=name)
    except ClientError as error:
        if code(error) != "ResourceNotFoundException":
            with explained():
                raise
        plan.add("create", f"policy {name}", "", lambda: _create(iot, environment, name, document))
        return
    with explained():
        if not is_ours(iot.list_tags_for_resource(resourceArn=found["policyArn"])["tags"], environment):
            raise GateRefused(
                f"policy {name} is there and was not made by linewatch provision; remove or rename it"
            )
    if json.loads(found["policyDocument"]) == json.loads(document):
        plan.add("keep", f"policy {name}")
    else:
        plan.add("update", f"policy {name}", "", lambda: _renew(iot, name, document))


def delete_policy(iot: Any, name: str) -> None:
    """Deletes a policy with all its versions; one that is gone already is fine."""
    try:
        for version in iot.list_policy_versions(policyName=name)["policyVersions"]:
            if not version["isDefaultVersion"]:
                iot.delete_policy_version(policyName=name, policyVersionId=version["versionId"])
        iot.delete_policy(policyName=name)
    except ClientError as error:
        if code(error) != "ResourceNotFoundException":
            with explained():
                raise


def _create(iot: Any, environment: str, name: str, document: str) -> None:
    try:
        iot.create_policy(policyName=name, policyDocument=document, tags=tags(environment))
    except ClientError as error:
        # Another run was quicker, with the same document.
        if code(error) != "ResourceAlreadyExistsException":
            with explained():
                raise


def _renew(iot: Any, name: str, document: str) -> None:
    with explained():
        versions = iot.list_policy_versions(policyName=name)["policyVersions"]
        spare = sorted((v for v in versions if not v["isDefaultVersion"]), key=lambda v: int(v["versionId"]))
        for version in spare[: max(0, len(versions) - _VERSIONS + 1)]:
            iot.delete_policy_version(policyName=name, policyVersionId=version["versionId"])
        iot.create_policy_version(policyName=name, policyDocument=document, setAsDefault=True)
