# SPDX-License-Identifier: Apache-2.0
"""Removing an environment: its stack, its buckets with every version, and, only when asked to, its data."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import yaml
from botocore.exceptions import ClientError

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import GateRefused
from linewatch_fleet.output import say
from linewatch_fleet.plan import Plan
from linewatch_fleet.provisioning.code_bucket import Bucket, code_bucket
from linewatch_fleet.provisioning.marks import ENVIRONMENT, MADE_BY, code, is_ours
from linewatch_fleet.provisioning.stack import Stack, TemplateLoader

_TABLE, _SECRET, _BUCKET = "AWS::DynamoDB::Table", "AWS::SecretsManager::Secret", "AWS::S3::Bucket"
# A secret that was deleted by mistake can be had back for so long; AWS's shortest.
_RECOVERY_DAYS = 7


class AccountRemoval:
    """Plans the removal of what provision made once for the environment."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._environment = account.environment
        self.stack = Stack(account, account.environment.stack)

    def plan(self, plan: Plan, *, unprotect: bool, delete_data: bool) -> None:
        """Plans stack, buckets and data. Raises GateRefused where something isn't provision's, or is protected."""
        found = self.stack.settled(
            lambda _, latest: say(f"stack {self.stack.name} is being changed, waiting: {latest}")
        )
        if found is not None:
            self._plan_stack(found, plan, unprotect=unprotect)
        data = dict(self._retained(found))
        own = (
            set() if found is None else {str(one.get("PhysicalResourceId")) for one in self.stack.resources()}
        )
        data |= dict(self._left_behind(own))
        for name, kind in sorted(data.items()):
            if delete_data:
                if kind == _TABLE and self._is_protected(name):
                    raise GateRefused(
                        f'table {name} has deletion protection; say DeletionProtection: "false" under the environment\'s '
                        "parameters and run `linewatch provision`, or lift it with `aws dynamodb update-table`"
                    )
                plan.add("delete", f"{kind} {name}", _detail(kind), partial(self._delete_data, kind, name))
            else:
                plan.add("keep", f"{kind} {name}", "data; --delete-data deletes it")
        bucket = code_bucket(self._account)
        if bucket.exists():
            if not bucket.is_ours():
                raise GateRefused(
                    f"bucket {bucket.name} was not made by linewatch provision; it is left alone"
                )
            plan.add("delete", f"bucket {bucket.name}", "with every version", partial(_delete_bucket, bucket))

    def group(self) -> str | None:
        """The thing group that our stack made; None without one. What fleet.yaml names may be somebody else's."""
        found = self.stack.describe()
        if found is None or not self._is_our_stack(found):
            return None
        outputs = {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", ())}
        return outputs.get("ThingGroupName")

    def _is_our_stack(self, found: dict[str, Any]) -> bool:
        return is_ours(found.get("Tags", []), self._environment.name) or self.stack.is_review_of_ours(found)

    def _plan_stack(self, found: dict[str, Any], plan: Plan, *, unprotect: bool) -> None:
        if not self._is_our_stack(found):
            raise GateRefused(
                f"stack {self.stack.name} was not made by linewatch provision; it is left alone"
            )
        if found.get("EnableTerminationProtection"):
            if not unprotect:
                raise GateRefused(
                    f"stack {self.stack.name} has termination protection; give --unprotect to remove it"
                )
            plan.add("update", f"stack {self.stack.name}", "termination protection off", partial(self.stack.protect, on=False))  # fmt: skip
        resources = self.stack.resources()
        kept = {name for name, kind in self._retained(found) if kind == _BUCKET}
        for resource in resources:
            if resource["PhysicalResourceId"] in kept:
                continue  # data: emptied with it, or not at all
            if resource["ResourceType"] == _BUCKET and resource["ResourceStatus"] != "DELETE_COMPLETE":
                bucket = Bucket(self._account, resource["PhysicalResourceId"])
                if bucket.exists():
                    plan.add("delete", f"objects of bucket {bucket.name}", "every version", bucket.empty)
        plan.add("delete", f"stack {self.stack.name}", f"{len(resources)} resources", self.stack.delete)

    def _retained(self, found: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
        """Tables, secrets and buckets that outlive the stack, as its own template says."""
        if found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS":
            return
        # The loader is a SafeLoader.
        template = yaml.load(self.stack.template(), Loader=TemplateLoader)  # noqa: S506
        for resource in self.stack.resources():
            described = template["Resources"].get(resource["LogicalResourceId"], {})
            kind = resource["ResourceType"]
            if described.get("DeletionPolicy") == "Retain" and kind in (_TABLE, _SECRET, _BUCKET) and self._is_there(kind, resource["PhysicalResourceId"]):  # fmt: skip
                yield resource["PhysicalResourceId"], kind

    def _left_behind(self, own: set[str]) -> Iterator[tuple[str, str]]:
        """Tables, secrets and buckets that bear the environment's tag, of a stack that is gone."""
        tagging = self._account.client("resourcegroupstaggingapi")
        filters = [{"Key": ENVIRONMENT, "Values": [self._environment.name]}, {"Key": MADE_BY}]
        with explained():
            for page in tagging.get_paginator("get_resources").paginate(
                TagFilters=filters, ResourceTypeFilters=["dynamodb:table", "s3"]
            ):
                for entry in page["ResourceTagMappingList"]:
                    kind = _BUCKET if ":s3:::" in entry["ResourceARN"] else _TABLE
                    name = entry["ResourceARN"].rpartition(":" if kind == _BUCKET else "/")[2]
                    # The tagging API still tells of what was deleted a while ago; the code bucket has its own line.
                    if name not in own and name != code_bucket(self._account).name and self._is_there(kind, name):  # fmt: skip
                        yield name, kind
            secrets = self._account.client("secretsmanager").get_paginator("list_secrets")
            for page in secrets.paginate(Filters=[{"Key": "tag-key", "Values": [ENVIRONMENT]}]):
                for secret in page["SecretList"]:
                    is_own = own & {secret["Name"], secret["ARN"]}
                    if not is_own and is_ours(secret.get("Tags", []), self._environment.name):
                        yield secret["ARN"], _SECRET

    def _is_there(self, kind: str, name: str) -> bool:
        if kind == _BUCKET:
            return Bucket(self._account, name).exists()
        try:
            if kind == _TABLE:
                status = self._account.client("dynamodb").describe_table(TableName=name)["Table"][
                    "TableStatus"
                ]
                return bool(status != "DELETING")
            return "DeletedDate" not in self._account.client("secretsmanager").describe_secret(SecretId=name)
        except ClientError as error:
            if code(error) != "ResourceNotFoundException":
                with explained():
                    raise
            return False

    def _is_protected(self, table: str) -> bool:
        with explained():
            described = self._account.client("dynamodb").describe_table(TableName=table)["Table"]
        return bool(described.get("DeletionProtectionEnabled"))

    def _delete_data(self, kind: str, name: str) -> None:
        if not self._is_there(kind, name):
            return
        if kind == _BUCKET:
            _delete_bucket(Bucket(self._account, name))
            return
        with explained():
            if kind == _TABLE:
                self._account.client("dynamodb").delete_table(TableName=name)
            else:
                self._account.client("secretsmanager").delete_secret(
                    SecretId=name, RecoveryWindowInDays=_RECOVERY_DAYS
                )


def _detail(kind: str) -> str:
    return f"can be restored for {_RECOVERY_DAYS} days" if kind == _SECRET else "for good"


def _delete_bucket(bucket: Bucket) -> None:
    bucket.empty()
    bucket.delete()
