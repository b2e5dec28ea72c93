# SPDX-License-Identifier: Apache-2.0
"""The CloudFormation stack: what a template would change, changing it, waiting for it, and why it failed."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import yaml
from botocore.exceptions import ClientError

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import CommandFailed
from linewatch_fleet.plan import Action
from linewatch_fleet.provisioning.marks import code

_ACTIONS: dict[str, Action] = {"Add": "create", "Modify": "update", "Remove": "delete"}
_CHANGE_SET_S = 300.0
_STACK_S = 3600.0
_POLL_S = (0.2, 5.0)
_CHANGE_SETS = "linewatch-provision-"
_NOTHING = ("didn't contain changes", "No updates are to be performed")

Told = Callable[[int, str], None]


class TemplateLoader(yaml.SafeLoader):
    """Reads a template's structure; what its functions stand for does not matter here."""


TemplateLoader.add_multi_constructor("!", lambda loader, _, node: _plain(loader, node))


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


class Overtaken(Exception):
    """The stack is being changed by somebody else."""


@dataclass(frozen=True, slots=True)
class Change:
    """One resource that a change set would change."""

    action: Action
    what: str
    is_replaced: bool


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change set that waits to be carried out."""

    name: str
    changes: tuple[Change, ...]
    is_new: bool
    """Whether the stack is there for the change set only."""


class Stack:
    """One stack by name."""

    def __init__(self, account: Account, name: str) -> None:
        self.name = name
        self._formation = account.client("cloudformation")

    def describe(self) -> dict[str, Any] | None:
        """The stack as CloudFormation tells it, or None."""
        try:
            found = self._formation.describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            if code(error) == "ValidationError":
                return None
            with explained():
                raise
        return None if found["StackStatus"] == "DELETE_COMPLETE" else cast("dict[str, Any]", found)

    def outputs(self) -> dict[str, str]:
        """The stack's outputs. Raises CommandFailed where there is no stack."""
        found = self.describe()
        if found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS":
            raise CommandFailed(
                f"there is no stack {self.name}; run `linewatch provision` for the environment first"
            )
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}

    def resources(self) -> list[dict[str, Any]]:
        """The stack's resources."""
        with explained():
            pages = self._formation.get_paginator("list_stack_resources").paginate(StackName=self.name)
            return [resource for page in pages for resource in page["StackResourceSummaries"]]

    def settled(self, told: Told = lambda *_: None) -> dict[str, Any] | None:
        """Waits until nobody changes the stack, and returns it."""
        found = self.describe()
        if found is None or not _is_moving(found):
            return found
        return self._wait(found["StackId"], self._newest(), told)[0]

    def propose(
        self, template_url: str, parameters: dict[str, str], tags: list[dict[str, str]]
    ) -> Proposal | None:
        """A change set for what differs from the template at that address in S3, or None where nothing does.

        Raises Overtaken.
        """
        found = self.describe()
        is_new = found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS"
        name = f"{_CHANGE_SETS}{uuid.uuid4().hex[:12]}"
        try:
            with explained():
                self._formation.create_change_set(
                    StackName=self.name,
                    ChangeSetName=name,
                    ChangeSetType="CREATE" if is_new else "UPDATE",
                    TemplateURL=template_url,
                    Capabilities=["CAPABILITY_IAM"],
                    Parameters=[
                        {"ParameterKey": key, "ParameterValue": value}
                        for key, value in sorted(parameters.items())
                    ],
                    Tags=tags,
                )
        except CommandFailed as error:
            if any(
                words in error.message
                for words in ("IN_PROGRESS", "AlreadyExists", "cannot be created again")
            ):
                raise Overtaken from error
            raise
        try:
            described = self._change_set(name)
        except CommandFailed as error:
            # Somebody else's change set is being carried out, which removes all others.
            if "ChangeSetNotFound" in error.message:
                raise Overtaken from error
            raise
        if described["Status"] == "FAILED":
            reason = described.get("StatusReason", "")
            self.withdraw(Proposal(name, (), is_new))
            if any(words in reason for words in _NOTHING):
                return None
            raise CommandFailed(f"the template can't be deployed to stack {self.name}: {reason}")
        changes = tuple(_change(entry["ResourceChange"]) for entry in described["Changes"])
        return Proposal(name, changes, is_new)

    def withdraw(self, proposal: Proposal) -> None:
        """Removes a change set, and the stack where it is there for the change set only."""
        with explained():
            self._formation.delete_change_set(StackName=self.name, ChangeSetName=proposal.name)
            found = self.describe()
            if proposal.is_new and found and found["StackStatus"] == "REVIEW_IN_PROGRESS":
                left = self._formation.list_change_sets(StackName=self.name)["Summaries"]
                if not any(entry["Status"] != "DELETE_COMPLETE" for entry in left):
                    self._formation.delete_stack(StackName=self.name)

    def execute(self, proposal: Proposal, told: Told) -> None:
        """Carries a change set out and waits. Raises CommandFailed with the first failure, Overtaken."""
        since = self._newest()
        identity = self._identity()
        found = self.describe()
        if proposal.is_new and found is not None and found["StackStatus"] != "REVIEW_IN_PROGRESS":
            raise Overtaken  # another run has begun it since we proposed
        try:
            with explained():
                # A first deployment that fails leaves no tables behind, though they are kept in every other case.
                self._formation.execute_change_set(
                    StackName=self.name, ChangeSetName=proposal.name, RetainExceptOnCreate=True
                )
        except CommandFailed as error:
            if any(
                words in error.message
                for words in ("InvalidChangeSetStatus", "IN_PROGRESS", "ChangeSetNotFound")
            ):
                raise Overtaken from error
            raise
        try:
            found, events = self._wait(identity, since, told)
        except CommandFailed as error:
            # Two who began it at the same moment: the stack is another one's by now.
            if "does not exist" in error.message:
                raise Overtaken from error
            raise
        if found is None or found["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise CommandFailed(_failure(self.name, found or {"StackStatus": "gone"}, events))

    def is_review_of_ours(self, found: dict[str, Any]) -> bool:
        """Whether the stack is there only for change sets that provision made: it holds nothing, and no tags either."""
        if found["StackStatus"] != "REVIEW_IN_PROGRESS":
            return False
        with explained():
            sets = self._formation.list_change_sets(StackName=self.name)["Summaries"]
        return all(entry["ChangeSetName"].startswith(_CHANGE_SETS) for entry in sets)

    def protect(self, *, on: bool) -> None:
        """Sets or clears termination protection."""
        with explained():
            self._formation.update_termination_protection(StackName=self.name, EnableTerminationProtection=on)

    def delete(self, told: Told = lambda *_: None) -> None:
        """Deletes the stack and waits. Raises CommandFailed with the first failure."""
        since, identity = self._newest(), self._identity()
        with explained():
            self._formation.delete_stack(StackName=self.name)
        found, events = self._wait(identity, since, told)
        if found is not None:
            raise CommandFailed(_failure(self.name, found, events))

    def template(self) -> str:
        """The template that the stack was made from."""
        with explained():
            return str(
                self._formation.get_template(StackName=self.name, TemplateStage="Original")["TemplateBody"]
            )

    def _change_set(self, name: str) -> dict[str, Any]:
        deadline = time.monotonic() + _CHANGE_SET_S
        pause = _POLL_S[0]
        while time.monotonic() < deadline:
            with explained():
                pages = list(
                    self._formation.get_paginator("describe_change_set").paginate(
                        StackName=self.name, ChangeSetName=name
                    )
                )
            if pages[0]["Status"] in ("CREATE_COMPLETE", "FAILED"):
                return {**pages[0], "Changes": [change for page in pages for change in page["Changes"]]}
            time.sleep(pause)
            pause = min(2 * pause, _POLL_S[1])
        raise CommandFailed(f"CloudFormation did not describe the changes within {_CHANGE_SET_S:.0f} s")

    def _identity(self) -> str:
        """The stack's id: unlike its name it still finds the events of a deleted one."""
        return str((self.describe() or {}).get("StackId", self.name))

    def _wait(
        self, identity: str, since: datetime, told: Told
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The stack once nobody changes it (None: deleted), and what happened after `since`."""
        deadline = time.monotonic() + _STACK_S
        pause = _POLL_S[0]
        while time.monotonic() < deadline:
            found = self.describe()
            events = self._events(identity, since)
            done = {event["LogicalResourceId"] for event in events if _is_done(event)}
            if events:
                told(len(done), f"{events[-1]['LogicalResourceId']} {events[-1]['ResourceStatus']}")
            if found is None or not _is_moving(found):
                return found, events
            time.sleep(pause)
            pause = min(2 * pause, _POLL_S[1])
        raise CommandFailed(
            f"stack {self.name} was not done within {_STACK_S / 60:.0f} min; run the same command again to wait on"
        )

    def _newest(self) -> datetime:
        """When the stack's newest event was, by CloudFormation's clock, which need not be this machine's."""
        try:
            events = self._formation.describe_stack_events(StackName=self.name)["StackEvents"]
        except ClientError as error:
            if code(error) != "ValidationError":
                with explained():
                    raise
            events = []
        return cast("datetime", events[0]["Timestamp"]) if events else datetime.fromtimestamp(0, UTC)

    def _events(self, stack: str, since: datetime) -> list[dict[str, Any]]:
        """What happened after that, oldest first."""
        with explained():
            events = []
            for page in self._formation.get_paginator("describe_stack_events").paginate(StackName=stack):
                fresh = [event for event in page["StackEvents"] if event["Timestamp"] > since]
                events += fresh
                if len(fresh) < len(page["StackEvents"]):
                    break
            return events[::-1]


def _is_moving(stack: dict[str, Any]) -> bool:
    status = stack["StackStatus"]
    return str(status).endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS"


def _is_done(event: dict[str, Any]) -> bool:
    return (
        str(event["ResourceStatus"]).endswith("_COMPLETE")
        and event["ResourceType"] != "AWS::CloudFormation::Stack"
    )


def _change(entry: dict[str, Any]) -> Change:
    what = f"{entry['ResourceType']} {entry['LogicalResourceId']}"
    return Change(_ACTIONS.get(entry["Action"], "update"), what, entry.get("Replacement") == "True")


def _failure(name: str, stack: dict[str, Any], events: list[dict[str, Any]]) -> str:
    """The first thing that failed; what was cancelled because of it says nothing."""
    for event in events:
        reason = event.get("ResourceStatusReason", "")
        if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in reason.lower():
            return f"stack {name}: {event['ResourceType']} {event['LogicalResourceId']}: {reason or 'no reason given'}"
    return f"stack {name} is {stack['StackStatus']}: {stack.get('StackStatusReason', 'no reason given')}"
