# SPDX-License-Identifier: Apache-2.0
"""What is there once for an environment: the bucket for code and template, and the stack of cloud/template.yaml."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import lambda_package
import yaml

from erp.settings import SettingsError
from linewatch_fleet.aws import Account
from linewatch_fleet.config import Environment
from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.output import say
from linewatch_fleet.plan import Action, Plan
from linewatch_fleet.provisioning.code_bucket import Bucket, code_bucket, plan_code
from linewatch_fleet.provisioning.marks import ROOT, tags
from linewatch_fleet.provisioning.stack import Proposal, Stack, TemplateLoader
from linewatch_fleet.provisioning.stored_policy import check_stored_policy
from work_orders.patience import check_patience

TEMPLATE = ROOT / "cloud" / "template.yaml"
# Its creation failed: CloudFormation lets it only be deleted.
_STILLBORN = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED")
_ECR = re.compile(r"^(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com")
_OWN = ("Site", "CodeBucket", "CodeKey", "LayerKey", "Environment", "ThingGroup")


@dataclass(slots=True)
class AccountPlan:
    """What would be done, and the change set that waits for it."""

    plan: Plan = field(default_factory=Plan)
    proposal: Proposal | None = None


def parameters_of(environment: Environment) -> dict[str, str]:
    """The template's parameters that follow from the environment, with those of fleet.yaml. Raises BadInput."""
    given = environment.parameters
    for name in _OWN:
        if name in given:
            where = "the environment's own key `site`" if name == "Site" else "provision"
            raise BadInput(
                f"environments: {environment.name}: parameters: {name} is set by {where}; leave it out"
            )
    if "ErpBaseUrl" not in given:
        raise BadInput(
            f"environments: {environment.name}: parameters: ErpBaseUrl is missing: the address of the ERP's API, without "
            "a slash at its end"
        )
    _check_times(environment)
    registry = _ECR.match(environment.registry_host)
    return {
        "RegistryAccount": registry[1] if registry else environment.account,
        "RegistryRegion": registry[2] if registry else environment.region,
        "RepositoryPrefix": environment.repository_prefix,
        **given,
        "Environment": environment.name,
        "ThingGroup": environment.group,
        "Site": environment.site,
    }


def _check_times(environment: Environment) -> None:
    """Refuses what the functions would refuse at their start, when the stack is already changed. Raises BadInput."""
    where = f"environments: {environment.name}: parameters"
    # The loader is a SafeLoader.
    described = yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader=TemplateLoader)["Parameters"]  # noqa: S506

    def seconds(name: str) -> float:
        text = environment.parameters.get(name, described[name]["Default"])
        try:
            return float(text)
        except ValueError as error:
            raise BadInput(f"{where}: {name} is {text!r}; set it to a number of seconds") from error

    try:
        check_patience(
            lease_s=seconds("LeaseSeconds"),
            settle_s=seconds("SettleSeconds"),
            erp_timeout_s=seconds("ErpTimeoutSeconds"),
        )
    except SettingsError as error:
        raise BadInput(f"{where}: {error}") from error


def packages_of(
    environment: Environment, layer: Path | None
) -> tuple[str, str, dict[str, Callable[[], Path]]]:
    """Object names of code and layer, and how each is built where it is not there yet."""
    code = lambda_package.code_zip()
    architecture = environment.parameters.get("Architecture", "x86_64")
    if architecture not in lambda_package.WHEEL_PLATFORMS:
        raise BadInput(f"environments: {environment.name}: parameters: Architecture: x86_64 or arm64")

    def build_layer() -> Path:
        try:
            return layer or lambda_package.runtime_layer_zip(architecture)
        except lambda_package.PackageError as error:
            raise CommandFailed(
                f"{error}; on a machine without an index give a layer that another one built: --layer FILE"
            ) from error

    layer_key = (layer or lambda_package.runtime_layer(architecture)).name
    return code.name, layer_key, {code.name: lambda: code, layer_key: build_layer}


def plan_account(account: Account, layer: Path | None, *, protect: bool, dry_run: bool) -> AccountPlan:
    """Compares the account with the template. What CloudFormation would change is asked from it, by a change set.

    Raises BadInput, GateRefused, CommandFailed; Overtaken where somebody changes the stack at the same time.
    """
    environment = account.environment
    parameters = parameters_of(environment)
    code_key, layer_key, packages = packages_of(environment, layer)
    stack = Stack(account, environment.stack)
    bucket = code_bucket(account)
    made = AccountPlan()
    is_ready = plan_code(bucket, made.plan, packages)
    found = stack.settled(_waits(stack.name))
    check_stored_policy(account, found)
    if found and found["StackStatus"] in _STILLBORN:
        made.plan.add("delete", f"stack {stack.name}", "its creation failed")
        if dry_run:
            made.plan.add("create", f"stack {stack.name}", "from cloud/template.yaml")
            return made
        say(f"stack {stack.name} could not be created last time; deleting what is left of it")
        stack.delete()
        found = None
    wanted = {**parameters, "CodeBucket": bucket.name, "CodeKey": code_key, "LayerKey": layer_key}
    if is_ready:
        # CloudFormation describes the changes to a template that it can read, so this one object lies there before.
        key = _template_key()
        if not bucket.has(key):
            bucket.upload(key, TEMPLATE)
        made.proposal = stack.propose(bucket.address(key), wanted, tags(environment.name))
        _plan_changes(stack, made)
    else:
        _plan_unseen(stack, made, bucket, wanted, is_new=found is None)
    if protect != bool(found and found.get("EnableTerminationProtection")):
        made.plan.add(
            "update",
            f"stack {stack.name}",
            f"termination protection {'on' if protect else 'off'}",
            lambda: stack.protect(on=protect),
        )
    return made


def _plan_changes(stack: Stack, made: AccountPlan) -> None:
    """The stack's steps, resource by resource, as CloudFormation tells them."""
    proposal = made.proposal
    if proposal is None:
        made.plan.add("keep", f"stack {stack.name}")
        return
    made.plan.add(
        "create" if proposal.is_new else "update",
        f"stack {stack.name}",
        f"{len(proposal.changes)} resources",
        lambda: stack.execute(proposal, _counts(stack.name, len(proposal.changes))),
    )
    for change in proposal.changes:
        made.plan.add(change.action, f"  {change.what}", "replaced" if change.is_replaced else "")


def _plan_unseen(
    stack: Stack, made: AccountPlan, bucket: Bucket, wanted: dict[str, str], *, is_new: bool
) -> None:
    """The stack's steps where the bucket is yet to be made or tagged: CloudFormation can't be asked, so the template tells."""
    key = _template_key()
    resources = yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader=TemplateLoader)["Resources"]  # noqa: S506 - safe

    def deploy() -> None:
        made.proposal = stack.propose(bucket.address(key), wanted, tags(bucket.environment.name))
        if made.proposal is not None:
            stack.execute(made.proposal, _counts(stack.name, len(made.proposal.changes)))

    made.plan.add("copy", f"s3://{bucket.name}/{key}", "", lambda: bucket.upload(key, TEMPLATE))
    action: Action = "create" if is_new else "update"
    made.plan.add(action, f"stack {stack.name}", f"up to {len(resources)} resources", deploy)
    for name, resource in resources.items():
        condition = resource.get("Condition")
        made.plan.add(action, f"  {resource['Type']} {name}", f"if {condition}" if condition else "")


def _template_key() -> str:
    """The template's object name: by its content, so that what a change set was made of stays what it was."""
    return f"template-{hashlib.sha256(TEMPLATE.read_bytes()).hexdigest()[:16]}.yaml"


def withdraw(account: Account, made: AccountPlan) -> None:
    """Removes the change set of a plan that is not carried out."""
    if made.proposal is not None:
        Stack(account, account.environment.stack).withdraw(made.proposal)


def _waits(name: str) -> Callable[[int, str], None]:
    return lambda _, latest: say(f"stack {name} is being changed by somebody else, waiting: {latest}")


def _counts(name: str, total: int) -> Callable[[int, str], None]:
    """Says how far CloudFormation is, once for each number."""
    told = [0]

    def tell(done: int, latest: str) -> None:
        if done > told[0]:
            told[0] = done
            say(f"stack {name}: {done} of {total} resources, {latest}")

    return tell
